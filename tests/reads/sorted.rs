//! ORDER BY over many shards: the nodes sort, and their streams are merged.

use testkit::{NodeName, TestCluster};

const COLUMNS: [&str; 16] = [
    "i2", "i4", "i8", "f4", "f8", "num", "txt", "vc", "ch", "nam", "byt", "boo", "dat", "ts", "iv",
    "u",
];

/// A row is its number and, one time in seven, NULL; values repeat.
fn fill(table: &str) -> String {
    format!(
        "INSERT INTO {table} SELECT i, \
         CASE WHEN n <> 0 THEN i % 50 - 20 END, CASE WHEN n <> 1 THEN i * 7919 % 1000 - 500 END, \
         CASE WHEN n <> 2 THEN (i::int8 * 7919 % 997 - 400) * 10000000000 END, \
         CASE WHEN n <> 3 THEN (i * 31 % 97 - 50) / 8.0 END, \
         CASE WHEN n <> 4 THEN CASE i % 40 WHEN 0 THEN 'NaN' WHEN 1 THEN '-Infinity' ELSE (i * 31 % 97 - 50) / 7.0 END END, \
         CASE WHEN n <> 5 THEN CASE i % 40 WHEN 0 THEN 'NaN' ELSE (i * 37 % 101 - 50) / 3.0 END END, \
         CASE WHEN n <> 6 THEN (ARRAY['', 'a', 'B', 'b a', 'ba', 'Ä', 'ä', 'z', 'É', '-1', '_x', 'aa'])[i % 12 + 1] || i % 5 END, \
         CASE WHEN n <> 0 THEN chr(65 + i % 26) || chr(97 + i % 7) END, \
         CASE WHEN n <> 1 THEN chr(65 + i % 26) END, CASE WHEN n <> 2 THEN 'n' || i % 90 END, \
         CASE WHEN n <> 3 THEN decode(md5((i % 60)::text), 'hex') END, CASE WHEN n <> 4 THEN i % 3 = 0 END, \
         CASE WHEN n <> 5 THEN CASE i % 40 WHEN 0 THEN 'infinity' ELSE date '2000-01-01' + i * 41 % 600 END END, \
         CASE WHEN n <> 6 THEN timestamptz '2020-01-01' + (i * 41 % 600) * interval '1 hour' END, \
         CASE WHEN n <> 0 THEN (i % 30) * interval '1 day' + (i % 50) * interval '1 hour' END, \
         CASE WHEN n <> 1 THEN md5((i % 70)::text)::uuid END, \
         CASE WHEN n <> 2 THEN ARRAY[i % 4, i % 3] END \
         FROM (SELECT i, i * 13 % 7 AS n FROM generate_series(1, 1500) AS i) AS x"
    )
}

fn create(table: &str) -> String {
    format!(
        "CREATE TABLE {table} (id int, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, num numeric, txt text, vc varchar(9), \
         ch char(3), nam name, byt bytea, boo bool, dat date, ts timestamptz, iv interval, u uuid, arr int[])"
    )
}

