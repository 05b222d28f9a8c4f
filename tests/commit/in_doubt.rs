//! The view of what is prepared on nodes, for whoever is called at night.

use std::fs;
use std::thread;

use crate::{WORKER_1, WORKER_2, cluster_with_accounts, key_on};
use testkit::{NodeName, wait_until};

#[test]
fn a_commit_under_way_is_shown_with_what_has_been_decided() {
    let cluster = cluster_with_accounts();
    let keys = [key_on(&cluster, WORKER_1), key_on(&cluster, WORKER_2)];
    let paused = cluster.data_dir(NodeName::Coordinator).join("pg_shard_paused");
    for (point, decision, command) in
        [("decide", "undecided", "ROLLBACK"), ("finish", "commit", "COMMIT")]
    {
        let mut session = cluster.new_session();
        session.sql(&format!("SET pg_shard.fault_point = '{point}:pause'"));
        session.sql("BEGIN");
        for key in keys {
            session.sql(&format!("UPDATE single SET v = 1 WHERE k = {key}"));
        }
        let shown = thread::scope(|scope| {
            scope.spawn(move || session.sql("COMMIT"));
            wait_until("the commit comes to the point", || paused.exists());
            let shown = cluster.sql(
                "SELECT gid, decision, command, age > '0', node_port FROM pgs_catalog.in_doubt",
            );
            fs::remove_file(&paused).expect("it is there");
            shown
        });
        assert_eq!(shown.len(), 1, "at {point}");
        let row = &shown[0];
        assert_eq!(row[1], decision, "at {point}");
        assert_eq!(row[2], format!("{command} PREPARED '{}'", row[0]));
        assert_eq!(row[3], "t");
        assert_ne!(cluster.worker_on(&row[4]), NodeName::Coordinator);
    }
    assert_eq!(cluster.text("SELECT count(*) FROM pgs_catalog.in_doubt"), "0");
}

#[test]
fn what_no_known_node_decides_is_shown_with_the_command_that_ends_it() {
    let cluster = cluster_with_accounts();
    let mut worker = cluster.session_on(WORKER_2);
    worker.sql("BEGIN");
    worker.sql("CREATE TABLE left_behind ()");
    worker.sql("PREPARE TRANSACTION 'pg_shard:1:999:5:6:7:1'");
    let shown = cluster.sql("SELECT node_port, decision, command FROM pgs_catalog.in_doubt");
    let port = cluster.port(WORKER_2).to_string();
    let command = "ROLLBACK PREPARED 'pg_shard:1:999:5:6:7:1'";
    assert_eq!(shown, [[port, "unknown".to_owned(), command.to_owned()]]);
    worker.sql(command);
    assert_eq!(cluster.text("SELECT count(*) FROM pgs_catalog.in_doubt"), "0");
}
