//! W3C Trace Context and Baggage: which values are well-formed. Malformed ones are ignored, as the
//! recommendations ask; they never fail a request.

/// Longest tracestate that is passed on, in bytes; the recommendation asks for at least 512.
const LONGEST_TRACESTATE: usize = 512;
/// Longest baggage that is passed on, in bytes, as its recommendation has it.
const LONGEST_BAGGAGE: usize = 8192;
/// A version to come may append fields to traceparent; nobody needs this much.
const LONGEST_TRACEPARENT: usize = 256;

/// The trace context that came with a request. Every part that is there is well-formed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    traceparent: Option<String>,
    tracestate: Option<String>,
    baggage: Option<String>,
}

impl Trace {
    /// Keeps what is well-formed. Each argument is a header's value, with those of several
    /// `tracestate` or `baggage` headers joined by commas; several `traceparent` headers are none.
    pub fn from_headers(traceparent: Option<&str>, tracestate: Option<&str>, baggage: Option<&str>) -> Self {
        let traceparent = traceparent.map(trim).filter(|value| is_traceparent(value));
        // Without its parent, vendor state means nothing.
        let tracestate = tracestate.map(trim).filter(|value| traceparent.is_some() && is_tracestate(value));
        let baggage = baggage.map(trim).filter(|value| is_baggage(value));
        Self {
            traceparent: traceparent.map(String::from),
            tracestate: tracestate.map(String::from),
            baggage: baggage.map(String::from),
        }
    }

    /// The caller's span.
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }

    /// Vendor state; only beside a traceparent.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// Baggage, which needs no traceparent.
    pub fn baggage(&self) -> Option<&str> {
        self.baggage.as_deref()
    }
}

/// `version-traceid-parentid-flags` in lower-case hexadecimal, ids not zero (Trace Context §3.2).
/// Versions above 00 may append `-` and more; ff is forbidden.
pub fn is_traceparent(value: &str) -> bool {
    let bytes = value.as_bytes();
    let Some((fixed, more)) = bytes.split_first_chunk::<55>() else { return false };
    let hex = |field: &[u8]| field.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let id = |field: &[u8]| hex(field) && field.iter().any(|byte| *byte != b'0');
    let dashes = fixed[2] == b'-' && fixed[35] == b'-' && fixed[52] == b'-';
    let (version, flags) = (&fixed[..2], &fixed[53..]);
    let tail = match version {
        b"00" => more.is_empty(),
        b"ff" => false,
        _ => more.is_empty() || (more[0] == b'-' && more.iter().all(u8::is_ascii_graphic)),
    };
    dashes
        && hex(version)
        && id(&fixed[3..35])
        && id(&fixed[36..52])
        && hex(flags)
        && tail
        && bytes.len() <= LONGEST_TRACEPARENT
}

/// At most 32 `key=value` members, no key twice, 512 bytes (Trace Context §3.3). Empty members pass,
/// but one must not be.
pub fn is_tracestate(value: &str) -> bool {
    if value.len() > LONGEST_TRACESTATE {
        return false;
    }
    let mut keys = Vec::new();
    for member in value.split(',').map(trim).filter(|member| !member.is_empty()) {
        let Some((key, value)) = member.split_once('=') else { return false };
        if !is_state_key(key) || !is_state_value(value) || keys.contains(&key) {
            return false;
        }
        keys.push(key);
    }
    (1..=32).contains(&keys.len())
}

/// `simple` or `tenant@system`. Level 2 lets either begin with a digit, but for the system.
fn is_state_key(key: &str) -> bool {
    let part = |part: &str, longest: usize| {
        part.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
            && part.len() <= longest
            && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/'))
    };
    match key.split_once('@') {
        None => part(key, 256),
        Some((tenant, system)) => {
            part(tenant, 241) && part(system, 14) && !system.starts_with(|first: char| first.is_ascii_digit())
        }
    }
}

/// Printable ASCII without comma and equals sign. The member was trimmed, so it ends in no blank.
fn is_state_value(value: &str) -> bool {
    (1..=256).contains(&value.len())
        && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b',' && byte != b'=')
}

