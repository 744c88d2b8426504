//! Why a request has no answer of the remote server.

use crate::budget::Charged;
use crate::jsonrpc::{codes, rewrite};
use std::fmt;

/// What is known of the server after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It cannot be reached. Nothing was sent.
    Unreached,
    /// It broke off, or is silent. The request may have been carried out.
    Broken,
    /// It refuses the request, or answers with something else than an answer.
    Refused,
    /// It refuses the request with this HTTP status, for a reason of its own.
    Status(u16),
    /// This process has no room.
    Own,
}

/// A fault, in words for the client: who is at fault, and what to do.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// What it says of the server.
    pub kind: Kind,
    text: String,
}

impl Fault {
    /// Returns the fault of a server to which nothing was sent.
    pub fn unreached(text: String) -> Self {
        Fault { kind: Kind::Unreached, text }
    }

    /// Returns the fault of a server that breaks off.
    pub fn broken(text: String) -> Self {
        Fault { kind: Kind::Broken, text }
    }

    /// Returns the fault of a server that refuses a request.
    pub fn refused(text: String) -> Self {
        Fault { kind: Kind::Refused, text }
    }

    /// Returns the fault of a server that refuses with this status.
    pub fn status(status: u16, text: String) -> Self {
        Fault { kind: Kind::Status(status), text }
    }

    /// Returns the fault of this process.
    pub fn own(text: &str) -> Self {
        Fault { kind: Kind::Own, text: text.to_owned() }
    }

    /// Writes the answer to the request with this raw id.
    pub fn answer(&self, id: &[u8]) -> Charged {
        rewrite::error(Some(id), codes::INTERNAL_ERROR, &self.text, None)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
