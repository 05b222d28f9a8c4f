//! The coordinator dies when one of two placements has been told to commit a statement, and the other one has not been told to execute it.
//! The placements were different, both healthy, and who then lost the first one read what had been overwritten.

use crate::{Answer, ask};
use testkit::{NodeName, TestCluster, wait_until};

#[test]
fn a_placement_that_missed_a_write_by_a_crash_of_the_coordinator_is_marked_before_it_is_read() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (id int PRIMARY KEY, n int)", "t", "id", 4, 2);
    cluster.sql("INSERT INTO t SELECT i, 0 FROM generate_series(1, 20) AS i");
    for round in 1..=3 {
        let mut session = cluster.new_session();
        session.sql("SET pg_shard.fault_point = 'pair:kill'");
        let change = format!("UPDATE t SET n = {round} WHERE id = 1");
        assert_eq!(ask(&mut session, &change), Answer::Unknown);
        wait_until("the coordinator's other sessions are ended too", || {
            ask(&mut cluster.session(), "SELECT 1") != Answer::Done
        });
        cluster.reconnect();
        let shard = cluster.shard_of("t", "hashint4(1)");
        let leader = cluster.placements("t").into_iter().find(|known| known.shard == shard);
        let leader = leader.expect("the shard has placements").node;
        if round == 2 {
            // Whoever can only ask the other one must not be told the old value.
            cluster.kill(leader).expect("it runs");
            let mut session = cluster.new_session();
            let error = session.error("SELECT n FROM t WHERE id = 1");
            assert_eq!(error.sqlstate, "XX000", "{error}");
            cluster.start(leader).expect("it is down");
        }
        wait_until("the placement is marked", || cluster.unhealthy("t") == 1);
        assert_eq!(cluster.new_session().text("SELECT n FROM t WHERE id = 1"), round.to_string());
        assert_eq!(cluster.repair("t"), 1);
        cluster.assert_placements_equal("t");
    }
    // Who has died in between other statements has left nothing.
    cluster.kill(NodeName::Coordinator).expect("it runs");
    cluster.start(NodeName::Coordinator).expect("it is down");
    cluster.reconnect();
    assert_eq!(cluster.text("SELECT sum(n) FROM t"), "3");
    assert_eq!(cluster.unhealthy("t"), 0);
}