/// At most 64 `key=value;properties` members and 8192 bytes (Baggage §3.2, §3.3.2).
pub fn is_baggage(value: &str) -> bool {
    value.len() <= LONGEST_BAGGAGE
        && value.split(',').count() <= 64
        && value.split(',').all(|member| {
            let mut parts = member.split(';');
            parts.next().is_some_and(is_baggage_pair)
                && parts.all(|property| is_token(trim(property)) || is_baggage_pair(property))
        })
}

fn is_baggage_pair(pair: &str) -> bool {
    pair.split_once('=').is_some_and(|(key, value)| {
        is_token(trim(key))
            && trim(value)
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\'))
    })
}

/// RFC 9110 §5.6.2.
fn is_token(token: &str) -> bool {
    !token.is_empty()
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Without the optional whitespace of RFC 9110 §5.6.3 around it.
fn trim(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn traceparent_grammar() {
        let later = format!("cc{}", &PARENT[2..]);
        for value in [PARENT, &later, &format!("{later}-what-ever"), &PARENT.replace("-01", "-ff")] {
            assert!(is_traceparent(value), "{value}");
        }
        for value in [
            "",
            &PARENT[..54],
            &format!("{PARENT}-00"),
            &format!("{later}.x"),
            &format!("{later}-{}", "x".repeat(300)),
            &format!("ff{}", &PARENT[2..]),
            &PARENT.to_uppercase(),
            &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &PARENT.replace("-01", "-0g"),
            &PARENT.replace("-00f", "_00f"),
            &PARENT.replace("00-4b", "0x-4b"),
        ] {
            assert!(!is_traceparent(value), "{value}");
        }
    }

    #[test]
    fn tracestate_grammar() {
        let many = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        for value in ["a=1", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "t1@s=x y", "a=1,, \tb=2 ", "0a=~!"] {
            assert!(is_tracestate(value), "{value}");
        }
        assert!(is_tracestate(&many(32)) && !is_tracestate(&many(33)));
        assert!(is_tracestate(&format!("a={},b={}", "x".repeat(256), "x".repeat(100))));
        for value in
            ["", ",", "a", "a=", "=1", "A=1", "a=1,a=2", "a=b=c", "a=é", "a@1=x", "a@=x", "a@b@c=x", "a b=1"]
        {
            assert!(!is_tracestate(value), "{value}");
        }
        assert!(!is_tracestate(&format!("a={}", "x".repeat(257))));
        assert!(!is_tracestate(&format!("a={},b={}", "x".repeat(256), "x".repeat(252))));
    }

    #[test]
    fn baggage_grammar() {
        for value in ["a=1", "userId=alice,serverNode=DF%2028", "a = 1 ; p ; q = 2 , b=", "a=b=c"] {
            assert!(is_baggage(value), "{value}");
        }
        let many = |count: usize| vec!["k=v"; count].join(",");
        assert!(is_baggage(&many(64)) && !is_baggage(&many(65)));
        for value in ["", "a", "a=1,", "=1", "a=\"q\"", "a=x y", "a=é", "a=1;", "a(b=1", "a=\\"] {
            assert!(!is_baggage(value), "{value}");
        }
        assert!(!is_baggage(&format!("a={}", "x".repeat(8192))));
    }

    #[test]
    fn headers_keep_what_is_well_formed() {
        let trace = Trace::from_headers(Some(PARENT), Some("bad"), Some("a=1"));
        assert_eq!(
            (trace.traceparent(), trace.tracestate(), trace.baggage()),
            (Some(PARENT), None, Some("a=1"))
        );
        let orphan = Trace::from_headers(Some("bad"), Some("a=1"), None);
        assert_eq!(orphan, Trace::default());
        let padded = Trace::from_headers(Some(&format!(" {PARENT}\t")), Some(" a=1 "), None);
        assert_eq!((padded.traceparent(), padded.tracestate()), (Some(PARENT), Some("a=1")));
    }
}
