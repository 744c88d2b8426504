//! Ranges of IP addresses, such as those of trusted proxies (`--trusted-proxy`).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses, written as in `10.0.0.0/8`; without a length it is one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// The number of leading bits that all addresses share.
    bits: u8,
}

impl Network {
    /// Returns whether an address belongs to the range. An IPv4 address in IPv6 notation counts as the former.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(range), IpAddr::V4(address)) => {
                shares(range.to_bits().into(), address.to_bits().into(), 32 - self.bits)
            }
            (IpAddr::V6(range), IpAddr::V6(address)) => {
                shares(range.to_bits(), address.to_bits(), 128 - self.bits)
            }
            _ => false,
        }
    }

    /// Returns whether all of its addresses are those of this host.
    #[cfg(feature = "gateway")]
    pub(crate) fn is_loopback(&self) -> bool {
        let least = if self.address.is_ipv4() { 8 } else { 128 };
        self.address.is_loopback() && self.bits >= least
    }
}

/// Returns whether two addresses differ at most in their last bits.
fn shares(one: u128, other: u128, free: u8) -> bool {
    free >= 128 || (one ^ other) >> free == 0
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(drop)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().map_err(drop)?,
            Some(_) => return Err(()),
        };
        if bits > most { Err(()) } else { Ok(Network { address, bits }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().expect("a network").contains(address.parse().expect("an address"))
    }

    #[test]
    fn a_network_contains_the_addresses_with_its_leading_bits() {
        for (network, address) in [
            ("10.0.0.0/8", "10.255.0.1"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3", "::ffff:10.1.2.3"),
            ("0.0.0.0/0", "203.0.113.9"),
            ("::/0", "2001:db8::1"),
            ("2001:db8::/33", "2001:db8:7fff::1"),
        ] {
            assert!(contains(network, address), "{network} {address}");
        }
        for (network, address) in [
            ("10.0.0.0/8", "11.0.0.1"),
            ("10.1.2.3", "10.1.2.2"),
            ("::/0", "10.1.2.3"),
            ("2001:db8::/33", "2001:db8:8000::1"),
        ] {
            assert!(!contains(network, address), "{network} {address}");
        }
    }

    #[test]
    fn only_an_address_and_a_length_are_a_network() {
        for bad in
            ["", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0/8", "a/8", "10.0.0.0/+8", "10.0.0.0/8/8", "/8"]
        {
            assert!(bad.parse::<Network>().is_err(), "{bad:?}");
        }
    }
}
