//! The private copy of PostgreSQL, and the data directory that nodes are copied from.
//!
//! PostgreSQL finds its libraries and its shared files relative to where the program itself lies. A copy of its three
//! directories (programs, libraries, shared files) below another root is therefore a complete second installation, into
//! which our library goes without touching the system's. Symbolic links would not do: PostgreSQL resolves them.
//!
//! `initdb` runs once, into a template; a node's data directory is a copy of that. A known gap: all nodes of an
//! installation have the same system identifier, so do not tell nodes apart by it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::account::ServerAccount;
use crate::error::ClusterError;
use crate::tree;

/// The versions for which the extension can be built.
const MAJOR_VERSIONS: RangeInclusive<u32> = 15..=18;

/// What tells, when we are built and when we run, which `pg_config` is that of the servers.
const PG_CONFIG: &str = "PGRX_PG_CONFIG_PATH";

/// Written last into an installation: without it the copy is not complete.
const DESCRIPTION: &str = "installation.json";

/// The program that loads a file, as pg_shard 1.2 had it; it needs nothing but a shell and psql.
const COPY_PROGRAM: (&str, &str) =
    ("copy_to_distributed_table", include_str!("../../../scripts/copy_to_distributed_table"));

/// Where our own files are: the library, the control file and the scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifacts {
    /// The extension's shared library, whatever its file name.
    pub library: PathBuf,
    /// The directory with `pg_shard.control` and the `pg_shard--*.sql` scripts.
    pub extension_dir: PathBuf,
}

impl Artifacts {
    /// The library beside the running program (a test's program lies one level deeper), the scripts in the source tree.
    pub fn of_this_build() -> Result<Self, ClusterError> {
        const LIBRARY: &str = "libpg_shard.so";
        let program = std::env::current_exe()
            .map_err(ClusterError::file("find", Path::new("the running program")))?;
        let beside = program.parent().unwrap_or(Path::new("/"));
        let candidates = [Some(beside), beside.parent().filter(|_| beside.ends_with("deps"))];
        let library = candidates
            .into_iter()
            .flatten()
            .map(|dir| dir.join(LIBRARY))
            .rfind(|path| path.exists());
        Ok(Self {
            library: library.unwrap_or_else(|| beside.join(LIBRARY)),
            extension_dir: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sql"),
        })
    }

    /// The control file and the scripts; refuses artifacts that are not there.
    fn extension_files(&self) -> Result<Vec<PathBuf>, ClusterError> {
        let missing = |what, path: &Path, option| ClusterError::ArtifactMissing {
            what,
            path: path.to_owned(),
            option,
        };
        if !self.library.is_file() {
            return Err(missing("the extension's library", &self.library, "--library"));
        }
        let control = self.extension_dir.join("pg_shard.control");
        if !control.is_file() {
            return Err(missing("the extension's control file", &control, "--extension-dir"));
        }
        let entries = fs::read_dir(&self.extension_dir)
            .map_err(ClusterError::file("read", &self.extension_dir))?;
        let scripts = entries.flatten().map(|entry| entry.path()).filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("pg_shard--") && name.ends_with(".sql")
        });
        Ok(std::iter::once(control).chain(scripts).collect())
    }
}

/// A private copy of PostgreSQL and a fresh data directory, from which any number of clusters are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    dir: PathBuf,
    layout: Layout,
}

/// PostgreSQL as the system has it; its absolute paths are repeated below the copy's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Layout {
    /// The full version: a copy is made again when the system's PostgreSQL has been updated.
    version: String,
    programs: PathBuf,
    libraries: PathBuf,
    shared: PathBuf,
    /// Directories of libraries that the programs find by where they lie themselves.
    #[serde(default)]
    own_libraries: Vec<PathBuf>,
}