#[test]
fn rows_of_any_number_of_shards_come_in_postgresqls_order() {
    let cluster = TestCluster::up_with(3, &[("autovacuum", "off")]);
    let mut session = cluster.new_session();
    session.sql(&create("plain"));
    session.sql(&fill("plain"));
    for shards in [1, 4, 64] {
        session.sql("DROP TABLE IF EXISTS spread, empty");
        for table in ["spread", "empty"] {
            session.sql(&create(table));
            cluster.distribute(table, "id", shards, 1);
        }
        session.sql(&fill("spread"));
        session.sql("ANALYZE spread");
        let mut order = Vec::new();
        for (number, column) in COLUMNS.iter().enumerate() {
            let other = COLUMNS[(number * 5 + 3) % COLUMNS.len()];
            order.push(format!("{column}, id"));
            order.push(format!("{column} DESC, id DESC"));
            order.push(format!("{column} NULLS FIRST, {other} DESC NULLS LAST, id"));
        }
        order.extend(
            [
                "arr, id",
                "txt COLLATE \"C\" DESC, id",
                "i4 + i2, abs(i4) DESC, id",
                "lower(txt), i4 % 7 NULLS FIRST, id",
                "i4 USING >, id",
            ]
            .map(str::to_owned),
        );
        for order in order {
            let query = |table: &str| format!("SELECT id, txt FROM {table} ORDER BY {order}");
            let mut rows = |table: &str| session.text(&query(table));
            assert_eq!(rows("spread"), rows("plain"), "{order}, {shards} shards");
            assert_eq!(rows("empty"), "", "{order}");
            let plan = session.text(&format!("EXPLAIN {}", query("spread")));
            let sorts = shards == 1 || plan.contains("Merge Key: ");
            assert!(sorts, "the nodes sort by {order}: {plan}");
        }
        for whole in [
            "SELECT i2, count(*), sum(i8) FROM t GROUP BY i2 ORDER BY sum(i8), i2",
            "SELECT id, max(txt) AS m FROM t GROUP BY id ORDER BY m DESC NULLS LAST, id",
            "SELECT a.id, b.txt FROM t AS a JOIN t AS b ON a.id = b.id WHERE a.boo ORDER BY b.txt, a.id",
            "SELECT * FROM (SELECT id, ts FROM t ORDER BY ts, id OFFSET 7) AS x",
            "SELECT id, (SELECT string_agg(y.id::text, ' ') FROM (SELECT id FROM t WHERE t.i2 = x.i2 ORDER BY f8, id) AS y) \
             FROM t AS x WHERE id % 100 = 3 ORDER BY txt, id",
            "SELECT id FROM t WHERE id IN (3, 7, 12, 700) ORDER BY u DESC, id",
            "SELECT t FROM t WHERE id < 50 ORDER BY num, id",
            "SELECT array_agg(id) FROM (SELECT id FROM t UNION ALL SELECT -id FROM t ORDER BY 1) AS x",
        ] {
            // The table's name is a word of its own.
            let on = |table: &str| {
                whole
                    .replace("FROM t ", &format!("FROM {table} AS t "))
                    .replace("JOIN t ", &format!("JOIN {table} "))
                    .replace("AS t AS", "AS")
            };
            assert_eq!(session.text(&on("spread")), session.text(&on("plain")), "{whole}");
        }
    }
}

#[test]
fn a_cursor_over_sorted_rows_goes_to_and_fro_while_others_use_the_sessions() {
    let cluster = TestCluster::up_with(3, &[("autovacuum", "off"), ("work_mem", "64kB")]);
    cluster.create_distributed("CREATE TABLE t (id int, pad text)", "t", "id", 6, 1);
    let mut session = cluster.new_session();
    session.sql("INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 60000) AS i");
    for kind in ["CURSOR", "SCROLL CURSOR", "CURSOR WITH HOLD"] {
        session.sql(&format!("BEGIN; DECLARE c {kind} FOR SELECT id, pad FROM t ORDER BY id DESC"));
        let numbers = |text: String| -> Vec<i32> {
            text.lines().filter_map(|line| line.split('|').next()?.trim().parse().ok()).collect()
        };
        let mut fetch = |what: &str| numbers(session.text(what));
        assert_eq!(fetch("FETCH 3 FROM c"), [60000, 59999, 59998]);
        // The rest of the rows goes to stores, one a node.
        assert_eq!(fetch("SELECT count(*) FROM t"), [60000]);
        assert_eq!(fetch("FETCH 2 FROM c"), [59997, 59996]);
        if kind == "SCROLL CURSOR" {
            assert_eq!(fetch("FETCH BACKWARD 2 FROM c"), [59997, 59998]);
            assert_eq!(fetch("FETCH ABSOLUTE 30000 FROM c"), [30001]);
            assert_eq!(fetch("FETCH LAST FROM c"), [1]);
            assert_eq!(fetch("FETCH FIRST FROM c"), [60000]);
        } else if kind == "CURSOR" {
            let rest = fetch("FETCH ALL FROM c");
            assert_eq!(rest.len(), 60000 - 5);
            assert!(rest.windows(2).all(|pair| pair[0] == pair[1] + 1), "in order");
        } else {
            session.sql("COMMIT");
            assert_eq!(numbers(session.text("FETCH 2 FROM c")), [59995, 59994]);
            session.sql("CLOSE c; BEGIN");
        }
        session.sql("COMMIT");
    }
}

