//! `cargo xtask setup`: what the build and the tests need of the machine.
//!
//! The extension is compiled against PostgreSQL's server headers (bindgen reads them through libclang) and linked with
//! libpq; the clusters of demo, tests and bench are copies of the installed server; the tests use clients in Python,
//! JavaScript and Java. We look for files and ask only `pg_config`, and for the tests Python whether it can make virtual
//! environments, so that finding everything in place costs some ten milliseconds. What is missing is installed with apt
//! as root, and otherwise named in one command to type.
//!
//! Debian's server package would also create and start a database cluster of its own. We keep it from that with a
//! drop-in file, which is there only while apt runs.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fmt, fs};

use anyhow::{Context, Result, bail};

use crate::{process, render, servers};

/// The releases of PostgreSQL that the extension can be built for.
pub(crate) const RELEASES: RangeInclusive<u32> = 15..=18;

/// The one that plain cargo builds it for.
pub(crate) const DEFAULT_RELEASE: u32 = 15;

/// The one that the command line names.
static WANTED: OnceLock<u32> = OnceLock::new();

/// Has everything be about this release.
pub(crate) fn choose(release: u32) {
    // Once, when the command line has been read.
    let _ = WANTED.set(release);
}

/// The release that everything is about: the one that was named, else that of the configured `pg_config`.
fn wanted() -> u32 {
    WANTED.get().copied().unwrap_or_else(|| {
        let configured = env::var_os(Postgres::VARIABLE).map(PathBuf::from);
        configured
            .and_then(|program| Postgres::at(&program).ok())
            .map_or(DEFAULT_RELEASE, |postgres| postgres.release)
    })
}

/// Where Debian's scripts read whether to create a cluster when a server is installed.
const CREATECLUSTER_DIR: &str = "/etc/postgresql-common/createcluster.d";

/// An installed PostgreSQL of the right release, as its `pg_config` describes it.
#[derive(Clone, Debug)]
pub(crate) struct Postgres {
    pg_config: PathBuf,
    release: u32,
    facts: HashMap<String, String>,
}

impl Postgres {
    /// The environment variable through which pgrx and our build scripts are told which `pg_config` to ask.
    pub(crate) const VARIABLE: &str = "PGRX_PG_CONFIG_PATH";

    /// The first `pg_config` of the release: the configured one, the distribution's, the one in `PATH`, a fetched one.
    fn find(release: u32) -> Option<Self> {
        let configured = env::var_os(Self::VARIABLE).map(PathBuf::from);
        let debians = PathBuf::from(format!("/usr/lib/postgresql/{release}/bin/pg_config"));
        let red_hats = PathBuf::from(format!("/usr/pgsql-{release}/bin/pg_config"));
        let places = [configured, Some(debians), Some(red_hats), process::find("pg_config")];
        places
            .into_iter()
            .flatten()
            .chain(servers::fetched(release))
            .find_map(|it| Self::at(&it).ok().filter(|found| found.release == release))
    }

    /// The installation that `pg_config` belongs to; an error if it is of a release that we cannot be built for.
    pub(crate) fn at(pg_config: &Path) -> Result<Self> {
        let answer = process::output_of(&mut Command::new(pg_config))
            .with_context(|| format!("{} is not a pg_config program", pg_config.display()))?;
        let facts = facts_of(&answer);
        let version = facts.get("VERSION").map_or("an unknown program", String::as_str);
        let Some(release) = release_of(version).filter(|release| RELEASES.contains(release)) else {
            bail!(
                "{} belongs to {version}; pg_shard needs PostgreSQL {} to {}: give the pg_config of such a release",
                pg_config.display(),
                RELEASES.start(),
                RELEASES.end()
            );
        };
        Ok(Self { pg_config: pg_config.to_owned(), release, facts })
    }

