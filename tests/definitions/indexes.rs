//! CREATE INDEX and DROP INDEX with CONCURRENTLY, REINDEX and CLUSTER reach the shards, and what fails half-way can be mended.

use testkit::{NodeName, Session, TestCluster};

fn cluster_with_table(replicas: u32) -> TestCluster {
    let cluster = TestCluster::up(2);
    cluster.create_distributed(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b text)",
        "t",
        "id",
        4,
        replicas,
    );
    cluster.sql("INSERT INTO t SELECT i, i % 10, 'b' || i FROM generate_series(1, 200) AS i");
    cluster
}

/// Indexes of the shards on all nodes: names without the shard's number, whether valid, and how many.
fn on_shards(cluster: &TestCluster) -> String {
    let mut all = Vec::new();
    for node in cluster.workers() {
        all.push(cluster.session_on(node).text(
            "SELECT coalesce(string_agg(name || ' ' || indisvalid || ' ' || n, ', ' ORDER BY name, indisvalid), '') FROM ( \
               SELECT regexp_replace(c.relname, '_[0-9]{5,}$', '') AS name, i.indisvalid, count(*) AS n \
               FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_class AS t ON t.oid = i.indrelid \
               WHERE t.relname ~ '^t_[0-9]+$' GROUP BY 1, 2) AS counted",
        ));
    }
    all.dedup();
    all.join(" but ")
}

/// Those of the coordinator's table.
fn here(session: &mut Session) -> String {
    session.text(
        "SELECT string_agg(indexrelid::regclass || ' ' || (indisvalid AND indisready AND indislive), ', ' ORDER BY indexrelid::regclass::text) \
         FROM pg_index WHERE indrelid = 't'::regclass",
    )
}

#[test]
fn indexes_are_built_and_dropped_beside_running_statements() {
    for replicas in [1, 2] {
        let cluster = cluster_with_table(replicas);
        let mut session = cluster.new_session();
        let count = 2 * replicas;
        session.sql("CREATE INDEX CONCURRENTLY i ON t (a)");
        session.sql("CREATE UNIQUE INDEX CONCURRENTLY u ON t (id, b) INCLUDE (a) WHERE a > 0");
        session.sql("CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (b)");
        assert_eq!(here(&mut session), "i true, t_pkey true, u true");
        assert_eq!(
            on_shards(&cluster),
            format!("i true {count}, t_pkey true {count}, u true {count}")
        );
        session.sql("DROP INDEX CONCURRENTLY i");
        session.sql("DROP INDEX CONCURRENTLY IF EXISTS i");
        assert_eq!(here(&mut session), "t_pkey true, u true");
        assert_eq!(on_shards(&cluster), format!("t_pkey true {count}, u true {count}"));
        assert_eq!(session.error("CREATE INDEX CONCURRENTLY u ON t (a)").sqlstate, "42P07");
        assert_eq!(session.error("DROP INDEX CONCURRENTLY i").sqlstate, "42704");
        session.sql("BEGIN");
        assert_eq!(session.error("CREATE INDEX CONCURRENTLY i ON t (a)").sqlstate, "25001");
        session.sql("ROLLBACK; BEGIN");
        assert_eq!(session.error("DROP INDEX CONCURRENTLY u").sqlstate, "25001");
        session.sql("ROLLBACK");
        assert_eq!(on_shards(&cluster), format!("t_pkey true {count}, u true {count}"));
    }
}

#[test]
fn an_index_that_fails_on_a_shard_is_invalid_until_it_is_mended_on_all_nodes() {
    let cluster = cluster_with_table(1);
    let mut session = cluster.new_session();
    session.sql("INSERT INTO t VALUES (1000, 1000, 'same'), (1001, 1000, 'same')");
    for mend in [
        "DROP INDEX u",
        "DROP INDEX CONCURRENTLY u",
        "REINDEX INDEX u",
        "REINDEX INDEX CONCURRENTLY u",
        "REINDEX TABLE t",
    ] {
        session.sql("UPDATE t SET b = 'same' WHERE id = 1000; INSERT INTO t SELECT i, 1, 'same' FROM generate_series(1002, 1020) AS i");
        let error = session
            .error("CREATE UNIQUE INDEX CONCURRENTLY u ON t ((b = 'same')) WHERE b = 'same'");
        assert_eq!((error.sqlstate.as_str(), error.constraint.as_str()), ("23505", "u"), "{error}");
        assert_eq!(here(&mut session), "t_pkey true, u false");
        assert!(on_shards(&cluster).contains("u false"), "{}", on_shards(&cluster));
        // Other changes do not stumble over what some shards lack.
        session.sql("ALTER INDEX u RENAME TO v; ALTER INDEX v RENAME TO u; ALTER TABLE t ALTER a SET STATISTICS 10");
        session.sql("DELETE FROM t WHERE id > 1000; UPDATE t SET b = 'b1000' WHERE id = 1000");
        session.sql(mend);
        if mend.starts_with("REINDEX") {
            assert_eq!(here(&mut session), "t_pkey true, u true", "{mend}");
            assert_eq!(on_shards(&cluster), "t_pkey true 2, u true 2", "{mend}");
            session.sql("DROP INDEX u");
        }
        assert_eq!(here(&mut session), "t_pkey true", "{mend}");
        assert_eq!(on_shards(&cluster), "t_pkey true 2", "{mend}");
    }
}

