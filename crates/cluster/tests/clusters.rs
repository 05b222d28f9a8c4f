//! Clusters that really run: brought up, broken, mended and taken down.
//!
//! They are made without the extension, so nothing but PostgreSQL 15 is needed. As root the servers run as user
//! `postgres`, otherwise as whoever runs the tests.

use std::error::Error;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cluster::{
    Cluster, ClusterError, ClusterSpec, DownOnDrop, Installation, NodeName, NodeState, Shards,
    free_ports,
};

type TestResult = Result<(), Box<dyn Error>>;

const COORDINATOR: NodeName = NodeName::Coordinator;
const WORKER_1: NodeName = NodeName::Worker(1);
const WORKER_2: NodeName = NodeName::Worker(2);

/// A path in the temporary directory that nobody else uses.
fn fresh_path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("pgshard-test-{}-{number}", std::process::id()))
}

/// Two workers without the extension; nothing is synced to disk.
fn plain_spec() -> Result<ClusterSpec, ClusterError> {
    Ok(ClusterSpec::new(fresh_path(), 2, free_ports(2)?).without_extension().set("fsync", "off"))
}

/// One copy of PostgreSQL for all tests, kept from run to run.
fn installation() -> Result<Installation, ClusterError> {
    let user = nix::unistd::Uid::effective();
    Installation::prepare_without_extension(
        &std::env::temp_dir().join(format!("pgshard-test-installation-{user}")),
    )
}

fn plain_cluster() -> Result<DownOnDrop, ClusterError> {
    Ok(Cluster::up_with(&installation()?, &plain_spec()?)?.down_on_drop())
}

/// What one statement yields on a node, as text.
fn ask(cluster: &Cluster, node: NodeName, statement: &str) -> Result<String, Box<dyn Error>> {
    Ok(cluster.connect(node)?.query_one(statement, &[])?.get(0))
}

#[test]
fn nodes_listen_on_consecutive_ports_with_the_settings_of_the_spec() -> TestResult {
    let cluster =
        Cluster::up_with(&installation()?, &plain_spec()?.set("work_mem", "5MB"))?.down_on_drop();
    for node in cluster.nodes() {
        assert_eq!(cluster.state(node)?, NodeState::Up);
        assert_eq!(ask(&cluster, node, "SHOW port")?, cluster.port(node).to_string());
        assert_eq!(ask(&cluster, node, "SHOW work_mem")?, "5MB");
        assert_eq!(Path::new(&ask(&cluster, node, "SHOW data_directory")?), cluster.data_dir(node));
    }
    let workers = fs::read_to_string(cluster.data_dir(COORDINATOR).join("pg_worker_list.conf"))?;
    let lines: Vec<&str> = workers.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        lines,
        [WORKER_1, WORKER_2].map(|worker| format!("localhost {}", cluster.port(worker)))
    );
    Ok(())
}

#[test]
fn a_killed_worker_starts_at_once_and_has_what_was_committed() -> TestResult {
    let cluster = plain_cluster()?;
    let mut session = cluster.connect(WORKER_1)?;
    session.batch_execute("CREATE TABLE orders (id int); INSERT INTO orders VALUES (1)")?;
    for round in 1..=3 {
        session.batch_execute("BEGIN; INSERT INTO orders VALUES (0)")?;
        cluster.kill(WORKER_1)?;
        assert_eq!(cluster.state(WORKER_1)?, NodeState::Down);
        assert!(matches!(cluster.kill(WORKER_1), Err(ClusterError::NodeIsDown { node: WORKER_1 })));
        assert!(cluster.connect(WORKER_1).is_err());
        assert_eq!(cluster.state(WORKER_2)?, NodeState::Up);

        cluster.start(WORKER_1)?;
        assert_eq!(ask(&cluster, WORKER_1, "SELECT sum(id)::text FROM orders")?, round.to_string());
        session = cluster.connect(WORKER_1)?;
        session.batch_execute("INSERT INTO orders VALUES (1)")?;
    }
    Ok(())
}

