//! Real clients: what their drivers and libraries send works on distributed tables as it does on plain PostgreSQL.
//!
//! A script in the client's own language does what an application does and prints what it gets. It runs twice: on a
//! database of its own on a worker, where nothing is distributed, and on the coordinator. Both must print the same, and
//! afterwards all placements hold the same rows. What the clients need is installed below `target/clients`, once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::{NodeName, TestCluster};

/// How long a script may run, in seconds; it takes a few.
const PATIENCE: &str = "120";

#[test]
fn django_migrates_and_its_models_read_and_write() {
    let mut check = python("django_check.py");
    let cluster = cluster();
    works_as_on_plain_postgresql(&cluster, &mut check);
    works_as_on_plain_postgresql(&cluster, check.env("SERVER_SIDE_BINDING", "1"));
}

#[test]
fn django_multitenant_migrates_back_and_forth_with_rows() {
    works_as_on_plain_postgresql(&cluster(), &mut python("tenants_check.py"));
}

#[test]
fn sqlalchemy_maps_objects_over_psycopg_and_asyncpg() {
    works_as_on_plain_postgresql(&cluster(), &mut python("sqlalchemy_check.py"));
}

#[test]
fn psycopg_prepares_pipelines_copies_and_commits_in_two_phases() {
    works_as_on_plain_postgresql(&cluster(), &mut python("psycopg_check.py"));
}

#[test]
fn asyncpg_prepares_copies_and_pools() {
    works_as_on_plain_postgresql(&cluster(), &mut python("asyncpg_check.py"));
}

#[test]
fn node_postgres_prepares_streams_and_pools() {
    let sources = sources("node");
    let dir = client_dir("node");
    let _lock = locked(&dir);
    for file in ["package.json", "package-lock.json", "check.js"] {
        fs::copy(sources.join(file), dir.join(file)).expect("a file of the source tree");
    }
    once_for(&dir, &sources.join("package-lock.json"), || {
        run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&dir));
    });
    let mut check = Command::new("timeout");
    check.args([PATIENCE, "node", "check.js"]).current_dir(&dir);
    works_as_on_plain_postgresql(&cluster(), &mut check);
}

#[test]
fn jdbc_prepares_on_the_server_batches_and_fetches_in_portions() {
    /// Where Debian's package has it.
    const DRIVER: &str = "/usr/share/java/postgresql.jar";
    let source = sources("java").join("Check.java");
    let dir = client_dir("java");
    let _lock = locked(&dir);
    once_for(&dir, &source, || {
        run(Command::new("javac").args(["-cp", DRIVER, "-d"]).args([&dir, &source]));
    });
    let classes = format!("{}:{DRIVER}", dir.display());
    let mut check = Command::new("timeout");
    check.args([PATIENCE, "java", "-cp", &classes, "Check"]);
    works_as_on_plain_postgresql(&cluster(), &mut check);
}

/// A cluster, with a plain database on its first worker; both know the enum that the scripts use.
fn cluster() -> TestCluster {
    let cluster = TestCluster::up(4);
    let mood = "CREATE TYPE mood AS ENUM ('sad', 'happy')";
    cluster.on_all_nodes(mood);
    cluster.session_on(PLAIN).sql("CREATE DATABASE plain");
    let output = cluster.psql(PLAIN, &["-d", "plain"], mood);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    cluster
}

/// The node with the plain database.
const PLAIN: NodeName = NodeName::Worker(1);

/// Runs a script on both databases and compares what it prints; then compares the placements of all its tables.
#[track_caller]
fn works_as_on_plain_postgresql(cluster: &TestCluster, check: &mut Command) {
    let mut on = |node: NodeName, database: &str, distributed: &str| {
        check
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", cluster.port(node).to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", database)
            .env("DISTRIBUTED", distributed);
        run(check)
    };
    let expected = on(PLAIN, "plain", "0");
    let got = on(NodeName::Coordinator, "postgres", "1");
    assert!(expected.lines().count() > 20, "the script did next to nothing:\n{expected}");
    let differences: Vec<String> = expected
        .lines()
        .zip(got.lines())
        .filter(|(expected, got)| expected != got)
        .map(|(expected, got)| format!("plain:       {expected}\ndistributed: {got}"))
        .collect();
    assert!(
        expected == got,
        "lines: {} on plain PostgreSQL, {} on the cluster\n{}",
        expected.lines().count(),
        got.lines().count(),
        differences.join("\n")
    );
    let tables =
        cluster.sql("SELECT relation_id::regclass FROM pgs_distribution_metadata.partition");
    for table in tables.into_iter().flatten() {
        cluster.assert_placements_equal(&table);
    }
}

/// A Python script with the packages that the scripts need.
fn python(script: &str) -> Command {
    let sources = sources("python");
    let dir = client_dir("python");
    let _lock = locked(&dir);
    let requirements = sources.join("requirements.txt");
    once_for(&dir, &requirements, || {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(dir.join("venv")));
        run(Command::new(dir.join("venv/bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(&requirements));
    });
    let mut check = Command::new("timeout");
    check.arg(PATIENCE).arg(dir.join("venv/bin/python")).arg(sources.join(script));
    check.env("PYTHONDONTWRITEBYTECODE", "1");
    check
}

/// The scripts of one language.
fn sources(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients").join(language)
}

/// Where that language's packages and programs are kept from run to run.
fn client_dir(language: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in target");
    let dir = target.join("clients").join(language);
    fs::create_dir_all(&dir).expect("target is ours");
    dir
}

/// Keeps other tests from preparing the same directory; they run in processes of their own.
fn locked(dir: &Path) -> File {
    let file = File::create(dir.join("lock")).expect("the directory is ours");
    file.lock().expect("a file of ours can be locked");
    file
}

/// Prepares the directory, unless that was done for the same contents of `file`.
fn once_for(dir: &Path, file: &Path, prepare: impl FnOnce()) {
    let contents = fs::read(file).expect("a file of the source tree");
    let prepared = dir.join("prepared-for");
    if fs::read(&prepared).is_ok_and(|of| of == contents) {
        return;
    }
    prepare();
    fs::write(&prepared, contents).expect("the directory is ours");
}

/// What a program prints; panics with everything it said if it fails.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    said
}
