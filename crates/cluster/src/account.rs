//! The user that the servers run as.
//!
//! PostgreSQL refuses to run as root. When we are root, its programs run as user `postgres` and own their data; otherwise
//! everything runs as ourselves.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::unistd::{Uid, User};

use crate::descriptors;
use crate::error::ClusterError;

/// The user that PostgreSQL's packages create for their servers.
const SERVER_USER: &str = "postgres";

/// The user that the servers run as.
#[derive(Clone, Debug)]
pub(crate) enum ServerAccount {
    /// Ourselves.
    Ourselves,
    /// Another user, since we are root.
    Other { name: String, uid: u32, gid: u32 },
}

impl ServerAccount {
    /// Ourselves, or user `postgres` if we are root.
    pub(crate) fn choose() -> Result<Self, ClusterError> {
        if !Uid::effective().is_root() {
            return Ok(Self::Ourselves);
        }
        match User::from_name(SERVER_USER) {
            Ok(Some(user)) => {
                Ok(Self::Other { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() })
            }
            Ok(None) | Err(_) => Err(ClusterError::NoServerUser { user: SERVER_USER.to_owned() }),
        }
    }

    /// User and group for [`crate::tree::copy`].
    pub(crate) fn owner(&self) -> Option<(u32, u32)> {
        match self {
            Self::Ourselves => None,
            Self::Other { uid, gid, .. } => Some((*uid, *gid)),
        }
    }

    /// Gives `path` to this user.
    pub(crate) fn own(&self, path: &Path) -> Result<(), ClusterError> {
        let Some((uid, gid)) = self.owner() else { return Ok(()) };
        chown(path, Some(uid), Some(gid)).map_err(ClusterError::file("change the owner of", path))
    }

    /// Makes an empty directory that this user owns and, according to `mode`, others may enter.
    pub(crate) fn create_dir(&self, path: &Path, mode: u32) -> Result<(), ClusterError> {
        fs::create_dir(path).map_err(ClusterError::file("create", path))?;
        crate::tree::set_mode(path, mode)?;
        self.own(path)
    }

    /// Writes a file that this user owns.
    pub(crate) fn write(&self, path: &Path, text: &str) -> Result<(), ClusterError> {
        fs::write(path, text).map_err(ClusterError::file("write", path))?;
        self.own(path)
    }

    /// Refuses a directory that this user cannot enter, for instance one below a closed home directory.
    pub(crate) fn ensure_reaches(&self, dir: &Path) -> Result<(), ClusterError> {
        let Self::Other { name, .. } = self else { return Ok(()) };
        let reached = self.command(Path::new("test")).arg("-x").arg(dir).status();
        match reached {
            Ok(status) if status.success() => Ok(()),
            Ok(_) | Err(_) => {
                Err(ClusterError::DirectoryUnreachable { dir: dir.to_owned(), user: name.clone() })
            }
        }
    }

    /// A program that will run as this user, with no part of our environment that would change what PostgreSQL does.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some((uid, gid)) = self.owner() {
            command.uid(uid).gid(gid);
        }
        for (name, _) in std::env::vars_os() {
            // PGHOST, PGDATA and their like would redirect it.
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
            // With it, every ERROR would carry a backtrace of the extension in its detail.
            .env_remove("RUST_BACKTRACE")
            .env_remove("RUST_LIB_BACKTRACE")
            .env("LC_ALL", "C.UTF-8")
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    /// Runs a program to its end as this user. A server that it starts inherits no open file of ours.
    pub(crate) fn run(
        &self,
        program: PathBuf,
        arguments: &[&dyn AsRef<std::ffi::OsStr>],
    ) -> Result<(), ClusterError> {
        self.run_in(None, program, arguments)
    }

    /// The same in a directory, for a program that writes where it is.
    pub(crate) fn run_in(
        &self,
        directory: Option<&Path>,
        program: PathBuf,
        arguments: &[&dyn AsRef<std::ffi::OsStr>],
    ) -> Result<(), ClusterError> {
        descriptors::close_ours_on_exec();
        let mut command = self.command(&program);
        if let Some(directory) = directory {
            command.current_dir(directory);
        }
        for argument in arguments {
            command.arg(argument.as_ref());
        }
        let Output { status, stdout, stderr } =
            command.output().map_err(ClusterError::file("run", &program))?;
        if status.success() {
            return Ok(());
        }
        let output = [stdout, stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
            .join("\n");
        Err(ClusterError::ProgramFailed { program, status, output })
    }
}
