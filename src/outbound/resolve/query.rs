//! Asks name servers, over UDP, and over TCP where an answer does not fit into a datagram.

use super::files::Settings;
use super::message::{self, Answer, Kind, Record};
#[cfg(feature = "gateway")]
use super::service::ServiceHost;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Maximum size of a datagram: questions do not offer to take more (RFC 6891).
const DATAGRAM: usize = 512;

/// Returns the addresses of a name, IPv4 first.
pub(super) async fn look_up(name: &str, settings: &Settings) -> io::Result<Vec<IpAddr>> {
    let mut failure = None;
    for candidate in settings.candidates(name) {
        let (v4, v6) =
            tokio::join!(ask(&candidate, Kind::A, settings), ask(&candidate, Kind::Aaaa, settings));
        let mut found = Vec::new();
        for records in [v4, v6] {
            match records {
                Ok(records) => found.extend(records.into_iter().filter_map(Record::address)),
                Err(error) => failure = Some(error),
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        // Servers that do not answer would not answer for another domain either.
        if failure.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            break;
        }
    }
    Err(failure.unwrap_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("no address is known for {name}"))
    }))
}

/// Returns the hosts of a service.
#[cfg(feature = "gateway")]
pub(super) async fn services(name: &str, settings: &Settings) -> io::Result<Vec<ServiceHost>> {
    let mut answer = Ok(Vec::new());
    for candidate in settings.candidates(name) {
        answer = ask(&candidate, Kind::Srv, settings).await;
        match &answer {
            Ok(records) if records.is_empty() => {}
            _ => break,
        }
    }
    let found: Vec<_> = answer?.into_iter().filter_map(Record::service).collect();
    match found.is_empty() {
        true => {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("no host is known for the service {name}")))
        }
        false => Ok(found),
    }
}

/// Asks one server after another, until one answers.
async fn ask(name: &str, kind: Kind, settings: &Settings) -> io::Result<Vec<Record>> {
    let id = getrandom::u32().map_err(io::Error::other)? as u16;
    let question = message::question(id, name, kind)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is not a host name")))?;
    let count = settings.servers.len();
    let first = if settings.rotate { fastrand::usize(..count) } else { 0 };
    let mut failure = io::Error::from(io::ErrorKind::TimedOut);
    for turn in 0..count * settings.attempts {
        let server = settings.servers[(first + turn) % count];
        let answer = timeout(settings.timeout, exchange(server, &question, settings.tcp)).await;
        failure = match answer {
            Ok(Ok(Answer::Records(found))) => return Ok(found),
            Ok(Ok(Answer::NoName)) => return Ok(Vec::new()),
            Ok(Ok(Answer::Refused(code))) => {
                io::Error::other(format!("the name server {server} failed with code {code} for {name}"))
            }
            Ok(Ok(Answer::Truncated)) => io::ErrorKind::InvalidData.into(),
            Ok(Err(error)) => io::Error::new(error.kind(), format!("the name server {server}: {error}")),
            Err(_) => {
                io::Error::new(io::ErrorKind::TimedOut, format!("the name server {server} did not answer"))
            }
        };
    }
    Err(failure)
}

async fn exchange(server: SocketAddr, question: &[u8], tcp: bool) -> io::Result<Answer> {
    if !tcp {
        let answer = over_udp(server, question).await?;
        if answer != Answer::Truncated {
            return Ok(answer);
        }
    }
    over_tcp(server, question).await
}

async fn over_udp(server: SocketAddr, question: &[u8]) -> io::Result<Answer> {
    let any = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A socket of its own, since its random port makes answers hard to forge (RFC 5452 §9.2).
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut datagram = [0; DATAGRAM];
    loop {
        let length = socket.recv(&mut datagram).await?;
        if let Some(answer) = message::answer(&datagram[..length], question) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    message::answer(&answer, question).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::reply;
    use super::*;
    use std::time::Duration;
    use tokio::net::TcpListener;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    fn settings(servers: &[SocketAddr]) -> Settings {
        let mut settings = Settings::parse("search one two\noptions ndots:2", None);
        settings.servers = servers.to_vec();
        settings
    }

    /// Starts a name server, which sends what `replies` makes of each question.
    async fn server(replies: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        let address = socket.local_addr().expect("an address");
        tokio::spawn(async move {
            let mut question = [0; DATAGRAM];
            while let Ok((length, peer)) = socket.recv_from(&mut question).await {
                for reply in replies(&question[..length]) {
                    let _ = socket.send_to(&reply, peer).await;
                }
            }
        });
        address
    }

    fn is_for(question: &[u8], name: &str) -> bool {
        message::question(0, name, Kind::A)
            .is_some_and(|asked| question[12..question.len() - 4] == asked[12..asked.len() - 4])
    }

    #[tokio::test]
    async fn search_domains_are_tried_in_order() {
        let server = server(|question| {
            let code = if is_for(question, "a.two") { 0 } else { 3 };
            vec![reply(question, code, if code == 0 { &[ADDRESS] } else { &[] })]
        });
        let settings = settings(&[server.await]);
        assert_eq!(look_up("a", &settings).await.expect("an address"), [ADDRESS]);
        let failure = look_up("b", &settings).await.expect_err("unknown");
        assert_eq!(failure.kind(), io::ErrorKind::NotFound);
        assert!(look_up("not..a.name", &settings).await.is_err());
    }

    #[tokio::test]
    async fn the_next_server_is_asked_when_one_fails() {
        let failing = server(|question| vec![reply(question, 2, &[])]).await;
        let absent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        let closed = absent.local_addr().expect("an address");
        drop(absent);
        let silent = server(|_| Vec::new()).await;
        let good = server(|question| vec![reply(question, 0, &[ADDRESS])]).await;
        let mut settings = settings(&[failing, closed, silent, good]);
        settings.timeout = Duration::from_millis(200);
        assert_eq!(look_up("a", &settings).await.expect("an address"), [ADDRESS]);
        settings.servers.truncate(3);
        settings.servers.remove(0);
        settings.attempts = 1;
        let failure = look_up("a", &settings).await.expect_err("no server");
        assert_eq!(failure.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn forged_answers_are_ignored() {
        let server = server(|question| {
            let mut forged = reply(question, 3, &[]);
            forged[0] ^= 1;
            vec![forged, b"nonsense".to_vec(), Vec::new(), reply(question, 0, &[ADDRESS])]
        });
        assert_eq!(look_up("a", &settings(&[server.await])).await.expect("an address"), [ADDRESS]);
    }

    #[tokio::test]
    async fn a_long_answer_comes_over_tcp() {
        let many: Vec<_> = (0..100).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        let server = server(|question| {
            let mut cut = reply(question, 0, &[]);
            cut[2] |= 2;
            vec![cut]
        })
        .await;
        let listener = TcpListener::bind(server).await.expect("a listener");
        let found = many.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut question = vec![0; stream.read_u16().await.expect("a length").into()];
                stream.read_exact(&mut question).await.expect("a question");
                let reply = reply(&question, 0, &found);
                stream.write_u16(u16::try_from(reply.len()).expect("short")).await.expect("sent");
                stream.write_all(&reply).await.expect("sent");
            }
        });
        let mut settings = settings(&[server]);
        assert_eq!(look_up("a", &settings).await.expect("addresses"), many);
        settings.tcp = true;
        assert_eq!(look_up("a", &settings).await.expect("addresses"), many);
    }
}
