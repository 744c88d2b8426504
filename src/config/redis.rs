//! The settings of Redis: `--redis` and what goes with it.

use super::args::Mode;
use super::parse::{FILE, ValueKind};
use super::problem::{InvalidValue, Problem};
use super::reader::Reader;
use crate::outbound::Tls;
use crate::redis::{Host, Place, Settings};

const FORMS: &str =
    "give redis://host:port/db, rediss://… for TLS, or redis+sentinel://host:port,host:port/service/db";
const URL: ValueKind<String> = ValueKind { parse: any, show: |url| url.as_str().into() };
const PREFIX: ValueKind<String> = ValueKind { parse: prefix, show: |text| text.as_str().into() };
/// Maximum number of Sentinels.
const MOST_SENTINELS: usize = 16;

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
struct Meant {
    place: Place,
    user: Option<String>,
    database: u32,
    is_secure: bool,
}

/// Reads the settings; `None` without a URL. `name` is that of a sidecar's server.
pub(super) fn read(reader: &mut Reader, mode: Mode, name: Option<&str>) -> Option<Settings> {
    let url = reader.optional("redis", URL);
    let password_file = reader.optional("redis-password-file", FILE);
    let authorities = reader.optional("redis-ca", FILE);
    let prefix = reader.one("redis-prefix", PREFIX);
    let meant = match meaning(&url?) {
        Ok(meant) => meant,
        Err(reason) => {
            // The URL may contain a password, so it is not shown.
            reader.note(Problem::general("--redis", InvalidValue::new(reason, FORMS)));
            return None;
        }
    };
    if let Some(path) = &password_file
        && let Err(error) = std::fs::read(path)
    {
        let refusal = InvalidValue::new(format!("cannot be read: {error}"), "name a file with the password");
        reader.note(Problem::general("--redis-password-file", refusal));
    }
    let lonely = InvalidValue::new("names a user without a password", "give --redis-password-file");
    reader.cross_check(
        meant.user.is_none() || password_file.is_some(),
        &["redis", "redis-password-file"],
        lonely,
    );
    let clear = InvalidValue::new("is not used without TLS", "give --redis a URL with rediss://");
    reader.cross_check(meant.is_secure || authorities.is_none(), &["redis-ca", "redis"], clear);
    let idle = InvalidValue::new(
        "has nothing to share",
        "give --rate-limits, too, or --resume-sessions with --forward-sessions, or remove it",
    );
    let resumes = reader.deviates("resume-sessions") && reader.is_given("forward-sessions");
    let shares = mode == Mode::Gateway || reader.is_given("rate-limits") || resumes;
    reader.cross_check(shares, &["redis", "rate-limits"], idle);
    let nameless = InvalidValue::new(
        "needs the name of the server whose limits are shared",
        "give --server-name, e.g. com.example/time, to all of its replicas",
    );
    reader.cross_check(mode == Mode::Gateway || name.is_some(), &["redis", "server-name"], nameless);
    let authorities = authorities.and_then(|path| {
        let read = std::fs::read(&path);
        read.map_err(|error| {
            let refusal = InvalidValue::new(
                format!("cannot be read: {error}"),
                "name a file with certificates in PEM format",
            );
            reader.note(Problem::general("--redis-ca", refusal));
        })
        .ok()
    });
    Some(Settings {
        place: meant.place,
        user: meant.user,
        database: meant.database,
        tls: meant.is_secure.then_some(Tls { authorities, ..Tls::default() }),
        password_file,
        prefix,
        scope: name.unwrap_or("gateway").to_owned(),
    })
}

/// Takes any URL; [`meaning`] reports what is wrong with it without showing it.
fn any(text: &str) -> Result<String, InvalidValue> {
    Ok(text.to_owned())
}

fn prefix(text: &str) -> Result<String, InvalidValue> {
    let is_sound =
        text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"{}".contains(&byte));
    if is_sound {
        Ok(text.to_owned())
    } else {
        Err(InvalidValue::new("is not a prefix of keys", "give up to 64 visible characters without { and }"))
    }
}