#[test]
fn a_kill_during_parallel_work_takes_every_process_with_it() -> TestResult {
    let cluster = plain_cluster()?;
    let conninfo = cluster.conninfo(WORKER_1);
    let busy: Vec<_> = (0..4)
        .map(|_| {
            let conninfo = conninfo.clone();
            std::thread::spawn(move || {
                let mut client = postgres_client(&conninfo).expect("the worker is up");
                client.batch_execute("SELECT pg_sleep(60)").is_err()
            })
        })
        .collect();
    while ask(
        &cluster,
        WORKER_1,
        "SELECT count(*)::text FROM pg_stat_activity WHERE query LIKE '%sleep(60)'",
    )? != "4"
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.kill(WORKER_1)?;
    for session in busy {
        assert!(
            session.join().expect("the thread does not panic"),
            "a session outlived its server"
        );
    }
    cluster.start(WORKER_1)?;
    Ok(())
}

fn postgres_client(conninfo: &str) -> Result<cluster::postgres::Client, cluster::postgres::Error> {
    cluster::postgres::Client::connect(conninfo, cluster::postgres::NoTls)
}

#[test]
fn a_paused_worker_answers_nobody_until_it_is_resumed() -> TestResult {
    let cluster = plain_cluster()?;
    cluster.pause(WORKER_2)?;
    cluster.pause(WORKER_2)?;
    assert_eq!(cluster.state(WORKER_2)?, NodeState::Paused);
    assert!(matches!(cluster.start(WORKER_2), Err(ClusterError::NodeIsPaused { node: WORKER_2 })));

    let (answered, answer) = std::sync::mpsc::channel();
    let conninfo = cluster.conninfo(WORKER_2);
    let asking = std::thread::spawn(move || answered.send(postgres_client(&conninfo).is_ok()));
    assert!(answer.recv_timeout(Duration::from_millis(300)).is_err(), "a paused server answered");

    cluster.resume(WORKER_2)?;
    assert!(answer.recv_timeout(Duration::from_secs(10))?);
    asking.join().expect("the thread does not panic")?;
    assert_eq!(cluster.state(WORKER_2)?, NodeState::Up);
    Ok(())
}

#[test]
fn a_node_can_be_stopped_or_killed_while_it_is_paused() -> TestResult {
    let cluster = plain_cluster()?;
    cluster.pause(WORKER_1)?;
    cluster.stop(WORKER_1)?;
    assert_eq!(cluster.state(WORKER_1)?, NodeState::Down);
    cluster.start(WORKER_1)?;
    cluster.pause(WORKER_1)?;
    cluster.kill(WORKER_1)?;
    assert_eq!(cluster.state(WORKER_1)?, NodeState::Down);
    cluster.start(WORKER_1)?;
    Ok(())
}

#[test]
fn a_server_whose_postmaster_alone_was_killed_starts_again() -> TestResult {
    let cluster = plain_cluster()?;
    let postmaster = cluster.postmaster_pid(COORDINATOR)?.expect("the coordinator is up");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(postmaster), nix::sys::signal::SIGKILL)?;
    while cluster.state(COORDINATOR)? != NodeState::Down {
        std::thread::sleep(Duration::from_millis(5));
    }
    cluster.start(COORDINATOR)?;
    Ok(())
}

#[test]
fn two_clusters_of_one_installation_run_side_by_side() -> TestResult {
    let shared = fresh_path();
    let installation = Installation::prepare_without_extension(&shared)?;
    let again = Installation::prepare_without_extension(&shared)?;
    assert_eq!(installation.dir(), again.dir());

    let first = Cluster::up_with(&installation, &plain_spec()?)?.down_on_drop();
    let second = Cluster::up_with(&again, &plain_spec()?)?.down_on_drop();
    first.kill(COORDINATOR)?;
    assert_eq!(ask(&second, COORDINATOR, "SELECT 'here'")?, "here");
    first.down()?;
    assert_eq!(ask(&second, WORKER_2, "SELECT 'here'")?, "here");
    second.down()?;
    assert!(installation.bin("postgres").exists());
    fs::remove_dir_all(&shared)?;
    Ok(())
}

#[test]
fn another_process_can_open_the_cluster_and_only_names_that_exist_are_nodes() -> TestResult {
    let cluster = plain_cluster()?;
    let opened = Cluster::open(cluster.dir())?;
    assert_eq!(opened.nodes(), [COORDINATOR, WORKER_1, WORKER_2]);
    assert_eq!(opened.conninfo(WORKER_2), cluster.conninfo(WORKER_2));
    assert_eq!(opened.node("worker2")?, WORKER_2);
    let error = opened.node("worker3").unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"there is no node "worker3" in this cluster; it has coordinator, worker1, worker2"#
    );
    assert!(matches!(opened.kill(NodeName::Worker(3)), Err(ClusterError::UnknownNode { .. })));
    Ok(())
}

