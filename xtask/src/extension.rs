//! The extension as it is built: compiled in release mode, and its four kinds of files.
//!
//! The library and the tool `pgshard` come from one `cargo build`. The control file and the SQL scripts are
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

/// The profiles of `Cargo.toml` in which the extension is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// For tests and the demo.
    Release,
    /// What is installed and measured: optimized over all crates at once.
    Dist,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dist => "dist",
        }
    }

    /// Where what was built against `postgres` lies.
    pub(crate) fn dir(self, workspace: &Workspace, postgres: &Postgres) -> PathBuf {
        workspace.release_dir(postgres).with_file_name(self.name())
    }
}

/// The command that compiles the library and `pgshard`.
pub(crate) fn build_command(
    workspace: &Workspace,
    postgres: &Postgres,
    profile: Profile,
) -> Command {
    let profile = ["build", "--profile", profile.name()];
    let packages = ["--package", "pg_shard", "--package", "cluster"];
    workspace.cargo_with_extension(postgres, &[profile.as_slice(), &packages].concat(), &[])
}

/// Compiles the library and `pgshard`, and says where the files are.
pub(crate) fn build(
    workspace: &Workspace,
    postgres: &Postgres,
    profile: Profile,
) -> Result<ExtensionFiles> {
    process::run(&mut build_command(workspace, postgres, profile))?;
    files(workspace, postgres, profile)
}

/// Where the files are.
fn files(workspace: &Workspace, postgres: &Postgres, profile: Profile) -> Result<ExtensionFiles> {
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
        library: profile.dir(workspace, postgres).join("libpg_shard.so"),
        control: sql_dir.join("pg_shard.control"),
        scripts,
        copy_program: workspace.root().join("scripts/copy_to_distributed_table"),
    })
}
