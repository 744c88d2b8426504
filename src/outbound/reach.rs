//! The addresses that a request may go to. An address in somebody else's document must not lead into the operator's own
//! network (server-side request forgery).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that a client may connect to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Every address.
    #[default]
    Anywhere,
    /// Addresses of the internet only.
    Public,
    /// Those of the internet and of the operator's networks, except where [no server](never) can be, and of this host.
    #[cfg(feature = "gateway")]
    Network,
    /// Those of the network, and loopback addresses.
    #[cfg(feature = "gateway")]
    Host,
}

/// Addresses at which clouds tell a machine its secrets, besides link-local ones.
#[cfg(feature = "gateway")]
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(AZURE),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];
/// A cloud's metadata service at an address that looks like one of the internet.
const AZURE: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

impl Reach {
    /// Returns whether an address may be connected to.
    pub(crate) fn includes(self, address: IpAddr) -> bool {
        match self {
            Reach::Anywhere => true,
            Reach::Public => !is_private(address),
            #[cfg(feature = "gateway")]
            Reach::Network if address.to_canonical().is_loopback() => false,
            #[cfg(feature = "gateway")]
            Reach::Network | Reach::Host => !is_private(address) || never(address).is_none(),
        }
    }
}

/// Returns the kind of an address at which no server can be.
#[cfg(feature = "gateway")]
pub(crate) fn never(address: IpAddr) -> Option<&'static str> {
    let address = address.to_canonical();
    if METADATA.contains(&address) {
        return Some("the address of a cloud's metadata service");
    }
    if address.is_unspecified() {
        return Some("the unspecified address");
    }
    if address.is_multicast() {
        return Some("a multicast address");
    }
    match address {
        IpAddr::V4(address) if address.is_link_local() => Some("a link-local address"),
        // Among the latter ones is a cloud's metadata service.
        IpAddr::V4(address) if matches!(address.octets(), [0 | 240.., ..] | [192, 0, 0, _]) => {
            Some("a reserved address")
        }
        IpAddr::V4(_) => None,
        IpAddr::V6(address) if address.is_unicast_link_local() => Some("a link-local address"),
        // Addresses that stand for IPv4 addresses would evade the checks of those.
        IpAddr::V6(address) => match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 1] => None,
            [0, 0, 0, 0, 0, 0, ..] | [0x64, 0xff9b, ..] | [0x2002, ..] | [0x2001, 0, ..] => {
                Some("an address that stands for an IPv4 address")
            }
            _ => None,
        },
    }
}

/// Returns whether an address is not one of the internet: loopback, private, link-local, shared, reserved, multicast, a
/// metadata service, or an IPv6 address that stands for such an IPv4 address.
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => is_private_v6(address),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    matches!(
        (a, b, c),
        (0 | 10 | 127 | 224.., ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    ) || address == AZURE
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, ..] = address.segments();
    let [.., w, x, y, z] = address.octets();
    let last = || is_private_v4(Ipv4Addr::new(w, x, y, z));
    match (a, b) {
        // Mapped, translated and compatible addresses carry IPv4 addresses; `::` and `::1` are among the last.
        (0, 0) => !matches!(address.to_ipv4_mapped(), Some(address) if !is_private_v4(address)),
        (0x64, 0xff9b) => c != 0 || last(),
        (0x2002, _) => {
            let [_, _, w, x, y, z, ..] = address.octets();
            is_private_v4(Ipv4Addr::new(w, x, y, z))
        }
        // Teredo, benchmarks, ORCHID and documentation.
        (0x2001, 0..=0x1ff | 0xdb8) | (0x3fff, 0..=0xfff) => true,
        // Only 2000::/3 is assigned to the internet.
        (a, _) => a & 0xe000 != 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_told_from_those_of_the_internet() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "168.63.129.16",
            "64:ff9b::a83f:8110",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:a00:1::",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "fec0::1",
            "2001:db8::1",
            "2001::1",
            "::10.0.0.1",
            "::8.8.8.8",
        ] {
            let address: IpAddr = private.parse().expect("an address");
            assert!(is_private(address), "{private}");
            assert!(!Reach::Public.includes(address), "{private}");
            assert!(Reach::Anywhere.includes(address), "{private}");
        }
        for public in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "1.1.1.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "2a00:1450::1",
        ] {
            assert!(Reach::Public.includes(public.parse().expect("an address")), "{public}");
        }
    }
}
