//! Registrations that gateways share in Redis: each writes what it has heard from sidecars, and reads what the others have
//! written. A gateway that a sidecar does not reach knows its replicas that way, and so does one that has just started.
//!
//! A sorted set has the end of each lease, and a hash its [record](super::record). A number that changes with the records
//! tells when to read them; renewals are read every few seconds. All keys expire.

use super::claim::{Claim, parse};
use super::record::LEASE;
use super::record::{self, Heard, Record};
use super::{MOST_REPLICAS, Registrations};
use crate::redis::{Redis, Reply, Script, Unavailable};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval};

/// Writes a record, unless a later one is there. Arguments: replica, sequence number, milliseconds of the lease, text, the
/// maximum number of replicas.
static WRITE: Script = Script::new(
    "local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local old = redis.call('HGET', KEYS[2], ARGV[1])
if old and string.sub(old, 1, 20) > ARGV[2] then return 0 end
if not old and redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[5]) then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. string.format('%016.0f', now) .. ARGV[4])
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
if not old or string.sub(old, 37) ~= ARGV[4] then redis.call('INCR', KEYS[3]) end
for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[3] * 4) end
return 1",
);

/// Reads the number that changes with the records, and if it differs from the first argument, a page of records: the time,
/// and for each record its end and itself. Records whose lease has ended are removed. Arguments: the number that is
/// known, the first record and the last one.
static READ: Script = Script::new(
    "local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local number = redis.call('GET', KEYS[3]) or '0'
if number == ARGV[1] then return {number} end
local ended = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 1000)
for _, replica in ipairs(ended) do
  redis.call('ZREM', KEYS[1], replica)
  redis.call('HDEL', KEYS[2], replica)
end
local found = {number, string.format('%.0f', now)}
local page = redis.call('ZRANGE', KEYS[1], ARGV[2], ARGV[3], 'WITHSCORES')
for i = 1, #page, 2 do
  local text = redis.call('HGET', KEYS[2], page[i])
  if text then
    found[#found + 1] = string.format('%.0f', page[i + 1])
    found[#found + 1] = text
  end
end
return found",
);

/// Interval between looks at the number.
const LOOK: Duration = Duration::from_secs(1);
/// Interval between looks at the records, for their renewals.
const RENEWALS: Duration = Duration::from_secs(5);
/// Records of one page.
const PAGE: usize = 250;
/// Time for which replicas that only other gateways know are kept while Redis is down, and after it.
const HELD: Duration = Duration::from_secs(15);

/// What the gateway knows of Redis.
struct Shared {
    redis: Arc<Redis>,
    keys: [String; 3],
    registrations: Arc<Registrations>,
    /// The number that was read last, and when.
    known: Option<(String, Instant)>,
}

/// Writes and reads records for as long as the process runs.
pub(crate) async fn follow(redis: Arc<Redis>, registrations: Arc<Registrations>) {
    let mut untold = registrations.share();
    let prefix = redis.names().0;
    let keys = ["ends", "records", "number"].map(|part| format!("{prefix}{{registrations}}:{part}"));
    let mut shared = Shared { redis, keys, registrations, known: None };
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(record) = untold.recv() => {
                // A renewal repeats what is lost.
                let _ = shared.write(&record).await;
            }
            _ = look.tick() => {
                if shared.read().await.is_err() {
                    shared.registrations.hold(Instant::now() + HELD);
                }
            }
        }
    }
}

impl Shared {
    async fn write(&self, record: &Record) -> Result<(), Unavailable> {
        let text = record.text();
        if record::DIGITS * 2 + text.len() > record::LONGEST {
            return Ok(());
        }
        let claim = Claim { name: &record.name, url: &record.url, sequence: None, description: None };
        let Ok((_, endpoint)) = parse(&claim) else { return Ok(()) };
        let replica = format!("{} {}", record.name, endpoint.address());
        let number = record.number();
        let (lease, most) = (LEASE.as_millis().to_string(), MOST_REPLICAS.to_string());
        let arguments = [&replica, &number, &lease, &text, &most].map(|argument| argument.as_bytes());
        self.redis.run(&WRITE, &self.keys(), &arguments).await.map(drop)
    }

    /// Reads the records, if they may have changed.
    async fn read(&mut self) -> Result<(), Unavailable> {
        let number = match &self.known {
            Some((number, at)) if at.elapsed() < RENEWALS => number.clone(),
            _ => String::new(),
        };
        let mut first = None;
        for page in 0..MOST_REPLICAS / PAGE {
            let (from, to) = ((page * PAGE).to_string(), (page * PAGE + PAGE - 1).to_string());
            // Only the first page may say that nothing has changed.
            let known = if page == 0 { number.as_str() } else { "" };
            let reply = self.redis.run(&READ, &self.keys(), &[known, &from, &to].map(str::as_bytes)).await?;
            let Some((number, found, count)) = page_in(&reply) else { return Err(Unavailable::Refused) };
            self.registrations.merge(found, Instant::now());
            first.get_or_insert(number);
            if count < PAGE {
                break;
            }
        }
        let is_new = first.as_ref() != Some(&number);
        if let Some(number) = first.filter(|_| is_new) {
            self.known = Some((number, Instant::now()));
        }
        Ok(())
    }

    fn keys(&self) -> [&[u8]; 3] {
        self.keys.each_ref().map(String::as_bytes)
    }
}

/// Returns the number, the records and the number of records in a page. Records that are not understood are left out.
fn page_in(reply: &Reply) -> Option<(String, Vec<Heard>, usize)> {
    let Reply::List(parts) = reply else { return None };
    let (number, rest) = parts.split_first()?;
    let number = number.text().filter(|number| number.len() <= 20)?.to_owned();
    let Some((now, rest)) = rest.split_first() else { return Some((number, Vec::new(), 0)) };
    let now = now.text()?.parse().ok()?;
    let heard = rest.chunks(2).take(PAGE).filter_map(|pair| match pair {
        [ends, Reply::Bytes(text)] => record::read(text, now, ends.text()?.parse().ok()?),
        _ => None,
    });
    Some((number, heard.collect(), rest.len() / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Reply {
        Reply::Bytes(text.into())
    }

    #[test]
    fn a_page_has_what_is_understood() {
        let text = r#"{"name":"a.b/c","owner":"o","url":"http://10.0.0.1/"}"#;
        let record = format!("{:020}{:016}{text}", 3, 900);
        let page = Reply::List(["7", "1000", "1500", &record, "1500", "x", "y"].map(bytes).to_vec());
        let (number, heard, count) = page_in(&page).expect("a page");
        assert_eq!((number.as_str(), heard.len(), count), ("7", 1, 2));
        assert_eq!((heard[0].age.as_millis(), heard[0].left.as_millis()), (100, 500));
        assert_eq!(page_in(&Reply::List(vec![bytes("7")])), Some(("7".to_owned(), Vec::new(), 0)));
        let long = "9".repeat(21);
        for bad in [Reply::Nothing, Reply::List(Vec::new()), Reply::List(vec![bytes(&long)])] {
            assert_eq!(page_in(&bad), None);
        }
        assert_eq!(page_in(&Reply::List(vec![bytes("7"), bytes("x")])), None);
    }
}