#[test]
fn taking_a_cluster_down_removes_all_of_it_whatever_state_its_nodes_are_in() -> TestResult {
    let cluster = Cluster::up(&plain_spec()?)?;
    let postmaster = cluster.postmaster_pid(WORKER_2)?.expect("worker 2 is up");
    cluster.kill(WORKER_1)?;
    cluster.pause(WORKER_2)?;
    cluster.down()?;
    assert!(!cluster.dir().exists());
    assert!(
        fs::read_to_string(format!("/proc/{postmaster}/stat"))
            .map_or(true, |stat| stat.contains(") Z "))
    );
    Ok(())
}

#[test]
fn a_cluster_can_be_taken_down_when_its_programs_have_gone() -> TestResult {
    let cluster = Cluster::up(&plain_spec()?)?;
    fs::remove_dir_all(cluster.dir().join("install"))?;
    Cluster::open(cluster.dir())?.down()?;
    assert!(!cluster.dir().exists());
    Ok(())
}

#[test]
fn taking_a_cluster_down_leaves_files_that_are_not_its_own() -> TestResult {
    let cluster = Cluster::up(&plain_spec()?)?;
    let note = cluster.dir().join("note.txt");
    fs::write(&note, "mine")?;
    cluster.down()?;
    assert_eq!(fs::read_to_string(&note)?, "mine");
    fs::remove_dir_all(cluster.dir())?;
    Ok(())
}

#[test]
fn a_taken_port_is_refused_and_nothing_is_left_behind() -> TestResult {
    let spec = plain_spec()?;
    let listener = TcpListener::bind(("127.0.0.1", spec.port + 2))?;
    let error = Cluster::up(&spec).unwrap_err();
    assert!(matches!(error, ClusterError::PortTaken { node: WORKER_2, .. }), "{error}");
    assert!(!spec.dir.exists());

    drop(listener);
    Cluster::up(&spec)?.down()?;
    Ok(())
}

#[test]
fn a_directory_with_something_in_it_is_refused_and_left_alone() -> TestResult {
    let spec = plain_spec()?;
    fs::create_dir(&spec.dir)?;
    fs::write(spec.dir.join("note.txt"), "mine")?;
    let error = Cluster::up(&spec).unwrap_err();
    assert!(matches!(error, ClusterError::DirectoryTaken { .. }), "{error}");
    assert_eq!(fs::read_dir(&spec.dir)?.count(), 1);
    fs::remove_dir_all(&spec.dir)?;
    Ok(())
}

#[test]
fn a_server_that_does_not_start_is_reported_with_its_log() -> TestResult {
    let spec = plain_spec()?.set("shared_buffers", "nonsense");
    let error = Cluster::up(&spec).unwrap_err();
    assert!(matches!(error, ClusterError::StartFailed { .. }), "{error}");
    assert!(
        error.to_string().contains("invalid value for parameter \"shared_buffers\""),
        "{error}"
    );
    assert!(!spec.dir.exists());
    Ok(())
}

#[test]
fn a_server_inherits_no_file_that_we_have_open() -> TestResult {
    let lock = File::create(fresh_path())?;
    // A copy made by dup(2) stays open in programs we run: just what a caller's flock(1) hands us.
    let inheritable = nix::unistd::dup(lock.as_raw_fd())?;
    let cluster = plain_cluster()?;
    let postmaster = cluster.postmaster_pid(COORDINATOR)?.expect("the coordinator is up");
    let lock_path = fs::read_link(format!("/proc/self/fd/{}", lock.as_raw_fd()))?;
    let inherited = fs::read_dir(format!("/proc/{postmaster}/fd"))?
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| target == lock_path);
    nix::unistd::close(inheritable)?;
    nix::unistd::close(lock.into_raw_fd())?;
    fs::remove_file(lock_path)?;
    assert!(!inherited);
    Ok(())
}

