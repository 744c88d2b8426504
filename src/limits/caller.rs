//! Callers, as limits tell them apart.

use crate::client::Client;
use std::net::IpAddr;

/// Whose tokens a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller<'a> {
    /// A principal with this name.
    Named(&'a str),
    /// An anonymous client at this address.
    At(IpAddr),
}

impl Caller<'_> {
    pub(super) fn client(self) -> Client {
        match self {
            Caller::Named(name) => Client::named(name),
            Caller::At(address) => Client::at(Some(address)),
        }
    }
}
