//! The gateway's key set as a file in memory, which the sidecars that it runs read by an inherited descriptor. No folder
//! has to be writable, and no listener of the gateway has to be reachable.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The file.
#[derive(Clone, Debug)]
pub(super) struct Published(Arc<OwnedFd>);

impl Published {
    /// Creates the file.
    ///
    /// # Errors
    /// When the system has no files in memory.
    pub(super) fn new(key_set: &str) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        let file = {
            use nix::sys::memfd::{MFdFlags, memfd_create};
            memfd_create(c"gateway-keys", MFdFlags::MFD_CLOEXEC)?
        };
        #[cfg(not(target_os = "linux"))]
        let file = File::open("/dev/null")?.into();
        let published = Published(Arc::new(file));
        published.replace(key_set)?;
        Ok(published)
    }

    /// Replaces the content. A reader in between finds no key set, keeps the previous one, and reads again.
    ///
    /// # Errors
    /// When memory is exhausted.
    pub(super) fn replace(&self, key_set: &str) -> io::Result<()> {
        let file = File::from(self.0.try_clone()?);
        file.set_len(0)?;
        file.write_all_at(key_set.as_bytes(), 0)
    }

    /// Returns the file, to be inherited.
    pub(super) fn file(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[cfg(target_os = "linux")]
    #[test]
    fn each_reader_finds_the_whole_content() {
        let published = Published::new("a long key set").expect("a file");
        let read =
            || std::fs::read_to_string(format!("/proc/self/fd/{}", published.0.as_raw_fd())).expect("read");
        assert_eq!((read(), read()), ("a long key set".to_owned(), "a long key set".to_owned()));
        published.replace("a short one").expect("replaced");
        assert_eq!(read(), "a short one");
    }
}
