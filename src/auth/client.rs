//! HTTP clients for an authorization server. Its certificate's authorities are read again when their file changes.

use super::watched::{self, Complaint};
use crate::outbound::{Fetcher, Limits, Reach, Tls};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The clients of one server: one for configured hosts, one for hosts that a document names.
#[derive(Debug)]
pub(super) struct Client {
    ca: Option<PathBuf>,
    limits: Limits,
    built: Mutex<Built>,
    complaint: Option<Complaint>,
}

#[derive(Debug)]
struct Built {
    authorities: Option<Vec<u8>>,
    anywhere: Fetcher,
    public: Fetcher,
}

impl Client {
    /// Creates the clients.
    ///
    /// # Errors
    /// In words, when the file of authorities is unusable.
    pub(super) fn new(ca: Option<&Path>, limits: Limits) -> Result<Self, String> {
        let authorities = ca.map(watched::read).transpose().map_err(|error| error.to_string())?;
        let built = Mutex::new(Built::with(authorities, limits)?);
        let complaint =
            ca.map(|ca| Complaint::new("the certificate authorities of an authorization server", ca));
        Ok(Client { ca: ca.map(Path::to_owned), limits, built, complaint })
    }

    /// Returns the client for hosts within reach.
    pub(super) fn within(&self, reach: Reach) -> Fetcher {
        let mut built = self.built.lock();
        if let (Some(ca), Some(complaint)) = (&self.ca, &self.complaint) {
            let looked = match watched::read(ca) {
                Ok(found) if built.authorities.as_ref() == Some(&found) => Ok(()),
                Ok(found) => Built::with(Some(found), self.limits).map(|new| *built = new),
                Err(error) => Err(error.to_string()),
            };
            complaint.note(looked.err().as_deref());
        }
        match reach {
            Reach::Anywhere => built.anywhere.clone(),
            _ => built.public.clone(),
        }
    }
}

/// Checks a file of authorities.
///
/// # Errors
/// In words, when it is unusable.
pub(super) fn check_authorities(path: &Path) -> Result<(), String> {
    let authorities = watched::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let tls = Tls { authorities: Some(authorities), ..Tls::default() };
    let limits = Limits { time: Duration::from_secs(1), size: 0 };
    Fetcher::new(&tls, Reach::Public, limits).map(drop).map_err(|bad| format!("is unusable: {bad}"))
}

impl Built {
    fn with(authorities: Option<Vec<u8>>, limits: Limits) -> Result<Self, String> {
        let tls = Tls { authorities: authorities.clone(), ..Tls::default() };
        let fetcher = |reach| Fetcher::new(&tls, reach, limits).map_err(|bad| bad.to_string());
        Ok(Built { authorities, anywhere: fetcher(Reach::Anywhere)?, public: fetcher(Reach::Public)? })
    }
}
