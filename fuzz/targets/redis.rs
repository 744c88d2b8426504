//! Checks that replies of Redis are read alike, whole or in parts, and that what is read is bounded; reads registrations of
//! other gateways, and records of sessions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyrunner::internals::gateway::{records_in, subscriptions_in};
use proxyrunner::internals::redis::{Reply, first_reply_in};

fuzz_target!(|data: &[u8]| {
    assert!(records_in(data) <= data.len());
    assert!(subscriptions_in(data).is_none_or(|count| count <= 64));
    let mut rest = data;
    while let Ok(Some((reply, length))) = first_reply_in(rest) {
        assert!(length > 0 && length <= rest.len());
        assert!(depth(&reply) <= 5);
        // Nothing behind a reply changes it, and no beginning of it is one.
        assert_eq!(first_reply_in(&rest[..length]), Ok(Some((reply, length))));
        for end in [0, 1, length / 2, length - 1] {
            assert_eq!(first_reply_in(&rest[..end.min(length - 1)]), Ok(None));
        }
        rest = &rest[length..];
    }
});

fn depth(reply: &Reply) -> usize {
    match reply {
        Reply::List(parts) => 1 + parts.iter().map(depth).max().unwrap_or_default(),
        _ => 1,
    }
}
