//! Directory trees: copied, sized up and removed.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use crate::error::ClusterError;

/// Copies a directory with everything in it; modes are kept, symbolic links stay links.
///
/// Files are copied and never linked: the copy may be given away and written to. With `owner`, the copy belongs to that
/// user and group.
pub(crate) fn copy(from: &Path, to: &Path, owner: Option<(u32, u32)>) -> Result<(), ClusterError> {
    let metadata = fs::metadata(from).map_err(ClusterError::file("read", from))?;
    fs::create_dir_all(to).map_err(ClusterError::file("create", to))?;
    for entry in fs::read_dir(from).map_err(ClusterError::file("read", from))? {
        let entry = entry.map_err(ClusterError::file("read", from))?;
        let source = entry.path();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().map_err(ClusterError::file("read", &source))?;
        if kind.is_dir() {
            copy(&source, &target, owner)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&source).map_err(ClusterError::file("read", &source))?;
            symlink(link, &target).map_err(ClusterError::file("create", &target))?;
            if let Some((uid, gid)) = owner {
                lchown(&target, Some(uid), Some(gid))
                    .map_err(ClusterError::file("change the owner of", &target))?;
            }
        } else {
            fs::copy(&source, &target).map_err(ClusterError::file("copy", &source))?;
            give(&target, owner)?;
        }
    }
    set_mode(to, metadata.permissions().mode())?;
    give(to, owner)
}

/// Gives `path` to `owner`, if there is one.
fn give(path: &Path, owner: Option<(u32, u32)>) -> Result<(), ClusterError> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    chown(path, Some(uid), Some(gid)).map_err(ClusterError::file("change the owner of", path))
}

/// Sets the mode of `path`, whatever our umask is.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<(), ClusterError> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(ClusterError::file("change the mode of", path))
}

/// Removes a file or a tree; it is no error if there is none.
pub(crate) fn remove(path: &Path) -> Result<(), ClusterError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    let removed = if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(ClusterError::file("remove", path))
}

/// Whether `dir` holds nothing, or does not exist.
pub(crate) fn is_empty(dir: &Path) -> Result<bool, ClusterError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(ClusterError::file("read", dir)(error)),
    }
}
