//! Replicas by DNS: every address of a name is one. A headless Service has the addresses of its ready pods. The records of
//! a service (SRV), whose name begins with `_`, say ports and weights, too.

use super::replica::Endpoint;
use crate::outbound::{ServiceHost, resolve, services};
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

/// An address at which a server listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    address: IpAddr,
    /// The host of a service, if that was looked up.
    service: Option<ServiceHost>,
}

impl Place {
    fn endpoint(&self, named: &Endpoint) -> Option<Endpoint> {
        let Some(ServiceHost { host, port, weight, .. }) = &self.service else {
            return named.at(self.address);
        };
        named.of_service(host, *port, *weight)?.at(self.address)
    }
}

/// Looks up where the replicas of a name are.
///
/// # Errors
/// As [`resolve`] and [`services`].
pub(super) async fn places(name: &str) -> io::Result<Vec<Place>> {
    if !name.starts_with('_') {
        let found = resolve(name).await?;
        return Ok(found.into_iter().map(|address| Place { address, service: None }).collect());
    }
    hosts(services(name).await?, |host| async move { resolve(&host).await }).await
}

/// Looks up the hosts of a service that are to be used first. Those without an address are left out.
async fn hosts<F>(mut all: Vec<ServiceHost>, resolve: impl Fn(String) -> F) -> io::Result<Vec<Place>>
where
    F: Future<Output = io::Result<Vec<IpAddr>>>,
{
    let first = all.iter().map(|service| service.priority).min();
    all.retain(|service| Some(service.priority) == first && !service.host.is_empty());
    all.truncate(MOST);
    let mut places = Vec::with_capacity(all.len());
    for service in all {
        match resolve(service.host.clone()).await {
            Ok(addresses) => {
                let at = |address| Place { address, service: Some(service.clone()) };
                places.extend(addresses.into_iter().map(at));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(places)
}

/// Looks a name up for as long as the task runs, and tells each new set of replicas. A look-up that fails keeps the
/// previous set; a name without addresses has no replicas.
pub(super) async fn follow<F>(
    endpoint: &Endpoint,
    look_up: impl Fn(String) -> F,
    mut found: impl FnMut(Vec<Endpoint>),
) where
    F: Future<Output = io::Result<Vec<Place>>>,
{
    let name = endpoint.url().host().unwrap_or_default().to_owned();
    let (mut known, mut failure) = (None, None);
    loop {
        let answer = timeout(LONGEST, look_up(name.clone())).await;
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
            places => {
                failure = None;
                let places = bounded(places.unwrap_or_default(), &name);
                if known.as_ref() != Some(&places) {
                    tracing::info!(name, replicas = places.len(), "the replicas of a server have changed");
                    found(places.iter().filter_map(|place| place.endpoint(endpoint)).collect());
                    known = Some(places);
                }
            }
        }
        sleep(PERIOD).await;
    }
}

/// Puts places in order, since name servers shuffle them, and leaves out those beyond the maximum.
fn bounded(places: Vec<Place>, name: &str) -> Vec<Place> {
    let mut places = sorted(places);
    places.dedup();
    if places.len() > MOST {
        tracing::warn!(name, addresses = places.len(), "only 256 replicas of a server are used");
        places.truncate(MOST);
    }
    places
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
                    Some(answer) => answer.map_err(io::Error::from).map(|found| {
                        found.into_iter().map(|address| Place { address, service: None }).collect()
                    }),
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

    fn service(priority: u16, weight: u16, host: &str) -> ServiceHost {
        ServiceHost { priority, weight, port: 8000 + weight, host: host.to_owned() }
    }

    #[tokio::test]
    async fn a_service_has_ports_and_weights_and_its_first_hosts_are_used() {
        let endpoint = Endpoint::parse("http://_mcp._tcp.many.svc/mcp").expect("a URL");
        let all = vec![
            service(1, 5, "a.many.svc"),
            service(2, 5, "spare.many.svc"),
            service(1, 0, "b.many.svc"),
            service(1, 7, "gone.many.svc"),
            service(1, 1, ""),
        ];
        let resolve = |host: String| async move {
            match &*host {
                "a.many.svc" => Ok(vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([7; 16])]),
                "b.many.svc" => Ok(vec![IpAddr::from([10, 0, 0, 2])]),
                "gone.many.svc" => Err(io::ErrorKind::NotFound.into()),
                other => panic!("{other} is not used"),
            }
        };
        let places = hosts(all.clone(), resolve).await.expect("places");
        let endpoints = places.iter().map(|place| place.endpoint(&endpoint).expect("an endpoint"));
        let shown = endpoints.map(|found| {
            format!("{} {} {}", found.address(), found.url().path(), found.host().to_str().expect("text"))
        });
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                "10.0.0.1:8005 /mcp a.many.svc:8005",
                "[707:707:707:707:707:707:707:707]:8005 /mcp a.many.svc:8005",
                "10.0.0.2:8000 /mcp b.many.svc:8000"
            ]
        );
        let fails = |_: String| async { Err(io::ErrorKind::TimedOut.into()) };
        assert!(hosts(all, fails).await.is_err(), "the previous set stays");
    }
}
