//! PostgreSQL's own tests, from Debian's source package.
//!
//! The package comes through apt, with a list of sources and a state of its own, so the system's configuration stays as it
//! is and root's rights are not needed. What has been fetched once is kept in the directory for temporary files.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use crate::{process, render};

/// The source package.
const PACKAGE: &str = "postgresql-15";

/// Where tests lie in PostgreSQL's source.
pub(crate) struct Source {
    root: PathBuf,
}

impl Source {
    /// The source in `dir`, or Debian's.
    pub(crate) fn find(dir: Option<&Path>) -> Result<Self> {
        match dir {
            Some(dir) => Self::at(dir),
            None => Self::fetched(),
        }
    }

    /// The file of a regression test.
    pub(crate) fn script(&self, name: &str) -> PathBuf {
        self.regress().join("sql").join(name).with_extension("sql")
    }

    /// The specification of an isolation test.
    pub(crate) fn specification(&self, name: &str) -> PathBuf {
        self.root.join("src/test/isolation/specs").join(name).with_extension("spec")
    }

    /// The directory that regression tests know as `PG_ABS_SRCDIR`.
    pub(crate) fn regress(&self) -> PathBuf {
        self.root.join("src/test/regress")
    }

    fn at(root: &Path) -> Result<Self> {
        let source = Self { root: root.to_owned() };
        ensure!(
            source.script("test_setup").exists(),
            "{} is not the source of PostgreSQL 15: it has no src/test/regress/sql/test_setup.sql",
            root.display()
        );
        Ok(source)
    }

    /// Debian's source package, fetched unless it is there.
    fn fetched() -> Result<Self> {
        let dir = env::temp_dir().join("pg_shard-regress");
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        if let Some(source) = unpacked(&dir) {
            return Ok(source);
        }
        render::while_busy("Fetching PostgreSQL's source package with apt", || fetch(&dir))
            .with_context(|| {
                format!(
                    "cannot have Debian's source package {PACKAGE}; unpack PostgreSQL 15's source yourself and give its directory with --source"
                )
            })?;
        unpacked(&dir).context("the source package holds no regression tests")
    }
}

/// The directory `postgresql-15...` in `dir`, if it is complete.
fn unpacked(dir: &Path) -> Option<Source> {
    let entries = fs::read_dir(dir).ok()?;
    entries.filter_map(|entry| Source::at(&entry.ok()?.path()).ok()).next()
}

/// Downloads and unpacks.
fn fetch(dir: &Path) -> Result<()> {
    let (sources, state) = (dir.join("sources.list"), dir.join("apt"));
    fs::write(&sources, source_list(&fs::read_to_string("/etc/os-release").unwrap_or_default())?)?;
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(state.join(part))?;
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .current_dir(dir)
            .args([
                "--quiet",
                "--quiet",
                "-o",
                "Dir::Etc::sourceparts=-",
                "-o",
                "APT::Sandbox::User=root",
            ])
            .arg(format!("-oDir::Etc::sourcelist={}", sources.display()))
            .arg(format!("-oDir::State::lists={}", state.join("lists").display()))
            .arg(format!("-oDir::Cache={}", state.join("cache").display()))
            .args(arguments);
        process::output_of(&mut command)
    };
    apt(&["update"])?;
    apt(&["source", "--download-only", PACKAGE])?;
    let archive = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.to_string_lossy().contains(".orig.tar"));
    let Some(archive) = archive else { bail!("apt-get source left no archive") };
    process::output_of(Command::new("tar").current_dir(dir).arg("-xf").arg(archive)).map(drop)
}

/// The lines of sources.list for the release that `/etc/os-release` names.
fn source_list(os_release: &str) -> Result<String> {
    let value = |name: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    ensure!(value("ID").as_deref() == Some("debian"), "this system is not Debian");
    let release = value("VERSION_CODENAME").context("/etc/os-release has no VERSION_CODENAME")?;
    Ok(format!("deb-src http://deb.debian.org/debian {release} main\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_that_of_the_systems_release() {
        let list = source_list("ID=debian\nVERSION_CODENAME=bookworm\n").unwrap();
        assert_eq!(list, "deb-src http://deb.debian.org/debian bookworm main\n");
        assert!(source_list("ID=fedora\n").is_err());
    }
}
