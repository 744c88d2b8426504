//! Parses durations, sizes, counts and choices, and formats them for `--check`.

use super::address;
use super::identity::{self, Group, User};
use super::problem::InvalidValue;
use crate::http::{Network, PublicUrl, Resource};
use crate::mounted::Mounted;
use crate::upstream::SealKeys;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Parses and formats one kind of value.
#[derive(Clone, Copy)]
pub(super) struct ValueKind<T> {
    pub(super) parse: fn(&str) -> Result<T, InvalidValue>,
    pub(super) show: fn(&T) -> Value,
}

pub(super) const DURATION: ValueKind<Duration> = ValueKind { parse: duration, show: show_duration };
pub(super) const DURATION_OR_ZERO: ValueKind<Duration> =
    ValueKind { parse: duration_or_zero, show: show_duration };
pub(super) const SIZE: ValueKind<usize> = ValueKind { parse: size, show: show_size };
pub(super) const COUNT: ValueKind<usize> = ValueKind { parse: count, show: |count| (*count).into() };
pub(super) const COUNT_OR_ZERO: ValueKind<usize> =
    ValueKind { parse: count_or_zero, show: |count| (*count).into() };
pub(super) const SWITCH: ValueKind<bool> = ValueKind { parse: switch, show: |on| (*on).into() };
pub(super) const LISTEN: ValueKind<SocketAddr> =
    ValueKind { parse: address::listen, show: |to| to.to_string().into() };
pub(super) const BINDING: ValueKind<address::Binding> =
    ValueKind { parse: address::binding, show: |to| address::show_binding(to).into() };
pub(super) const PATH: ValueKind<String> =
    ValueKind { parse: address::path, show: |text| text.as_str().into() };
pub(super) const ORIGIN: ValueKind<String> =
    ValueKind { parse: address::origin, show: |text| text.as_str().into() };
pub(super) const HOST: ValueKind<String> =
    ValueKind { parse: address::host, show: |text| text.as_str().into() };
pub(super) const PUBLIC_URL: ValueKind<PublicUrl> =
    ValueKind { parse: address::public_url, show: |url| url.as_str().into() };
pub(super) const NETWORK: ValueKind<Network> =
    ValueKind { parse: address::network, show: |network| network.to_string().into() };
pub(super) const RESOURCE: ValueKind<Resource> =
    ValueKind { parse: address::resource, show: |resource| resource.url().into() };
pub(super) const SERVER_NAME: ValueKind<String> =
    ValueKind { parse: address::server_name, show: |text| text.as_str().into() };
pub(super) const HEADER: ValueKind<String> =
    ValueKind { parse: address::header, show: |text| text.as_str().into() };
pub(super) const DIRECTORY: ValueKind<PathBuf> =
    ValueKind { parse: directory, show: |path| path.to_string_lossy().into() };

pub(super) const FILE: ValueKind<PathBuf> =
    ValueKind { parse: file, show: |path| path.to_string_lossy().into() };
pub(super) const KEY_FILE: ValueKind<KeyFile> =
    ValueKind { parse: key_file, show: |file| file.path.to_string_lossy().into() };

/// A file or folder.
pub(super) const ANY_PATH: ValueKind<PathBuf> =
    ValueKind { parse: any_path, show: |path| path.to_string_lossy().into() };

pub(super) const SOCKET: ValueKind<String> = ValueKind { parse: socket, show: |text| text.as_str().into() };
pub(super) const KEY: ValueKind<String> = ValueKind { parse: key, show: |text| text.as_str().into() };
pub(super) const NICE: ValueKind<i32> = ValueKind { parse: nice, show: |nice| (*nice).into() };
pub(super) const USER: ValueKind<User> = ValueKind { parse: identity::user, show: |user| user.id.into() };
pub(super) const GROUP: ValueKind<Group> =
    ValueKind { parse: identity::group, show: |group| group.id.into() };

/// Parses a name without commas and surrounding blanks.
fn key(text: &str) -> Result<String, InvalidValue> {
    let key = text.trim();
    let sound = !key.is_empty() && !key.contains([',', ';', '=']);
    if sound {
        Ok(key.to_owned())
    } else {
        Err(InvalidValue::new("is not a valid key", "give a name, e.g. user.id"))
    }
}

fn any_path(text: &str) -> Result<PathBuf, InvalidValue> {
    if text.is_empty() {
        Err(InvalidValue::new("is empty", "name a file or a folder"))
    } else {
        Ok(text.into())
    }
}

/// Parses `unix:PATH`.
fn socket(text: &str) -> Result<String, InvalidValue> {
    match text.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(text.to_owned()),
        _ => Err(InvalidValue::new("is not a socket", "give e.g. unix:/run/mcp/mcp.sock")),
    }
}

