//! Tests of decisions, headers, and changed files.

use super::*;
use std::time::Duration;

fn limits(text: &str) -> Arc<Limits> {
    let file = Some(("limits.yaml".into(), Policy::parse(text).expect("a policy")));
    Limits::new(Settings { file, per_address: None, max_calls: None }).expect("some limits")
}

fn caller(number: usize) -> Caller<'static> {
    Caller::Named(["", "ann", "bob", "cy"][number])
}

fn asked(number: usize, tool: &'static str) -> Asked<'static> {
    Asked { caller: caller(number), tool: Some(tool) }
}

fn exceeded(why: NotAdmitted) -> Refused {
    match why {
        NotAdmitted::Exceeded(refused) => refused,
        NotAdmitted::Unknown(why) => panic!("nothing is shared: {why}"),
    }
}

#[tokio::test]
async fn each_kind_of_bucket_is_taken_from() {
    let limits = limits(
        "
shared: {maxTokens: 5, refillPeriod: 1h}
perUser: {maxTokens: 3, refillPeriod: 1h}
tools:
- {name: slow, shared: {maxTokens: 2, refillPeriod: 1h}, perUser: {maxTokens: 1, refillPeriod: 2h}}
",
    );
    let admitted = async |asked| limits.admit(asked).await.map(drop).map_err(exceeded);
    assert_eq!(admitted(asked(1, "slow")).await, Ok(()));
    let refused = admitted(asked(1, "slow")).await.expect_err("its own bucket of the tool is empty");
    assert_eq!((refused.name, refused.retry_after), ("tool-per-user", 7_200));
    assert_eq!(refused.header(), "\"tool-per-user\";r=0;t=7200");
    assert_eq!(
        refused.policy_header(),
        "\"shared\";q=5;w=3600, \"per-user\";q=3;w=3600, \"tool-shared\";q=2;w=3600, \"tool-per-user\";q=1;w=7200"
    );
    assert_eq!(admitted(asked(2, "slow")).await, Ok(()));
    assert_eq!(admitted(asked(3, "slow")).await.expect_err("the tool is used up").name, "tool-shared");
    assert_eq!(admitted(asked(1, "fast")).await, Ok(()));
    assert_eq!(admitted(asked(1, "fast")).await, Ok(()));
    assert_eq!(admitted(asked(1, "fast")).await.expect_err("it has had three").name, "per-user");
    assert_eq!(admitted(asked(2, "fast")).await, Ok(()), "refused calls took nothing");
    assert_eq!(admitted(asked(2, "fast")).await.expect_err("five were taken").name, "shared");
    let other = Asked { caller: caller(1), tool: None };
    assert_eq!(admitted(other).await, Ok(()), "only calls of tools have buckets");
}

#[tokio::test]
async fn calls_at_the_same_time_are_limited_until_they_end() {
    let limits = limits("maxCallsPerPrincipal: 1");
    let call = limits.admit(asked(1, "a")).await.expect("a place");
    let refused = exceeded(limits.admit(asked(1, "a")).await.expect_err("it has one"));
    assert_eq!((refused.retry_after, refused.name), (1, "calls"));
    assert_eq!(refused.policy_header(), "\"calls\";q=1;qu=\"concurrent-requests\"");
    assert!(limits.admit(asked(2, "a")).await.is_ok());
    drop(call);
    assert!(limits.admit(asked(1, "a")).await.is_ok());
    assert_eq!(limits.calls.callers(), 0);
}

#[tokio::test]
async fn a_refused_call_does_not_count_among_those_at_the_same_time() {
    let limits = limits("{maxCallsPerPrincipal: 1, shared: {maxTokens: 1, refillPeriod: 1h}}");
    let call = limits.admit(asked(1, "a")).await.expect("a token");
    drop(call);
    assert_eq!(exceeded(limits.admit(asked(1, "a")).await.expect_err("no token")).name, "shared");
    assert_eq!(limits.calls.callers(), 0);
}

#[test]
fn addresses_have_buckets_of_their_own() {
    let limits = limits("perAddress: {maxTokens: 1, refillPeriod: 1h}");
    let admitted = |address: &str| limits.admit_address(address.parse().expect("an address"));
    assert_eq!(admitted("192.0.2.1"), Ok(()));
    assert_eq!(admitted("192.0.2.1").expect_err("one was taken").name, "address");
    assert_eq!(admitted("192.0.2.2"), Ok(()));
    assert_eq!(admitted("2001:db8::1"), Ok(()));
    assert!(admitted("2001:db8::2").is_err(), "one host has a whole /64");
    assert_eq!(limits.buckets(), 3);
}

#[test]
fn a_changed_file_is_used_and_a_bad_one_is_not() {
    let path = std::env::temp_dir().join(format!("proxyrunner-limits-{}.yaml", std::process::id()));
    let limits = limits("maxCallsPerPrincipal: 1");
    let failed = counters::FAILED_RELOADS.value(counters::Reloaded::RateLimits as usize);
    let reloaded = |text: &str| {
        fs::write(&path, text).expect("written");
        limits.reload(&path);
        limits.policy().max_calls
    };
    assert_eq!(reloaded("maxCallsPerPrincipal: 2"), Some(2));
    assert_eq!(reloaded("maxCallsPerPrincipal: -2"), Some(2));
    fs::remove_file(&path).expect("removed");
    limits.reload(&path);
    assert_eq!(limits.policy().max_calls, Some(2));
    assert!(counters::FAILED_RELOADS.value(counters::Reloaded::RateLimits as usize) >= failed + 2);
}

#[test]
fn flags_override_the_file() {
    let per_address = Rate::new(7, Duration::from_secs(1));
    let file = Some(("f".into(), Policy::parse("{maxCallsPerPrincipal: 1}").expect("a policy")));
    let limits = Limits::new(Settings { file, per_address, max_calls: Some(3) }).expect("some limits");
    assert_eq!((limits.policy().max_calls, limits.policy().per_address), (Some(3), per_address));
    assert!(Limits::new(Settings { file: None, per_address: None, max_calls: None }).is_none());
}
