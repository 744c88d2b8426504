//! The settings of the audit log.

use super::parse::{COUNT, SIZE, SWITCH, ValueKind};
use super::problem::InvalidValue;
use super::reader::Reader;
use crate::audit::{Fsync, Key, OnFailure, Settings, Target};
use crate::{child, export};
use std::path::{Path, PathBuf};

const TARGET: ValueKind<Target> = ValueKind { parse: target, show: |target| target.to_string().into() };
const NAME: ValueKind<String> = ValueKind { parse: name, show: |name| name.as_str().into() };
const AUDIT_KEY: ValueKind<(PathBuf, Key)> =
    ValueKind { parse: key, show: |(path, _)| path.to_string_lossy().into() };

/// The smallest size at which a file is rotated.
const SMALLEST: usize = 64 * 1024;
/// The maximum length of the server's name.
const LONGEST_NAME: usize = 128;

/// Reads the settings; `None` without `--audit`.
pub(super) fn read(
    reader: &mut Reader,
    child: &child::Settings,
    export: &export::Settings,
) -> Option<Settings> {
    let policies = [("deny", OnFailure::Deny), ("block", OnFailure::Block), ("drop", OnFailure::Drop)];
    let syncs = [("interval", Fsync::Interval), ("always", Fsync::Always), ("never", Fsync::Never)];
    let target = reader.optional("audit", TARGET);
    let settings = Settings {
        target: target.clone().unwrap_or(Target::Stdout),
        component: reader.one_or("audit-component", NAME, component(child, export)),
        content: reader.one("audit-content", SWITCH),
        key: reader.optional("audit-key-file", AUDIT_KEY),
        max_size: reader.optional("audit-max-size", SIZE).map(|size| size as u64),
        keep: reader.one("audit-keep", COUNT),
        on_failure: reader.choice("audit-on-failure", &policies),
        fsync: reader.choice("audit-fsync", &syncs),
    };
    reader.cross_check(
        target != Some(Target::Collector) || export.logs.is_some(),
        &["audit"],
        InvalidValue::new("is otlp, but log records are not exported", "set OTEL_LOGS_EXPORTER=otlp"),
    );
    reader.cross_check(
        settings.max_size.is_none_or(|size| size >= SMALLEST as u64),
        &["audit-max-size"],
        InvalidValue::new("is too small", "give at least 64KiB"),
    );
    target.map(|_| settings)
}

/// Returns the name of the server: `OTEL_SERVICE_NAME`, else the program's name.
fn component(child: &child::Settings, export: &export::Settings) -> String {
    let named = export.resource.iter().find(|(key, name)| key == "service.name" && name != "proxyrunner");
    let program = || match Path::new(&child.program).file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => "gateway".to_owned(),
    };
    named.map_or_else(program, |(_, name)| name.clone())
}

fn target(text: &str) -> Result<Target, InvalidValue> {
    match text {
        "" => Err(InvalidValue::new("is empty", "give a file, - or otlp")),
        "-" => Ok(Target::Stdout),
        "otlp" => Ok(Target::Collector),
        path if path.ends_with('/') || Path::new(path).is_dir() => {
            Err(InvalidValue::new("is a directory", "give a file in it, e.g. /var/log/mcp/audit.log"))
        }
        path => {
            let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty());
            match folder.filter(|folder| !folder.is_dir()) {
                Some(folder) => {
                    let reason = format!("is in {}, which is no directory", folder.display());
                    Err(InvalidValue::new(reason, "create the directory, or give another file"))
                }
                None => Ok(Target::File(path.into())),
            }
        }
    }
}

fn name(text: &str) -> Result<String, InvalidValue> {
    let is_sound = !text.is_empty() && text.len() <= LONGEST_NAME && !text.contains(char::is_control);
    is_sound
        .then(|| text.to_owned())
        .ok_or_else(|| InvalidValue::new("is not a name", "give 1 to 128 bytes of text"))
}

fn key(text: &str) -> Result<(PathBuf, Key), InvalidValue> {
    let path = PathBuf::from(text);
    match Key::read(&path) {
        Ok(key) => Ok((path, key)),
        Err(reason) => Err(InvalidValue::new(
            reason,
            "name a file with at least 32 random bytes, or 64 digits: openssl rand -hex 32",
        )),
    }
}
