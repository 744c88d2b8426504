//! Checks that the verifier of audit logs accepts no line with a changed byte, and never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyrunner::internals::audit::Key;
use proxyrunner::internals::audit::verify::{Fault, Verifier, lines, number_of};

fuzz_target!(|data: &[u8]| {
    let keys: Vec<_> = Key::of(&[7; 32]).into_iter().collect();
    for keys in [&keys[..], &[]] {
        let mut verifier = Verifier::new(keys);
        let mut accepted = 0;
        lines(&mut &*data, |line, _| {
            match verifier.line(line) {
                Ok(()) => {
                    accepted += 1;
                    assert!(number_of(line).is_some());
                    let mut changed = line.to_vec();
                    let at = data.len() % changed.len();
                    changed[at] ^= 1;
                    assert!(number_of(&changed).is_none(), "a changed byte is not seen");
                }
                Err(Fault::NotALine) => verifier.skip(line.len() as u64),
                Err(_) => return false,
            }
            true
        })
        .expect("memory");
        let summary = verifier.finish();
        assert_eq!(summary.lines, accepted);
        assert!(summary.unproven <= summary.lines);
    }
});
