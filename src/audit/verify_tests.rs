//! Tests of verification: every alteration is found.

use super::*;
use crate::audit::event::Event;

fn key(byte: u8) -> Key {
    Key::of(&[byte; 32]).expect("long enough")
}

/// Returns the lines of a log with a checkpoint after `lines`, and a final one after one more line.
fn log(lines: usize, signer: Option<&Key>) -> Vec<String> {
    let mut head = Head::EMPTY;
    let mut all = Vec::new();
    let mut put = |event: Event, signer: Option<&Key>| {
        let mut line = event.finish("test");
        head = head.seal(&mut line, signer);
        all.push(line.trim_end().to_owned());
    };
    let checkpoint = |is_final| {
        let id = signer.map_or("", Key::id);
        Event::own("audit_checkpoint", "success").text("key_id", id).flag("final", is_final)
    };
    (0..lines).for_each(|_| put(Event::own("http_request", "denied"), None));
    put(checkpoint(false), signer);
    put(Event::own("audit_stop", "success"), None);
    put(checkpoint(true), signer);
    all
}

fn verified(lines: &[impl AsRef<[u8]>], keys: &[Key]) -> Result<Summary, (usize, Fault)> {
    let mut verifier = Verifier::new(keys);
    for (at, line) in lines.iter().enumerate() {
        verifier.line(line.as_ref()).map_err(|fault| (at, fault))?;
    }
    Ok(verifier.finish())
}

#[test]
fn a_whole_log_is_proven() {
    let (own, other) = (key(1), key(2));
    let lines = log(3, Some(&own));
    let summary = verified(&lines, &[other.clone(), own]).expect("no fault");
    assert_eq!((summary.first, summary.last, summary.lines, summary.checkpoints), (1, 6, 6, 2));
    assert!(summary.is_final && summary.unproven == 0);
    assert_eq!(verified(&lines, &[]).expect("no fault"), summary, "the chain needs no key");
    assert!(matches!(verified(&lines, &[other]), Err((3, Fault::UnknownKey(_)))));
}

#[test]
fn every_altered_removed_inserted_or_swapped_line_is_found() {
    let own = key(1);
    let keys = [own.clone()];
    let lines = log(4, Some(&own));
    for at in 0..lines.len() {
        let mut altered = lines.clone();
        altered[at] = altered[at].replacen("\"success\"", "\"failure\"", 1).replacen("denied", "failed", 1);
        assert_eq!(verified(&altered, &keys), Err((at, Fault::Altered)));
        if at + 1 < lines.len() {
            let mut removed = lines.clone();
            removed.remove(at);
            let expected = at as u64 + 1;
            let found = verified(&removed, &keys);
            match at {
                0 => assert_eq!(found.expect("later lines follow each other").first, 2),
                _ => assert_eq!(found, Err((at, Fault::Gap { expected, found: expected + 1 }))),
            }
            let mut swapped = lines.clone();
            swapped.swap(at, at + 1);
            assert!(verified(&swapped, &keys).is_err());
        }
        let mut doubled = lines.clone();
        doubled.insert(at, lines[at].clone());
        assert!(verified(&doubled, &keys).is_err());
    }
}

#[test]
fn a_rewritten_chain_is_found_at_its_checkpoint() {
    let own = key(1);
    let mut head = Head::EMPTY;
    let mut rewritten = Vec::new();
    for line in log(2, Some(&own)) {
        // An attacker repeats the members and signatures, and computes all hashes anew.
        let at = line.find(",\"seq\":").expect("a seq");
        let mut forged = line[..at].replace("denied", "success");
        let next = head.seal(&mut forged, None);
        if let Some(at) = line.find(",\"signature\":") {
            let (signature, _) = line[at..].split_once(",\"hash\"").expect("a hash");
            forged.truncate(forged.find(",\"hash\":").expect("a hash"));
            forged.push_str(signature);
            forged.push('}');
            let digest = super::super::digest(forged.as_bytes());
            forged.pop();
            forged.push_str(&format!(",\"hash\":\"{digest}\"}}"));
        }
        head = Link::of(forged.trim_end().as_bytes()).map_or(next, |link| link.head());
        rewritten.push(forged.trim_end().to_owned());
    }
    assert!(verified(&rewritten, &[]).is_ok(), "without a key, the chain proves nothing");
    assert_eq!(verified(&rewritten, &[own]), Err((2, Fault::WrongSignature)));
}

