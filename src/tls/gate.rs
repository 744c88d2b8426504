//! Accepts connections by TLS, and replaces the configuration of new ones when the files change.

use super::Settings;
use super::config::{self, Loaded};
use super::files::{self, Contents, Unusable};
use super::identity::Peer;
use crate::audit;
use crate::mounted::{self, Mounted};
use crate::telemetry::Seldom;
use crate::telemetry::counters::{TLS_EXPIRY, TLS_FAILED_RELOADS, TLS_HANDSHAKES, TLS_RELOADS};
use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use sha2::{Digest, Sha256};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// The settings whose files are reloaded.
const FLAGS: &str = "--tls-cert, --tls-key, --tls-client-ca";

/// Time for a handshake after its first byte.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Bytes that a connection may hold in records that its peer does not read.
const UNSENT: usize = 32 * 1024;

/// The stream of a connection by TLS.
pub type Stream<S> = tokio_rustls::server::TlsStream<S>;

/// The TLS side of a listener.
#[derive(Debug)]
pub struct Gate {
    settings: Settings,
    current: RwLock<Arc<Current>>,
    seen: Mutex<Seen>,
}

/// What new connections get.
#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// Cancelled once `--tls-client-ca` changes.
    authorities: CancellationToken,
}

/// The files as last seen.
#[derive(Debug)]
struct Seen {
    mounted: Mounted,
    in_use: Digests,
    /// Why they could not be used, if so.
    complaint: Option<String>,
}

/// The digests of the certificate with its key, and of the authorities.
#[derive(Debug, PartialEq, Eq)]
struct Digests {
    pair: [u8; 32],
    authorities: Option<[u8; 32]>,
}

/// An accepted connection.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The stream.
    pub stream: Stream<S>,
    /// The identity of its client, if it presented a certificate.
    pub peer: Option<Peer>,
    /// Whether the client speaks HTTP/2.
    pub is_http2: bool,
    /// Cancelled once the authorities change that its client's certificate was verified against.
    pub authorities: CancellationToken,
}

/// The result of a handshake. [`TLS_HANDSHAKES`] counts each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// It was completed.
    Ok,
    /// The client does not speak TLS.
    ClearText,
    /// The client presented no certificate.
    NoCertificate,
    /// The client's certificate was refused.
    BadCertificate,
    /// The client refused, for example because it does not trust the certificate.
    Refused,
    /// There is no common version or algorithm.
    Incompatible,
    /// The client violated the protocol.
    Malformed,
    /// The connection ended.
    Closed,
    /// It was not completed in time.
    Timeout,
}

static FAILURES: Seldom = Seldom::new();

impl Gate {
    /// Loads the files.
    ///
    /// # Errors
    /// The first file that cannot be used, and why.
    pub fn open(settings: Settings) -> Result<Arc<Self>, Unusable> {
        let mut mounted = files::mounted(&settings);
        let contents = Contents::of(&settings, mounted.read())?;
        let Loaded { config, expires } = config::load(&contents, settings.http2)?;
        TLS_EXPIRY.set(expires);
        let current = Current { config, authorities: CancellationToken::new() };
        let seen = Seen { mounted, in_use: Digests::of(&contents), complaint: None };
        Ok(Arc::new(Gate { settings, current: RwLock::new(Arc::new(current)), seen: Mutex::new(seen) }))
    }

