//! Copies, removals and splits whose process or server dies on the way: done or undone, with no row lost and no table left over.

use crate::matrix::{Victim, accounts_and_history, strike};
use crate::{WORKER_1, WORKER_2, call, nodes_of};
use std::collections::BTreeSet;
use testkit::{NodeName, TestCluster};

const TABLES: [&str; 2] = ["accounts", "history"];

const VICTIMS: [Victim; 3] =
    [Victim::Backend, Victim::Server(NodeName::Coordinator), Victim::Server(WORKER_1)];

/// Each placement has its table, there is no other one, and writes reach them all.
fn check(cluster: &TestCluster, number: usize, case: &str) {
    for table in TABLES {
        let placements = cluster.placements(table);
        for worker in [WORKER_1, WORKER_2] {
            let here = placements.iter().filter(|it| it.node == worker);
            let expected: BTreeSet<String> =
                here.map(|it| format!("{table}_{}", it.shard)).collect();
            let found = cluster.tables_on(worker, &format!("{table}\\_%"));
            assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected, "{case}: {worker}");
        }
        cluster.sql(&format!("UPDATE {table} SET v = {number}"));
        assert_eq!(cluster.unhealthy(table), 0, "{case}");
        assert_eq!(cluster.assert_placements_equal(table), 300, "{case}");
    }
    let join = "SELECT count(*) FROM accounts JOIN history USING (k)";
    assert_eq!(cluster.text(join), "300", "{case}");
}

/// Strikes at each point with each victim; `statement` makes ready and says what runs.
fn strike_all(cluster: &TestCluster, points: &[&str], statement: &mut dyn FnMut(usize) -> String) {
    let mut number = 0;
    for point in points {
        for victim in VICTIMS {
            number += 1;
            let sql = statement(number);
            strike(cluster, &sql, point, victim);
            check(cluster, number, &format!("{victim:?} at {point}: {sql}"));
        }
    }
}

fn drop_placement(cluster: &TestCluster, shard: i64, node: NodeName) -> String {
    format!("SELECT pgs_catalog.drop_placement({shard}, 'localhost', {})", cluster.port(node))
}

#[test]
fn a_copy_is_made_or_not_whoever_dies() {
    let cluster = accounts_and_history();
    let shard = cluster.placements("accounts")[0].shard;
    let points = ["relocation_filled", "relocation_locked", "relocation_switched", "finish"];
    strike_all(&cluster, &points, &mut |_| {
        if nodes_of(&cluster, "accounts", shard).len() == 2 {
            cluster.sql(&drop_placement(&cluster, shard, WORKER_2));
        }
        call(&cluster, "copy_shard", shard, WORKER_1, WORKER_2)
    });
}

#[test]
fn a_placement_is_dropped_or_not_whoever_dies() {
    let cluster = accounts_and_history();
    let shard = cluster.placements("accounts")[0].shard;
    strike_all(&cluster, &["removal_dropped", "prepare", "decide"], &mut |_| {
        if nodes_of(&cluster, "accounts", shard) == [WORKER_2] {
            cluster.sql(&call(&cluster, "copy_shard", shard, WORKER_2, WORKER_1));
        }
        if nodes_of(&cluster, "accounts", shard) == [WORKER_1] {
            cluster.sql(&call(&cluster, "copy_shard", shard, WORKER_1, WORKER_2));
        }
        drop_placement(&cluster, shard, WORKER_1)
    });
}

#[test]
fn a_shard_is_split_or_not_whoever_dies() {
    let cluster = accounts_and_history();
    let points = ["split_captured", "split_filled", "split_locked", "split_switched", "decide"];
    strike_all(&cluster, &points, &mut |number| match number % 2 {
        0 => format!("SELECT pgs_catalog.isolate_key('accounts', '{number}')"),
        _ => {
            let largest = cluster.text(&format!(
                "SELECT shard_id FROM pgs_catalog.shards JOIN pgs_catalog.placements USING (shard_id) \
                 WHERE shards.\"table\" = 'accounts' AND node_port = {} \
                 ORDER BY last_hash::bigint - first_hash DESC, shard_id LIMIT 1",
                cluster.port(WORKER_1)
            ));
            format!(
                "SELECT pgs_catalog.split_shard(shard_id, ARRAY[((first_hash::bigint + last_hash) / 2)::int]) \
                 FROM pgs_catalog.shards WHERE shard_id = {largest}"
            )
        }
    });
}
