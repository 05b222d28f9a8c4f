//! COPY that goes wrong: the whole statement is undone on all nodes, and the error says what, where and on which node.

use crate::COORDINATOR;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;
use std::process::Command;
use testkit::{NodeName, TestCluster, wait_until};

/// Lines of a table `(k int, s text)`, one key each.
fn lines(count: u32) -> String {
    (1..=count).map(|k| format!("{k}\t{}\n", "x".repeat(90))).collect()
}

fn table(cluster: &TestCluster, placements: u32) {
    cluster.create_distributed(
        "CREATE TABLE t (k int PRIMARY KEY, s text)",
        "t",
        "k",
        8,
        placements,
    );
}

/// Sends rows in small pieces: a client that is not waiting for anything sends no more than its socket takes.
fn send(writer: &mut impl Write, rows: &str) -> Result<(), String> {
    let sent = rows.as_bytes().chunks(4096).try_for_each(|piece| writer.write_all(piece));
    sent.and_then(|()| writer.flush()).map_err(|error| error.to_string())
}

/// No shard has a row, as the workers see it.
fn assert_empty(cluster: &TestCluster) {
    for placement in cluster.placements("t") {
        let name = cluster.shard_name("t", placement.shard);
        let mut session = cluster.session_on(placement.node);
        let is_empty = || session.text(&format!("SELECT count(*) FROM {name}")) == "0";
        wait_until("the worker has rolled back", is_empty);
    }
}

#[test]
fn a_duplicate_key_in_a_late_row_undoes_all_and_is_told_with_its_line_and_node() {
    let cluster = TestCluster::up(3);
    table(&cluster, 2);
    let file = cluster.data_dir(COORDINATOR).join("late.copy");
    fs::write(&file, format!("{}7\tagain\n{}", lines(90_000), "90001\tlast\n")).expect("writable");
    let error = cluster.error(&format!("COPY t FROM '{}'", file.display()));
    assert_eq!(error.line(), "23505: duplicate key value violates unique constraint \"t_pkey\"");
    assert_eq!(error.detail, "Key (k)=(7) already exists.");
    let (line, node) = error.context.split_once('\n').expect("a line and a node");
    assert_eq!(line, "COPY t, line 90001");
    assert!(node.starts_with("while executing on node \"localhost:"), "{node}");
    assert_empty(&cluster);

    // The session goes on, and so does what it had written before a savepoint.
    cluster.sql("BEGIN; INSERT INTO t VALUES (-1, 'kept'); SAVEPOINT s");
    cluster.error(&format!("COPY t FROM '{}'", file.display()));
    cluster.sql("ROLLBACK TO s; INSERT INTO t VALUES (-2, 'too'); COMMIT");
    assert_eq!(cluster.text("SELECT count(*) FROM t"), "2");
    assert_eq!(cluster.unhealthy("t"), 0);
}

#[test]
fn a_worker_that_is_killed_in_the_middle_is_marked_or_ends_the_statement() {
    for placements in [1, 2] {
        let cluster = TestCluster::up(3);
        table(&cluster, placements);
        let mut session = cluster.new_session();
        let rows = lines(40_000);
        let mut writer = session.client().copy_in("COPY t FROM STDIN").expect("COPY begins");
        send(&mut writer, &rows).expect("the coordinator takes rows");
        let progress = "SELECT count(*) FROM pg_stat_progress_copy WHERE relid = 't'::regclass \
                        AND tuples_processed > 20000 AND bytes_processed > 2000000 AND type = 'PIPE'";
        wait_until("the rows are on their way", || cluster.text(progress) == "1");
        cluster.kill(NodeName::Worker(2)).expect("a worker that runs");
        let more: String =
            (40_001..=80_000).map(|k| format!("{k}\t{}\n", "y".repeat(90))).collect();
        let outcome = send(&mut writer, &more)
            .and_then(|()| writer.finish().map_err(|error| error.to_string()));
        if placements == 2 {
            assert_eq!(outcome, Ok(80_000));
            assert!(cluster.unhealthy("t") > 0);
            assert_eq!(cluster.text("SELECT count(*), sum(k) FROM t"), "80000|3200040000");
        } else {
            assert!(outcome.is_err(), "{outcome:?}");
            cluster.start(NodeName::Worker(2)).expect("the worker starts again");
            assert_empty(&cluster);
            assert_eq!(cluster.unhealthy("t"), 0);
        }
    }
}

#[test]
fn a_client_that_gives_up_or_is_cancelled_leaves_nothing() {
    let cluster = TestCluster::up(2);
    table(&cluster, 1);
    let mut session = cluster.new_session();
    let mut writer = session.client().copy_in("COPY t FROM STDIN").expect("COPY begins");
    send(&mut writer, &lines(30_000)).expect("the coordinator takes rows");
    // Without `finish` the client says that it has failed.
    drop(writer);
    assert_empty(&cluster);

    let mut writer = session.client().copy_in("COPY t FROM STDIN").expect("COPY begins");
    send(&mut writer, &lines(30_000)).expect("the coordinator takes rows");
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_progress_copy WHERE relid = 't'::regclass \
                  AND tuples_processed > 20000";
    wait_until("the COPY is cancelled", || cluster.text(cancel) == "t");
    // A backend that waits for its client hears of it with the next message, as PostgreSQL's own COPY does.
    let outcome = send(&mut writer, &lines(30_000))
        .and_then(|()| writer.finish().map_err(|error| error.to_string()));
    assert!(outcome.is_err(), "{outcome:?}");
    assert_empty(&cluster);
    session.sql("INSERT INTO t VALUES (1, 'one')");
    assert_eq!(cluster.text("SELECT count(*) FROM t"), "1");
}

