//! Buckets in Redis, which all processes of the same scope share. One script looks at all buckets of a call and takes a
//! token from all of them or none, by Redis' own clock.
//!
//! A bucket is the time at which it is full again, in microseconds, as in [`super::store`]. It expires when it is full.

use super::caller::Caller;
use super::rate::Rate;
use super::store::Empty;
use crate::redis::{Redis, Reply, Script, Unavailable};
use crate::telemetry::metrics::limits::Limit;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::digest::{Context, SHA256};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// Takes one token from each bucket, or none from any. The arguments are the time of one token and of all for each
/// bucket, in microseconds. Returns the number of the bucket that is empty for longest, or 0, and the microseconds until
/// it has a token.
///
/// A time that is further ahead than a bucket takes to fill comes from another clock, of a primary before a failover,
/// or from a limit that has been changed: the bucket is empty, and fills up from now on.
static TAKE: Script = Script::new(
    "local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local worst, wait, full = 0, 0, {}
for i = 1, #KEYS do
  local token, period = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local at = tonumber(redis.call('GET', KEYS[i]) or now) or now
  if at > now + period then
    at = now + period
    redis.call('SET', KEYS[i], string.format('%.3f', at), 'PX', math.ceil(period / 1000) + 1)
  end
  full[i] = math.max(at, now) + token
  local lacks = full[i] - now - period
  if lacks > 0.5 and lacks > wait then worst, wait = i, lacks end
end
if worst > 0 then return {worst, math.ceil(wait)} end
for i = 1, #KEYS do
  redis.call('SET', KEYS[i], string.format('%.3f', full[i]), 'PX', math.ceil((full[i] - now) / 1000) + 1)
end
return {0, 0}",
);

/// The limits that several processes share.
#[derive(Debug)]
pub(super) struct Shared {
    redis: Arc<Redis>,
}

impl Shared {
    pub fn new(redis: Arc<Redis>) -> Self {
        Shared { redis }
    }

    /// Takes a token for each limit, or none.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn take(
        &self,
        caller: Caller<'_>,
        tool: &str,
        limits: &[(Limit, Rate)],
    ) -> Result<Result<(), Empty>, Unavailable> {
        let (prefix, scope) = self.redis.names();
        let keys: Vec<_> = limits
            .iter()
            .map(|(limit, _)| {
                let tool = limit.is_of_tool().then_some(tool);
                key(prefix, scope, *limit, tool, limit.is_of_caller().then_some(caller))
            })
            .collect();
        let micros = |nanos: u64| format!("{}.{:03}", nanos / 1_000, nanos % 1_000);
        let times: Vec<_> = limits
            .iter()
            .flat_map(|(_, rate)| {
                let (token, period) = rate.nanos();
                [micros(token), micros(period)]
            })
            .collect();
        let keys: Vec<_> = keys.iter().map(String::as_bytes).collect();
        let times: Vec<_> = times.iter().map(String::as_bytes).collect();
        meaning(&self.redis.run(&TAKE, &keys, &times).await?, limits.len()).ok_or(Unavailable::Refused)
    }
}

/// Returns what the script's answer means for so many buckets.
fn meaning(reply: &Reply, count: usize) -> Option<Result<(), Empty>> {
    let Reply::List(parts) = reply else { return None };
    let [Reply::Number(at), Reply::Number(wait)] = parts.as_slice() else { return None };
    let wait = u64::try_from(*wait).ok()?.saturating_mul(1_000);
    match usize::try_from(*at).ok()? {
        0 => Some(Ok(())),
        at if at <= count => Some(Err(Empty { at: at - 1, wait })),
        _ => None,
    }
}

/// Returns the key of a bucket. Callers and tools are digests in it, so it is short, and names nobody. The braces keep all
/// buckets of a call in one slot of a cluster.
fn key(prefix: &str, scope: &str, limit: Limit, tool: Option<&str>, caller: Option<Caller<'_>>) -> String {
    let name = limit.name();
    if tool.is_none() && caller.is_none() {
        return format!("{prefix}limits:{{{scope}}}:{name}");
    }
    let mut digest = Context::new(&SHA256);
    let mut part = |kind: &str, text: &[u8]| {
        digest.update(kind.as_bytes());
        digest.update(&text.len().to_be_bytes());
        digest.update(text);
    };
    if let Some(tool) = tool {
        part("tool", tool.as_bytes());
    }
    match caller {
        Some(Caller::Named(name)) => part("principal", name.as_bytes()),
        Some(Caller::At(address)) => part("address", &network(address)),
        None => {}
    }
    let digest = digest.finish();
    format!("{prefix}limits:{{{scope}}}:{name}:{}", BASE64_URL_SAFE_NO_PAD.encode(&digest.as_ref()[..16]))
}

/// Returns the bytes of an address. A /64 of IPv6 counts as one address.
fn network(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(limit: Limit, tool: Option<&str>, caller: Option<&str>) -> String {
        key("p:", "com.example/time", limit, tool, caller.map(Caller::Named))
    }

    #[test]
    fn each_bucket_has_a_short_key_of_its_own_that_names_nobody() {
        assert_eq!(named(Limit::Shared, None, None), "p:limits:{com.example/time}:shared");
        let ann = named(Limit::PerUser, None, Some("ann"));
        assert_eq!(ann.len(), "p:limits:{com.example/time}:per-user:".len() + 22);
        assert_eq!(ann, named(Limit::PerUser, None, Some("ann")), "in every process");
        let mut all = vec![
            ann,
            named(Limit::PerUser, None, Some("bob")),
            named(Limit::ToolShared, Some("ann"), None),
            named(Limit::ToolPerUser, Some("a"), Some("nn")),
            named(Limit::ToolPerUser, Some("an"), Some("n")),
            named(Limit::ToolPerUser, Some(&"x".repeat(10_000)), Some("n")),
        ];
        assert!(all.iter().all(|key| key.len() < 70 && !key.contains("ann")), "{all:?}");
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn addresses_are_told_apart_as_in_memory() {
        let at = |text: &str| {
            let address = text.parse().expect("an address");
            key("", "", Limit::PerUser, None, Some(Caller::At(address)))
        };
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_eq!(at("2001:db8::1"), at("2001:db8::2"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
        assert_ne!(at("10.0.0.1"), named(Limit::PerUser, None, Some("10.0.0.1")));
    }

    #[test]
    fn an_answer_is_understood_or_refused() {
        let list = |at, wait| Reply::List(vec![Reply::Number(at), Reply::Number(wait)]);
        assert_eq!(meaning(&list(0, 0), 2), Some(Ok(())));
        assert_eq!(meaning(&list(2, 7), 2), Some(Err(Empty { at: 1, wait: 7_000 })));
        for bad in [list(3, 1), list(-1, 1), list(1, -1), Reply::Nothing, Reply::List(Vec::new())] {
            assert_eq!(meaning(&bad, 2), None, "{bad:?}");
        }
    }
}