#[test]
fn a_node_is_replaced_before_its_first_sorted_row_and_missed_after_it() {
    let cluster = TestCluster::up_with(3, &[("autovacuum", "off")]);
    cluster.create_distributed("CREATE TABLE twice (id int, pad text)", "twice", "id", 6, 2);
    cluster.create_distributed("CREATE TABLE once (id int, pad text)", "once", "id", 6, 1);
    for table in ["once", "twice"] {
        cluster.sql(&format!(
            "INSERT INTO {table} SELECT i, repeat('x', 500) FROM generate_series(1, 60000) AS i"
        ));
    }
    let mut session = cluster.new_session();
    let first = session.text("SELECT id FROM twice ORDER BY id");
    session.sql("BEGIN; DECLARE c CURSOR FOR SELECT * FROM once ORDER BY id; FETCH 10 FROM c");
    cluster.kill(NodeName::Worker(2)).expect("a worker can be killed");
    let error = session.error("FETCH ALL FROM c");
    assert_eq!(error.sqlstate, "08006", "{}", error.line());
    session.sql("ROLLBACK");
    assert_eq!(session.text("SELECT id FROM twice ORDER BY id"), first);
}

#[test]
fn a_node_that_sorts_otherwise_is_found_out() {
    let cluster = TestCluster::up_with(2, &[("autovacuum", "off")]);
    if !cluster.has_icu() {
        return;
    }
    cluster.sql("CREATE COLLATION odd (locale = 'C')");
    cluster.on_workers("CREATE COLLATION odd (provider = icu, locale = 'en')");
    cluster.create_distributed("CREATE TABLE t (id int, name text COLLATE odd)", "t", "id", 4, 1);
    cluster.sql("INSERT INTO t SELECT i, chr(CASE i % 2 WHEN 0 THEN 65 ELSE 97 END + i % 26) FROM generate_series(1, 200) AS i");
    let error = cluster.error("SELECT name FROM t ORDER BY name");
    assert_eq!(error.sqlstate, "XX000", "{}", error.line());
    assert!(error.message.contains("sorts rows otherwise than this server"), "{}", error.line());
}

