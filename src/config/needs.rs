//! Settings that have an effect only beside another one. Alone they are refused: who sets `--auth-audience` believes that
//! callers are asked for tokens.

use super::problem::InvalidValue;
use super::reader::Reader;

/// Settings, and those of which one must be given, too.
type Need = (&'static [&'static str], &'static [&'static str]);

const TOKENS: &[&str] = &["auth-issuer", "auth-introspection"];

const NEEDS: &[Need] = &[
    (
        &[
            "auth-jwks",
            "auth-algorithms",
            "auth-token-file",
            "auth-keys-max-age",
            "auth-allow-private",
            "require-keys-at-start",
        ],
        &["auth-issuer"],
    ),
    (
        &[
            "auth-audience",
            "auth-resource",
            "auth-ca",
            "auth-scope-claim",
            "auth-groups-claim",
            "auth-roles-claim",
            "auth-insecure-http",
        ],
        TOKENS,
    ),
    (&["auth-scopes", "auth-scope-implies"], &["auth-issuer", "auth-introspection", "api-keys"]),
    (&["register-url", "register-token-file", "register-ca"], &["register"]),
    (&["redis-password-file", "redis-ca", "redis-prefix"], &["redis"]),
    (&["forward-sessions"], &["state-key-file"]),
    (&["tls-client-name"], &["tls-client-ca"]),
    (&["policy-server"], &["policy", "policy-url"]),
    (&["policy-timeout"], &["policy-url"]),
    (
        &[
            "audit-content",
            "audit-key-file",
            "audit-max-size",
            "audit-keep",
            "audit-on-failure",
            "audit-fsync",
        ],
        &["audit"],
    ),
    (&["child-identity-claims"], &["child-identity"]),
    (&["on-env-change"], &["env-file"]),
];

/// Refuses each setting that differs from its default although none of those that it needs is given.
pub(super) fn check(reader: &mut Reader) {
    for (flags, needed) in NEEDS {
        if needed.iter().any(|flag| reader.is_given(flag)) {
            continue;
        }
        let names: Vec<_> = needed.iter().map(|flag| format!("--{flag}")).collect();
        let names = names.join(" or ");
        for flag in *flags {
            let refusal = InvalidValue::new(
                format!("has no effect without {names}"),
                format!("give {names}, too, or remove it"),
            );
            reader.cross_check(!reader.deviates(flag), &[flag], refusal);
        }
    }
}