/// A small file system of its own, gone with this value; the servers on it have to be stopped before.
struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// None where file systems cannot be mounted: that takes root, and in a container often more.
    fn mount() -> Option<Self> {
        let dir = std::env::temp_dir().join(format!("pgshard-small-disk-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("the directory for temporary files is ours");
        let disk = Self { dir };
        let arguments = ["-t", "tmpfs", "-o", "size=4m,mode=0700", "small-disk"];
        disk.run("mount", &arguments).then_some(disk)
    }

    fn grow(&self) {
        assert!(self.run("mount", &["-o", "remount,size=64m"]), "a mounted disk can grow");
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        let output = Command::new(program).args(arguments).arg(&self.dir).output();
        output.is_ok_and(|output| output.status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also where nothing is mounted; what is still in use goes with its last user.
        if !self.run("umount", &[]) {
            self.run("umount", &["--lazy"]);
        }
        // Leaves alone what is not empty.
        let _ = fs::remove_dir(&self.dir);
    }
}

#[test]
fn a_full_disk_on_one_worker_is_told_as_that_worker_s() {
    // Before the cluster, so that it is unmounted after the servers have stopped.
    let disk = SmallDisk::mount();
    let cluster = TestCluster::up(2);
    let worker = NodeName::Worker(1);
    if let Some(disk) = &disk {
        let owner = fs::metadata(cluster.data_dir(worker)).expect("it is there");
        chown(&disk.dir, Some(owner.uid()), Some(owner.gid())).expect("who mounts may do this");
        let mut session = cluster.session_on(worker);
        session.sql(&format!("CREATE TABLESPACE small LOCATION '{}'", disk.dir.display()));
        session.sql("ALTER ROLE postgres SET default_tablespace = small");
    }
    table(&cluster, 1);
    let on_worker = |change: &dyn Fn(&str) -> String| {
        for placement in cluster.placements("t") {
            if placement.node == worker {
                let name = cluster.shard_name("t", placement.shard);
                cluster.session_on(worker).sql(&change(&name));
            }
        }
    };
    if disk.is_none() {
        eprintln!("no file system can be mounted here: a trigger stands for the full disk");
        cluster.session_on(worker).sql(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS \
             $$BEGIN IF NEW.k > 20000 THEN RAISE disk_full USING MESSAGE = 'could not extend file: No space left on device'; END IF; RETURN NEW; END$$",
        );
        on_worker(&|name| {
            format!(
                "CREATE TRIGGER fills BEFORE INSERT ON {name} FOR EACH ROW EXECUTE FUNCTION full_disk()"
            )
        });
    }

    cluster.sql("INSERT INTO t SELECT -i, 'before' FROM generate_series(1, 100) AS i");
    let file = cluster.data_dir(COORDINATOR).join("much.copy");
    fs::write(&file, lines(150_000)).expect("writable");
    let copy = format!("COPY t FROM '{}'", file.display());
    let error = cluster.error(&copy);
    let message = error.line();
    assert!(message.starts_with("53100: could not extend file"), "{message}");
    assert!(message.ends_with(": No space left on device"), "{message}");
    let node = format!("while executing on node \"localhost:{}\"", cluster.port(worker));
    assert!(error.context.contains(&node), "{error}");
    // Where the disk is really full, the worker names no line that we have sent: then a range of the client's is told.
    let place = if disk.is_some() { "COPY t, line" } else { "COPY t, line 2" };
    assert!(error.context.starts_with(place), "{error}");
    if let Some((first, last)) = error
        .context
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("COPY t, lines "))
        .and_then(|range| range.split_once(" to "))
    {
        let number = |text: &str| text.parse::<u64>().expect("a line's number");
        assert!(number(first) < number(last) && number(last) <= 150_000, "{error}");
    }
    let insert = "INSERT INTO t SELECT i, repeat('x', 90) FROM generate_series(1, 150000) AS i";
    let error = cluster.error(insert);
    assert!(error.context.starts_with("while storing rows of table \"t\"\n"), "{error}");
    assert!(error.context.contains(&node), "{error}");
    let rows = "SELECT count(*), min(k), max(k) FROM t";
    assert_eq!(cluster.text(rows), "100|-100|-1");
    assert_eq!(cluster.unhealthy("t"), 0);

    // There is room again.
    match &disk {
        Some(disk) => disk.grow(),
        None => on_worker(&|name| format!("DROP TRIGGER fills ON {name}")),
    }
    cluster.sql("DELETE FROM t WHERE k = -1");
    cluster.sql(&copy);
    assert_eq!(cluster.text(rows), "150099|-100|150000");
    assert_eq!(cluster.unhealthy("t"), 0);
}
