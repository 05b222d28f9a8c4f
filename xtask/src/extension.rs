//! The extension as it is built: compiled in release mode, and its four kinds of files.
//!
//! The library and the tool `pgshard` come from one `cargo build --release`. The control file and the SQL scripts are
//! written by hand and lie in `sql/`, a program for the shell in `scripts/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use cluster::Artifacts;

use crate::process;
use crate::setup::Postgres;
use crate::workspace::Workspace;

/// The files that make the extension, where they lie in the workspace.
#[derive(Debug)]
pub(crate) struct ExtensionFiles {
    /// `libpg_shard.so`; PostgreSQL knows it as `pg_shard.so`.
    pub(crate) library: PathBuf,
    /// `pg_shard.control`.
    pub(crate) control: PathBuf,
    /// `pg_shard--2.0.sql`, and whatever leads from one version to another.
    pub(crate) scripts: Vec<PathBuf>,
    /// `copy_to_distributed_table`, which the cluster library has in itself.
    pub(crate) copy_program: PathBuf,
}

impl ExtensionFiles {
    /// The same for the cluster library, which installs them into its copy of PostgreSQL.
    pub(crate) fn artifacts(&self) -> Artifacts {
        Artifacts {
            library: self.library.clone(),
            extension_dir: self.control.parent().map(Path::to_owned).unwrap_or_default(),
        }
    }
}

/// The command that compiles the library and `pgshard`.
pub(crate) fn build_command(workspace: &Workspace, postgres: &Postgres) -> Command {
    let packages = ["build", "--release", "--package", "pg_shard", "--package", "cluster"];
    workspace.cargo_with_extension(postgres, &packages, &[])
}

/// Compiles the library and `pgshard`, and says where the files are.
pub(crate) fn build(workspace: &Workspace, postgres: &Postgres) -> Result<ExtensionFiles> {
    process::run(&mut build_command(workspace, postgres))?;
    files(workspace, postgres)
}

/// Where the files are.
pub(crate) fn files(workspace: &Workspace, postgres: &Postgres) -> Result<ExtensionFiles> {
    let sql_dir = workspace.root().join("sql");
    let entries =
        fs::read_dir(&sql_dir).with_context(|| format!("cannot read {}", sql_dir.display()))?;
    let mut scripts: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|it| it.path()))
        .filter(|path| {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            name.starts_with("pg_shard--") && name.ends_with(".sql")
        })
        .collect();
    scripts.sort();
    Ok(ExtensionFiles {
        library: workspace.release_dir(postgres).join("libpg_shard.so"),
        control: sql_dir.join("pg_shard.control"),
        scripts,
        copy_program: workspace.root().join("scripts/copy_to_distributed_table"),
    })
}