#[test]
fn sorted_streams_feed_merge_joins_groups_and_windows() {
    let cluster = TestCluster::up_with(3, &[("autovacuum", "off"), ("work_mem", "64kB")]);
    let mut session = cluster.new_session();
    cluster.sql("CREATE FUNCTION is_wanted(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 % 11 <> 3'");
    for (schema, shards) in [("plain", 0), ("spread", 6)] {
        session.sql(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}, public"));
        for table in ["a", "b"] {
            session.sql(&create(table));
            if shards > 0 {
                cluster.distribute(&format!("{schema}.{table}"), "id", shards, 1);
            }
            session.sql(&fill(table));
        }
        session.sql("DELETE FROM b WHERE id % 4 = 1; ANALYZE a; ANALYZE b");
    }
    session.sql("SET enable_hashjoin = off; SET enable_nestloop = off; SET enable_hashagg = off; SET enable_sort = off");
    for query in [
        "SELECT a.id, b.id FROM a JOIN b ON a.i4 = b.i4",
        "SELECT a.id, b.id FROM a LEFT JOIN b ON a.i4 = b.i4 AND a.i2 = b.i2",
        "SELECT a.id, b.id FROM a RIGHT JOIN b ON a.num = b.num",
        "SELECT a.id, b.id, a.u FROM a FULL JOIN b ON a.txt = b.txt AND a.u = b.u",
        "SELECT a.id, b.id FROM a FULL JOIN b ON a.f8 = b.f8 WHERE a.id IS NULL OR b.id IS NULL",
        "SELECT a.id, b.id FROM a FULL JOIN (SELECT * FROM b WHERE is_wanted(id)) b ON a.f8 = b.f8",
        "SELECT a.id, b.id FROM a JOIN b ON a.vc = b.txt::varchar WHERE is_wanted(a.id) AND is_wanted(b.i4)",
        "SELECT a.id, b.id FROM a JOIN b ON a.i8 = b.i4 ORDER BY a.i8 DESC, a.id, b.id",
        "SELECT id FROM a WHERE i4 IN (SELECT i4 FROM b WHERE is_wanted(id))",
        "SELECT id FROM a WHERE NOT EXISTS (SELECT FROM b WHERE b.ts = a.ts AND is_wanted(b.id))",
        "SELECT x.id, y.id, z.id FROM a x JOIN b y ON x.id = y.id JOIN a z ON z.i4 = y.i4 WHERE z.i2 = 3",
        "SELECT i4, string_agg(txt, ',' ORDER BY id) FROM a GROUP BY i4",
        "SELECT txt, num, array_agg(id ORDER BY id) FROM a WHERE is_wanted(id) GROUP BY num, txt HAVING count(*) > 1",
        "SELECT DISTINCT ts, boo FROM a WHERE is_wanted(id)",
        "SELECT id, rank() OVER (PARTITION BY i2 ORDER BY f8 DESC NULLS LAST, id) FROM a",
        "SELECT id, sum(i4) OVER (ORDER BY ts, id ROWS 3 PRECEDING), lag(id) OVER (PARTITION BY boo ORDER BY id) FROM b",
        "SELECT x.id, n FROM (SELECT i4, count(*) AS n, min(id) AS id FROM a GROUP BY i4) x JOIN b ON b.i4 = x.i4",
        "SELECT x.id, (SELECT string_agg(id::text, ' ' ORDER BY id) FROM (SELECT b.id FROM b JOIN a ON a.i4 = b.i4 WHERE b.i2 = x.i2) y) \
         FROM a x WHERE id < 20",
    ] {
        let mut rows = |schema: &str| {
            session.sql(&format!("SET search_path = {schema}, public"));
            session.text(&format!("SELECT r::text FROM ({query}) r ORDER BY 1"))
        };
        assert_eq!(rows("spread"), rows("plain"), "{query}");
    }
    session.sql("SET search_path = spread, public");
    for query in [
        "SELECT a.id, b.id FROM a FULL JOIN b ON a.i4 = b.i4",
        "SELECT i4, string_agg(txt, ',') FROM a GROUP BY i4",
        "SELECT id, rank() OVER (PARTITION BY i2 ORDER BY f8 DESC) FROM a",
    ] {
        let plan = session.text(&format!("EXPLAIN {query}"));
        assert!(plan.contains("Merge Key: ") && !plan.contains("Sort Key"), "{query}: {plan}");
    }
    // A cursor over a merge join goes to and fro while others use the sessions.
    session.sql("BEGIN; DECLARE c SCROLL CURSOR FOR SELECT a.id FROM a JOIN b ON a.id = b.i4 + 600 ORDER BY a.id");
    let all = session.text("FETCH ALL FROM c");
    session.sql("SELECT count(*) FROM a; MOVE ABSOLUTE 0 FROM c");
    assert_eq!(session.text("FETCH ALL FROM c"), all);
    session.sql("COMMIT");
}
