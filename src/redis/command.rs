//! Commands in Redis' protocol, and scripts.

use super::reply::Reply;
use bytes::Bytes;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use std::fmt::Write as _;
use std::sync::OnceLock;

/// Returns a command as it is sent.
pub(super) fn command(words: &[&[u8]]) -> Bytes {
    let size: usize = words.iter().map(|word| word.len() + 16).sum();
    let mut out = Vec::with_capacity(size + 16);
    let mut number = itoa::Buffer::new();
    let mut head = |out: &mut Vec<u8>, kind: u8, count: usize| {
        out.push(kind);
        out.extend_from_slice(number.format(count).as_bytes());
        out.extend_from_slice(b"\r\n");
    };
    head(&mut out, b'*', words.len());
    for word in words {
        head(&mut out, b'$', word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out.into()
}

/// A script that Redis runs as one step. Redis knows it by its digest once it has run.
#[derive(Debug)]
pub(crate) struct Script {
    text: &'static str,
    digest: OnceLock<String>,
}

impl Script {
    /// Creates a script in Lua.
    pub const fn new(text: &'static str) -> Self {
        Script { text, digest: OnceLock::new() }
    }

    /// Returns the command that runs it by its digest.
    pub(super) fn by_digest(&self, keys: &[&[u8]], arguments: &[&[u8]]) -> Bytes {
        let digest = self.digest.get_or_init(|| {
            let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, self.text.as_bytes());
            digest.as_ref().iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
        });
        run(b"EVALSHA", digest.as_bytes(), keys, arguments)
    }

    /// Returns the command that runs it by its text, after which Redis knows it.
    pub(super) fn by_text(&self, keys: &[&[u8]], arguments: &[&[u8]]) -> Bytes {
        run(b"EVAL", self.text.as_bytes(), keys, arguments)
    }
}

fn run(verb: &[u8], script: &[u8], keys: &[&[u8]], arguments: &[&[u8]]) -> Bytes {
    let count = keys.len().to_string();
    let mut words = vec![verb, script, count.as_bytes()];
    words.extend_from_slice(keys);
    words.extend_from_slice(arguments);
    command(&words)
}

/// Returns whether Redis does not know the digest of a script, because it has been started since.
pub(super) fn is_unknown_script(reply: &Reply) -> bool {
    reply.error_code() == Some("NOSCRIPT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_carries_any_bytes() {
        assert_eq!(command(&[b"SET", b"a\r\n", b""]), "*3\r\n$3\r\nSET\r\n$3\r\na\r\n\r\n$0\r\n\r\n");
    }

    #[test]
    fn a_script_is_named_by_its_digest_or_sent_whole() {
        let script = Script::new("return 1");
        let digest = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
        assert_eq!(
            script.by_digest(&[b"k"], &[b"v"]),
            format!("*5\r\n$7\r\nEVALSHA\r\n$40\r\n{digest}\r\n$1\r\n1\r\n$1\r\nk\r\n$1\r\nv\r\n")
        );
        assert_eq!(script.by_text(&[], &[]), "*3\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n$1\r\n0\r\n");
    }
}