/// Reads a URL. The reason for a refusal contains nothing of it.
fn meaning(url: &str) -> Result<Meant, &'static str> {
    let malformed = "is not a URL of Redis";
    if url.contains(['?', '#']) || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has a query, a fragment or a character that is not allowed");
    }
    let (scheme, rest) = url.split_once("://").ok_or(malformed)?;
    let (is_secure, is_sentinel) = match scheme {
        "redis" => (false, false),
        "rediss" => (true, false),
        "redis+sentinel" => (false, true),
        "rediss+sentinel" => (true, true),
        _ => return Err(malformed),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (Some(user), hosts),
        None => (None, authority),
    };
    match user {
        Some(user) if user.contains(':') => {
            return Err("contains a password; give --redis-password-file instead");
        }
        Some(user) if user.is_empty() || user.contains(['%', '@']) => {
            return Err("has a user that is not supported");
        }
        _ => {}
    }
    let hosts: Option<Vec<_>> =
        hosts.split(',').map(|text| host(text, if is_sentinel { 26_379 } else { 6_379 })).collect();
    let mut hosts = hosts.ok_or(malformed)?;
    let (place, database) = if is_sentinel {
        let (service, database) = path.split_once('/').unwrap_or((path, ""));
        if service.is_empty() || hosts.len() > MOST_SENTINELS {
            return Err("does not name the service that the Sentinels watch, or names too many Sentinels");
        }
        (Place::Sentinel { sentinels: hosts, service: service.to_owned() }, database)
    } else {
        if hosts.len() != 1 {
            return Err(malformed);
        }
        (Place::Server(hosts.remove(0)), path)
    };
    let database = if database.is_empty() { Some(0) } else { number(database) };
    let database = database.ok_or("does not end with the number of a database")?;
    Ok(Meant { place, user: user.map(str::to_owned), database, is_secure })
}

fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Reads `host`, `host:port`, `[address]` or `[address]:port`.
fn host(text: &str, port: u16) -> Option<Host> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, if rest.is_empty() { port } else { number(rest.strip_prefix(':')?)? })
        }
        None => match text.split_once(':') {
            Some((name, port)) => (name, number(port)?),
            None => (text, port),
        },
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    (!name.is_empty() && name.chars().all(is_name) && port != 0).then(|| Host { name: name.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &str, port: u16) -> Host {
        Host { name: name.to_owned(), port }
    }

    #[test]
    fn urls_name_a_server_or_sentinels() {
        let plain = |host| Meant { place: Place::Server(host), user: None, database: 0, is_secure: false };
        assert_eq!(meaning("redis://cache"), Ok(plain(at("cache", 6379))));
        assert_eq!(meaning("redis://10.0.0.1:7000/"), Ok(plain(at("10.0.0.1", 7000))));
        assert_eq!(meaning("redis://[fd00::1]"), Ok(plain(at("fd00::1", 6379))));
        assert_eq!(
            meaning("rediss://mcp@cache.svc:6380/3"),
            Ok(Meant {
                place: Place::Server(at("cache.svc", 6380)),
                user: Some("mcp".to_owned()),
                database: 3,
                is_secure: true,
            })
        );
        assert_eq!(
            meaning("redis+sentinel://mcp@a:1,[fd00::1]:2,c/mymaster/2"),
            Ok(Meant {
                place: Place::Sentinel {
                    sentinels: vec![at("a", 1), at("fd00::1", 2), at("c", 26379)],
                    service: "mymaster".to_owned(),
                },
                user: Some("mcp".to_owned()),
                database: 2,
                is_secure: false,
            })
        );
    }

    #[test]
    fn a_refusal_shows_nothing_of_the_url() {
        for bad in [
            "",
            "cache:6379",
            "http://cache",
            "redis://",
            "redis://a,b",
            "redis://a:0",
            "redis://a:x",
            "redis://a:99999",
            "redis://[fd00::1",
            "redis://a/x",
            "redis://a/1/2",
            "redis://a?db=1",
            "redis://a#b",
            "redis://@a",
            "redis://s3cret:s3cret@a",
            "redis://:s3cret@a",
            "redis://:s3cret@x@a",
            "redis+sentinel://a",
            "redis+sentinel://a/",
            "redis+sentinel://,/mymaster",
        ] {
            let why = meaning(bad).expect_err(bad);
            assert!(!why.contains("s3cret"), "{why}");
        }
        assert!(meaning("redis://:s3cret@a").expect_err("refused").contains("--redis-password-file"));
    }

    #[test]
    fn a_prefix_cannot_change_the_slot_of_a_key() {
        assert!(prefix("proxyrunner:").is_ok() && prefix("").is_ok());
        assert!(["a b", "{a}", "ä", &"x".repeat(65)].iter().all(|bad| prefix(bad).is_err()));
    }
}