#[test]
fn status_tells_the_state_of_nodes_and_why_shards_are_unknown() -> TestResult {
    let cluster = plain_cluster()?;
    let reason = |cluster: &Cluster| match cluster.status().shards {
        Shards::Unknown { reason } => reason,
        Shards::Known(_) => "known".to_owned(),
    };
    assert!(reason(&cluster).contains("extension pg_shard is not created"));
    cluster.stop(COORDINATOR)?;
    assert_eq!(reason(&cluster), "the coordinator is down");
    cluster.start(COORDINATOR)?;
    cluster.pause(COORDINATOR)?;
    assert_eq!(reason(&cluster), "the coordinator is paused");
    let states: Vec<NodeState> = cluster.status().nodes.iter().map(|node| node.state).collect();
    assert_eq!(states, [NodeState::Paused, NodeState::Up, NodeState::Up]);
    Ok(())
}

#[test]
fn status_counts_shards_and_placements_in_the_coordinators_catalog() -> TestResult {
    let cluster = plain_cluster()?;
    let (first, second) = (cluster.port(WORKER_1), cluster.port(WORKER_2));
    // The tables of the extension, by hand.
    cluster.connect(COORDINATOR)?.batch_execute(&format!(
        "CREATE SCHEMA pgs_distribution_metadata;
         SET search_path TO pgs_distribution_metadata, public;
         CREATE TABLE shard (id bigint, relation_id oid, storage \"char\", min_value text, max_value text);
         CREATE TABLE shard_placement (id bigint, shard_id bigint, shard_state int, node_name text, node_port int);
         CREATE TABLE public.orders (id int);
         INSERT INTO shard SELECT id, 'public.orders'::regclass, 't' FROM generate_series(1, 3) AS id;
         INSERT INTO shard_placement VALUES
             (1, 1, 1, 'localhost', {first}), (2, 1, 3, 'localhost', {second}),
             (3, 2, 1, 'localhost', {first}), (4, 2, 1, 'localhost', {second}),
             (5, 3, 3, 'localhost', {second})"
    ))?;
    let status = cluster.status();
    let Shards::Known(counts) = status.shards else { panic!("{:?}", status.shards) };
    assert_eq!((counts.shards, counts.degraded_shards, counts.unreadable_shards), (3, 1, 1));
    assert_eq!((counts.tables[0].table.as_str(), counts.tables[0].shards), ("orders", 3));
    let of_second = status.nodes[2].placements.expect("the coordinator told us");
    assert_eq!((of_second.healthy, of_second.inactive, of_second.other), (1, 2, 0));
    Ok(())
}

#[test]
fn the_command_brings_up_a_cluster_that_outlives_it_without_our_environment() -> TestResult {
    let dir = fresh_path();
    let pgshard = |arguments: &[&str]| -> Result<(bool, String), std::io::Error> {
        let output = Command::new(env!("CARGO_BIN_EXE_pgshard"))
            .args(arguments)
            .arg("--dir")
            .arg(&dir)
            .env("RUST_BACKTRACE", "1")
            .env("PGPORT", "1")
            .output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    };
    let port = free_ports(1)?;
    let (up, printed) = pgshard(&[
        "up",
        "--workers",
        "1",
        "--port",
        &port.to_string(),
        "--no-extension",
        "--set",
        "fsync=off",
    ])?;
    assert!(up, "{printed}");
    assert!(printed.starts_with(&format!("coordinator  127.0.0.1:{port}")), "{printed}");
    assert!(
        printed.contains(&format!("psql -h 127.0.0.1 -p {port} -U postgres postgres")),
        "{printed}"
    );

    let cluster = Cluster::open(&dir)?;
    let postmaster = cluster.postmaster_pid(WORKER_1)?.expect("worker 1 is up");
    let environment = fs::read(format!("/proc/{postmaster}/environ"))?;
    assert!(!String::from_utf8_lossy(&environment).contains("RUST_BACKTRACE"));

    assert_eq!(pgshard(&["kill", "worker1"])?, (true, "worker1 killed\n".to_owned()));
    let (_, json) = pgshard(&["status", "--json"])?;
    assert!(json.contains("\"state\": \"down\""), "{json}");
    let (started, message) = pgshard(&["start", "worker2"])?;
    assert!(!started && message.contains("it has coordinator, worker1"), "{message}");
    let (down, printed) = pgshard(&["down"])?;
    assert!(down, "{printed}");
    assert!(!dir.exists());
    Ok(())
}
