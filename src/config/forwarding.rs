//! Reads how replicas of one sidecar pass requests of each other's sessions on: `--forward-sessions`.

use super::parse::ValueKind;
use super::problem::{InvalidValue, Problem};
use super::reader::Reader;
use crate::outbound::Tls;
use crate::{http, tls};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The settings of forwarding.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "gateway"),
    allow(dead_code, reason = "a build without the gateway only refuses them")
)]
pub struct Forwarding {
    /// `--forward-sessions`: the address of this replica; its port is that of `--listen`.
    pub address: IpAddr,
    /// The files of https; `None`: http.
    pub tls: Option<TlsFiles>,
}

/// The files by which replicas know each other.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "gateway"),
    allow(dead_code, reason = "a build without the gateway only refuses them")
)]
pub struct TlsFiles {
    /// `--tls-cert`: what all replicas present; its name is the one that they must have.
    pub certificate: PathBuf,
    /// `--tls-key`
    pub key: PathBuf,
    /// `--servers-ca`; `None`: the built-in authorities.
    pub authorities: Option<PathBuf>,
}

impl TlsFiles {
    /// Returns all files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.certificate, &self.key].into_iter().chain(&self.authorities).map(PathBuf::as_path)
    }

    /// Returns the certificates in their content, in the same order.
    ///
    /// # Errors
    /// In words, without anything of the content.
    pub fn read<'a>(&self, mut contents: impl Iterator<Item = &'a [u8]>) -> Result<Tls, &'static str> {
        let mut next = || contents.next().map(<[u8]>::to_vec).ok_or("a file is missing");
        let (certificate, key) = (next()?, next()?);
        let authorities = self.authorities.is_some().then(next).transpose()?;
        let name = tls::dns_name(&certificate);
        let name = name.ok_or("has no DNS name, which replicas need to know each other")?;
        Ok(Tls { authorities, identity: Some((certificate, key)), name: Some(name) })
    }
}

const ADDRESS: ValueKind<IpAddr> = ValueKind { parse: address, show: |address| address.to_string().into() };

fn address(text: &str) -> Result<IpAddr, InvalidValue> {
    let refused =
        |what| InvalidValue::new(what, "give the IP address of this replica, such as that of its pod");
    let address: IpAddr = text.parse().map_err(|_| refused("is not an IP address"))?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(refused("is not the address of one host"));
    }
    Ok(address)
}

/// Reads the settings; `None` unless requests are forwarded.
pub(super) fn read(
    reader: &mut Reader,
    http: &http::Settings,
    authorities: Option<PathBuf>,
) -> Option<Forwarding> {
    let address = reader.optional("forward-sessions", ADDRESS)?;
    let is_reached =
        http.listen.ip().is_unspecified() || http.listen.ip().is_loopback() == address.is_loopback();
    reader.cross_check(
        is_reached,
        &["forward-sessions", "listen"],
        InvalidValue::new(
            "cannot be reached at --listen",
            "listen on all addresses of the host, e.g. --listen [::]:8080",
        ),
    );
    let tls = http.tls.as_ref().map(|tls| TlsFiles {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        authorities,
    });
    if let Some(tls) = &tls {
        check(reader, tls);
    }
    refuse_in_plain_build(reader);
    Some(Forwarding { address, tls })
}

/// Checks the files. Those of `--tls-cert` are checked on their own, too.
fn check(reader: &mut Reader, tls: &TlsFiles) {
    let Ok(contents) = tls.paths().map(std::fs::read).collect::<Result<Vec<_>, _>>() else { return };
    if let Err(reason) = tls.read(contents.iter().map(Vec::as_slice)) {
        reader.note(Problem::general(
            "--tls-cert",
            InvalidValue::new(reason, "issue it with the name of the Service"),
        ));
    }
}

#[cfg(feature = "gateway")]
fn refuse_in_plain_build(_: &mut Reader) {}

#[cfg(not(feature = "gateway"))]
fn refuse_in_plain_build(reader: &mut Reader) {
    let refusal =
        InvalidValue::new("is not part of this build (cargo feature gateway)", "use the default build");
    reader.note(Problem::general("--forward-sessions", refusal));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_has_one_address() {
        for good in ["10.0.0.1", "fd00::1", "127.0.0.1"] {
            assert_eq!(address(good).map(|address| address.to_string()).as_deref(), Ok(good));
        }
        for bad in
            ["", "10.0.0.1:8080", "[fd00::1]", "0.0.0.0", "::", "224.0.0.1", "localhost", "http://10.0.0.1"]
        {
            assert!(address(bad).is_err(), "{bad:?}");
        }
    }
}
