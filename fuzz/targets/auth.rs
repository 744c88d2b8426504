//! Checks that whatever a caller or an issuer sends is read or refused: tokens, key sets, answers about tokens, and
//! files of API keys. An identity always has a subject, and is of the issuer that the rules name.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use proxyrunner::internals::auth::{api_keys_in, introspection_in, key_set_in, token_in};

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let identity = match kind % 4 {
        0 => {
            // As it is, and as the header and the claims of a token.
            let _ = std::str::from_utf8(data).ok().and_then(token_in);
            let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len() / 2);
            let (header, claims) = data.split_at(at);
            let [header, claims] =
                [header, claims.strip_prefix(b"\0").unwrap_or(claims)].map(|part| URL_SAFE_NO_PAD.encode(part));
            token_in(&format!("{header}.{claims}.c2ln"))
        }
        1 => {
            if let Some((usable, others)) = key_set_in(data) {
                assert!(usable + others <= 100);
            }
            None
        }
        2 => introspection_in(data),
        _ => {
            let _ = api_keys_in(data);
            None
        }
    };
    if let Some(identity) = identity {
        assert!(!identity.subject.trim().is_empty());
        assert_eq!(identity.issuer.as_deref(), Some("https://a.example"));
        assert!(!identity.principal.is_anonymous());
    }
});
