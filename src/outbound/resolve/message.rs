//! Questions for the addresses of a name or for the hosts of a service, and their answers (RFC 1035 §4, RFC 3596, RFC 2782).

use super::reader::{LONGEST, Reader};
#[cfg(feature = "gateway")]
use super::service::{self, ServiceHost};
use std::net::IpAddr;

const HEADER: usize = 12;
/// The class of the Internet.
const INTERNET: u16 = 1;
#[cfg(feature = "gateway")]
const SRV: u16 = Kind::Srv as u16;

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// IPv4 addresses.
    A = 1,
    /// IPv6 addresses.
    Aaaa = 28,
    /// The hosts of a service.
    #[cfg(feature = "gateway")]
    Srv = 33,
}

/// What a name server knows of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// An address.
    Address(IpAddr),
    /// A host of the service.
    #[cfg(feature = "gateway")]
    Service(ServiceHost),
}

impl Record {
    /// Returns the address, if it is one.
    pub(super) fn address(self) -> Option<IpAddr> {
        match self {
            Record::Address(address) => Some(address),
            #[cfg(feature = "gateway")]
            Record::Service(_) => None,
        }
    }

    /// Returns the host of a service, if it is one.
    #[cfg(feature = "gateway")]
    pub(super) fn service(self) -> Option<ServiceHost> {
        match self {
            Record::Service(service) => Some(service),
            Record::Address(_) => None,
        }
    }
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// What the question asked for, which may be nothing.
    Records(Vec<Record>),
    /// The name does not exist.
    NoName,
    /// The answer does not fit into one datagram.
    Truncated,
    /// The server failed with this code.
    Refused(u8),
}

/// Encodes a question; `None` if `name` is not a name.
pub(super) fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(HEADER + name.len() + 6);
    message.extend(id.to_be_bytes());
    // A standard query for one name; recursion is desired.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    if message.len() > HEADER + LONGEST {
        return None;
    }
    message.extend((kind as u16).to_be_bytes());
    message.extend(INTERNET.to_be_bytes());
    Some(message)
}

/// Decodes an answer; `None` if it is malformed, or does not belong to the question.
pub(super) fn answer(message: &[u8], question: &[u8]) -> Option<Answer> {
    let asked = question.get(HEADER..)?;
    let kind = u16::from_be_bytes(*asked.last_chunk::<4>()?.first_chunk()?);
    let mut rest = Reader { message, at: 0 };
    let header = rest.take(HEADER)?;
    let (is_answer, code) = (header[2] & 0xf8 == 0x80, header[3] & 0xf);
    // Names are compared without case, and no byte of the question besides its letters is a letter.
    if header[..2] != question[..2] || !is_answer || !rest.take(asked.len())?.eq_ignore_ascii_case(asked) {
        return None;
    }
    match code {
        _ if header[2] & 2 != 0 => return Some(Answer::Truncated),
        0 => {}
        3 => return Some(Answer::NoName),
        code => return Some(Answer::Refused(code)),
    }
    let records = u16::from_be_bytes([header[6], header[7]]);
    let mut found = Vec::new();
    // Aliases are records before those of the name that they lead to. The recursive server followed them.
    for _ in 0..records {
        rest.skip_name()?;
        let (of, class) = (rest.number()?, rest.number()?);
        rest.take(4)?;
        let length = rest.number()?;
        let mut data = Reader { message, at: rest.at };
        rest.take(length.into())?;
        if (of, class) == (kind, INTERNET) {
            found.push(match kind {
                #[cfg(feature = "gateway")]
                SRV => Record::Service(service::read(&mut data)?),
                _ => Record::Address(address(data.take(length.into())?)?),
            });
            if data.at > rest.at {
                return None;
            }
        }
    }
    Some(Answer::Records(found))
}

fn address(data: &[u8]) -> Option<IpAddr> {
    match data.len() {
        4 => Some(IpAddr::from(*data.first_chunk::<4>()?)),
        16 => Some(IpAddr::from(*data.first_chunk::<16>()?)),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Encodes an answer with an alias, and with these addresses.
    pub(in super::super) fn reply(question: &[u8], code: u8, found: &[IpAddr]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2] |= 0x80;
        message[3] = 0x80 | code;
        message[7] = u8::try_from(found.len()).expect("few") + 1;
        message.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 6, 3, b'x', b'y', b'z', 0xc0, 12]);
        for address in found {
            let (kind, data) = match address {
                IpAddr::V4(it) => (1, it.octets().to_vec()),
                IpAddr::V6(it) => (28, it.octets().to_vec()),
            };
            let length = u8::try_from(data.len()).expect("short");
            message.extend([3, b'x', b'y', b'z', 0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 9, 0, length]);
            message.extend(data);
        }
        message
    }

    #[test]
    fn a_question_is_a_name_of_labels() {
        let asked = question(0x1234, "a.bc", Kind::Aaaa).expect("a name");
        assert_eq!(asked, b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x1c\0\x01");
        let long = ["a"; 128].join(".");
        for bad in ["", ".", "a..b", "a.", &"x".repeat(64), &long] {
            assert_eq!(question(1, bad, Kind::A), None, "{bad}");
        }
        assert!(question(1, &long[2..], Kind::A).is_some());
    }

    #[test]
    fn an_answer_has_the_addresses_of_its_kind() {
        let (v4, v6) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([7; 16]));
        for (kind, address) in [(Kind::A, v4), (Kind::Aaaa, v6)] {
            let asked = question(7, "Some.Name", kind).expect("a name");
            let mut message = reply(&asked, 0, &[v4, v6, v4]);
            message[12..22].make_ascii_uppercase();
            let Some(Answer::Records(found)) = answer(&message, &asked) else { panic!("an answer") };
            assert!(found.iter().all(|it| *it == Record::Address(address)) && !found.is_empty(), "{found:?}");
            for length in 0..message.len() {
                assert_eq!(answer(&message[..length], &asked), None, "cut to {length}");
            }
        }
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        let asked = question(7, "a.b", Kind::A).expect("a name");
        let other = question(7, "a.c", Kind::A).expect("a name");
        let later = question(8, "a.b", Kind::A).expect("a name");
        for message in [reply(&other, 0, &[]), reply(&later, 0, &[]), asked.clone()] {
            assert_eq!(answer(&message, &asked), None);
        }
        assert_eq!(answer(&reply(&asked, 0, &[]), &asked), Some(Answer::Records(Vec::new())));
        assert_eq!(answer(&reply(&asked, 3, &[]), &asked), Some(Answer::NoName));
        assert_eq!(answer(&reply(&asked, 2, &[]), &asked), Some(Answer::Refused(2)));
        let mut cut = reply(&asked, 0, &[]);
        cut[2] |= 2;
        assert_eq!(answer(&cut, &asked), Some(Answer::Truncated));
    }
}
