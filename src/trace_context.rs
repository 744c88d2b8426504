//! W3C Trace Context and Baggage: checks whether values are well-formed, and represents a span's position in its
//! trace. Malformed values are ignored, as the recommendations require; they never fail a request.

use std::fmt;
use std::sync::Arc;

/// Maximum length of a tracestate that is passed on, in bytes. The recommendation requires at least 512.
const LONGEST_TRACESTATE: usize = 512;
/// Maximum length of baggage that is passed on, in bytes, as in the recommendation.
const LONGEST_BAGGAGE: usize = 8192;
/// The length of a traceparent of version 00, in bytes.
pub const TRACEPARENT_LEN: usize = 55;
/// Maximum length of a traceparent that is accepted. Later versions may append fields.
const LONGEST_TRACEPARENT: usize = 256;

/// The trace context of a request, with well-formed parts only. Each request to a child has one. A span in it costs
/// no allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    traceparent: Option<Traceparent>,
    tracestate: Option<Arc<str>>,
    baggage: Option<Arc<str>>,
    replaces: Replaces,
}

/// A span that is passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Traceparent {
    /// A client's span, in its own spelling.
    Received(Arc<str>),
    /// A span of proxyrunner's own.
    Own(Context),
}

/// The value that is passed on.
impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Traceparent::Received(value) => f.write_str(value),
            Traceparent::Own(context) => fmt::Display::fmt(context, f),
        }
    }
}

/// Hexadecimal digits of a byte.
const DIGITS: [[u8; 2]; 256] = {
    let (digits, mut pairs, mut byte) = (*b"0123456789abcdef", [[0; 2]; 256], 0);
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

/// The parts of a message's own context that this one replaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Replaces {
    context: bool,
    baggage: bool,
}

impl Trace {
    /// Keeps the well-formed values. Each argument is a header's value. Several `tracestate` or `baggage` headers are
    /// joined by commas; several `traceparent` headers count as none.
    pub fn from_headers(traceparent: Option<&str>, tracestate: Option<&str>, baggage: Option<&str>) -> Self {
        let traceparent = traceparent.map(trim).filter(|value| is_traceparent(value));
        // Without its span, vendor state has no meaning.
        let tracestate = tracestate.map(trim).filter(|value| traceparent.is_some() && is_tracestate(value));
        let baggage = baggage.map(trim).filter(|value| is_baggage(value));
        Self {
            traceparent: traceparent.map(|value| Traceparent::Received(value.into())),
            tracestate: tracestate.map(Arc::from),
            baggage: baggage.map(Arc::from),
            replaces: Replaces::default(),
        }
    }

    /// Removes baggage that may not pass. A message's own well-formed baggage takes precedence over that of the
    /// header, and stays unchanged if all of it may pass. Malformed baggage never passes, since its keys are unknown.
    pub fn with_allowed_baggage(mut self, own: OwnBaggage<'_>, allowed: &AllowedBaggage) -> Self {
        self.replaces.baggage = match own {
            OwnBaggage::None => false,
            OwnBaggage::Malformed => !allowed.is_all(),
            OwnBaggage::WellFormed(own) => {
                let passed = allowed.filter(own);
                let replaces = passed.as_deref() != Some(own);
                self.baggage = passed.filter(|_| replaces);
                return Self { replaces: Replaces { baggage: replaces, ..self.replaces }, ..self };
            }
        };
        self.baggage = self.baggage.and_then(|baggage| allowed.filter(&baggage));
        self
    }

    /// Replaces the span, and any span of the message's own.
    pub fn at(&self, span: Context, tracestate: Option<&str>) -> Self {
        Self {
            traceparent: Some(Traceparent::Own(span)),
            tracestate: tracestate.map(Arc::from),
            baggage: self.baggage.clone(),
            replaces: Replaces { context: true, ..self.replaces },
        }
    }

    /// Returns whether it changes no message.
    pub fn is_empty(&self) -> bool {
        self.traceparent.is_none()
            && self.baggage.is_none()
            && !self.replaces_context()
            && !self.replaces_baggage()
    }

    /// Returns whether the message's own span is replaced.
    pub fn replaces_context(&self) -> bool {
        self.replaces.context
    }

    /// Returns whether the message's own baggage is replaced or removed.
    pub fn replaces_baggage(&self) -> bool {
        self.replaces.baggage
    }

    /// Returns the caller's span.
    pub fn context(&self) -> Option<Context> {
        match self.traceparent.as_ref()? {
            Traceparent::Received(value) => Context::parse(value),
            Traceparent::Own(context) => Some(*context),
        }
    }

    /// Returns the span that is passed on.
    pub fn traceparent(&self) -> Option<&Traceparent> {
        self.traceparent.as_ref()
    }

    /// Vendor state; only with a traceparent.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// Baggage, which may come without a traceparent.
    pub fn baggage(&self) -> Option<&str> {
        self.baggage.as_deref()
    }
}

