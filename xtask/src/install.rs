//! `cargo xtask install`: the extension's files into a PostgreSQL installation, for its `CREATE EXTENSION`.
//!
//! A library that a running server has loaded is not overwritten but replaced: written beside it under another name and
//! then renamed, so that the server keeps the one it has mapped.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::setup::{self, Postgres};
use crate::workspace::Workspace;
use crate::{extension, render};

/// Builds, and writes the files to where `pg_config` says.
pub(crate) fn run(pg_config: Option<&Path>) -> Result<()> {
    let postgres = match pg_config {
        // A wrong name is reported before anything is installed.
        Some(pg_config) => Postgres::at(pg_config).and_then(|_| {
            let known = setup::ensure()?;
            Postgres::known_or_at(known, pg_config)
        })?,
        None => setup::ensure()?,
    };
    let files = extension::build(&Workspace::find()?, &postgres, extension::Profile::Dist)?;

    let extension_dir = postgres.extension_dir()?;
    write(&files.library, &postgres.library_dir()?.join("pg_shard.so"), 0o755)?;
    for file in std::iter::once(&files.control).chain(&files.scripts) {
        let name = file.file_name().context("a file of the extension has no name")?;
        write(file, &extension_dir.join(name), 0o644)?;
    }
    let copy_program = postgres.program_dir()?.join("copy_to_distributed_table");
    write(&files.copy_program, &copy_program, 0o755)?;
    render::say(
        "Installed. On every node set shared_preload_libraries = 'pg_shard' and restart; \
         then, on the coordinator: CREATE EXTENSION pg_shard",
    );
    Ok(())
}

/// Puts a copy of `from` at `to`, in one step.
fn write(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let beside = PathBuf::from(format!("{}.part", to.display()));
    let written = fs::copy(from, &beside)
        .and_then(|_| fs::set_permissions(&beside, fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&beside, to));
    if written.is_err() {
        // Best effort: the reason that counts is the one reported below.
        drop(fs::remove_file(&beside));
    }
    written.with_context(|| {
        format!(
            "cannot install {} as {}; does this user own the installation?",
            from.display(),
            to.display()
        )
    })?;
    render::say(&format!("wrote {}", to.display()));
    Ok(())
}
