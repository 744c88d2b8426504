//! Files that are read again when their content changes. They are polled, because a mounted Secret or ConfigMap changes
//! by renaming a link in another folder, which a watch on the file would miss.

use crate::telemetry::metrics::counters::{FAILED_RELOADS, Reloaded};
use crate::{audit, mounted};
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tokio::time::sleep;

/// Maximum size of a file.
const MOST: u64 = 1 << 20;

/// A file and the content that was read last.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    /// The digest of the last content.
    seen: Option<Vec<u8>>,
    /// The last failure, so that it is logged once.
    failure: Option<String>,
}

impl Watched {
    pub(super) fn new(path: &Path) -> Self {
        Watched { path: path.to_owned(), seen: None, failure: None }
    }

    /// Reads the file; `None` if it has not changed.
    pub(super) fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let content = read(&self.path)?;
        let found = digest(&SHA256, &content).as_ref().to_vec();
        if self.seen.as_ref() == Some(&found) {
            return Ok(None);
        }
        self.seen = Some(found);
        Ok(Some(content))
    }

    /// Looks at the file for as long as the task runs, and gives each new content to `take`. A content that is refused
    /// is not in use: the one before it is.
    pub(super) async fn poll(
        mut self,
        what: &'static str,
        failed: impl Fn(),
        mut take: impl FnMut(&[u8]) -> Result<(), String>,
    ) {
        loop {
            sleep(mounted::interval()).await;
            self.look(what, &failed, &mut take);
        }
    }

    fn look(
        &mut self,
        what: &'static str,
        failed: &impl Fn(),
        take: &mut impl FnMut(&[u8]) -> Result<(), String>,
    ) {
        let taken = match self.read() {
            Ok(None) => return,
            Ok(Some(content)) => take(&content).map(|()| {
                audit::reloaded(what);
                tracing::info!(file = %self.path.display(), "{what} were reloaded");
            }),
            Err(error) => Err(error.to_string()),
        };
        let failure = taken.err();
        if failure.is_some() && failure != self.failure {
            let why = failure.as_deref().unwrap_or_default();
            tracing::error!(file = %self.path.display(), "{what} were not reloaded and the previous ones stay in use: {why}");
            audit::not_reloaded(what, why);
            failed();
        }
        self.failure = failure;
    }
}

/// Reads a file of limited size.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(MOST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MOST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file exceeds 1 MiB"));
    }
    Ok(content)
}

/// Tells once that a file has become unusable, and its previous content stays in use.
#[derive(Debug)]
pub(super) struct Complaint {
    what: &'static str,
    path: PathBuf,
    said: Mutex<Option<String>>,
}

impl Complaint {
    /// Creates one about a file. `what` it contains is told in the plural.
    pub(super) fn new(what: &'static str, path: &Path) -> Self {
        Complaint { what, path: path.to_owned(), said: Mutex::default() }
    }

    /// Notes why the last look at the file failed, if it did. A reason contains none of the file's content.
    pub(super) fn note(&self, failure: Option<&str>) {
        let mut said = self.said.lock();
        if let Some(why) = failure
            && said.as_deref() != Some(why)
        {
            FAILED_RELOADS.increment(Reloaded::Auth as usize);
            audit::not_reloaded(self.what, why);
            tracing::error!(
                file = %self.path.display(),
                "{} were not reloaded and the previous ones stay in use: {why}", self.what
            );
        }
        *said = failure.map(str::to_owned);
    }
}

/// Maximum length of a secret, which a header must be able to carry.
const LONGEST_SECRET: usize = 8 << 10;

/// Reads a secret: the content of a file without surrounding blanks. The last one stays in use while the file cannot be
/// read, as in the moment of its replacement.
#[derive(Debug)]
pub(super) struct Secret {
    path: PathBuf,
    last: Mutex<Option<String>>,
    complaint: Complaint,
}

impl Secret {
    pub(super) fn new(path: &Path) -> Self {
        let complaint = Complaint::new("the credentials for an authorization server", path);
        Secret { path: path.to_owned(), last: Mutex::default(), complaint }
    }

    /// Returns the secret.
    ///
    /// # Errors
    /// In words, when the file was never readable.
    pub(super) fn get(&self) -> Result<String, String> {
        let found = read_secret(&self.path);
        let mut last = self.last.lock();
        match (found, &*last) {
            (Ok(found), _) => {
                self.complaint.note(None);
                *last = Some(found.clone());
                Ok(found)
            }
            (Err(why), Some(last)) => {
                self.complaint.note(Some(&why));
                Ok(last.clone())
            }
            (Err(why), None) => Err(format!("{} cannot be used: {why}", self.path.display())),
        }
    }
}

/// Reads a secret from a file.
///
/// # Errors
/// In words, when the file has none.
pub(super) fn read_secret(path: &Path) -> Result<String, String> {
    let content = read(path).map_err(|error| error.to_string())?;
    let text = String::from_utf8(content).map_err(|_| "it is not UTF-8")?;
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        text if text.contains(char::is_control) => Err("it has more than one line".to_owned()),
        text if text.len() > LONGEST_SECRET => Err("it exceeds 8 KiB".to_owned()),
        text => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::fs;

    /// Returns the path of a file that does not exist yet.
    fn file(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("proxyrunner-watched-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        folder.join(name)
    }

    #[test]
    fn a_changed_file_is_taken_and_a_bad_one_keeps_the_previous() {
        let path = file("changes");
        fs::write(&path, "one").expect("written");
        let mut watched = Watched::new(&path);
        assert_eq!(watched.read().expect("read").as_deref(), Some(&b"one"[..]));
        let (failures, mut taken) = (Cell::new(0), Vec::new());
        let mut look = |watched: &mut Watched| {
            watched.look("things", &|| failures.set(failures.get() + 1), &mut |content| {
                if content == b"bad" {
                    return Err("it is bad".to_owned());
                }
                taken.push(String::from_utf8_lossy(content).into_owned());
                Ok(())
            });
        };
        look(&mut watched);
        fs::write(&path, "bad").expect("written");
        look(&mut watched);
        look(&mut watched);
        fs::remove_file(&path).expect("removed");
        look(&mut watched);
        look(&mut watched);
        fs::write(&path, "two").expect("written");
        look(&mut watched);
        fs::write(&path, vec![b'x'; (1 << 20) + 1]).expect("written");
        look(&mut watched);
        assert_eq!(taken, ["two"]);
        assert_eq!(failures.get(), 3);
    }

    #[test]
    fn a_secret_is_read_each_time_and_survives_a_missing_file() {
        let path = file("secret");
        let secret = Secret::new(&path);
        assert!(secret.get().is_err());
        fs::write(&path, " one\n").expect("written");
        assert_eq!(secret.get().as_deref(), Ok("one"));
        fs::write(&path, "two").expect("written");
        assert_eq!(secret.get().as_deref(), Ok("two"));
        let failures = || FAILED_RELOADS.value(Reloaded::Auth as usize);
        let before = failures();
        for bad in [&b"\n"[..], b"\xff", b"two\nlines", &[b'x'; 9 << 10]] {
            fs::write(&path, bad).expect("written");
            for _ in 0..3 {
                assert_eq!(secret.get().as_deref(), Ok("two"));
            }
        }
        fs::remove_file(&path).expect("removed");
        assert_eq!(secret.get().as_deref(), Ok("two"));
        assert!(failures() >= before + 5, "each kind of failure is told");
    }
}
