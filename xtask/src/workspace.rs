//! Where things are in this workspace, and cargo run on it.
//!
//! Both directories come from `cargo metadata`, so `CARGO_TARGET_DIR` and cargo's own configuration are heeded.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;
use crate::setup::{DEFAULT_RELEASE, Postgres};

/// The workspace this program belongs to.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    #[serde(rename = "workspace_root")]
    root: PathBuf,
    #[serde(rename = "target_directory")]
    target: PathBuf,
}

impl Workspace {
    /// Asks cargo, from the directory in which it started us.
    pub(crate) fn find() -> Result<Self> {
        let mut command = Command::new(cargo_program());
        command.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
        if let Some(package) = env::var_os("CARGO_MANIFEST_DIR") {
            command.current_dir(package);
        }
        let text = process::output_of(&mut command)?;
        serde_json::from_str(&text).context("cannot understand the answer of cargo metadata")
    }

    /// The directory of the topmost `Cargo.toml`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of release builds against `postgres`, where the extension's library appears.
    pub(crate) fn release_dir(&self, postgres: &Postgres) -> PathBuf {
        self.target_for(postgres).join("release")
    }

    /// The build directory of libraries that only the core of the tests loads.
    pub(crate) fn core_dir(&self) -> PathBuf {
        self.target.join("core")
    }

    /// Each release of PostgreSQL has a build directory of its own, so that none compiles another's anew.
    fn target_for(&self, postgres: &Postgres) -> PathBuf {
        match postgres.release() {
            DEFAULT_RELEASE => self.target.clone(),
            release => self.target.join(format!("pg{release}")),
        }
    }

    /// `cargo ARGUMENTS` at the root, building against `postgres`.
    pub(crate) fn cargo(&self, postgres: &Postgres, arguments: &[&str]) -> Command {
        let mut command = Command::new(cargo_program());
        command
            .current_dir(&self.root)
            .args(arguments)
            .env(Postgres::VARIABLE, postgres.pg_config());
        if postgres.release() != DEFAULT_RELEASE {
            command.env("CARGO_TARGET_DIR", self.target_for(postgres));
        }
        command
    }

    /// The same for a chore that compiles the extension too: with the features of the release, behind `first`.
    pub(crate) fn cargo_with_extension(
        &self,
        postgres: &Postgres,
        first: &[&str],
        rest: &[&str],
    ) -> Command {
        let feature = format!("pg_shard/pg{}", postgres.release());
        let mut arguments = first.to_vec();
        if postgres.release() != DEFAULT_RELEASE {
            arguments.extend(["--no-default-features", "--features", &feature]);
        }
        arguments.extend(rest);
        self.cargo(postgres, &arguments)
    }
}

/// The cargo that runs us, or the one in `PATH`.
fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
