//! Mounted files: secrets, certificates, policies and keys that change while proxyrunner runs.
//!
//! A [`Mounted`] reads files and folders, and tells when their content has changed. It polls, since notifications do not
//! exist on every file system. Kubernetes replaces all files of a mount at once by exchanging the link `..data`; files
//! that change while they are being read are read again, so that one content never mixes two generations.

use crate::sorted::sorted;
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// Default interval between polls.
const POLL: Duration = Duration::from_secs(10);
/// Maximum length of all files together.
const LONGEST: u64 = 16 << 20;
/// Maximum number of files in one folder.
const MOST: usize = 4096;
/// Attempts to read files that change meanwhile.
const ATTEMPTS: usize = 3;

/// The interval between polls; see [`set_interval`].
static INTERVAL: OnceLock<Duration> = OnceLock::new();

/// Sets the interval between polls of all [watches](watch) that start later. Only the first call has an effect.
pub fn set_interval(interval: Duration) {
    let _ = INTERVAL.set(interval);
}

/// Returns the interval between polls.
pub fn interval() -> Duration {
    INTERVAL.get().copied().unwrap_or(POLL)
}

/// One file, as it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct MountedFile {
    /// The file: the given path, or the given folder's path with the file's name.
    pub path: PathBuf,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for MountedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MountedFile({:?}, …)", self.path)
    }
}

/// The reason why files cannot be read. It names the file and never its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The file or folder.
    pub path: PathBuf,
    /// The reason, such as `No such file or directory (os error 2)`.
    pub reason: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read {}: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for Unreadable {}

/// Files and folders whose changes are told.
///
/// Of a folder, all files are read in the order of their names, except for those whose name begins with `..`, which
/// Kubernetes uses itself. Folders inside of it are not read.
#[derive(Clone)]
pub struct Mounted {
    paths: Vec<PathBuf>,
    /// Describes the files as they were last read.
    stamp: Option<Vec<Stamp>>,
    /// The digest of the last content.
    digest: Option<[u8; 32]>,
    /// Whether the files were read again since their last change. The time of a file is coarse: two changes of the
    /// same length can leave the same stamp.
    is_settled: bool,
    /// The last error that was told.
    told: Option<Unreadable>,
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mounted({:?})", self.paths)
    }
}

/// What changes about a file when it is written or replaced.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    resolved: PathBuf,
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Mounted {
    /// Creates the set of these files and folders. Nothing is read yet.
    pub fn new(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        let paths = paths.into_iter().map(Into::into).collect();
        Mounted { paths, stamp: None, digest: None, is_settled: false, told: None }
    }

    /// Reads all files. [`Mounted::poll`] then tells changes since this content.
    ///
    /// # Errors
    /// When a file is missing, is unreadable, is no regular file, or is too large.
    pub fn read(&mut self) -> Result<Vec<MountedFile>, Unreadable> {
        for _ in 0..ATTEMPTS {
            let before = self.stamps()?;
            let files = before.iter().map(|stamp| read(&stamp.path)).collect::<Result<Vec<_>, _>>()?;
            if self.stamps()? == before {
                self.stamp = Some(before);
                self.digest = Some(digest(&files));
                self.is_settled = false;
                self.told = None;
                return Ok(files);
            }
        }
        let path = self.paths.first().cloned().unwrap_or_default();
        Err(Unreadable { path, reason: "it changes while it is being read".to_owned() })
    }

    /// Returns the new content if it has changed since it was last told. Also returns an error once, as long as it
    /// stays the same, and the content once the files are readable again.
    ///
    /// Blocks while it reads.
    pub fn poll(&mut self) -> Option<Result<Vec<MountedFile>, Unreadable>> {
        let known = (self.digest, self.told.clone());
        let stamps = self.stamps();
        if known.1.is_none() && self.is_settled && stamps.as_ref().ok() == self.stamp.as_ref() {
            return None;
        }
        let had_same_stamp = stamps.is_ok_and(|stamps| Some(stamps) == self.stamp);
        match self.read() {
            Ok(files) => {
                self.is_settled = had_same_stamp;
                (self.digest != known.0 || known.1.is_some()).then_some(Ok(files))
            }
            Err(error) => {
                let is_new = known.1.as_ref() != Some(&error);
                self.told = Some(error.clone());
                is_new.then_some(Err(error))
            }
        }
    }

    /// Describes all files as they are now.
    fn stamps(&self) -> Result<Vec<Stamp>, Unreadable> {
        let mut stamps = Vec::new();
        for path in &self.paths {
            let failed = |error: io::Error| unreadable(path, &error);
            if fs::metadata(path).map_err(failed)?.is_dir() {
                let mut names = Vec::new();
                for entry in fs::read_dir(path).map_err(failed)? {
                    let name = entry.map_err(failed)?.file_name();
                    if !name.as_encoded_bytes().starts_with(b"..") {
                        names.push(name);
                    }
                    if names.len() > MOST {
                        return Err(failed(io::Error::other(format!("it has more than {MOST} files"))));
                    }
                }
                for name in sorted(names) {
                    let file = path.join(name);
                    let about = fs::metadata(&file).map_err(|error| unreadable(&file, &error))?;
                    if about.is_file() {
                        stamps.push(Stamp::of(file, &about)?);
                    }
                }
            } else {
                let about = fs::metadata(path).map_err(failed)?;
                stamps.push(Stamp::of(path.clone(), &about)?);
            }
        }
        let mut left = LONGEST;
        for stamp in &stamps {
            left = left.checked_sub(stamp.length).ok_or_else(|| too_long(&stamp.path))?;
        }
        Ok(stamps)
    }
}

