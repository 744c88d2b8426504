//! Tests which lists are kept, for how long, and for which principals.

use super::*;
use crate::era::fixtures::{response, scanned};

const SECOND: Duration = Duration::from_secs(1);

fn answer(result: &str) -> Answer {
    let (frame, message, result) = response(result);
    let id = message.id.clone().unwrap();
    Answer { object: message.object, id, result: Some(result), error: None, is_error: false, frame }
}

/// Returns an answer of a modern child.
fn hinted(ttl: &str, scope: &str) -> Answer {
    answer(&format!(r#"{{"resultType":"complete","tools":[],"ttlMs":{ttl},"cacheScope":"{scope}"}}"#))
}

fn asked(principal: &str, legacy: Option<Freshness>) -> ListRequest {
    let method = "tools/list".to_owned();
    let key = ListKey { child: 1, class: Capabilities::default(), method, params: Vec::new() };
    let principal = Principal::named(principal).unwrap_or_else(Principal::anonymous);
    ListRequest { key, principal, changes: 0, legacy, is_private: false }
}

fn page(at: usize) -> ListRequest {
    let mut asked = asked("ann", Some(Freshness::UntilChanged));
    asked.key.params = format!("\"cursor\":{at},").into_bytes();
    asked
}

fn sizes(state: &State) -> usize {
    state.entries.iter().map(|(key, entry)| size(key, entry)).sum()
}

#[test]
fn a_modern_childs_list_is_fresh_for_its_lifetime_and_the_rest_is_rounded_down() {
    let (lists, now, ann) =
        (Lists::new(crate::session::fixtures::account()), Instant::now(), asked("ann", None));
    assert!(lists.find(&ann, now).is_none());
    lists.put(&ann, &hinted("2000", "public"), 0, now);
    let left = |after: Duration| lists.find(&ann, now + after).map(|fresh| fresh.left);
    assert_eq!(left(Duration::ZERO), Some(Some(2000)));
    assert_eq!(left(Duration::from_micros(1)), Some(Some(1999)));
    assert_eq!(left(2 * SECOND), None);
    lists.put(&ann, &hinted("99999999999", "public"), 0, now);
    assert_eq!(left(Duration::ZERO), Some(Some(LONGEST)), "no child's lifetime is accepted beyond this");
}

#[test]
fn an_answer_that_a_child_forbids_to_keep_is_not_kept() {
    let now = Instant::now();
    let failed = Answer { result: None, error: Some(0..1), ..hinted("2000", "public") };
    let asking = answer(r#"{"resultType":"input_required","ttlMs":2000,"cacheScope":"public"}"#);
    let unsaid = answer(r#"{"resultType":"complete","tools":[]}"#);
    let large =
        answer(&format!(r#"{{"ttlMs":2000,"cacheScope":"public","tools":["{}"]}}"#, "x".repeat(LARGEST)));
    let hinted = ["0", "-1", "1.5", "\"2000\"", "null"].map(|ttl| hinted(ttl, "public"));
    for answer in hinted.into_iter().chain([failed, asking, unsaid, large]) {
        let (lists, ann) = (Lists::new(crate::session::fixtures::account()), asked("ann", None));
        lists.put(&ann, &answer, 0, now);
        assert!(lists.find(&ann, now).is_none(), "{answer:?}");
    }
}

#[test]
fn a_private_list_is_for_its_principal_and_a_public_one_for_all() {
    let (lists, now) = (Lists::new(crate::session::fixtures::account()), Instant::now());
    let found = |who: &str| lists.find(&asked(who, None), now).is_some();
    for scope in ["private", "whatever"] {
        lists.put(&asked("ann", None), &hinted("2000", scope), 0, now);
        lists.put(&asked("anonymous", None), &hinted("2000", scope), 0, now);
        assert_eq!(["ann", "bob", "anonymous"].map(found), [true, false, false], "{scope}");
    }
    lists.put(&asked("bob", None), &hinted("2000", "public"), 0, now);
    assert_eq!(["ann", "bob", "anonymous"].map(found), [true; 3]);
}

#[test]
fn a_change_removes_a_list_and_an_outdated_answer_is_not_kept() {
    let (lists, now) = (Lists::new(crate::session::fixtures::account()), Instant::now());
    for legacy in [None, Some(Freshness::UntilChanged), Some(Freshness::For(SECOND))] {
        let before = asked("ann", legacy);
        let after = ListRequest { changes: 1, ..before.clone() };
        lists.put(&before, &hinted("2000", "public"), 0, now);
        assert!(lists.find(&before, now).is_some());
        assert!(lists.find(&after, now).is_none());
        lists.put(&before, &hinted("2000", "public"), 1, now);
        assert!(lists.find(&after, now).is_none(), "it was requested before the change");
        lists.put(&after, &hinted("2000", "public"), 1, now);
        assert!(lists.find(&after, now).is_some());
        lists.state().retain(|_| false);
    }
}

#[test]
fn a_legacy_childs_list_has_the_configured_lifetime() {
    let (lists, now) = (Lists::new(crate::session::fixtures::account()), Instant::now());
    let plain = answer(r#"{"tools":[]}"#);
    let until_changed = asked("anonymous", Some(Freshness::UntilChanged));
    lists.put(&until_changed, &plain, 0, now);
    let fresh = lists.find(&until_changed, now + Duration::from_secs(1 << 20));
    assert_eq!(fresh.map(|fresh| fresh.left), Some(None));
    lists.put(&asked("ann", Some(Freshness::For(SECOND))), &plain, 0, now);
    assert!(lists.find(&until_changed, now + SECOND).is_none(), "the operator's setting counts");
}

#[test]
fn each_child_class_method_and_page_has_a_separate_list() {
    let (lists, now, first) = (Lists::new(crate::session::fixtures::account()), Instant::now(), page(1));
    lists.put(&first, &answer("{}"), 0, now);
    let other = |change: &dyn Fn(&mut ListKey)| {
        let mut asked = first.clone();
        change(&mut asked.key);
        lists.find(&asked, now).is_some()
    };
    assert!(other(&|_| ()));
    assert!(!other(&|key| key.child = 2));
    assert!(!other(&|key| key.class.sampling = true));
    assert!(!other(&|key| key.method = "prompts/list".into()));
    assert!(!other(&|key| key.params.clear()));
}

#[test]
fn the_cache_is_bounded_and_the_oldest_list_makes_room() {
    let (lists, now) = (Lists::new(crate::session::fixtures::account()), Instant::now());
    let kept = |at: usize| lists.find(&page(at), now).is_some();
    for at in 0..=MOST_ENTRIES {
        lists.put(&page(at), &answer("{}"), 0, now + Duration::from_millis(at as u64));
    }
    assert_eq!([0, 1, MOST_ENTRIES].map(kept), [false, true, true]);
    let large = answer(&format!("\"{}\"", "x".repeat(LARGEST - 100)));
    for at in 0..9 {
        lists.put(&page(at), &large, 0, now + SECOND * (at as u32 + 10));
    }
    assert_eq!([0, 1, 2, 8].map(kept), [false, true, true, true], "by their bytes too");
    let state = lists.state();
    assert_eq!(state.bytes, sizes(&state));
    assert!(state.bytes <= MOST_BYTES);
}

#[test]
fn expired_lists_are_removed() {
    let (lists, now) = (Lists::new(crate::session::fixtures::account()), Instant::now());
    lists.put(&asked("ann", None), &hinted("2000", "public"), 0, now);
    lists.put(&page(1), &answer("{}"), 0, now);
    lists.expire(now + 2 * SECOND);
    let state = lists.state();
    assert_eq!(state.entries.len(), 1);
    assert_eq!(state.bytes, sizes(&state));
}

#[test]
fn a_list_is_found_by_all_parameters_but_meta() {
    let raw = |params: &str| {
        let (frame, message) =
            scanned(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{params}}}"#));
        distinguishing(&frame, &message).map(|raw| String::from_utf8(raw).unwrap())
    };
    assert_eq!(raw("{}").as_deref(), Some(""));
    assert_eq!(raw(r#"{"_meta":{"a":1}}"#), raw("{}"));
    assert_eq!(raw(r#"{"\u005fmeta":1, "cursor" : "a"}"#), raw(r#"{"cursor":"a"}"#));
    assert_ne!(raw(r#"{"cursor":"a"}"#), raw(r#"{"cursor":"b"}"#));
    for retry in [r#"{"inputResponses":{}}"#, r#"{"requestState":"s","cursor":"a"}"#] {
        assert_eq!(raw(retry), None, "an answer to a retry is never kept");
    }
    let long = |bytes: usize| raw(&format!(r#"{{"cursor":"{}"}}"#, "x".repeat(bytes))).is_some();
    assert_eq!([long(MOST_PARAMS / 2), long(MOST_PARAMS)], [true, false]);
}

#[test]
fn a_list_of_a_child_that_knows_its_callers_is_private() {
    let lists = Lists::new(crate::session::fixtures::account());
    let now = Instant::now();
    let private =
        |principal| ListRequest { is_private: true, ..asked(principal, Some(Freshness::UntilChanged)) };
    lists.put(&private("ann"), &answer(r#"{"tools":[]}"#), 0, now);
    lists.put(&private("anonymous"), &answer(r#"{"tools":[]}"#), 0, now);
    assert!(lists.find(&private("ann"), now).is_some());
    assert!(lists.find(&private("bob"), now).is_none());
    assert!(lists.find(&private("anonymous"), now).is_none(), "an anonymous list is not kept");
}