impl Installation {
    /// A copy of the installed PostgreSQL with our library in it, made in `dir` unless it is there already
    /// and of the same version.
    ///
    /// The library and the scripts are installed every time, so that a second call brings in a new build. Servers that
    /// run keep the files they have open. Several processes may call this for the same directory at once.
    pub fn prepare(dir: &Path, artifacts: &Artifacts) -> Result<Self, ClusterError> {
        Self::prepare_ours(dir, Layout::of_system, artifacts)
    }

    /// The same of the PostgreSQL that this `pg_config` belongs to.
    pub fn prepare_of(
        dir: &Path,
        pg_config: &Path,
        artifacts: &Artifacts,
    ) -> Result<Self, ClusterError> {
        let layout = || {
            let program = pg_config.to_string_lossy();
            Layout::from_pg_config(&program).ok_or_else(|| ClusterError::PostgresMissing {
                looked_for: format!("a server through {program}"),
            })
        };
        Self::prepare_ours(dir, layout, artifacts)
    }

    fn prepare_ours(
        dir: &Path,
        layout: impl FnOnce() -> Result<Layout, ClusterError>,
        artifacts: &Artifacts,
    ) -> Result<Self, ClusterError> {
        let files = artifacts.extension_files()?;
        Self::prepare_with(dir, layout, |installation| {
            let extension_dir = installation.shared_dir().join("extension");
            for file in &files {
                install(file, &extension_dir.join(file.file_name().unwrap_or_default()), 0o644)?;
            }
            let (name, text) = COPY_PROGRAM;
            put(&installation.bin(name), 0o755, |partial| {
                fs::write(partial, text).map_err(ClusterError::file("write", partial))
            })?;
            install(&artifacts.library, &installation.library_dir().join("pg_shard.so"), 0o755)
        })
    }

    /// The same without our library: plain PostgreSQL.
    pub fn prepare_without_extension(dir: &Path) -> Result<Self, ClusterError> {
        Self::prepare_with(dir, Layout::of_system, |_| Ok(()))
    }

    /// The installation that [`Installation::prepare`] made in `dir`.
    pub fn open(dir: &Path) -> Result<Self, ClusterError> {
        let path = dir.join(DESCRIPTION);
        let Ok(text) = fs::read_to_string(&path) else {
            return Err(ClusterError::NoInstallation { dir: dir.to_owned() });
        };
        let layout = serde_json::from_str(&text)
            .map_err(|source| ClusterError::DamagedFile { path, source })?;
        Ok(Self { dir: dir.to_owned(), layout })
    }

    /// The directory that holds all of it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A program of the copy: `bin("psql")`.
    pub fn bin(&self, program: &str) -> PathBuf {
        self.copy_of(&self.layout.programs).join(program)
    }

    /// Where the copy's libraries are (`pg_config --pkglibdir`).
    pub fn library_dir(&self) -> PathBuf {
        self.copy_of(&self.layout.libraries)
    }

    /// Where the copy's shared files are (`pg_config --sharedir`).
    pub fn shared_dir(&self) -> PathBuf {
        self.copy_of(&self.layout.shared)
    }

    /// A data directory as `initdb` makes it.
    pub(crate) fn template(&self) -> PathBuf {
        self.dir.join("template")
    }

    fn prepare_with(
        dir: &Path,
        layout: impl FnOnce() -> Result<Layout, ClusterError>,
        install_ours: impl FnOnce(&Self) -> Result<(), ClusterError>,
    ) -> Result<Self, ClusterError> {
        let account = ServerAccount::choose()?;
        fs::create_dir_all(dir).map_err(ClusterError::file("create", dir))?;
        let dir = fs::canonicalize(dir).map_err(ClusterError::file("find", dir))?;
        tree::set_mode(&dir, 0o755)?;
        account.ensure_reaches(&dir)?;

        let lock_path = dir.join("installation.lock");
        let lock = File::create(&lock_path).map_err(ClusterError::file("create", &lock_path))?;
        lock.lock().map_err(ClusterError::file("lock", &lock_path))?;

        let layout = layout()?;
        let installation = match Self::open(&dir) {
            Ok(installation) if installation.layout == layout => installation,
            Ok(_) | Err(_) => Self::copy_from_system(&dir, layout, &account)?,
        };
        install_ours(&installation)?;
        Ok(installation)
    }