/// A message's own baggage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OwnBaggage<'a> {
    /// The message has none.
    #[default]
    None,
    /// Well-formed baggage.
    WellFormed(&'a str),
    /// Malformed or duplicated baggage.
    Malformed,
}

/// A span's position: its trace, its own id, and whether it is sampled.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Context {
    /// The trace id, not zero.
    pub trace: [u8; 16],
    /// The span id, not zero.
    pub span: [u8; 8],
    /// The flags (Trace Context §3.2.2.5).
    pub flags: u8,
}

impl Context {
    /// Flag: the span is recorded, and its children should be, too.
    pub const SAMPLED: u8 = 1;
    /// Flag: the trace id is random (Trace Context Level 2 §2.2.2.5).
    pub const RANDOM: u8 = 2;

    /// Parses a traceparent; `None` if it is malformed.
    pub fn parse(traceparent: &str) -> Option<Self> {
        if !is_traceparent(traceparent) {
            return None;
        }
        let bytes = traceparent.as_bytes();
        let mut context = Context { trace: [0; 16], span: [0; 8], flags: 0 };
        unhex(&bytes[3..35], &mut context.trace);
        unhex(&bytes[36..52], &mut context.span);
        unhex(&bytes[53..55], std::slice::from_mut(&mut context.flags));
        Some(context)
    }

    /// Returns whether the span is recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & Self::SAMPLED != 0
    }

    /// Formats a traceparent of version 00, which is ASCII.
    pub fn written(&self) -> [u8; TRACEPARENT_LEN] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        put_hex(&self.trace, &mut text[3..35]);
        put_hex(&self.span, &mut text[36..52]);
        put_hex(&[self.flags], &mut text[53..]);
        text
    }

    /// Returns the trace id in hexadecimal.
    pub fn trace_id(&self) -> String {
        hex(&self.trace)
    }

    /// Returns the span id in hexadecimal.
    pub fn span_id(&self) -> String {
        hex(&self.span)
    }
}

/// Formats a traceparent of version 00.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.written()).unwrap_or_default())
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Formats bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = vec![0; bytes.len() * 2];
    put_hex(bytes, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

fn put_hex(bytes: &[u8], text: &mut [u8]) {
    for (byte, pair) in bytes.iter().zip(text.as_chunks_mut().0) {
        *pair = DIGITS[usize::from(*byte)];
    }
}

/// Parses lower-case hexadecimal.
fn unhex(text: &[u8], bytes: &mut [u8]) {
    let digit = |digit: u8| if digit <= b'9' { digit - b'0' } else { digit - b'a' + 10 };
    for (pair, byte) in text.chunks_exact(2).zip(bytes) {
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
}

/// The baggage keys that may pass from clients to the child.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedBaggage(Vec<String>);

impl AllowedBaggage {
    /// Allows these keys, compared exactly; `*` allows all.
    pub fn new(keys: Vec<String>) -> Self {
        Self(keys)
    }

    fn is_all(&self) -> bool {
        self.0.iter().any(|key| key == "*")
    }

    /// Returns the unchanged members that may pass; `None` if there are none.
    fn filter(&self, baggage: &str) -> Option<Arc<str>> {
        if self.is_all() {
            return Some(baggage.into());
        }
        let key = |member: &str| trim(member.split(['=', ';']).next().unwrap_or_default()).to_owned();
        let passed: Vec<&str> = baggage.split(',').filter(|member| self.0.contains(&key(member))).collect();
        (!passed.is_empty()).then(|| passed.join(",").into())
    }
}

/// Returns whether a traceparent is well-formed: `version-traceid-parentid-flags` in lower-case hexadecimal, with ids
/// that are not zero (Trace Context §3.2). Versions above 00 may append `-` and more; ff is forbidden.
pub fn is_traceparent(value: &str) -> bool {
    let bytes = value.as_bytes();
    let Some((fixed, more)) = bytes.split_first_chunk::<TRACEPARENT_LEN>() else { return false };
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

/// Returns whether a tracestate is well-formed: at most 32 `key=value` members without duplicate keys, and 512 bytes
/// (Trace Context §3.3). Members may be empty, but not all of them.
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

/// Returns whether a key is `simple` or `tenant@system`. Level 2 lets the first two begin with a digit, but not the
/// system.
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

/// Returns whether a value is printable ASCII without commas and equals signs. It was trimmed before, so it ends in
/// no blank.
fn is_state_value(value: &str) -> bool {
    (1..=256).contains(&value.len())
        && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b',' && byte != b'=')
}

/// Returns whether baggage is well-formed: at most 64 `key=value;properties` members and 8192 bytes (Baggage §3.2,
/// §3.3.2).
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

/// Returns whether a text is a token (RFC 9110 §5.6.2).
fn is_token(token: &str) -> bool {
    !token.is_empty()
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Trims optional whitespace (RFC 9110 §5.6.3).
fn trim(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

#[cfg(test)]
#[path = "trace_context_tests.rs"]
mod tests;
