//! The hosts of a service (RFC 2782).

use super::reader::{LONGEST, Reader};

/// A host of a service (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServiceHost {
    /// Hosts with a lower number are used first.
    pub priority: u16,
    /// The part of the requests that it should get among hosts of the same priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// Its name, without the dot at the end.
    pub host: String,
}

/// Reads the data of a record.
pub(super) fn read(data: &mut Reader<'_>) -> Option<ServiceHost> {
    let [priority, weight, port] = [data.number()?, data.number()?, data.number()?];
    Some(ServiceHost { priority, weight, port, host: name(data)? })
}

/// Reads a host's name, which is empty for the root. Pointers lead back to what was read before, so that they end.
fn name(reader: &mut Reader<'_>) -> Option<String> {
    let (mut name, mut bound, mut after) = (String::new(), reader.at, None);
    loop {
        match reader.take(1)?[0] {
            0 => break,
            length @ 1..=63 => {
                let label = reader.take(length.into())?;
                let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
                if !label.iter().all(is_plain) || name.len() + label.len() >= LONGEST {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                name.extend(label.iter().map(|byte| char::from(*byte)));
            }
            high @ 192.. => {
                let to = usize::from(u16::from_be_bytes([high & 0x3f, reader.take(1)?[0]]));
                after = after.or(Some(reader.at));
                if to >= bound {
                    return None;
                }
                (reader.at, bound) = (to, to);
            }
            _ => return None,
        }
    }
    reader.at = after.unwrap_or(reader.at);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::super::message::{Answer, Kind, answer, question};
    use super::*;

    /// Encodes an answer with one record of a service at `host`, whose length is that of `host` and the numbers.
    fn service_reply(question: &[u8], host: &[u8]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2] |= 0x80;
        message[7] = 1;
        let length = u8::try_from(host.len() + 6).expect("short");
        message.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 9, 0, length, 0, 1, 0, 60, 0x1f, 0x90]);
        message.extend(host);
        message
    }

    #[test]
    fn a_service_has_hosts() {
        let asked = question(7, "_mcp._tcp.a.b", Kind::Srv).expect("a name");
        let found = |host: &[u8]| match answer(&service_reply(&asked, host), &asked)? {
            Answer::Records(mut found) => found.pop()?.service(),
            _ => None,
        };
        let at =
            |host: &str| Some(ServiceHost { priority: 1, weight: 60, port: 8080, host: host.to_owned() });
        assert_eq!(found(b"\x05pod-0\x01a\x01b\0"), at("pod-0.a.b"));
        // A pointer to the end of the question's name.
        assert_eq!(found(b"\x05pod-0\xc0\x16"), at("pod-0.a.b"));
        assert_eq!(found(b"\0"), at(""));
        let here = u8::try_from(asked.len() + 18).expect("short");
        let long = b"\x3fxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".repeat(3);
        for bad in [
            &b"\x05pod-0"[..],
            b"",
            b"\x05pod 0\0",
            b"\x02a.\0",
            b"\x40\0",
            // Pointers to themselves, forwards, and beyond the record.
            &[0xc0, here],
            &[1, b'a', 0xc0, here],
            &[0xc0, here + 2, 0],
            b"\x05pod-0\x01",
            &[&long[..], b"\x3f"].concat(),
        ] {
            assert_eq!(found(bad), None, "{bad:?}");
        }
        let whole = service_reply(&asked, b"\x05pod-0\x01a\x01b\0");
        for length in 0..whole.len() {
            assert_eq!(answer(&whole[..length], &asked), None, "cut to {length}");
        }
        // A name that is longer than its record says.
        let mut longer = whole;
        longer[asked.len() + 11] -= 1;
        assert_eq!(answer(&longer, &asked), None);
    }
}