    /// The installation that `pg_config` belongs to, under the name by which it is known already.
    ///
    /// The build scripts run again when the program's name changes: a second name of one installation would compile
    /// everything anew, each time that the names alternate.
    pub(crate) fn known_or_at(known: Self, pg_config: &Path) -> Result<Self> {
        let named = Self::at(pg_config)?;
        Ok(if named.facts == known.facts { known } else { named })
    }

    /// The release: 15 and so on.
    pub(crate) fn release(&self) -> u32 {
        self.release
    }

    /// It is one of [`servers`].
    fn is_fetched(&self) -> bool {
        servers::fetched(self.release).is_some_and(|program| program == self.pg_config)
    }

    /// The program itself.
    pub(crate) fn pg_config(&self) -> &Path {
        &self.pg_config
    }

    /// The directory of programs.
    pub(crate) fn program_dir(&self) -> Result<PathBuf> {
        self.directory("BINDIR")
    }

    /// PostgreSQL's runner of isolation tests, which comes with the server's headers.
    pub(crate) fn isolation_tester(&self) -> Result<PathBuf> {
        let makefile = self.directory("PGXS")?;
        let tests = makefile.parent().and_then(Path::parent).map(|dir| dir.join("test/isolation"));
        tests.map(|dir| dir.join("isolationtester")).context("PGXS is not where it should be")
    }

    /// The directory of loadable libraries.
    pub(crate) fn library_dir(&self) -> Result<PathBuf> {
        self.directory("PKGLIBDIR")
    }

    /// The directory of control and SQL files of extensions.
    pub(crate) fn extension_dir(&self) -> Result<PathBuf> {
        self.directory("SHAREDIR").map(|dir| dir.join("extension"))
    }

    /// Whether the directory that `pg_config` calls `directory` has `file`.
    fn has(&self, directory: &str, file: &str) -> bool {
        self.directory(directory).is_ok_and(|dir| dir.join(file).exists())
    }

    /// A directory, by the name that `pg_config` has for it.
    fn directory(&self, name: &str) -> Result<PathBuf> {
        let dir = self.facts.get(name).map(PathBuf::from);
        dir.with_context(|| format!("{} does not know {name}", self.pg_config.display()))
    }
}

/// The `NAME = value` lines that `pg_config` prints when it is asked nothing.
fn facts_of(text: &str) -> HashMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

/// The release of a version as `pg_config` gives it.
fn release_of(version: &str) -> Option<u32> {
    let number = version.strip_prefix("PostgreSQL ")?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Something that the build or the clusters need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Server,
    ServerHeaders,
    Libpq,
    Libclang,
    Clang,
    CCompiler,
    PkgConfig,
    Python,
    Node,
    Npm,
    Jdk,
    JdbcDriver,
    Pgbouncer,
}

impl Need {
    /// What the build and the clusters need.
    const TO_BUILD: &[Self] = &[
        Self::Server,
        Self::ServerHeaders,
        Self::Libpq,
        Self::Libclang,
        Self::Clang,
        Self::CCompiler,
        Self::PkgConfig,
    ];

    /// What the tests with real clients need besides.
    const OF_CLIENTS: &[Self] =
        &[Self::Python, Self::Node, Self::Npm, Self::Jdk, Self::JdbcDriver, Self::Pgbouncer];

    /// The Debian package that brings it.
    fn package(self, release: u32) -> String {
        let fixed = match self {
            Self::Server => return format!("postgresql-{release}"),
            Self::ServerHeaders => return format!("postgresql-server-dev-{release}"),
            Self::Libpq => "libpq-dev",
            Self::Libclang => "libclang-dev",
            Self::Clang => "clang",
            Self::CCompiler => "gcc",
            Self::PkgConfig => "pkg-config",
            Self::Python => "python3-venv",
            Self::Node => "nodejs",
            Self::Npm => "npm",
            Self::Jdk => "default-jdk-headless",
            Self::JdbcDriver => "libpostgresql-jdbc-java",
            Self::Pgbouncer => "pgbouncer",
        };
        fixed.to_owned()
    }