    /// Accepts a connection.
    ///
    /// # Errors
    /// When the handshake fails. The client was told why, and the failure is counted and logged.
    pub async fn accept<S>(&self, stream: S, client: IpAddr) -> Result<Accepted<S>, Handshake>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let current = Arc::clone(&self.current.read());
        let acceptor = TlsAcceptor::from(Arc::clone(&current.config));
        let accepting = acceptor.accept_with(stream, |session| session.set_buffer_limit(Some(UNSENT)));
        let accepted = match timeout(HANDSHAKE, accepting).await {
            Ok(Ok(stream)) => self.accepted(stream, &current),
            Ok(Err(error)) => Err((result_of(&error), error.to_string())),
            Err(_) => Err((Handshake::Timeout, format!("not completed within {HANDSHAKE:?}"))),
        };
        match accepted {
            Ok(accepted) => {
                Handshake::Ok.count();
                Ok(accepted)
            }
            Err((result, error)) => {
                result.count();
                result.log(client, &error);
                Err(result)
            }
        }
    }

    fn accepted<S>(&self, stream: Stream<S>, current: &Current) -> Result<Accepted<S>, (Handshake, String)> {
        let session = stream.get_ref().1;
        let presented = session.peer_certificates().and_then(|chain| chain.first());
        let peer = match presented {
            None => None,
            Some(certificate) => match Peer::of(certificate, self.settings.client_name) {
                Some(peer) => Some(peer),
                None => return Err((Handshake::BadCertificate, "its certificate is malformed".to_owned())),
            },
        };
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        Ok(Accepted { stream, peer, is_http2, authorities: current.authorities.clone() })
    }

    /// Looks for changes of the files, as long as the process runs.
    pub async fn watch(self: Arc<Self>) {
        loop {
            sleep(mounted::interval()).await;
            let gate = Arc::clone(&self);
            // A file system can be slow.
            let _ = crate::tasks::block(move || gate.reload()).await;
        }
    }

    /// Uses the files if they have changed and pass all checks. Until then, the ones of before stay in use.
    pub fn reload(&self) {
        let mut seen = self.seen.lock();
        let read = match seen.mounted.poll() {
            Some(read) => read,
            None if seen.complaint.is_none() => return,
            // Files that were refused may become valid without a change, for example once their period begins.
            None => seen.mounted.read(),
        };
        let loaded = Contents::of(&self.settings, read).and_then(|contents| {
            let digests = Digests::of(&contents);
            if digests == seen.in_use {
                return Ok(None);
            }
            config::load(&contents, self.settings.http2).map(|loaded| Some((digests, loaded)))
        });
        match loaded {
            Ok(None) => seen.complaint = None,
            Ok(Some((digests, loaded))) => {
                self.replace(loaded, digests.authorities != seen.in_use.authorities);
                (seen.in_use, seen.complaint) = (digests, None);
            }
            Err(unusable) => {
                TLS_FAILED_RELOADS.increment();
                let complaint = unusable.to_string();
                if seen.complaint.as_ref() != Some(&complaint) {
                    tracing::error!("changed files of TLS are not used; {complaint}");
                    audit::not_reloaded(FLAGS, &complaint);
                }
                seen.complaint = Some(complaint);
            }
        }
    }

    fn replace(&self, loaded: Loaded, changes_authorities: bool) {
        let Loaded { config, expires } = loaded;
        let before = Arc::clone(&self.current.read());
        let authorities =
            if changes_authorities { CancellationToken::new() } else { before.authorities.clone() };
        *self.current.write() = Arc::new(Current { config, authorities });
        if changes_authorities {
            before.authorities.cancel();
        }
        TLS_RELOADS.increment();
        TLS_EXPIRY.set(expires);
        audit::reloaded(FLAGS);
        tracing::info!(expires, "files of TLS have changed; new connections use them");
    }
}

impl Digests {
    fn of(contents: &Contents) -> Self {
        let Contents { certificate, key, client_ca } = contents;
        let pair = Sha256::new()
            .chain_update((certificate.bytes().len() as u64).to_be_bytes())
            .chain_update(certificate.bytes())
            .chain_update(key.bytes());
        let authorities = client_ca.as_ref().map(|file| Sha256::digest(file.bytes()).into());
        Digests { pair: pair.finalize().into(), authorities }
    }
}

impl Handshake {
    /// Counts the result.
    pub fn count(self) {
        TLS_HANDSHAKES.increment(self as usize);
    }

    /// Logs the failure, at most once a minute as a warning, since anybody on the network can cause it.
    pub fn log(self, client: IpAddr, error: &str) {
        // Health checks of load balancers connect and close.
        if self != Handshake::Closed && FAILURES.is_due() {
            tracing::warn!(%client, "TLS handshake failed: {error}; further failures are logged at debug for a minute");
        } else {
            tracing::debug!(%client, "TLS handshake failed: {error}");
        }
    }
}

fn result_of(error: &io::Error) -> Handshake {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        None => Handshake::Closed,
        Some(rustls::Error::NoCertificatesPresented) => Handshake::NoCertificate,
        Some(rustls::Error::InvalidCertificate(_)) => Handshake::BadCertificate,
        Some(rustls::Error::AlertReceived(_)) => Handshake::Refused,
        Some(rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol) => {
            Handshake::Incompatible
        }
        Some(_) => Handshake::Malformed,
    }
}
