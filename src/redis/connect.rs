//! Connects to the primary: finds it by Sentinels, authenticates, and chooses the database.

use super::reply::Reply;
use super::settings::{Host, Place, Settings};
use super::wire::Wire;
use crate::outbound::Dialer;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// Maximum time for a Sentinel's answer, or for a connection to the primary that is ready for use.
const PATIENCE: Duration = Duration::from_secs(2);
/// Maximum size of the password's file.
const LONGEST_PASSWORD: u64 = 4096;

/// Returns a connection to the primary that is ready for use, or in words why there is none.
pub(super) async fn connect(settings: &Settings, dialer: &Dialer) -> Result<Wire, String> {
    let password = settings.password_file.as_deref().map(password_in).transpose()?;
    match &settings.place {
        Place::Server(host) => within(open(settings, dialer, host, password.as_deref())).await,
        Place::Sentinel { sentinels, service } => {
            let mut why = String::new();
            for sentinel in sentinels {
                let Host { name, port } = sentinel;
                let found = within(primary(dialer, sentinel, service, password.as_deref())).await;
                let opened = match found {
                    Ok(primary) => within(open(settings, dialer, &primary, password.as_deref()))
                        .await
                        .map_err(|error| format!("the primary {}:{}: {error}", primary.name, primary.port)),
                    Err(error) => Err(format!("the Sentinel {name}:{port}: {error}")),
                };
                match opened {
                    Ok(wire) => return Ok(wire),
                    Err(error) => why = error,
                }
            }
            Err(why)
        }
    }
}

async fn within<T>(doing: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(PATIENCE, doing)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
}

/// Asks a Sentinel where the primary is. Sentinels that want a password have the same one.
async fn primary(dialer: &Dialer, at: &Host, service: &str, password: Option<&str>) -> Result<Host, String> {
    let stream = dialer.dial(&at.name, at.port).await.map_err(|error| error.to_string())?;
    let mut wire = Wire::new(stream);
    let words: [&[u8]; 3] = [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service.as_bytes()];
    let mut answer = wire.ask(&words).await.map_err(|error| error.to_string())?;
    if let (Some("NOAUTH"), Some(password)) = (answer.error_code(), password) {
        expect(&mut wire, &[b"AUTH", password.as_bytes()]).await?;
        answer = wire.ask(&words).await.map_err(|error| error.to_string())?;
    }
    let address = match &answer {
        Reply::List(parts) => match parts.as_slice() {
            [name, port] => name.text().zip(port.text().and_then(|port| port.parse().ok())),
            _ => None,
        },
        Reply::Nothing => return Err(format!("it does not know the primary {service:?}")),
        Reply::Error(error) => return Err(shown(error)),
        _ => None,
    };
    let (name, port) = address.ok_or("its answer is not understood")?;
    Ok(Host { name: name.to_owned(), port })
}

async fn open(
    settings: &Settings,
    dialer: &Dialer,
    at: &Host,
    password: Option<&str>,
) -> Result<Wire, String> {
    let stream = dialer.dial(&at.name, at.port).await.map_err(|error| error.to_string())?;
    let mut wire = Wire::new(stream);
    match (&settings.user, password) {
        (Some(user), Some(password)) => {
            expect(&mut wire, &[b"AUTH", user.as_bytes(), password.as_bytes()]).await?;
        }
        (None, Some(password)) => expect(&mut wire, &[b"AUTH", password.as_bytes()]).await?,
        (_, None) => {}
    }
    // For people who list the connections; the user may lack the right.
    let named = wire.ask(&[b"CLIENT", b"SETNAME", b"proxyrunner"]).await;
    named.map_err(|error| error.to_string())?;
    if settings.database != 0 {
        expect(&mut wire, &[b"SELECT", settings.database.to_string().as_bytes()]).await?;
    }
    if matches!(settings.place, Place::Sentinel { .. }) {
        // A Sentinel may not have noticed yet that this one is a replica now. The user may lack the right to ask.
        let role = wire.ask(&[b"ROLE"]).await.map_err(|error| error.to_string())?;
        if let Reply::List(parts) = &role
            && parts.first().and_then(Reply::text) != Some("master")
        {
            return Err("it is a replica".to_owned());
        }
    }
    // One that is loading its data refuses commands.
    expect(&mut wire, &[b"PING"]).await?;
    Ok(wire)
}

/// Sends a command whose reply may be no error.
async fn expect(wire: &mut Wire, words: &[&[u8]]) -> Result<(), String> {
    match wire.ask(words).await.map_err(|error| error.to_string())? {
        Reply::Error(error) => Err(shown(&error)),
        _ => Ok(()),
    }
}

/// Returns an error of Redis as one short line. No command that could be repeated in it contains the password.
pub(super) fn shown(error: &str) -> String {
    format!("it answered {:.200}", error.escape_debug().to_string())
}

/// Reads the password, which may change while proxyrunner runs. Line breaks at the end do not belong to it.
fn password_in(path: &Path) -> Result<String, String> {
    let failed = |why: &str| format!("cannot read {}: {why} (--redis-password-file)", path.display());
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed(&error.to_string()))?;
    file.take(LONGEST_PASSWORD).read_to_string(&mut text).map_err(|error| failed(&error.to_string()))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() { Err(failed("it is empty")) } else { Ok(password.to_owned()) }
}