    /// Copies the installed PostgreSQL below `dir` and runs `initdb`; what an earlier attempt left is replaced.
    fn copy_from_system(
        dir: &Path,
        layout: Layout,
        account: &ServerAccount,
    ) -> Result<Self, ClusterError> {
        let installation = Self { dir: dir.to_owned(), layout };
        let Layout { programs, libraries, shared, own_libraries, version: _ } =
            &installation.layout;
        let description = dir.join(DESCRIPTION);
        tree::remove(&description)?;
        for original in [programs, libraries, shared].into_iter().chain(own_libraries) {
            let copy = installation.copy_of(original);
            tree::remove(&copy)?;
            make_open_dirs(dir, &copy)?;
            tree::copy(original, &copy, None)?;
        }
        let template = installation.template();
        tree::remove(&template)?;
        installation.initialize(&template, account, &[])?;
        let text =
            serde_json::to_string_pretty(&installation.layout).expect("paths that came from text");
        fs::write(&description, text).map_err(ClusterError::file("write", &description))?;
        Ok(installation)
    }

    /// Makes a data directory.
    pub(crate) fn initialize(
        &self,
        data_dir: &Path,
        account: &ServerAccount,
        options: &[&str],
    ) -> Result<(), ClusterError> {
        account.create_dir(data_dir, 0o700)?;
        let fixed: [&dyn AsRef<OsStr>; 8] = [
            &"--pgdata",
            &data_dir,
            &"--username=postgres",
            &"--auth=trust",
            &"--encoding=UTF8",
            &"--locale=C.UTF-8",
            &"--no-sync",
            &"--no-instructions",
        ];
        let options = options.iter().map(|option| option as &dyn AsRef<OsStr>);
        let arguments: Vec<_> = fixed.into_iter().chain(options).collect();
        account.run(self.bin("initdb"), &arguments)
    }

    /// The major version of its programs.
    pub(crate) fn major_version(&self) -> u32 {
        major_of(&self.layout.version).unwrap_or(*MAJOR_VERSIONS.start())
    }

    /// Where the copy of an absolute path of the system lies.
    fn copy_of(&self, original: &Path) -> PathBuf {
        self.dir.join(original.strip_prefix("/").unwrap_or(original))
    }
}

impl Layout {
    /// The directories of the PostgreSQL that we are told of, or that we and the extension were built against; else of an
    /// installed PostgreSQL 15.
    ///
    /// Debian keeps one `pg_config` a version; the one on the path may belong to a newer server.
    fn of_system() -> Result<Self, ClusterError> {
        let candidates: Vec<String> = [
            std::env::var(PG_CONFIG).ok(),
            option_env!("PGRX_PG_CONFIG_PATH").map(str::to_owned),
            Some("/usr/lib/postgresql/15/bin/pg_config".to_owned()),
            Some("pg_config".to_owned()),
        ]
        .into_iter()
        .flatten()
        .collect();
        candidates.iter().find_map(|program| Self::from_pg_config(program)).ok_or_else(|| {
            let (first, last) = (MAJOR_VERSIONS.start(), MAJOR_VERSIONS.end());
            ClusterError::PostgresMissing {
                looked_for: format!(
                    "a server of version {first} to {last} through {}",
                    candidates.join(" and ")
                ),
            }
        })
    }

    /// What `pg_config` answers, if it is of a version of ours and has a server beside it.
    fn from_pg_config(program: &str) -> Option<Self> {
        let output = Command::new(program)
            .args(["--version", "--bindir", "--pkglibdir", "--sharedir"])
            .output()
            .ok()?;
        let mut layout = Self::from_answers(&String::from_utf8(output.stdout).ok()?)?;
        layout.own_libraries = own_libraries(&layout.programs);
        layout.programs.join("postgres").is_file().then_some(layout)
    }

