//! Redis or Valkey (`--redis`): state that several proxyrunners share. `docs/gateway.md#redis` describes it for operators.
//!
//! One connection carries all commands. [`connect`] finds the primary and authenticates, [`pipeline`] carries commands,
//! and [`Redis`] connects again whenever the connection is lost. Nothing here makes proxyrunner unready: who needs an
//! answer learns within [`PATIENCE`] that there is none.

mod command;
mod connect;
mod pipeline;
mod reply;
mod settings;
mod wire;

pub(crate) use command::Script;
pub use reply::{Reply, first_reply_in};
pub use settings::{Host, Place, Settings};

use crate::backoff::{self, Backoff};
use crate::outbound::{BadTls, Dialer};
use crate::tasks;
use crate::telemetry::counters::{REDIS_COMMANDS, REDIS_CONNECTED, RedisResult};
use crate::telemetry::metrics::record_redis;
use bytes::Bytes;
use command::is_unknown_script;
use parking_lot::Mutex;
use pipeline::{Lost, Order};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// Maximum time for a command.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);
/// Delays between attempts to connect.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
const MOST_PAUSE: Duration = Duration::from_secs(2);
/// Minimum time between two warnings about refused commands.
const QUIET: Duration = Duration::from_secs(60);

/// The connection to Redis.
#[derive(Debug)]
pub(crate) struct Redis {
    settings: Settings,
    orders: mpsc::Sender<Order>,
    standing: Mutex<Standing>,
    /// When a refused command was logged last.
    warned: Mutex<Option<Instant>>,
}

/// How the connection does.
#[derive(Clone, Copy, Debug)]
enum Standing {
    Connected,
    /// A first attempt to connect has not failed yet.
    Trying(Instant),
    Down,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// There is no connection, or it was lost.
    Down,
    /// No answer came in time.
    Late,
    /// Too many commands are on their way.
    Busy,
    /// Redis refused the command, or its answer was not understood.
    Refused,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unavailable::Down => "Redis cannot be reached",
            Unavailable::Late => "Redis does not answer in time",
            Unavailable::Busy => "too many requests wait for Redis",
            Unavailable::Refused => "Redis refuses the command",
        })
    }
}

impl Redis {
    /// Starts to connect, and to connect again whenever the connection is lost.
    ///
    /// # Errors
    /// When the authorities are unusable.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(settings: Settings) -> Result<Arc<Self>, BadTls> {
        let dialer = Dialer::new(settings.tls.as_ref())?;
        let (orders, queue) = mpsc::channel(pipeline::MOST);
        let standing = Mutex::new(Standing::Trying(Instant::now()));
        let redis = Arc::new(Redis { settings, orders, standing, warned: Mutex::default() });
        REDIS_CONNECTED.set(0);
        tasks::spawn(Arc::clone(&redis).keep_connected(dialer, queue));
        Ok(redis)
    }

    /// Returns the begin of all keys, and whose limits are shared.
    pub fn names(&self) -> (&str, &str) {
        (&self.settings.prefix, &self.settings.scope)
    }

    /// Runs a script.
    ///
    /// # Errors
    /// When there is no answer within [`PATIENCE`], or it is an error.
    pub async fn run(
        &self,
        script: &Script,
        keys: &[&[u8]],
        arguments: &[&[u8]],
    ) -> Result<Reply, Unavailable> {
        let begun = Instant::now();
        let asking = async {
            let reply = self.ask(script.by_digest(keys, arguments)).await?;
            if is_unknown_script(&reply) {
                self.ask(script.by_text(keys, arguments)).await
            } else {
                Ok(reply)
            }
        };
        let answer = timeout(PATIENCE, asking).await.unwrap_or(Err(Unavailable::Late));
        let answer = answer.and_then(|reply| match &reply {
            Reply::Error(error) => {
                self.warn(error);
                Err(Unavailable::Refused)
            }
            _ => Ok(reply),
        });
        let result = match &answer {
            Ok(_) => RedisResult::Ok,
            Err(Unavailable::Down) => RedisResult::Down,
            Err(Unavailable::Late) => RedisResult::Timeout,
            Err(Unavailable::Busy) => RedisResult::Busy,
            Err(Unavailable::Refused) => RedisResult::Error,
        };
        REDIS_COMMANDS.increment(result as usize);
        if result == RedisResult::Ok {
            record_redis(begun.elapsed());
        }
        answer
    }

    /// Sends a command, and once more if its connection ends. Every command may be carried out twice.
    async fn ask(&self, bytes: Bytes) -> Result<Reply, Unavailable> {
        for _ in 0..2 {
            if self.is_down() {
                break;
            }
            let (answer, answered) = oneshot::channel();
            let order = Order { bytes: bytes.clone(), answer };
            self.orders.try_send(order).map_err(|_| Unavailable::Busy)?;
            match answered.await {
                Ok(reply) if pipeline::ends_connection(&reply).is_none() => return Ok(reply),
                _ => {}
            }
        }
        Err(Unavailable::Down)
    }

    /// Returns whether waiting for a connection is not worth it.
    fn is_down(&self) -> bool {
        match *self.standing.lock() {
            Standing::Connected => false,
            Standing::Trying(since) => since.elapsed() > PATIENCE,
            Standing::Down => true,
        }
    }

    /// Logs an error of Redis, unless one was logged shortly before.
    fn warn(&self, error: &str) {
        let mut warned = self.warned.lock();
        if warned.is_none_or(|at| at.elapsed() > QUIET) {
            *warned = Some(Instant::now());
            tracing::warn!("a command to Redis failed: {} (--redis)", connect::shown(error));
        }
    }

    async fn keep_connected(self: Arc<Self>, dialer: Dialer, mut queue: mpsc::Receiver<Order>) {
        let mut pauses = Backoff::new(LEAST_PAUSE, MOST_PAUSE);
        let mut told: Option<String> = None;
        // Whether the last connections were of no use, each for the same reason.
        let mut is_series = false;
        loop {
            match connect::connect(&self.settings, &dialer).await {
                Ok(wire) => {
                    if !is_series {
                        tracing::info!("connected to Redis (--redis)");
                    }
                    self.set(Standing::Connected);
                    let lost = pipeline::serve(wire, &mut queue).await;
                    self.set(Standing::Trying(Instant::now()));
                    let Some(Lost { why, was_of_use }) = lost else { return };
                    is_series = !was_of_use && told.as_ref() == Some(&why);
                    if !is_series {
                        tracing::warn!("the connection to Redis was lost: {why} (--redis)");
                    }
                    told = Some(why);
                    if was_of_use {
                        pauses.reset();
                        continue;
                    }
                }
                Err(why) => {
                    self.set(Standing::Down);
                    is_series = false;
                    if told.as_ref() != Some(&why) {
                        tracing::warn!("cannot connect to Redis, and will retry: {why} (--redis)");
                        told = Some(why);
                    }
                }
            }
            sleep(backoff::jittered(pauses.advance(), backoff::chance())).await;
        }
    }

    fn set(&self, standing: Standing) {
        REDIS_CONNECTED.set(matches!(standing, Standing::Connected).into());
        *self.standing.lock() = standing;
    }
}
