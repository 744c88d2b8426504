//! The events that end a connection: at once, or between two requests.

use crate::telemetry::unix_nanos;
use crate::tls::Peer;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Time in which requests and streams of a client end whose certificate is not valid any more.
const GRACE: Duration = Duration::from_secs(5 * 60);

/// What ends a connection once its requests in progress are answered.
pub struct Ending {
    /// The shutdown.
    closing: CancellationToken,
    /// The end of the validity of the client's certificate, if it presented one.
    certificate: Option<Validity>,
}

/// The validity of a client's certificate.
#[derive(Clone)]
struct Validity {
    /// Cancelled once the authorities change.
    authorities: CancellationToken,
    /// The end of its period, in seconds since the Unix epoch.
    expires: u64,
}

impl Ending {
    /// Returns what ends a connection of a client with this certificate, if any.
    pub fn new(
        closing: CancellationToken,
        authorities: Option<CancellationToken>,
        certificate: Option<&Peer>,
    ) -> Self {
        let certificate = authorities
            .zip(certificate)
            .map(|(authorities, peer)| Validity { authorities, expires: peer.expires });
        Ending { closing, certificate }
    }

    /// Resolves when the connection must end.
    pub async fn comes(&self) {
        let Some(validity) = &self.certificate else { return self.closing.cancelled().await };
        // Boxed, since few clients have a certificate.
        Box::pin(async {
            tokio::select! {
                () = self.closing.cancelled() => {}
                () = validity.ends() => {}
            }
        })
        .await;
    }

    /// Returns what resolves when the connection must end with all of its requests; `None` if nothing does.
    pub fn overdue(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let validity = self.certificate.clone()?;
        Some(async move {
            validity.ends().await;
            sleep(GRACE).await;
        })
    }
}

impl Validity {
    async fn ends(&self) {
        let left = Duration::from_secs(self.expires).saturating_sub(Duration::from_nanos(unix_nanos()));
        tokio::select! {
            () = self.authorities.cancelled() => {
                tracing::debug!("connection closes: --tls-client-ca has changed");
            }
            () = sleep(left) => tracing::debug!("connection closes: the client's certificate has expired"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, timeout};

    const HOUR: Duration = Duration::from_secs(3_600);

    fn ending(authorities: &CancellationToken, expires_in: Duration) -> Ending {
        let expires = Duration::from_nanos(unix_nanos()) + expires_in;
        let peer = Peer { name: None, certificate_sha256: [0; 32], expires: expires.as_secs() };
        Ending::new(CancellationToken::new(), Some(authorities.clone()), Some(&peer))
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_with_its_certificate_and_its_requests_a_moment_later() {
        let authorities = CancellationToken::new();
        let expiring = ending(&authorities, HOUR);
        let begun = Instant::now();
        expiring.comes().await;
        assert!(begun.elapsed() > HOUR - Duration::from_secs(2) && begun.elapsed() <= HOUR + GRACE);
        let lasting = ending(&authorities, 100 * HOUR);
        assert!(timeout(HOUR, lasting.comes()).await.is_err());
        authorities.cancel();
        lasting.comes().await;
        let begun = Instant::now();
        lasting.overdue().unwrap().await;
        assert!(begun.elapsed() >= GRACE);
        assert!(Ending::new(CancellationToken::new(), None, None).overdue().is_none());
    }
}
