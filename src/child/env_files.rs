//! Variables from files (`--env-file`): a file of `NAME=VALUE` lines, or a folder in which each file is one variable, as
//! Kubernetes mounts a secret.

use crate::identity::VARIABLE_PREFIX;
use crate::mounted::MountedFile;
use parking_lot::RwLock;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

/// Variables for the child.
type Variables = Vec<(OsString, OsString)>;

/// Maximum length of a variable with its name: Linux starts no process with a longer one (MAX_ARG_STRLEN).
const LONGEST: usize = 128 * 1024;

/// The variables of `--env-file`, which change while proxyrunner runs.
#[derive(Clone, Default)]
pub struct EnvFiles(Arc<RwLock<Arc<Variables>>>);

impl std::fmt::Debug for EnvFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EnvFiles(…)")
    }
}

impl EnvFiles {
    /// Creates the variables with their first values.
    pub fn new(variables: Variables) -> Self {
        EnvFiles(Arc::new(RwLock::new(Arc::new(variables))))
    }

    /// Returns the variables.
    pub fn current(&self) -> Arc<Variables> {
        Arc::clone(&self.0.read())
    }

    /// Replaces the variables for children that are started from now on. Returns whether they differ.
    pub fn replace(&self, variables: Variables) -> bool {
        let mut current = self.0.write();
        let differ = **current != variables;
        *current = Arc::new(variables);
        differ
    }
}

/// Returns the variables in files. `paths` are the paths that the operator gave; all other files are in folders. A later
/// variable replaces an earlier one of the same name. `reserved` refuses the names of an identity.
///
/// # Errors
/// In words which file is malformed, and where. Never a value.
pub fn parse(paths: &[PathBuf], files: &[MountedFile], reserved: bool) -> Result<Variables, String> {
    let mut variables = Variables::new();
    for file in files {
        let path = file.path.display();
        let mut add = |name: &[u8], value: &[u8], place: &str| {
            let refuse = |reason: &str| Err(format!("{path}{place} {reason}"));
            if name.is_empty() || name.contains(&0) || name.iter().any(u8::is_ascii_whitespace) {
                return refuse("is not NAME=VALUE");
            }
            if name.contains(&b'=') {
                return refuse("has a name with `=`");
            }
            if value.contains(&0) {
                return refuse("contains a NUL byte");
            }
            if name.len() + value.len() + 2 > LONGEST {
                return refuse("is longer than 128 KiB");
            }
            if reserved && name.starts_with(VARIABLE_PREFIX.as_bytes()) {
                return refuse("sets a variable that --child-identity env sets");
            }
            let name = OsStr::from_bytes(name).to_owned();
            variables.retain(|(other, _)| *other != name);
            variables.push((name, OsStr::from_bytes(value).to_owned()));
            Ok(())
        };
        if !paths.contains(&file.path) {
            let name = file.path.file_name().unwrap_or_default().as_bytes();
            add(name, without_break(&file.bytes), "")?;
            continue;
        }
        for (number, line) in (1..).zip(file.bytes.split(|byte| *byte == b'\n')) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.trim_ascii().is_empty() || line.trim_ascii_start().starts_with(b"#") {
                continue;
            }
            let place = format!(", line {number},");
            let at = line.iter().position(|byte| *byte == b'=');
            let (name, value) = at.map_or((&b""[..], &b""[..]), |at| (&line[..at], &line[at + 1..]));
            add(name.trim_ascii_start(), value, &place)?;
        }
    }
    Ok(variables)
}

/// Removes the line break that editors and `echo` put at the end of a file.
fn without_break(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &[u8])], reserved: bool) -> Result<Vec<(String, String)>, String> {
        let given = [PathBuf::from("/env"), PathBuf::from("/secret"), PathBuf::from("/more")];
        let files: Vec<_> = files
            .iter()
            .map(|(path, bytes)| MountedFile { path: path.into(), bytes: bytes.to_vec() })
            .collect();
        let text = |text: &OsString| text.to_string_lossy().into_owned();
        let variables = parse(&given, &files, reserved)?;
        Ok(variables.iter().map(|(name, value)| (text(name), text(value))).collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn lines_and_folders_are_read() {
        let lines = b"# comment\n\nA=1\r\n  B=x = \"y\" \nEMPTY=\nA=2";
        let found =
            read(&[("/env", lines), ("/secret/TOKEN", b"hunter2\n"), ("/secret/k.x", b"a\nb\n\n")], false);
        let expected =
            pairs(&[("B", "x = \"y\" "), ("EMPTY", ""), ("A", "2"), ("TOKEN", "hunter2"), ("k.x", "a\nb\n")]);
        assert_eq!(found, Ok(expected));
        assert_eq!(read(&[("/env", b"A=1"), ("/more", b"A=2")], false), Ok(pairs(&[("A", "2")])));
        assert_eq!(read(&[], false), Ok(Vec::new()));
    }

    #[test]
    fn malformed_files_are_refused_without_their_values() {
        let long = [b"A=", &vec![b'x'; LONGEST][..]].concat();
        for (path, bytes, reason) in [
            ("/env", &b"A=1\nhunter2"[..], "/env, line 2, is not NAME=VALUE"),
            ("/env", b"export A=hunter2", "/env, line 1, is not NAME=VALUE"),
            ("/env", b"=hunter2", "/env, line 1, is not NAME=VALUE"),
            ("/env", b"A=hunter2\0", "/env, line 1, contains a NUL byte"),
            ("/secret/A", b"hunter2\0", "/secret/A contains a NUL byte"),
            ("/secret/A=B", b"hunter2", "/secret/A=B has a name with `=`"),
            ("/env", &long, "/env, line 1, is longer than 128 KiB"),
            ("/env", b"MCP_IDENTITY_SUB=x", "/env, line 1, sets a variable that --child-identity env sets"),
        ] {
            assert_eq!(read(&[(path, bytes)], true), Err(reason.to_owned()));
        }
        assert!(read(&[("/env", b"MCP_IDENTITY_SUB=x")], false).is_ok());
    }

    #[test]
    fn replacing_tells_whether_the_values_differ() {
        let one = || vec![("A".into(), "1".into())];
        let files = EnvFiles::new(one());
        assert!(!files.replace(one()));
        assert!(files.replace(vec![("A".into(), "hunter2".into())]));
        assert_eq!(files.current()[0].1, "hunter2");
        assert!(!format!("{files:?}").contains("hunter2"));
    }
}