impl Stamp {
    fn of(path: PathBuf, about: &Metadata) -> Result<Self, Unreadable> {
        if !about.is_file() {
            return Err(unreadable(&path, &no_file()));
        }
        let resolved = path.canonicalize().map_err(|error| unreadable(&path, &error))?;
        Ok(Stamp {
            resolved,
            device: about.dev(),
            inode: about.ino(),
            length: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
            path,
        })
    }
}

fn read(path: &Path) -> Result<MountedFile, Unreadable> {
    let failed = |error: io::Error| unreadable(path, &error);
    // Opening a pipe that has replaced the file must not wait for a writer.
    let open = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    let file: File = open.map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(no_file()));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LONGEST {
        return Err(too_long(path));
    }
    Ok(MountedFile { path: path.to_owned(), bytes })
}

fn unreadable(path: &Path, error: &io::Error) -> Unreadable {
    Unreadable { path: path.to_owned(), reason: error.to_string() }
}

fn no_file() -> io::Error {
    io::Error::other("it is not a regular file")
}

fn too_long(path: &Path) -> Unreadable {
    let reason = format!("its length exceeds the limit of {} MiB for all files together", LONGEST >> 20);
    Unreadable { path: path.to_owned(), reason }
}

fn digest(files: &[MountedFile]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for file in files {
        for part in [file.path.as_os_str().as_encoded_bytes(), &file.bytes] {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
    }
    digest.finalize().into()
}

/// Polls until `changed` returns false, and calls it with each result of [`Mounted::poll`]. Files are read on a thread
/// for blocking work.
///
/// # Panics
/// Outside a tokio runtime.
pub async fn watch(
    mut mounted: Mounted,
    mut changed: impl FnMut(Result<Vec<MountedFile>, Unreadable>) -> bool,
) {
    let interval = interval();
    loop {
        tokio::time::sleep(interval).await;
        let poll = move || {
            let result = mounted.poll();
            (mounted, result)
        };
        // A poll that panics ends the watch, since its state is lost; a runtime that stops does, too.
        let Some((next, result)) = crate::tasks::block(poll).await else { return };
        mounted = next;
        if result.is_some_and(|result| !changed(result)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A folder that is removed at the end of the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let name = format!("mounted-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Folder(path)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn texts(files: &[MountedFile]) -> Vec<&str> {
        files.iter().map(|file| std::str::from_utf8(&file.bytes).unwrap()).collect()
    }

    fn polled(mounted: &mut Mounted) -> Option<String> {
        mounted.poll().map(|result| match result {
            Ok(files) => texts(&files).join(" "),
            Err(error) => format!("error: {}", error.reason),
        })
    }

    #[test]
    fn a_changed_content_is_told_once() {
        let folder = Folder::new();
        let path = folder.write("key", "one");
        let mut mounted = Mounted::new([&path]);
        assert_eq!(texts(&mounted.read().unwrap()), ["one"]);
        assert_eq!(polled(&mut mounted), None);
        folder.write("key", "two");
        assert_eq!(polled(&mut mounted).as_deref(), Some("two"));
        assert_eq!(polled(&mut mounted), None);
        folder.write("key", "two");
        assert_eq!(polled(&mut mounted), None, "written, but the same");
    }

    #[test]
    fn a_change_that_leaves_the_same_stamp_is_found_by_the_next_poll() {
        let folder = Folder::new();
        let mut mounted = Mounted::new([folder.write("key", "one")]);
        mounted.read().unwrap();
        mounted.digest = Some([0; 32]);
        assert_eq!(polled(&mut mounted).as_deref(), Some("one"));
        assert_eq!(polled(&mut mounted), None);
        mounted.digest = Some([0; 32]);
        assert_eq!(polled(&mut mounted), None, "settled: the file is not read again");
    }

    #[test]
    fn the_first_poll_tells_the_content_if_nothing_was_read() {
        let folder = Folder::new();
        let mut mounted = Mounted::new([folder.write("key", "one")]);
        assert_eq!(polled(&mut mounted).as_deref(), Some("one"));
        assert_eq!(polled(&mut mounted), None);
    }

    #[test]
    fn an_error_is_told_once_and_the_content_afterwards() {
        let folder = Folder::new();
        let path = folder.write("key", "one");
        let mut mounted = Mounted::new([&path]);
        mounted.read().unwrap();
        fs::remove_file(&path).unwrap();
        let missing = polled(&mut mounted).unwrap();
        assert!(missing.starts_with("error: No such file"), "{missing}");
        assert_eq!(polled(&mut mounted), None);
        fs::create_dir(folder.0.join("key")).unwrap();
        assert_eq!(polled(&mut mounted).as_deref(), Some(""), "an empty folder");
        fs::remove_dir(folder.0.join("key")).unwrap();
        assert!(polled(&mut mounted).is_some());
        folder.write("key", "one");
        assert_eq!(polled(&mut mounted).as_deref(), Some("one"), "readable again, with the same content");
        assert_eq!(polled(&mut mounted), None);
    }

    #[test]
    fn a_pipe_is_refused_without_waiting() {
        let folder = Folder::new();
        let path = folder.0.join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = Mounted::new([&path]).read().unwrap_err();
        assert_eq!(error.reason, "it is not a regular file");
        assert_eq!(read(&path).unwrap_err().reason, "it is not a regular file", "replaced after the check");
    }

    #[test]
    fn a_file_that_is_too_long_is_refused() {
        let folder = Folder::new();
        let path = folder.write("long", "");
        File::create(&path).unwrap().set_len(LONGEST + 1).unwrap();
        assert!(Mounted::new([&path]).read().unwrap_err().reason.contains("16 MiB"));
        assert!(read(&path).unwrap_err().reason.contains("16 MiB"));
    }

    /// Writes a generation of a Kubernetes mount, and moves `..data` to it.
    fn mount(folder: &Folder, generation: &str, files: &[(&str, &str)]) {
        let inner = folder.0.join(generation);
        fs::create_dir(&inner).unwrap();
        for (name, text) in files {
            fs::write(inner.join(name), text).unwrap();
            let _ = symlink(Path::new("..data").join(name), folder.0.join(name));
        }
        symlink(generation, folder.0.join("..next")).unwrap();
        fs::rename(folder.0.join("..next"), folder.0.join("..data")).unwrap();
    }

    #[test]
    fn a_mount_of_kubernetes_is_read_as_one_generation() {
        let folder = Folder::new();
        mount(&folder, "..1", &[("a", "a1"), ("b", "b1")]);
        let mut whole = Mounted::new([&folder.0]);
        let mut one = Mounted::new([folder.0.join("b")]);
        assert_eq!(texts(&whole.read().unwrap()), ["a1", "b1"]);
        assert_eq!(texts(&one.read().unwrap()), ["b1"]);
        mount(&folder, "..2", &[("a", "a2"), ("b", "b1")]);
        assert_eq!(polled(&mut whole).as_deref(), Some("a2 b1"));
        assert_eq!(polled(&mut one), None, "the same content in another generation");
        assert_eq!(polled(&mut whole), None);
    }

    #[test]
    fn no_content_is_shown() {
        let folder = Folder::new();
        let mut mounted = Mounted::new([folder.write("key", "hunter2")]);
        let files = mounted.read().unwrap();
        assert!(!format!("{files:?} {mounted:?}").contains("hunter2"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_ends_when_its_owner_does() {
        let folder = Folder::new();
        let mounted = Mounted::new([folder.write("key", "one")]);
        let mut told = Vec::new();
        watch(mounted, |result| {
            told.push(result.unwrap().len());
            false
        })
        .await;
        assert_eq!(told, [1]);
    }
}
