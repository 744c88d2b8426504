//! Replicas by DNS: every address of a name is one. A headless Service has the addresses of its ready pods.

use super::replica::Endpoint;
use crate::sorted::sorted;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Interval between two look-ups.
const PERIOD: Duration = Duration::from_secs(5);
/// Maximum time of a look-up.
const LONGEST: Duration = Duration::from_secs(30);
/// Maximum number of replicas.
const MOST: usize = 256;

/// Looks a name up for as long as the task runs, and tells each new set of replicas. A look-up that fails keeps the
/// previous set; a name without addresses has no replicas.
pub(super) async fn follow<F>(
    endpoint: &Endpoint,
    resolve: impl Fn(String) -> F,
    mut found: impl FnMut(Vec<Endpoint>),
) where
    F: Future<Output = io::Result<Vec<IpAddr>>>,
{
    let name = endpoint.url().host().unwrap_or_default().to_owned();
    let (mut known, mut failure) = (None, None);
    loop {
        let answer = timeout(LONGEST, resolve(name.clone())).await;
        match answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let error = error.to_string();
                if failure.as_ref() != Some(&error) {
                    tracing::warn!(
                        name,
                        "cannot look up the replicas of a server; the previous ones stay: {error}"
                    );
                }
                failure = Some(error);
            }
            addresses => {
                failure = None;
                let addresses = bounded(addresses.unwrap_or_default(), &name);
                if known.as_ref() != Some(&addresses) {
                    tracing::info!(name, replicas = addresses.len(), "the replicas of a server have changed");
                    found(addresses.iter().filter_map(|address| endpoint.at(*address)).collect());
                    known = Some(addresses);
                }
            }
        }
        sleep(PERIOD).await;
    }
}

/// Puts addresses in order, since name servers shuffle them, and leaves out those beyond the maximum.
fn bounded(addresses: Vec<IpAddr>, name: &str) -> Vec<IpAddr> {
    let mut addresses = sorted(addresses);
    addresses.dedup();
    if addresses.len() > MOST {
        tracing::warn!(name, addresses = addresses.len(), "only 256 replicas of a server are used");
        addresses.truncate(MOST);
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::collections::VecDeque;

    type Answer = Result<Vec<IpAddr>, io::ErrorKind>;

    /// Returns the sets that are told while these answers come, one each 5 s.
    async fn told(answers: Vec<Answer>) -> Vec<Vec<String>> {
        let answers = Mutex::new(VecDeque::from(answers));
        let endpoint = Endpoint::parse("http://Many.svc:8080/mcp").expect("a URL");
        let mut told = Vec::new();
        let resolve = |name: String| {
            assert_eq!(name, "many.svc");
            let answer = answers.lock().pop_front();
            async move {
                match answer {
                    Some(answer) => answer.map_err(io::Error::from),
                    None => std::future::pending().await,
                }
            }
        };
        let found = |replicas: Vec<Endpoint>| {
            assert!(replicas.iter().all(|replica| replica.host() == "Many.svc:8080"));
            told.push(replicas.iter().map(|replica| replica.address().to_owned()).collect());
        };
        let _ = timeout(Duration::from_secs(600), follow(&endpoint, resolve, found)).await;
        assert!(answers.lock().is_empty(), "all are asked for");
        told
    }

    fn at(last: &[u8]) -> Answer {
        Ok(last.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_set_is_told_once_in_order() {
        let v6 = Ok(vec!["::1".parse().expect("an address")]);
        let told = told(vec![at(&[2, 1, 2]), at(&[1, 2]), at(&[1]), v6]).await;
        assert_eq!(told, [vec!["10.0.0.1:8080", "10.0.0.2:8080"], vec!["10.0.0.1:8080"], vec!["[::1]:8080"]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_keeps_the_set_and_an_empty_answer_empties_it() {
        let refused = Err(io::ErrorKind::Other);
        let late = Err(io::ErrorKind::TimedOut);
        let told =
            told(vec![late, at(&[1]), refused, at(&[1]), Err(io::ErrorKind::NotFound), at(&[1])]).await;
        assert_eq!(told, [vec!["10.0.0.1:8080"], vec![], vec!["10.0.0.1:8080"]]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_replicas_is_limited() {
        let many = (0..1_000_u16).map(|at| IpAddr::from([10, 0, at.to_be_bytes()[0], at.to_be_bytes()[1]]));
        let told = told(vec![Ok(many.collect())]).await;
        assert_eq!((told[0].len(), told[0][255].as_str()), (256, "10.0.0.255:8080"));
    }
}