    /// Whether it is there.
    fn is_met(self, postgres: Option<&Postgres>) -> bool {
        match self {
            Self::Server => {
                let programs = ["postgres", "initdb", "psql", "pgbench"];
                postgres.is_some_and(|it| programs.iter().all(|program| it.has("BINDIR", program)))
            }
            Self::ServerHeaders => {
                postgres.is_some_and(|it| it.has("INCLUDEDIR-SERVER", "postgres.h"))
            }
            // That of a fetched server is nowhere that the linker looks.
            Self::Libpq if postgres.is_some_and(|it| it.is_fetched()) => {
                process::output_of(Command::new("pkg-config").args(["--exists", "libpq"])).is_ok()
            }
            Self::Libpq => postgres.is_some_and(|it| {
                it.has("INCLUDEDIR", "libpq-fe.h") && it.has("LIBDIR", "libpq.so")
            }),
            Self::Libclang => has_libclang(),
            Self::Clang => process::find("clang").is_some(),
            Self::CCompiler => process::find("cc").is_some(),
            Self::PkgConfig => process::find("pkg-config").is_some(),
            Self::Python => {
                let mut python = Command::new("python3");
                process::output_of(python.args(["-c", "import venv, ensurepip"])).is_ok()
            }
            Self::Node => process::find("node").is_some(),
            Self::Npm => process::find("npm").is_some(),
            Self::Jdk => process::find("javac").is_some(),
            Self::JdbcDriver => Path::new("/usr/share/java/postgresql.jar").exists(),
            Self::Pgbouncer => Path::new("/usr/sbin/pgbouncer").exists(),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "the PostgreSQL server with psql and pgbench",
            Self::ServerHeaders => "its server headers",
            Self::Libpq => "libpq with its header",
            Self::Libclang => "libclang",
            Self::Clang => "clang",
            Self::CCompiler => "a C compiler",
            Self::PkgConfig => "pkg-config",
            Self::Python => "Python 3 with venv",
            Self::Node => "node",
            Self::Npm => "npm",
            Self::Jdk => "a Java compiler",
            Self::JdbcDriver => "PostgreSQL's JDBC driver",
            Self::Pgbouncer => "pgbouncer",
        })
    }
}

/// Whether bindgen will find libclang, looking where the crate clang-sys looks.
fn has_libclang() -> bool {
    let mut dirs: Vec<PathBuf> =
        env::var_os("LIBCLANG_PATH").into_iter().map(PathBuf::from).collect();
    for parent in ["/usr/lib", "/usr/local/lib"] {
        dirs.push(parent.into());
        let children =
            fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
        dirs.extend(children.flat_map(|child| [child.join("lib"), child]));
    }
    dirs.extend(["/usr/lib64", "/usr/local/lib64"].map(PathBuf::from));
    dirs.iter().any(|dir| {
        let files = fs::read_dir(dir).into_iter().flatten().flatten();
        files.map(|file| file.file_name()).any(|name| is_libclang(&name.to_string_lossy()))
    })
}

/// `libclang.so`, `libclang-14.so`, `libclang.so.1`: but not `libclang-cpp.so`, nor static libraries.
fn is_libclang(file: &str) -> bool {
    let Some(rest) = file.strip_prefix("libclang") else { return false };
    let version = rest.strip_prefix('-').unwrap_or(rest);
    version.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').starts_with("so")
        && rest.contains(".so")
}

/// Finds what the build needs, installing what is missing where we may.
pub(crate) fn ensure() -> Result<Postgres> {
    ensure_all(Need::TO_BUILD)
}

/// The same with what the tests need: clients in several languages.
pub(crate) fn ensure_for_tests() -> Result<Postgres> {
    ensure_all(&[Need::TO_BUILD, Need::OF_CLIENTS].concat())
}

