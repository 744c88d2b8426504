//! Checks that documents, policies and entities of any kind are compiled or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyrunner::internals::policy::parses;

/// A document around the input, so that most of it is reached.
const DOCUMENT: &str = "version: '1.0'\ntype: cedarv1\ncedar:\n";

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    parses(text);
    parses(&format!("{DOCUMENT}{text}"));
    let quoted = text.replace('\'', "''");
    for options in [
        format!("  policies: ['{quoted}']\n"),
        format!("  policies: ['permit(principal,action,resource);']\n  entities_json: '{quoted}'\n"),
    ] {
        parses(&format!("{DOCUMENT}{options}"));
    }
});