    /// Reads the answers, a line each.
    fn from_answers(answers: &str) -> Option<Self> {
        let mut lines = answers.lines();
        let version = lines.next()?;
        let major = major_of(version)?;
        if !MAJOR_VERSIONS.contains(&major) {
            return None;
        }
        let mut directory = || lines.next().filter(|line| line.starts_with('/')).map(PathBuf::from);
        Some(Self {
            version: version.to_owned(),
            programs: directory()?,
            libraries: directory()?,
            shared: directory()?,
            own_libraries: Vec::new(),
        })
    }
}

/// The major version in what `pg_config --version` answers.
fn major_of(version: &str) -> Option<u32> {
    let number = version.strip_prefix("PostgreSQL ")?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Directories of libraries that programs from a Python wheel look for above themselves, in `../../../NAME.libs`.
fn own_libraries(programs: &Path) -> Vec<PathBuf> {
    let Some(above) = programs.ancestors().nth(3) else { return Vec::new() };
    let entries = fs::read_dir(above).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_named = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "libs");
    let mut found: Vec<PathBuf> = entries.filter(is_named).collect();
    found.sort();
    found
}

/// Makes the directories from `root` down to `path`, open to everyone whatever our umask is.
fn make_open_dirs(root: &Path, path: &Path) -> Result<(), ClusterError> {
    fs::create_dir_all(path).map_err(ClusterError::file("create", path))?;
    for dir in path.ancestors().take_while(|dir| *dir != root) {
        tree::set_mode(dir, 0o755)?;
    }
    Ok(())
}

/// Puts a copy of `file` at `target` in one step: a server that has the old file mapped must not see it change.
fn install(file: &Path, target: &Path, mode: u32) -> Result<(), ClusterError> {
    put(target, mode, |partial| {
        fs::copy(file, partial).map(drop).map_err(ClusterError::file("copy", file))
    })
}

/// Has `write` make a file beside `target`, and then puts it there in one step.
fn put(
    target: &Path,
    mode: u32,
    write: impl FnOnce(&Path) -> Result<(), ClusterError>,
) -> Result<(), ClusterError> {
    let partial = target.with_added_extension("partial");
    write(&partial)?;
    tree::set_mode(&partial, mode)?;
    fs::rename(&partial, target).map_err(ClusterError::file("replace", target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_read_from_what_pg_config_answers() {
        let answers = "PostgreSQL 15.20 (Debian 15.20-0+deb12u1)\n/usr/lib/postgresql/15/bin\n/usr/lib/postgresql/15/lib\n/usr/share/postgresql/15\n";
        let layout = Layout::from_answers(answers).unwrap();
        assert_eq!(layout.programs, Path::new("/usr/lib/postgresql/15/bin"));
        assert_eq!(layout.shared, Path::new("/usr/share/postgresql/15"));
    }

    #[test]
    fn another_version_is_not_taken_for_ours() {
        for version in
            ["PostgreSQL 14.1", "PostgreSQL 150.1", "PostgreSQL 9.4.26", "pg_config: not found"]
        {
            assert_eq!(
                Layout::from_answers(&format!("{version}\n/a\n/b\n/c\n")),
                None,
                "{version}"
            );
        }
    }

    #[test]
    fn a_development_version_of_ours_will_do() {
        assert!(Layout::from_answers("PostgreSQL 18devel\n/a\n/b\n/c\n").is_some());
    }

    #[test]
    fn a_missing_library_is_reported_with_its_option() {
        let artifacts = Artifacts {
            library: PathBuf::from("/nowhere/libpg_shard.so"),
            extension_dir: PathBuf::from("/nowhere"),
        };
        let message = artifacts.extension_files().unwrap_err().to_string();
        assert!(
            message.contains("/nowhere/libpg_shard.so") && message.contains("--library"),
            "{message}"
        );
    }
}
