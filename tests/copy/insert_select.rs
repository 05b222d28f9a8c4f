//! INSERT ... SELECT: on the workers where source and target lie together, and the same rows in any case.

use testkit::TestCluster;

#[test]
fn rows_from_a_query_are_those_that_a_plain_table_gets_wherever_they_are_computed() {
    let cluster = TestCluster::up(3);
    for (kind, placements) in [("plain", 0), ("sharded", 1)] {
        for table in ["source", "other", "target"] {
            let name = format!("{kind}_{table}");
            cluster.sql(&format!(
                "CREATE TABLE {name} (k int PRIMARY KEY, v int, s text DEFAULT 'none')"
            ));
            if placements > 0 {
                cluster.distribute(&name, "k", 6, placements);
            }
        }
        cluster.sql(&format!(
            "INSERT INTO {kind}_source SELECT i, i % 7, 'row ' || i FROM generate_series(1, 100) AS i; \
             INSERT INTO {kind}_other SELECT i, i FROM generate_series(50, 150) AS i"
        ));
    }
    let on_workers = [
        "INSERT INTO _target SELECT * FROM _source",
        "INSERT INTO _target (k, v) SELECT k, v + 1 FROM _source WHERE v < 5",
        "INSERT INTO _target (v, k) SELECT count(*), k FROM _source GROUP BY k",
        "INSERT INTO _target SELECT s.k, o.v, s.s FROM _source s JOIN _other o ON s.k = o.k",
        "INSERT INTO _target SELECT s.k, o.v FROM _source s JOIN _other o USING (k) WHERE NOT EXISTS (SELECT 1 FROM _source x WHERE x.k = s.k AND x.v = 3)",
        "INSERT INTO _target SELECT x.k, x.n FROM (SELECT k, max(v) AS n FROM _source GROUP BY k) x WHERE x.n > 2",
        "INSERT INTO _target SELECT k, v FROM _source ON CONFLICT (k) DO UPDATE SET v = _target.v + 1",
        "INSERT INTO _target SELECT DISTINCT k, v FROM _source RETURNING k, v + 1, s",
    ];
    let here = [
        "INSERT INTO _target SELECT k + 1000, v FROM _source",
        "INSERT INTO _target SELECT v, count(*) FROM _source GROUP BY v",
        "INSERT INTO _target SELECT g, 1 FROM generate_series(1, 20) AS g",
        "INSERT INTO _target SELECT g, 1 FROM generate_series(1, 20) AS g WHERE NOT EXISTS (SELECT 1 FROM _source s WHERE s.k = g AND s.v = 3)",
        "INSERT INTO _target SELECT o.k, s.v FROM _other o LEFT JOIN _source s ON s.k = o.k",
        "INSERT INTO _target SELECT k, v FROM _source WHERE k < 10 UNION ALL SELECT g, 0 FROM generate_series(500, 510) AS g",
        "INSERT INTO _target SELECT k, v FROM _source ORDER BY k LIMIT 7",
        "INSERT INTO _target SELECT k, row_number() OVER (ORDER BY k) FROM _source",
        "INSERT INTO _target SELECT k, (SELECT max(v) FROM _other) FROM _source",
        "INSERT INTO _target SELECT max(k), 1 FROM _source",
        "WITH few AS (SELECT * FROM _source WHERE k < 20) INSERT INTO _target SELECT k, v FROM few",
        "INSERT INTO _target SELECT DISTINCT ON (v) k, v FROM _source ORDER BY v, k",
        "INSERT INTO _target SELECT k, v FROM _source WHERE random() < 2",
    ];
    for (statements, is_whole) in [(&on_workers[..], true), (&here[..], false)] {
        for statement in statements {
            let answer = |kind: &str| {
                let mut rows = cluster.sql(
                    &statement
                        .replace('_', &format!("{kind}_"))
                        .replace(&format!("row{kind}_number"), "row_number")
                        .replace(&format!("generate{kind}_series"), "generate_series"),
                );
                rows.sort();
                let stored = cluster.sql(&format!("SELECT * FROM {kind}_target ORDER BY k"));
                cluster.sql(&format!("TRUNCATE {kind}_target"));
                (rows, stored)
            };
            assert_eq!(answer("sharded"), answer("plain"), "{statement}");
            let text = statement
                .replace('_', "sharded_")
                .replace("rowsharded_number", "row_number")
                .replace("generatesharded_series", "generate_series");
            let plan = cluster.text(&format!("EXPLAIN {text}"));
            assert_eq!(plan.contains("Remote SQL: INSERT INTO"), is_whole, "{statement}:\n{plan}");
        }
    }
}

#[test]
fn a_placement_that_is_not_beside_the_source_gets_its_rows_from_here() {
    let cluster = TestCluster::up(2);
    for table in ["source", "target"] {
        cluster.create_distributed(
            &format!("CREATE TABLE {table} (k int, v int)"),
            table,
            "k",
            4,
            2,
        );
    }
    cluster.sql("INSERT INTO source SELECT i, i FROM generate_series(1, 50) AS i");
    // With two placements the rows are the same on both, whatever is written meanwhile.
    cluster.sql("INSERT INTO target SELECT * FROM source");
    assert_eq!(cluster.assert_placements_equal("target"), 50);
    cluster.sql(
        "UPDATE pgs_distribution_metadata.shard_placement SET shard_state = 3 WHERE id = \
         (SELECT min(p.id) FROM pgs_distribution_metadata.shard_placement p \
          JOIN pgs_distribution_metadata.shard s ON s.id = p.shard_id WHERE s.relation_id = 'source'::regclass)",
    );
    cluster.sql(
        "INSERT INTO target SELECT k + 0, v FROM source; INSERT INTO target SELECT * FROM source",
    );
    assert_eq!(cluster.assert_placements_equal("target"), 150);
    assert_eq!(cluster.unhealthy("target"), 0);
}

#[test]
fn create_table_as_and_select_into_read_distributed_tables() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (k int, v text)", "t", "k", 4, 1);
    cluster.sql("INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 30) AS i");
    cluster.sql(
        "CREATE TABLE copy AS SELECT * FROM t WHERE k > 10; \
         SELECT k % 3 AS rest, count(*) INTO counts FROM t GROUP BY 1; \
         CREATE TEMP TABLE one AS SELECT v FROM t WHERE k = 7; \
         CREATE MATERIALIZED VIEW sums AS SELECT sum(k) FROM t WITH NO DATA; REFRESH MATERIALIZED VIEW sums",
    );
    assert_eq!(cluster.text("SELECT count(*), min(k) FROM copy"), "20|11");
    assert_eq!(cluster.text("SELECT * FROM counts ORDER BY 1"), "0|10\n1|10\n2|10");
    assert_eq!(cluster.text("SELECT * FROM one, sums"), "v7|465");
}