/// A file with a secret. Only its name is ever shown.
pub(super) struct KeyFile {
    path: PathBuf,
    pub(super) keys: SealKeys,
    /// Tells changes; `None` if the file can be read only once.
    pub(super) mounted: Option<Mounted>,
}

/// Maximum duration. It can be added to any clock reading without overflow.
const LONGEST: Duration = Duration::from_secs(365 * DAY);
/// Maximum count. Memory for some counts is allocated at once.
const MOST: usize = 1 << 20;
const DAY: u64 = 24 * 60 * 60;

const DURATIONS: &str = "give e.g. 500ms, 30s, 5m, 1h30m";
const SIZES: &str = "give bytes, or e.g. 16KiB, 16MiB, 1GiB";

/// Units of time, longest first, in milliseconds.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", DAY * 1000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

const SIZE_UNITS: [(&str, usize); 6] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
];

fn nice(text: &str) -> Result<i32, InvalidValue> {
    let nice = text.parse().ok().filter(|nice| (-20..=19).contains(nice));
    nice.ok_or_else(|| InvalidValue::new("is not a niceness", "give a number from -20 to 19"))
}

fn duration(text: &str) -> Result<Duration, InvalidValue> {
    match duration_or_zero(text)? {
        Duration::ZERO => Err(InvalidValue::new("must be more than 0", DURATIONS)),
        duration => Ok(duration),
    }
}

fn duration_or_zero(text: &str) -> Result<Duration, InvalidValue> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let millis = millis(text).ok_or_else(|| InvalidValue::new("is not a duration", DURATIONS))?;
    let duration = Duration::from_millis(millis);
    if duration > LONGEST {
        return Err(InvalidValue::new("is too long", "give at most 365d"));
    }
    Ok(duration)
}

/// Parses whole numbers with units, each unit shorter than the one before: `1h30m`.
fn millis(mut text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut units = &TIME_UNITS[..];
    loop {
        let (number, rest) = split_number(text)?;
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(end);
        let at = units.iter().position(|(name, _)| *name == unit)?;
        total = total.checked_add(number.checked_mul(units[at].1)?)?;
        units = &units[at + 1..];
        if rest.is_empty() {
            return Some(total);
        }
        text = rest;
    }
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

fn show_duration(duration: &Duration) -> Value {
    let mut millis = duration.as_millis();
    if millis == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (unit, length) in TIME_UNITS {
        let number = millis / u128::from(length);
        millis %= u128::from(length);
        if number > 0 {
            text += &format!("{number}{unit}");
        }
    }
    text.into()
}

fn size(text: &str) -> Result<usize, InvalidValue> {
    let refused = || InvalidValue::new("is not a size", SIZES);
    let (number, unit) = split_number(text).ok_or_else(refused)?;
    let unit = match unit.trim_start() {
        "" => 1,
        unit => SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refused)?.1,
    };
    match usize::try_from(number).ok().and_then(|number| number.checked_mul(unit)) {
        Some(0) => Err(InvalidValue::new("must be more than 0", SIZES)),
        Some(bytes) if isize::try_from(bytes).is_ok() => Ok(bytes),
        _ => Err(InvalidValue::new("is more than this machine can address", SIZES)),
    }
}

fn show_size(bytes: &usize) -> Value {
    let binary = SIZE_UNITS[..3].iter().find(|(_, length)| bytes.is_multiple_of(*length));
    match binary {
        Some((unit, length)) => format!("{}{unit}", bytes / length).into(),
        None => (*bytes).into(),
    }
}

fn count_or_zero(text: &str) -> Result<usize, InvalidValue> {
    if text == "0" { Ok(0) } else { count(text) }
}

/// Parses the path of a file that is read later.
fn file(text: &str) -> Result<PathBuf, InvalidValue> {
    match text {
        "" => Err(InvalidValue::new("names no file", "give the path of a file")),
        path if Path::new(path).is_dir() => {
            Err(InvalidValue::new("is a directory", "give the path of a file in it"))
        }
        path => Ok(path.into()),
    }
}

fn key_file(text: &str) -> Result<KeyFile, InvalidValue> {
    let path = PathBuf::from(text);
    let (secret, mounted) = if path.is_file() {
        let mut mounted = Mounted::new([&path]);
        let read = mounted.read().map(|mut files| files.pop().map(|file| file.bytes).unwrap_or_default());
        (read.map_err(|unreadable| unreadable.reason), Some(mounted))
    } else {
        (std::fs::read(&path).map_err(|error| error.to_string()), None)
    };
    let secret = secret.map_err(|reason| {
        InvalidValue::new(format!("cannot be read: {reason}"), "name a file with at least 32 random bytes")
    })?;
    let keys = SealKeys::read(&secret).map_err(|reason| {
        InvalidValue::new(
            reason,
            "put at least 32 random bytes in it, or 64 digits: openssl rand -hex 32; a second line may hold the \
             previous key",
        )
    })?;
    Ok(KeyFile { path, keys, mounted })
}

