//! Identifies clients: the unit among which every limit is shared.
//!
//! A client is its principal if it has one, else its session, else its address.

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

/// A client's identifier: a hash of its name. Clients whose names have the same hash share their limits, and nothing
/// else. The hash is keyed with a secret of this process, so no client can choose another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client(u64);

#[derive(Hash)]
enum Name<'a> {
    Principal(&'a str),
    Session(&'a str),
    Address(IpAddr),
    Child(u64),
    Lists,
    Bucket(u8, Option<&'a str>, Option<u64>),
    Unknown,
}

impl Client {
    /// Returns the client with this principal.
    pub fn named(principal: &str) -> Self {
        Client::of(&Name::Principal(principal))
    }

    /// Returns the anonymous client of this session, given the session's whole id.
    pub fn of_session(secret: &str) -> Self {
        Client::of(&Name::Session(secret))
    }

    /// Returns the anonymous client at this address. One host usually owns a whole /64 of IPv6, so that counts as one
    /// address. All requests of unknown origin are one client.
    pub fn at(address: Option<IpAddr>) -> Self {
        Client::of(&match address {
            Some(address) => Name::Address(network(address)),
            None => Name::Unknown,
        })
    }

    /// Returns the client that owns the memory of a child.
    pub fn child(number: u64) -> Self {
        Client::of(&Name::Child(number))
    }

    /// Returns the key of a rate limit's bucket: of this kind, of a tool or of all, of a caller or of all.
    pub fn bucket(kind: u8, tool: Option<&str>, caller: Option<Client>) -> Self {
        Client::of(&Name::Bucket(kind, tool, caller.map(|caller| caller.0)))
    }

    /// Returns the client that owns the memory of the cached lists.
    pub fn lists() -> Self {
        Client::of(&Name::Lists)
    }

    fn of(name: &Name) -> Self {
        static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Client(SECRET.hash_one(name))
    }

    /// Returns a client with a fixed number, for tests.
    #[cfg(test)]
    pub(crate) const fn numbered(number: u64) -> Self {
        Client(number)
    }
}

/// Builds hashers for maps by client.
pub type BuildClientHasher = BuildHasherDefault<ClientHasher>;

/// Returns the identifier itself, which is a keyed hash already.
#[derive(Debug, Default)]
pub struct ClientHasher(u64);

impl Hasher for ClientHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // The parts of a key beside the client, such as the discriminant of an option.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, part: u64) {
        self.0 ^= part;
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Client {
        Client::at(Some(address.parse().unwrap()))
    }

    #[test]
    fn names_of_different_kinds_are_different_clients() {
        let same = "10.0.0.1";
        let all = [Client::named(same), Client::of_session(same), at(same), Client::at(None)];
        for (index, client) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == client), Some(index));
        }
        assert_eq!(Client::named("ann"), Client::named("ann"));
        assert_ne!(Client::named("ann"), Client::named("bob"));
    }

    #[test]
    fn all_notations_of_an_address_are_one_client() {
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
    }
}