/// The server of a release with its headers, if it is here or can be fetched; nothing is installed for it.
pub(crate) fn find_or_fetch(release: u32) -> Result<Postgres> {
    let find = || {
        let whole = |it: &Postgres| {
            [Need::Server, Need::ServerHeaders].iter().all(|need| need.is_met(Some(it)))
        };
        Postgres::find(release).filter(whole)
    };
    let found = match find() {
        Some(found) => found,
        None => {
            servers::fetch(release)?;
            find().context("what was fetched is no server with headers")?
        }
    };
    let mut server = Command::new(found.program_dir()?.join("postgres"));
    process::output_of(server.arg("--version"))?;
    Ok(found)
}

/// Finds `needs`, installing what is missing where we may.
fn ensure_all(needs: &[Need]) -> Result<Postgres> {
    let release = wanted();
    let mut postgres = Postgres::find(release);
    let is_missing = |need: &Need, postgres: &Option<Postgres>| !need.is_met(postgres.as_ref());
    if is_missing(&Need::ServerHeaders, &postgres) && !is_packaged(release) {
        servers::fetch(release)?;
        postgres = Postgres::find(release);
    }
    let missing: Vec<Need> =
        needs.iter().copied().filter(|need| is_missing(need, &postgres)).collect();
    if missing.is_empty()
        && let Some(postgres) = postgres
    {
        return Ok(postgres);
    }
    render::missing(&missing.iter().map(ToString::to_string).collect::<Vec<_>>());
    install(&missing, release)?;

    let postgres = Postgres::find(release);
    let still_missing: Vec<String> = needs
        .iter()
        .filter(|need| !need.is_met(postgres.as_ref()))
        .map(ToString::to_string)
        .collect();
    postgres.filter(|_| still_missing.is_empty()).with_context(|| {
        format!(
            "apt is done, but still missing: {}; if PostgreSQL {release} is in an unusual place, set {} to its pg_config",
            still_missing.join(", "),
            Postgres::VARIABLE
        )
    })
}

/// Installs the packages for `missing`, or says how to.
fn install(missing: &[Need], release: u32) -> Result<()> {
    let packages: Vec<String> = missing.iter().map(|need| need.package(release)).collect();
    if process::find("apt-get").is_none() {
        bail!(
            "this is not Debian or Ubuntu, so these have to be installed by hand: {}; \
             if PostgreSQL {release} is in an unusual place, set {} to its pg_config",
            missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            Postgres::VARIABLE
        );
    }
    if !is_root()? {
        bail!(
            "only root can install packages; run this, and then the command again:\n\n    {}\n",
            line_for_a_person(&packages)
        );
    }
    process::run(&mut apt(&["update", "--quiet"]))?;
    if let Some(package) = packages.iter().find(|package| !is_available(package)) {
        bail!("{}", unavailable(package));
    }
    let _no_cluster = missing.contains(&Need::Server).then(ClusterCreationOff::now).transpose()?;
    process::run(apt(&["install", "--quiet", "--yes", "--no-install-recommends"]).args(packages))
}

/// What someone who is not root has to type.
fn line_for_a_person(packages: &[String]) -> String {
    format!(
        "sudo sh -c 'apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {}'",
        packages.join(" ")
    )
}

/// `apt-get`, asking nothing.
fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Whether apt knows a version of `package` that it could install.
fn is_available(package: &str) -> bool {
    process::output_of(Command::new("apt-cache").args(["show", "--quiet", package]))
        .is_ok_and(|text| text.contains("Version:"))
}

/// The distribution has packages of that release's server, or nothing else could bring it.
fn is_packaged(release: u32) -> bool {
    release == DEFAULT_RELEASE || is_available(&format!("postgresql-server-dev-{release}"))
}

/// Debian 12 has PostgreSQL 15; for other releases the project's own package archive has it.
fn unavailable(package: &str) -> String {
    format!(
        "this system's package sources do not have {package}. PostgreSQL's own archive (apt.postgresql.org) has it; \
         add that with these two commands, and then run the command again:\n\n    \
         apt-get install -y postgresql-common ca-certificates\n    \
         /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y\n"
    )
}