fn count(text: &str) -> Result<usize, InvalidValue> {
    match split_number(text) {
        Some((number, "")) if (1..=MOST as u64).contains(&number) => Ok(number as usize),
        Some((_, "")) => Err(InvalidValue::new("is out of range", format!("give 1 to {MOST}"))),
        _ => Err(InvalidValue::new("is not a count", format!("give 1 to {MOST}"))),
    }
}

fn switch(text: &str) -> Result<bool, InvalidValue> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(InvalidValue::new("is neither true nor false", "give true or false")),
    }
}

/// Parses one of a few names, in any case.
pub(super) fn choose<T: Copy>(text: &str, names: &[(&str, T)]) -> Result<T, InvalidValue> {
    names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, value)| *value).ok_or_else(|| {
        let all: Vec<_> = names.iter().map(|(name, _)| *name).collect();
        InvalidValue::new("is not one of its values", format!("give {}", all.join(", ")))
    })
}

/// Returns the name of a choice.
pub(super) fn name_of<T: PartialEq>(value: &T, names: &[(&str, T)]) -> Value {
    names.iter().find(|(_, named)| named == value).map(|(name, _)| (*name).into()).unwrap_or_default()
}

fn directory(text: &str) -> Result<PathBuf, InvalidValue> {
    let path = PathBuf::from(text);
    if path.is_dir() {
        return Ok(path);
    }
    Err(InvalidValue::new("is not a directory", "give an existing directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason<T>(result: Result<T, InvalidValue>) -> String {
        result.map(|_| ()).expect_err("a refusal").reason.into_owned()
    }

    #[test]
    fn durations() {
        let read = |text| duration(text).map(|duration| duration.as_millis()).ok();
        assert_eq!(read("500ms"), Some(500));
        assert_eq!(read("30s"), Some(30_000));
        assert_eq!(read("1h30m"), Some(5_400_000));
        assert_eq!(read("7d"), Some(604_800_000));
        for bad in [
            "",
            "5",
            "s",
            "-5s",
            "1.5s",
            "5 m",
            "5M",
            "30m1h",
            "1m1m",
            "5parsecs",
            "5m ",
            "٣s",
            "1s2",
            "+5s",
            "99999999999999999999s",
            "366d",
            "18446744073709551615d",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        assert_eq!(reason(duration("0s")), "must be more than 0");
        assert_eq!(duration_or_zero("0"), Ok(Duration::ZERO));
        assert_eq!(duration_or_zero("0ms"), Ok(Duration::ZERO));
    }

    #[test]
    fn sizes() {
        let read = |text| size(text).ok();
        assert_eq!(read("1"), Some(1));
        assert_eq!(read("16MiB"), Some(16 << 20));
        assert_eq!(read("1 GiB"), Some(1 << 30));
        assert_eq!(read("2kB"), Some(2000));
        for bad in ["", "MiB", "16mb", "16Mb", "1.5MiB", "-1", "16M", "0", "0KiB", "99999999999GiB", "16MiB "]
        {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn formatted_values_parse_to_the_same_values() {
        for millis in [0, 1, 999, 1000, 61_001, 5_400_000, 365 * DAY * 1000] {
            let duration = Duration::from_millis(millis);
            let shown = show_duration(&duration);
            assert_eq!(duration_or_zero(shown.as_str().expect("text")), Ok(duration));
        }
        for bytes in [1, 1000, 1024, 1025, 3 << 20, 1 << 30] {
            let shown = show_size(&bytes);
            assert_eq!(size(shown.as_str().unwrap_or(&shown.to_string())), Ok(bytes));
        }
        assert_eq!(show_duration(&Duration::from_secs(5400)), "1h30m");
        assert_eq!(show_size(&(64 << 20)), "64MiB");
    }

    #[test]
    fn counts_and_switches() {
        assert_eq!(count("007"), Ok(7));
        assert_eq!(count("1048576"), Ok(MOST));
        assert_eq!(reason(count("0")), "is out of range");
        assert_eq!(reason(count("1048577")), "is out of range");
        for bad in ["", "-1", "1e3", "many", "1 "] {
            assert_eq!(reason(count(bad)), "is not a count", "{bad:?}");
        }
        assert_eq!(switch("Yes"), Ok(true));
        assert_eq!(switch("0"), Ok(false));
        assert!(switch("maybe").is_err());
    }
}
