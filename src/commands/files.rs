//! Files that a command writes, and the reasons why one cannot be written.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Writes a file beside `path`, and then renames it: no process reads an incomplete one. Replaces a regular file or a
/// link, and nothing else: a device such as `/dev/null` would be lost for the whole machine.
///
/// # Errors
/// In words why it cannot be written, and what to do.
pub(super) fn replace(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), String> {
    let unnamed = || "it names no file; give the path of a file".to_owned();
    let mut name = path.file_name().ok_or_else(unnamed)?.to_owned();
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            return Err("it is a directory; give the path of a file in it".to_owned());
        }
        Ok(found) if !found.is_file() => {
            return Err("it is a device, a pipe or a socket; give the path of a regular file".to_owned());
        }
        _ if path.as_os_str().as_encoded_bytes().ends_with(b"/") => return Err(unnamed()),
        _ => {}
    }
    name.push(format!(".{}", std::process::id()));
    let part = path.with_file_name(name);
    let written = (|| {
        let mut file = File::create(&part)?;
        fill(&mut file)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&part, path)
    })();
    written.map_err(|error| {
        let _ = fs::remove_file(&part);
        obstacle(path, &error)
    })
}

/// Says why the system does not create a file at `path`, and what to do.
pub(super) fn obstacle(path: &Path, error: &io::Error) -> String {
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => PathBuf::from("."),
        Some(folder) => folder.to_path_buf(),
        None => path.to_path_buf(),
    };
    let shown = folder.display();
    let user = nix::unistd::geteuid();
    match error.kind() {
        io::ErrorKind::NotFound if !folder.exists() => {
            format!("the folder {shown} does not exist; create or mount it")
        }
        io::ErrorKind::NotFound | io::ErrorKind::Unsupported => {
            format!("the folder {shown} takes no files; give another one")
        }
        io::ErrorKind::PermissionDenied => {
            format!(
                "the folder {shown} is not writable for user {user}; give that user access, or another folder"
            )
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("the folder {shown} is read-only; mount a writable volume there")
        }
        io::ErrorKind::NotADirectory => {
            format!("{shown} is not a folder; give the path of a file in a folder")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("no space is left in {shown}; free some, or enlarge the volume")
        }
        io::ErrorKind::InvalidFilename => "its name is too long; give a shorter one".to_owned(),
        _ => error.to_string(),
    }
}
