//! The least that a gateway can cost: hyper in front, hyper's client behind, with nothing in between; and how much more
//! proxyrunner's gateway costs, both in front of the floor.

use super::gateways;
use super::job::{Era, Job, Sample, Shape, Target, median};
use super::measure::generate;
use super::paths;
use super::subjects::{Running, Subject, free_address};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::Command;
use tokio::net::TcpListener;

/// Seconds for which other gateways are measured at least.
const LEAST: f64 = 5.0;

/// Passes all requests to an address, for ever.
pub fn run(address: SocketAddr, to: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let listener = TcpListener::bind(address).await.expect("a free address");
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
        tokio::spawn(accept(listener, client, to)).await.expect("no panic");
    });
}

async fn accept(listener: TcpListener, client: Client<HttpConnector, Incoming>, to: SocketAddr) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let client = client.clone();
        tokio::spawn(async move {
            let service = service_fn(|mut request: Request<Incoming>| {
                let url = format!("http://{to}{}", request.uri().path());
                *request.uri_mut() = url.parse::<Uri>().expect("a URL");
                client.request(request)
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn once(front: &str, shape: Shape, seconds: f64) -> Result<Sample, String> {
    let floor = Subject::Floor.start(shape.era, &[])?;
    let behind = floor.target.address;
    let started = match front {
        "nothing" => None,
        "relay" => Some(relay(behind)?),
        "gateway" => Some(gateway(behind)?),
        other => Some(gateways::start(other, behind)?),
    };
    let target = started.as_ref().map_or(&floor.target, |running| &running.target);
    generate(&Job::new(Some(target.clone()), shape, seconds))
}

fn relay(behind: SocketAddr) -> Result<Running, String> {
    let address = free_address();
    let mut command = Command::new(paths::own());
    command.args(["relay", "--listen", &address.to_string(), "--to", &behind.to_string()]);
    Subject::Floor.launch(command, address)
}

fn gateway(behind: SocketAddr) -> Result<Running, String> {
    let file = paths::log("gateway").with_extension("json");
    let servers = json!({"mcpServers": {"s": {"url": format!("http://{behind}/mcp")}}});
    std::fs::write(&file, servers.to_string()).map_err(|error| format!("servers: {error}"))?;
    let address = free_address();
    let mut command = Command::new(paths::proxyrunner());
    command.env_remove("PROXYRUNNER_BIN").arg("gateway").arg("--servers").arg(file);
    command.args(["--listen", &address.to_string()]);
    let mut running = Subject::Proxyrunner.launch(command, address)?;
    running.target = Target { path: "/servers/s/mcp".to_owned(), ..running.target.clone() };
    Ok(running)
}

/// Measures one call at a time, and many, in interleaved rounds. Prints what the fronts add, and returns the medians. With
/// `others`, other gateways are measured afterwards, once.
pub fn report(rounds: usize, seconds: f64, others: bool) -> Value {
    let mut found = json!({});
    for (sessions, concurrency) in [(1, 1), (32, 8)] {
        let name = format!("{sessions}x{concurrency}");
        let (mut added, mut cpu, mut relayed) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let shape = Shape { era: Era::Legacy, sessions, concurrency, size: 200, progress: 0 };
            let of = |front| once(front, shape, seconds).unwrap_or_else(|error| panic!("{front}: {error}"));
            let (nothing, relay, gateway) = (of("nothing"), of("relay"), of("gateway"));
            cpu.push(gateway.cpu);
            relayed.push(relay.cpu);
            added.push((gateway.p50 - nothing.p50) / (relay.p50 - nothing.p50));
            println!(
                "{name}: p50 {:.0} us without, {:.0} with the relay, {:.0} with the gateway; CPU of the relay {:.1} us, of the gateway {:.1} us",
                nothing.p50, relay.p50, gateway.p50, relay.cpu, gateway.cpu
            );
        }
        let cpu = median(cpu);
        found[&name] = json!({
            "added p50, relay = 1": median(added), "CPU of the relay, us": median(relayed), "CPU, us": cpu,
        });
        for other in gateways::NAMES.into_iter().filter(|_| others) {
            // One session: some do not get far with 256 calls in flight.
            let shape = Shape { era: Era::Legacy, sessions: 1, concurrency, size: 200, progress: 0 };
            match once(other, shape, seconds.max(LEAST)) {
                Ok(sample) => {
                    println!(
                        "1x{concurrency}: p50 {:.0} us with {other}, whose CPU takes {:.1} us",
                        sample.p50, sample.cpu
                    );
                    found[&name][other] =
                        json!({"CPU, us": sample.cpu, "CPU, proxyrunner = 1": sample.cpu / cpu});
                }
                Err(error) => println!("1x{concurrency}: {other} fails: {error}"),
            }
        }
    }
    found
}
