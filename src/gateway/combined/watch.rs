//! Watches the lists of all servers while anybody is subscribed. What changes says nothing about a caller, so the gateway
//! asks once for all, in nobody's name.

use super::ask::Said;
use super::changes::Lists;
use super::listen::{changed, open};
use super::request::Caller;
use super::state::State;
use crate::backoff::Backoff;
use crate::budget::Budget;
use crate::identity::Identity;
use crate::tasks;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Time for a server to acknowledge a subscription.
const PATIENCE: Duration = Duration::from_secs(5);
/// The shortest and the longest time before a server is asked again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// Time after which a subscription has not ended at once, so that the next one is opened soon.
const LASTING: Duration = Duration::from_secs(10);

/// A task that ends with its value.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Watches all servers as long as the process runs.
pub(super) async fn run(state: Arc<State>, budget: Budget) {
    let mut servers = state.core.directory.changed();
    let mut listeners = state.listeners.subscribe();
    let mut running: HashMap<Box<str>, Running> = HashMap::new();
    loop {
        let is_heard = *listeners.borrow_and_update() > 0;
        let snapshot = state.servers();
        running.retain(|segment, task| is_heard && snapshot.contains_key(segment) && !task.0.is_finished());
        for segment in snapshot.keys().filter(|_| is_heard) {
            running.entry(segment.clone()).or_insert_with(|| {
                let caller = Caller::new(&state, Identity::anonymous(), &budget);
                Running(tasks::spawn(watch(caller, segment.clone())))
            });
        }
        tokio::select! {
            changed = servers.changed() => {
                if changed.is_err() {
                    return;
                }
                state.owners.forget();
                tell(&state, Lists::ALL);
            }
            changed = listeners.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

fn tell(state: &State, lists: Lists) {
    if lists != Lists::NONE {
        // Nobody is subscribed.
        let _ = state.changes.send(lists);
    }
}

/// Watches one server until it is removed.
async fn watch(caller: Caller, segment: Box<str>) {
    let mut pauses = Backoff::new(AGAIN.0, AGAIN.1);
    let filter = Value::from(Lists::ALL.filter());
    // Whether a change may have been missed.
    let mut is_lost = false;
    loop {
        let Some(server) = caller.state.servers().get(&segment).map(Arc::clone) else { return };
        let opened = timeout(PATIENCE, open(&caller, &server, &filter)).await;
        // One that takes no subscriptions is back as soon as it says so.
        let is_back = match &opened {
            Ok(Ok(_)) => true,
            Ok(Err(fault)) => fault.is_refusal,
            Err(_) => false,
        };
        is_lost |= !is_back;
        if is_back && std::mem::take(&mut is_lost) {
            tell(&caller.state, Lists::ALL);
        }
        if let Ok(Ok((mut reply, _))) = opened {
            let begun = Instant::now();
            loop {
                match reply.next().await {
                    Ok(Said::Before(frame, message)) => tell(&caller.state, changed(&frame, &message)),
                    // It has ended as it should, for example since the token has expired, and is opened again at once.
                    Ok(Said::Answer(..)) => break,
                    Err(_) => {
                        is_lost = true;
                        break;
                    }
                }
            }
            if begun.elapsed() >= LASTING {
                pauses.reset();
            }
        }
        sleep(pauses.advance()).await;
    }
}
