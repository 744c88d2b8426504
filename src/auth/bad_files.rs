//! Finds the files of settings that cannot be used, before anything starts.

use super::api_keys::ApiKeys;
use super::client;
use super::keys::KeySet;
use super::settings::{KeySource, Settings};
use super::watched;
use std::path::{Path, PathBuf};

/// A file that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub struct BadFile {
    /// The setting that names it, such as `--auth-issuer`.
    pub setting: &'static str,
    /// Its option behind a URL, such as `ca`; empty if the setting itself names the file.
    pub option: &'static str,
    /// Its path.
    pub path: PathBuf,
    /// What is wrong, without any content of the file.
    pub reason: String,
    /// What would be accepted.
    pub remedy: &'static str,
}

const AUTHORITIES: &str = "name a file of certificates in PEM format";

/// Reads each file of the settings, and returns those that cannot be used.
pub fn bad_files(settings: &Settings) -> Vec<BadFile> {
    let mut bad = Vec::new();
    let mut note = |setting, option, path: &Path, read: Result<(), String>, remedy| {
        if let Err(reason) = read {
            bad.push(BadFile { setting, option, path: path.to_owned(), reason, remedy });
        }
    };
    for issuer in &settings.issuers {
        if let Some(path) = &issuer.ca {
            note("--auth-issuer", "ca", path, client::check_authorities(path), AUTHORITIES);
        }
        if let Some(path) = &issuer.token_file {
            let remedy = "name a file with one token";
            note("--auth-issuer", "token-file", path, secret(path), remedy);
        }
        if let KeySource::File(path) = &issuer.keys {
            let remedy = "name a file with a JWK set that has a public key for signatures";
            note("--auth-issuer", "jwks", path, key_set(path), remedy);
        }
    }
    if let Some(endpoint) = &settings.introspection {
        if let Some(path) = &endpoint.ca {
            note("--auth-introspection", "ca", path, client::check_authorities(path), AUTHORITIES);
        }
        let path = &endpoint.secret_file;
        let remedy = "name a file with the client's secret in one line";
        note("--auth-introspection", "secret", path, secret(path), remedy);
    }
    if let Some(path) = &settings.api_keys {
        let remedy = "see `proxyrunner key new` for the file's form";
        note("--api-keys", "", path, api_keys(path), remedy);
    }
    bad
}

fn key_set(path: &Path) -> Result<(), String> {
    let content = watched::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let read = KeySet::read(&content).map_err(|why| format!("is no key set: {why}"))?;
    match read.skipped.first() {
        Some(why) if read.set.is_empty() => Err(format!("has no usable key: {why}")),
        None if read.set.is_empty() => Err("has no key".to_owned()),
        _ => Ok(()),
    }
}

fn api_keys(path: &Path) -> Result<(), String> {
    let content = watched::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    ApiKeys::read(&content).map(drop).map_err(|why| format!("is unusable: {why}"))
}

fn secret(path: &Path) -> Result<(), String> {
    watched::read_secret(path).map(drop).map_err(|why| format!("is unusable: {why}"))
}
