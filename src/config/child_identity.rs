//! What the child learns about its caller (`--child-identity`, `--child-identity-claims`).

use super::parse::ValueKind;
use super::problem::{InvalidValue, Problem};
use super::reader::Reader;
use crate::identity::{Disclosure, VARIABLE_PREFIX};
use crate::upstream::{self, Isolation};
use std::ffi::OsString;

/// What the child learns, by the channel that tells it. At most one is set.
#[derive(Default)]
pub(super) struct ChildIdentity {
    /// Written into each message.
    pub(super) meta: Option<Disclosure>,
    /// Set in the environment of each caller's own process.
    pub(super) env: Option<Disclosure>,
}

#[derive(Clone, Copy, PartialEq)]
enum Channel {
    None,
    Env,
    Meta,
}

/// Names of claims, separated by commas.
const CLAIMS: ValueKind<Vec<String>> = ValueKind { parse: claims, show: |claims| claims.join(",").into() };

fn claims(text: &str) -> Result<Vec<String>, InvalidValue> {
    let claims: Vec<_> = text.split(',').map(|claim| claim.trim().to_owned()).collect();
    if claims.iter().any(|claim| claim.is_empty() || claim.contains(char::is_control)) {
        return Err(InvalidValue::new("contains an empty name", "give names of claims, e.g. sub,email"));
    }
    Ok(claims)
}

/// Reads the settings; `env` are the variables that the operator sets for the child.
pub(super) fn read(reader: &mut Reader, env: &[(OsString, OsString)]) -> ChildIdentity {
    let channels = [("none", Channel::None), ("env", Channel::Env), ("meta", Channel::Meta)];
    let channel = reader.choice("child-identity", &channels);
    let claims = reader.list("child-identity-claims", CLAIMS).concat();
    let disclosure = Disclosure::of(if claims.is_empty() { vec!["sub".to_owned()] } else { claims });
    match channel {
        Channel::None => ChildIdentity::default(),
        Channel::Meta => ChildIdentity { meta: Some(disclosure), env: None },
        Channel::Env => {
            if let Some((one, other)) = disclosure.collision() {
                let reason = format!("has two names for the same variable: {one} and {other}");
                reader.note(Problem::general(
                    "--child-identity-claims",
                    InvalidValue::new(reason, "leave one of them out, or give --child-identity meta"),
                ));
            }
            let taken =
                |(name, _): &&(OsString, OsString)| name.to_string_lossy().starts_with(VARIABLE_PREFIX);
            if let Some((name, _)) = env.iter().find(taken) {
                let reason = format!("sets {}, as --child-identity env does", name.display());
                reader.note(Problem::general("--env", InvalidValue::new(reason, "use another name")));
            }
            ChildIdentity { meta: None, env: Some(disclosure) }
        }
    }
}

/// Checks that each caller has a process of its own if its environment tells who the caller is.
pub(super) fn cross_check(reader: &mut Reader, upstream: &upstream::Settings) {
    let is_told = upstream.disclosure.is_some();
    reader.cross_check(
        !is_told || upstream.isolation == Isolation::Session,
        &["child-identity", "isolation"],
        InvalidValue::new(
            "is env without --isolation session",
            "give --isolation session, so that each caller has a server process, or --child-identity meta",
        ),
    );
    reader.cross_check(
        !is_told || upstream.warm == 0,
        &["child-identity", "warm"],
        InvalidValue::new(
            "is env with --warm, whose servers start before their caller is known",
            "remove --warm, or give --child-identity meta",
        ),
    );
    reader.cross_check(
        !is_told || !reader.is_given("connect"),
        &["child-identity", "connect"],
        InvalidValue::new(
            "is env with --connect, whose servers are started elsewhere",
            "give --child-identity meta",
        ),
    );
}