#[test]
fn a_missing_tail_is_found() {
    let own = key(1);
    let lines = log(3, Some(&own));
    for (kept, unproven) in [(6, 0), (5, 1), (4, 0), (3, 3), (0, 0)] {
        let summary = verified(&lines[..kept], std::slice::from_ref(&own)).expect("no fault");
        assert_eq!((summary.unproven, summary.is_final), (unproven, kept == 6), "{kept} lines are kept");
    }
    let unsigned = log(3, None);
    let summary = verified(&unsigned, std::slice::from_ref(&own)).expect("no fault");
    assert_eq!((summary.unproven, summary.is_final), (6, false), "unsigned checkpoints prove nothing");
}

#[test]
fn only_a_start_that_mentions_it_may_follow_an_incomplete_line() {
    for (mentioned, kind, accepted) in
        [(9, "audit_start", true), (8, "audit_start", false), (9, "audit_stop", false)]
    {
        let mut head = Head::EMPTY;
        let mut line = |event: Event| {
            let mut line = event.finish("test");
            head = head.seal(&mut line, None);
            line.trim_end().to_owned()
        };
        let mut verifier = Verifier::new(&[]);
        verifier.line(line(Event::own("http_request", "denied")).as_bytes()).expect("the first");
        assert_eq!(verifier.line(b"{\"time\":1"), Err(Fault::NotALine));
        verifier.skip(9);
        let start = line(Event::own(kind, "success").number("torn_bytes", mentioned));
        assert_eq!(verifier.line(start.as_bytes()).is_ok(), accepted);
    }
}

#[test]
fn an_inserted_empty_line_is_found() {
    let lines = log(3, None);
    let mut verifier = Verifier::new(&[]);
    verifier.line(lines[0].as_bytes()).expect("the first");
    assert_eq!(verifier.line(b""), Err(Fault::NotALine));
    verifier.skip(0);
    assert_eq!(verifier.line(lines[1].as_bytes()), Err(Fault::NotALine));
}

#[test]
fn lines_are_read_with_their_end() {
    let mut read = Vec::new();
    let mut source = io::Cursor::new(b"a\n\nb".to_vec());
    lines(&mut source, |line, is_complete| {
        read.push((line.to_vec(), is_complete));
        true
    })
    .expect("memory");
    assert_eq!(read, [(b"a".to_vec(), true), (Vec::new(), true), (b"b".to_vec(), false)]);
}

#[test]
fn missing_checkpoints_are_noticed_with_a_key() {
    let own = key(1);
    let lines = log(2_500, Some(&own));
    let keys = [own];
    assert_eq!(verified(&lines, &keys), Err((2_000, Fault::NoCheckpoint)));
    assert!(verified(&lines, &[]).is_ok(), "without a key, every checkpoint could be forged");
    assert!(verified(&log(1_999, Some(&keys[0])), &keys).is_ok());
}

#[test]
fn a_process_proves_only_what_it_wrote_itself() {
    let own = key(1);
    let keys = [own.clone()];
    let whole = log(3, Some(&own));
    for (kept, unproven) in [(6, None), (5, Some(1)), (4, Some(0)), (2, Some(2))] {
        // Somebody cuts the log, and the next process continues and signs it.
        let mut lines = whole[..kept].to_vec();
        let mut head = Link::of(lines[kept - 1].as_bytes()).expect("a line").head();
        let mut put = |event: Event, signer: Option<&Key>| {
            let mut line = event.finish("test");
            head = head.seal(&mut line, signer);
            lines.push(line.trim_end().to_owned());
        };
        put(Event::own("audit_start", "success"), None);
        put(
            Event::own("audit_checkpoint", "success").text("key_id", own.id()).flag("final", true),
            Some(&own),
        );
        let summary = verified(&lines, &keys).expect("no fault");
        assert!(summary.is_final);
        assert_eq!(summary.interruption.map(|found| found.unproven), unproven, "{kept} lines are kept");
    }
}
