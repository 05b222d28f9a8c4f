//! A repair read what could be seen. Of a transaction that was prepared and not yet ended nothing can: when it was committed afterwards,
//! the healthy placement had a row that the repaired one lacked, or the repair met its row and failed with a duplicate key.

use crate::difference::miss;
use std::thread;
use testkit::{NodeName, TestCluster, wait_until};

const WORKERS: [NodeName; 2] = [NodeName::Worker(1), NodeName::Worker(2)];

#[test]
fn a_repair_waits_for_what_is_in_doubt_at_either_placement() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (id int PRIMARY KEY, v text)", "t", "id", 1, 2);
    cluster.sql("INSERT INTO t SELECT i, 'x' FROM generate_series(1, 100) AS i");
    let shard = cluster.tables_on(WORKERS[0], "t\\_1%").remove(0);
    miss(&cluster, &["INSERT INTO t VALUES (101, 'missed')"]);
    for (worker, row) in WORKERS.into_iter().zip(["(102, 'late')", "(101, 'missed')"]) {
        let mut session = cluster.session_on(worker);
        session.sql(&format!("BEGIN; INSERT INTO {shard} VALUES {row}"));
        session.sql("PREPARE TRANSACTION 'late'");
    }
    thread::scope(|scope| {
        let repair = scope.spawn(|| {
            let mut session = cluster.new_session();
            let repair = "SELECT pgs_catalog.check_placements('t')";
            let call = "SELECT master_copy_shard_placement(s.shard_id, s.node_name, s.node_port, t.node_name, t.node_port) \
                        FROM pgs_distribution_metadata.shard_placement AS s, pgs_distribution_metadata.shard_placement AS t \
                        WHERE s.shard_state = 1 AND t.shard_state = 3";
            // It waits for some time only.
            while let Err(error) = session.try_sql(call) {
                assert_eq!(error.sqlstate, "55P03", "{error}");
            }
            session.sql(repair)
        });
        for worker in WORKERS {
            let mut session = cluster.session_on(worker);
            let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'";
            wait_until("the repair waits, or has been made", || {
                session.text(waits) != "0" || repair.is_finished()
            });
            assert!(!repair.is_finished(), "nobody has waited for {worker}");
            session.sql("COMMIT PREPARED 'late'");
        }
        assert!(repair.join().expect("the repair is made").is_empty());
    });
    assert_eq!(cluster.assert_placements_equal("t"), 102);
}