/// While this lives, installing a server package creates no database cluster.
struct ClusterCreationOff {
    file: PathBuf,
    dir_is_ours: bool,
}

impl ClusterCreationOff {
    /// Writes the drop-in file.
    fn now() -> Result<Self> {
        let dir = Path::new(CREATECLUSTER_DIR);
        let file = dir.join("pg_shard-setup.conf");
        let dir_is_ours = !dir.exists();
        fs::create_dir_all(dir)
            .and_then(|()| fs::write(&file, "create_main_cluster = false\n"))
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self { file, dir_is_ours })
    }
}

impl Drop for ClusterCreationOff {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.file) {
            render::warn(&format!(
                "cannot remove {}: {error}; please remove it",
                self.file.display()
            ));
        }
        if self.dir_is_ours {
            // Not if somebody else has put something there since.
            drop(fs::remove_dir(CREATECLUSTER_DIR));
        }
    }
}

/// Whether we are root, by the owner of our own entry in `/proc`.
fn is_root() -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let us =
        fs::metadata("/proc/self").context("cannot read /proc/self to see whether we are root")?;
    Ok(us.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_recognised_with_and_without_a_vendors_suffix() {
        for (version, release) in [
            ("PostgreSQL 15.20", Some(15)),
            ("PostgreSQL 18.6 (Debian 18.6-1.pgdg12+1)", Some(18)),
            ("PostgreSQL 17beta1", Some(17)),
            ("PostgreSQL 150.1", Some(150)),
            ("pg_config 15", None),
        ] {
            assert_eq!(release_of(version), release, "{version}");
        }
    }

    /// A wrong name was reported after everything had been built, and two names of one installation built everything twice.
    #[test]
    fn a_wrong_pg_config_is_named_and_two_names_of_one_installation_are_one() {
        let error = Postgres::at(Path::new("/nonexistent")).unwrap_err();
        assert_eq!(error.to_string(), "/nonexistent is not a pg_config program");
        let Some(known) = RELEASES.into_iter().find_map(Postgres::find) else { return };
        let beside = known.pg_config().with_file_name(".");
        let spelled = beside.join(known.pg_config().file_name().expect("a program"));
        let same = Postgres::known_or_at(known.clone(), &spelled).expect("it is there");
        assert_eq!(same.pg_config(), known.pg_config());
    }

    #[test]
    fn what_pg_config_prints_is_read_by_name() {
        let facts =
            facts_of("BINDIR = /usr/lib/postgresql/15/bin\nCFLAGS = -O2 -fno-x=y\nnot a fact\n");
        assert_eq!(facts["BINDIR"], "/usr/lib/postgresql/15/bin");
        assert_eq!(facts["CFLAGS"], "-O2 -fno-x=y");
        assert_eq!(facts.len(), 2);
    }

    #[test]
    fn libclang_is_not_mistaken_for_its_relatives() {
        for file in [
            "libclang.so",
            "libclang.so.1",
            "libclang-14.so",
            "libclang-14.so.1",
            "libclang-14.0.6.so",
        ] {
            assert!(is_libclang(file), "{file}");
        }
        for file in
            ["libclang-cpp.so.14", "libclangAST.a", "libclang.a", "libclang_rt.so", "clang.so"]
        {
            assert!(!is_libclang(file), "{file}");
        }
    }

    #[test]
    fn every_package_is_named_in_the_line_to_type() {
        let packages: Vec<String> = Need::TO_BUILD.iter().map(|need| need.package(15)).collect();
        assert_eq!(
            line_for_a_person(&packages),
            "sudo sh -c 'apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y \
             --no-install-recommends postgresql-15 postgresql-server-dev-15 libpq-dev libclang-dev clang gcc pkg-config'"
        );
    }
}
