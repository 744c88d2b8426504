//! `/etc/hosts` (hosts(5)) and `/etc/resolv.conf` (resolv.conf(5)).

use crate::sorted::sorted_by_key;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

pub(super) const HOSTS: &str = "/etc/hosts";
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";

const PORT: u16 = 53;
/// The limits of glibc.
const MOST_NDOTS: usize = 15;
const MOST_SECONDS: u64 = 30;
const MOST_ATTEMPTS: usize = 5;

/// How to ask name servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// The name servers, in the order in which they are asked.
    pub servers: Vec<SocketAddr>,
    /// Domains that are appended to names.
    pub search: Vec<String>,
    /// Minimum number of dots in a name that is tried without a domain first.
    pub ndots: usize,
    /// Timeout of one question to one server.
    pub timeout: Duration,
    /// Number of times that each server is asked.
    pub attempts: usize,
    /// Whether to start with a random server.
    pub rotate: bool,
    /// Whether to ask over TCP only.
    pub tcp: bool,
}

impl Settings {
    /// Reads the lines of `resolv.conf`. Without a search list, `domain` is searched.
    pub(super) fn parse(text: &str, domain: Option<&str>) -> Self {
        let mut settings = Settings {
            servers: Vec::new(),
            search: domain.map(str::to_owned).into_iter().collect(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            tcp: false,
        };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => settings.servers.extend(words.next().and_then(server)),
                Some("domain") => settings.search = words.take(1).map(domain_of).collect(),
                Some("search") => settings.search = words.map(domain_of).collect(),
                Some("options") => words.for_each(|word| settings.set(word)),
                _ => {}
            }
        }
        settings.search.retain(|domain| !domain.is_empty());
        if settings.servers.is_empty() {
            settings.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        settings
    }

    fn set(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        match (name, value.parse::<usize>()) {
            ("ndots", Ok(dots)) => self.ndots = dots.min(MOST_NDOTS),
            ("timeout", Ok(seconds)) => {
                self.timeout = Duration::from_secs((seconds as u64).clamp(1, MOST_SECONDS));
            }
            ("attempts", Ok(times)) => self.attempts = times.clamp(1, MOST_ATTEMPTS),
            ("rotate", _) => self.rotate = true,
            ("use-vc" | "usevc", _) => self.tcp = true,
            _ => {}
        }
    }

    /// Returns the names to ask for, in order.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut names: Vec<_> = self.search.iter().map(|domain| format!("{name}.{domain}")).collect();
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        names.insert(if dots >= self.ndots { 0 } else { names.len() }, name.to_owned());
        names
    }
}

fn domain_of(word: &str) -> String {
    word.trim_end_matches('.').to_owned()
}

/// Reads the address of a name server. A link-local one names its interface: `fe80::1%eth0`.
fn server(word: &str) -> Option<SocketAddr> {
    let Some((address, interface)) = word.split_once('%') else {
        return Some(SocketAddr::new(word.parse().ok()?, PORT));
    };
    let index = interface.parse().ok().or_else(|| {
        let is_name = !interface.contains('/');
        let index = is_name.then(|| fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).ok());
        index??.trim().parse().ok()
    })?;
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, index).into())
}

/// Returns the addresses of a name in the lines of `hosts`, IPv4 first.
pub(super) fn in_hosts(name: &str, hosts: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let of_line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    };
    sorted_by_key(hosts.lines().filter_map(of_line).collect(), IpAddr::is_ipv6)
}

/// Reads a file. An image may lack it, which is the same as an empty one.
pub(super) fn read(path: &str) -> io::Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
    }
}

/// Returns the domain of this host's own name.
pub(super) fn own_domain() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(domain_of(name.trim().split_once('.')?.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_s_file_is_read() {
        let text = "# a comment\nnameserver 10.96.0.10\nnameserver fe80::1%7\nnameserver nonsense\n\
                    search shop.svc.cluster.local svc.cluster.local. cluster.local\n\
                    options ndots:5 timeout:2 attempts:99 rotate use-vc edns0 ndots:x\n";
        let settings = Settings::parse(text, Some("ignored"));
        let scoped = SocketAddrV6::new("fe80::1".parse().expect("an address"), 53, 0, 7);
        assert_eq!(
            settings,
            Settings {
                servers: vec!["10.96.0.10:53".parse().expect("an address"), scoped.into()],
                search: ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"]
                    .map(String::from)
                    .into(),
                ndots: 5,
                timeout: Duration::from_secs(2),
                attempts: 5,
                rotate: true,
                tcp: true,
            }
        );
        assert_eq!(
            settings.candidates("otel.obs"),
            [
                "otel.obs.shop.svc.cluster.local",
                "otel.obs.svc.cluster.local",
                "otel.obs.cluster.local",
                "otel.obs"
            ]
        );
        assert_eq!(settings.candidates("otel.obs."), ["otel.obs"]);
    }

    #[test]
    fn an_empty_file_means_this_host_and_its_domain() {
        let settings = Settings::parse("", Some("example.org"));
        assert_eq!(settings.servers, ["127.0.0.1:53".parse().expect("an address")]);
        assert_eq!(settings.candidates("a.b"), ["a.b", "a.b.example.org"]);
        assert_eq!(settings.candidates("a"), ["a.example.org", "a"]);
        assert_eq!(Settings::parse("search a b\ndomain c\n", None).search, ["c"]);
        assert_eq!(Settings::parse("search .\n", None).candidates("a"), ["a"]);
    }

    #[test]
    fn hosts_name_addresses_of_both_families() {
        let hosts =
            "127.0.0.1 localhost\n::1 one two # three\n10.0.0.1\tOne\nnonsense one\n\n# 10.0.0.2 one\n";
        let of = |name| in_hosts(name, hosts);
        assert_eq!(of("one"), ["10.0.0.1".parse::<IpAddr>().expect("v4"), "::1".parse().expect("v6")]);
        assert_eq!(of("TWO."), ["::1".parse::<IpAddr>().expect("v6")]);
        assert!(of("three").is_empty() && of("on").is_empty() && of("").is_empty());
    }
}