#[test]
fn an_interrupted_build_leaves_an_invalid_index() {
    let cluster = cluster_with_table(1);
    let mut holder = cluster.session_on(NodeName::Worker(1));
    let shard = cluster.tables_on(NodeName::Worker(1), "t_%")[0].clone();
    // A transaction that writes the shard keeps the index from being built.
    holder.sql(&format!("BEGIN; LOCK TABLE {shard} IN ROW EXCLUSIVE MODE"));
    let mut session = cluster.new_session();
    session.sql("SET statement_timeout = '1s'");
    assert_eq!(session.error("CREATE INDEX CONCURRENTLY i ON t (a)").sqlstate, "57014");
    session.sql("RESET statement_timeout");
    holder.sql("ROLLBACK");
    assert_eq!(here(&mut session), "i false, t_pkey true");
    session.sql("REINDEX TABLE t");
    assert_eq!(here(&mut session), "i true, t_pkey true");
    assert_eq!(on_shards(&cluster), "i true 2, t_pkey true 2");
}

#[test]
fn a_node_that_is_down_keeps_indexes_as_they_are() {
    let cluster = cluster_with_table(1);
    let mut session = cluster.new_session();
    session.sql("CREATE INDEX i ON t (a)");
    cluster.kill(NodeName::Worker(2)).expect("the worker runs");
    let port = cluster.port(NodeName::Worker(2)).to_string();
    for statement in [
        "CREATE INDEX CONCURRENTLY j ON t (b)",
        "DROP INDEX CONCURRENTLY i",
        "REINDEX TABLE t",
        "CLUSTER t USING i",
    ] {
        let error = session.error(statement);
        assert!(error.message.contains(&port), "{statement}: {error}");
        assert_eq!(here(&mut session), "i true, t_pkey true", "{statement}");
    }
    cluster.start(NodeName::Worker(2)).expect("the worker comes back");
    cluster.wait_for(NodeName::Worker(2));
    session.sql("DROP INDEX CONCURRENTLY i");
    assert_eq!(on_shards(&cluster), "t_pkey true 2");
}

#[test]
fn reindex_and_cluster_reach_the_shards() {
    let cluster = cluster_with_table(2);
    let mut session = cluster.new_session();
    session.sql("CREATE INDEX i ON t (a)");
    let files = |what: &str| {
        let mut files = Vec::new();
        for node in cluster.workers() {
            let sql = format!(
                "SELECT relfilenode FROM pg_class WHERE relname ~ '^{what}_[0-9]+$' ORDER BY relname"
            );
            files.extend(cluster.session_on(node).sql(&sql));
        }
        files
    };
    let mut seen = (files("i"), files("t_pkey"), files("t"));
    let mut changed = |statement: &str, session: &mut Session| {
        session.sql(statement);
        let now = (files("i"), files("t_pkey"), files("t"));
        let differ = |a: &[Vec<String>], b: &[Vec<String>]| a.iter().zip(b).all(|(a, b)| a != b);
        let changed = (differ(&seen.0, &now.0), differ(&seen.1, &now.1), differ(&seen.2, &now.2));
        seen = now;
        changed
    };
    for (statement, expected) in [
        ("REINDEX INDEX i", (true, false, false)),
        ("REINDEX INDEX CONCURRENTLY i", (true, false, false)),
        ("REINDEX TABLE t", (true, true, false)),
        ("REINDEX (VERBOSE) TABLE CONCURRENTLY t", (true, true, false)),
        ("REINDEX SCHEMA public", (true, true, false)),
        ("REINDEX DATABASE CONCURRENTLY postgres", (true, true, false)),
        ("CLUSTER t USING i", (true, true, true)),
        ("CLUSTER t", (true, true, true)),
        ("CLUSTER", (true, true, true)),
    ] {
        assert_eq!(changed(statement, &mut session), expected, "{statement}");
    }
    session.sql("BEGIN; REINDEX TABLE t; CLUSTER t USING t_pkey; ROLLBACK");
    assert_eq!(session.error("CLUSTER t USING nothing").sqlstate, "42704");
    assert_eq!(session.text("SELECT count(*), sum(a) FROM t"), "200|900");
    assert_eq!(session.text("SELECT indexrelid::regclass FROM pg_index WHERE indisclustered"), "i");
    cluster.assert_placements_equal("t");
}

#[test]
fn writers_go_on_while_indexes_are_built() {
    let cluster = cluster_with_table(1);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (cluster, is_over) = (&cluster, &is_over);
            scope.spawn(move || {
                let mut session = cluster.new_session();
                let mut id = 10_000 * (number + 1);
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    id += 1;
                    session.sql(&format!("INSERT INTO t VALUES ({id}, {id}, 'x'); UPDATE t SET a = a + 1 WHERE id = {id}"));
                }
            });
        }
        let mut session = cluster.new_session();
        for _ in 0..3 {
            session.sql("CREATE INDEX CONCURRENTLY i ON t (a)");
            session.sql("REINDEX INDEX CONCURRENTLY i");
            session.sql("DROP INDEX CONCURRENTLY i");
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(on_shards(&cluster), "t_pkey true 2");
}
