//! Directory trees: copied, sized up and removed.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use crate::error::ClusterError;

/// Copies a directory with everything in it; modes are kept. Symbolic links to something in it stay links; of others what they
/// lead to is copied, since it may go, and nothing if it has gone already.
///
/// Files are copied and never linked: the copy may be given away and written to. With `owner`, the copy belongs to that
/// user and group.
pub(crate) fn copy(from: &Path, to: &Path, owner: Option<(u32, u32)>) -> Result<(), ClusterError> {
    let root = fs::canonicalize(from).map_err(ClusterError::file("read", from))?;
    copy_below(&root, &root, to, owner)
}

fn copy_below(
    root: &Path,
    from: &Path,
    to: &Path,
    owner: Option<(u32, u32)>,
) -> Result<(), ClusterError> {
    let metadata = fs::metadata(from).map_err(ClusterError::file("read", from))?;
    fs::create_dir_all(to).map_err(ClusterError::file("create", to))?;
    for entry in fs::read_dir(from).map_err(ClusterError::file("read", from))? {
        let entry = entry.map_err(ClusterError::file("read", from))?;
        let source = entry.path();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().map_err(ClusterError::file("read", &source))?;
        if kind.is_dir() {
            copy_below(root, &source, &target, owner)?;
        } else if kind.is_symlink() && !stays_below(root, &source) {
            copy_target(&source, &target, owner)?;
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

/// The symbolic link leads to something below `root`, also in a copy of it.
fn stays_below(root: &Path, link: &Path) -> bool {
    fs::read_link(link).is_ok_and(|target| target.is_relative())
        && fs::canonicalize(link).is_ok_and(|target| target.starts_with(root))
}

/// Copies what a symbolic link leads to, if it is there.
fn copy_target(link: &Path, target: &Path, owner: Option<(u32, u32)>) -> Result<(), ClusterError> {
    let Ok(original) = fs::canonicalize(link) else { return Ok(()) };
    if original.is_dir() {
        return copy(&original, target, owner);
    }
    fs::copy(&original, target).map_err(ClusterError::file("copy", &original))?;
    give(target, owner)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Debian's `postgis.control` is a link out of the tree: the copy broke when the system's package went.
    #[test]
    fn what_a_link_out_of_the_tree_leads_to_is_copied() {
        let dir = std::env::temp_dir().join(format!("pgshard-tree-{}", std::process::id()));
        let (from, to) = (dir.join("from"), dir.join("to"));
        fs::create_dir_all(from.join("extension")).expect("the directory for temporary files");
        fs::write(dir.join("postgis.control"), "out").expect("as above");
        fs::write(from.join("own.control"), "in").expect("as above");
        let link = |target: &Path, name: &str| {
            symlink(target, from.join("extension").join(name)).expect("as above");
        };
        link(&dir.join("postgis.control"), "postgis.control");
        link(&from.join("own.control"), "absolute.control");
        link(Path::new("../own.control"), "own.control");
        link(Path::new("/nowhere"), "zz.control");
        copy(&from, &to, None).expect("it is readable");
        fs::remove_file(dir.join("postgis.control")).expect("it is there");
        fs::remove_dir_all(&from).expect("it is there");
        let read = |name: &str| fs::read_to_string(to.join("extension").join(name)).ok();
        assert_eq!(read("postgis.control").as_deref(), Some("out"));
        assert_eq!(read("absolute.control").as_deref(), Some("in"));
        assert_eq!(read("own.control").as_deref(), Some("in"));
        assert!(fs::symlink_metadata(to.join("extension/zz.control")).is_err());
        remove(&dir).expect("it is ours");
    }
}
