//! COPY that goes wrong: the whole statement is undone on all nodes, and the error says what, where and on which node.

use crate::COORDINATOR;
use std::fs;
use std::io::Write;
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

#[test]
fn a_full_disk_on_one_worker_is_told_as_that_worker_s() {
    let cluster = TestCluster::up(2);
    // A trigger stands for the disk: it says what PostgreSQL says when there is no room.
    table(&cluster, 1);
    cluster.session_on(NodeName::Worker(1)).sql(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS \
         $$BEGIN IF NEW.k > 20000 THEN RAISE disk_full USING MESSAGE = 'could not extend file: No space left on device'; END IF; RETURN NEW; END$$",
    );
    for placement in cluster.placements("t") {
        if placement.node == NodeName::Worker(1) {
            let name = cluster.shard_name("t", placement.shard);
            cluster.session_on(placement.node).sql(&format!(
                "CREATE TRIGGER fills BEFORE INSERT ON {name} FOR EACH ROW EXECUTE FUNCTION full_disk()"
            ));
        }
    }
    let file = cluster.data_dir(COORDINATOR).join("much.copy");
    fs::write(&file, lines(50_000)).expect("writable");
    let error = cluster.error(&format!("COPY t FROM '{}'", file.display()));
    assert_eq!(error.line(), "53100: could not extend file: No space left on device");
    let node =
        format!("while executing on node \"localhost:{}\"", cluster.port(NodeName::Worker(1)));
    assert!(error.context.contains(&node), "{error}");
    assert!(error.context.contains("COPY t, line 2"), "{error}");
    assert_empty(&cluster);
}
