//! Writes made up by rule, with a fixed seed: each runs on local tables and on distributed ones, and afterwards all
//! tables are the same, as are the rows that it returned or the SQLSTATE with which it failed.
//!
//! A statement must have one right answer: which of several rows a target is joined to, which rows a LIMIT leaves, which
//! of two rows violates a constraint first, are for the server to choose, so there is never such a choice.

use std::fmt::Write;

use testkit::{Session, TestCluster};

/// In each of the schemas. The keys cannot be NULL: then a missing key is an error on both sides.
const TABLES: &str = "
    CREATE TABLE items (k int PRIMARY KEY, a text, b int CHECK (b > -1000), c numeric(10,2), g int GENERATED ALWAYS AS (b * 2) STORED);
    CREATE TABLE notes (k int NOT NULL, gone int, v varchar(12), w int, j json, f float8, m mood, l place, p positive);
    ALTER TABLE notes DROP COLUMN gone;
    CREATE TABLE \"Odd Names\" (\"Key\" text PRIMARY KEY, \"Val ue\" text DEFAULT 'none', n int, tags text[], at timestamptz);
";

const LOCAL: &str = "
    CREATE TABLE here (x int PRIMARY KEY, y text, z numeric);
    CREATE VIEW small AS SELECT k, a, b FROM items WHERE b < 20;
    CREATE VIEW checked AS SELECT k, a, b FROM items WHERE b < 20 WITH CHECK OPTION;
    CREATE VIEW barred WITH (security_barrier) AS SELECT k, v, w FROM notes WHERE w % 3 <> 0;
";

const ROWS: &str = "
    TRUNCATE items, notes, \"Odd Names\", here;
    INSERT INTO items (k, a, b, c) SELECT i, 'item ' || i, i * 3 % 40, i * 1.5 FROM generate_series(1, 24) AS i;
    INSERT INTO notes SELECT i % 12, 'note ' || i % 7, i % 9, format('{\"n\": %s}', i % 3)::json, i % 4 / 4.0,
        (ARRAY['sad', 'ok'])[i % 3]::mood, (CASE WHEN i % 5 > 0 THEN ROW('Main, \"St\"', i % 3)::place END), i % 2 + 1 FROM generate_series(1, 40) AS i;
    INSERT INTO notes SELECT 3, 'twin', 1, '{\"n\":  1}', NULL FROM generate_series(1, 3);
    INSERT INTO \"Odd Names\" SELECT 'k' || i, nullif('v' || i % 5, 'v2'), i, ARRAY['a', 't' || i % 3], timestamptz '2024-02-28 12:00Z' + i * interval '7 hours' FROM generate_series(1, 16) AS i;
    INSERT INTO here SELECT i * 2, 'here ' || i, i / 3.0 FROM generate_series(1, 10) AS i;
";

const CONTENTS: [&str; 4] = [
    "SELECT t::text FROM items AS t ORDER BY t::text",
    "SELECT t::text FROM notes AS t ORDER BY t::text",
    "SELECT t::text FROM \"Odd Names\" AS t ORDER BY t::text",
    "SELECT t::text FROM here AS t ORDER BY t::text",
];

/// Small random numbers, the same in each run (a linear congruential generator, of which the high bits are used).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// On all nodes.
const TYPES: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TYPE place AS (street text, number int);
    CREATE DOMAIN positive AS int CHECK (value > 0);
";

/// Filters on the rows of `items`, named `t`.
const OF_ITEMS: [&str; 14] = [
    "t.b > 15",
    "t.k % 4 = 1",
    "t.k = 7",
    "t.k IN (2, 9, 15)",
    "(t.c IS NULL OR t.c < 12)",
    "t.a LIKE 'item 1%'",
    "t.k IN (SELECT x FROM here WHERE z > 1)",
    "t.k IN (SELECT w FROM notes)",
    "EXISTS (SELECT FROM notes AS o WHERE o.w = t.b)",
    "t.b = (SELECT max(b) FROM items)",
    "t.k IN (SELECT k FROM items ORDER BY b, k LIMIT 3)",
    "t.b > (SELECT avg(w) FROM notes AS n WHERE n.k = t.k)",
    "t.k = ANY (ARRAY(SELECT x FROM here))",
    "random() >= 0",
];

/// Filters on the rows of `notes`, named `t`.
const OF_NOTES: [&str; 15] = [
    "t.m = 'ok'",
    "(t.l).number = 1",
    "t.p = (SELECT max(p) FROM notes)",
    "t.w < 4",
    "t.k = 5",
    "t.k IN (1, 4)",
    "t.v = 'note 3'",
    "t.j->>'n' = '1'",
    "t.f IS NULL",
    "t.k IN (SELECT x FROM here)",
    "t.w IN (SELECT k FROM items WHERE b < 30)",
    "NOT EXISTS (SELECT FROM items AS o WHERE o.k = t.k AND o.b > 10)",
    "t.w = (SELECT min(w) + 1 FROM notes)",
    "(t.k, t.w) IN (SELECT k, max(w) FROM notes GROUP BY k)",
    "t.w = (SELECT count(*) FROM here) - 6",
];

/// New values for a row of `items`, named `t`.
const SET_ITEMS: [&str; 14] = [
    "b = t.b + 1",
    "a = upper(t.a), b = DEFAULT",
    "a = NULL",
    "c = t.c / 3",
    "(a, c) = ('both', t.b)",
    "b = (SELECT count(*) FROM notes AS n WHERE n.w = t.k)",
    "(a, b) = (SELECT max(y), max(x) FROM here WHERE x < t.k)",
    "b = t.b + (random() * 0)::int",
    "b = t.b - 2000",
    "k = t.k + 100",
    "k = -t.k, a = 'moved'",
    "k = NULL",
    "c = 123456789.5",
    "a = format('%s/%s', t.a, t.g)",
];

/// New values for a row of `notes`, named `t`.
const SET_NOTES: [&str; 16] = [
    "m = 'sad', l = ROW(t.v, t.w)",
    "l.number = t.w, p = t.p + 1",
    "p = t.p - 1",
    "m = NULL, k = t.k + t.p",
    "(m, l) = (SELECT m, l FROM notes WHERE l IS NOT NULL ORDER BY notes::text LIMIT 1)",
    "w = t.w + 10",
    "v = t.v || '!', f = t.f * 2",
    "v = 'far too long a text'",
    "j = '{\"n\": 7}'",
    "k = t.k + 1",
    "k = t.w",
    "f = 'NaN', w = NULL",
    "w = (SELECT max(b) FROM items)",
    "w = t.w + (random() * 0)::int, v = v",
    "v = (SELECT y FROM here WHERE x = t.w)",
    "w = t.w / t.w",
];

/// One write.
fn statement(numbers: &mut Numbers) -> String {
    let n = numbers.below(20);
    let of_items = numbers.one_of(&OF_ITEMS);
    let of_notes = numbers.one_of(&OF_NOTES);
    let set_items = numbers.one_of(&SET_ITEMS);
    let set_notes = numbers.one_of(&SET_NOTES);
    match numbers.below(41) {
        0..3 => format!("UPDATE items AS t SET {set_items} WHERE {of_items}"),
        3 => format!(
            "UPDATE items AS t SET {set_items} WHERE {of_items} RETURNING t.*, t.b + {n}, t"
        ),
        4..7 => format!("UPDATE notes AS t SET {set_notes} WHERE {of_notes}"),
        7 => format!(
            "UPDATE notes AS t SET {set_notes} WHERE {of_notes} RETURNING k, v, w, j::text, f, (SELECT count(*) FROM notes)"
        ),
        8 => format!("DELETE FROM items AS t WHERE {of_items} AND t.k % 3 = {}", n % 3),
        9 => format!(
            "DELETE FROM items AS t WHERE {of_items} AND t.k > {n} RETURNING t.*, (SELECT sum(b) FROM items)"
        ),
        10 => format!("DELETE FROM notes AS t WHERE {of_notes} AND t.w % 3 = {}", n % 3),
        11 => format!(
            "DELETE FROM notes AS t WHERE {of_notes} AND t.k > {} RETURNING t.k, t.v, t.w",
            n / 2
        ),
        12 => format!(
            "UPDATE items AS t SET a = here.y, b = here.x + {n} FROM here WHERE here.x = t.k RETURNING t.k, t.a, t.b, here.*"
        ),
        13 => format!(
            "UPDATE items AS t SET b = o.total FROM (SELECT w, sum(k) AS total FROM notes GROUP BY w) AS o WHERE o.w = t.k AND {of_items}"
        ),
        14 => format!(
            "UPDATE notes AS t SET v = left(o.a, 10) FROM items AS o WHERE o.k = t.w AND {of_notes} RETURNING t.k, t.v, o.k, o.g"
        ),
        15 => format!(
            "UPDATE items AS t SET c = t.c + o.b FROM items AS o LEFT JOIN here ON here.x = o.b WHERE o.k = t.k + {}",
            n / 4 + 1
        ),
        16 => format!(
            "DELETE FROM notes AS t USING here WHERE here.x = t.w AND {of_notes} RETURNING t.k, here.y"
        ),
        17 => format!(
            "DELETE FROM items AS t USING notes AS o, here WHERE o.k = t.k AND o.w = here.x AND t.k > {n}"
        ),
        18 => "UPDATE \"Odd Names\" AS t SET \"Val ue\" = t.\"Val ue\" || '-' || here.y, tags = tags || here.y FROM here WHERE here.x = t.n RETURNING *".to_owned(),
        19 => format!(
            "UPDATE \"Odd Names\" SET \"Key\" = \"Key\" || '{n}', n = n + {n} WHERE n % 5 = {} RETURNING \"Key\", n",
            n % 5
        ),
        20 => format!(
            "DELETE FROM \"Odd Names\" WHERE tags @> ARRAY['t{}'] AND at > '2024-03-0{}' AND random() < 2 RETURNING \"Key\", tags[2]",
            n % 3,
            n % 5 + 1
        ),
        21 => format!(
            "MERGE INTO items AS t USING here ON t.k = here.x WHEN MATCHED AND t.b % 2 = {} THEN DELETE WHEN MATCHED AND {n} > 10 THEN UPDATE SET a = here.y, b = here.x WHEN NOT MATCHED AND here.x > {n} THEN INSERT (k, a) VALUES (here.x, here.y)",
            n % 2
        ),
        22 => format!(
            "MERGE INTO notes AS t USING (SELECT DISTINCT w, k FROM notes WHERE k < {n}) AS s ON t.k = s.w AND t.w = s.k WHEN MATCHED THEN UPDATE SET k = s.k, v = 'merged' WHEN NOT MATCHED AND s.w IS NOT NULL THEN INSERT VALUES (s.w, 'made', s.k)"
        ),
        23 => format!(
            "MERGE INTO items AS t USING (SELECT k % {} AS r FROM notes) AS s ON t.k = s.r WHEN MATCHED THEN UPDATE SET b = t.b + 1",
            n + 1
        ),
        24 => format!(
            "MERGE INTO \"Odd Names\" AS t USING (SELECT k, max(a) AS a FROM items GROUP BY k) AS s ON t.n = s.k WHEN MATCHED AND s.k > {n} THEN DO NOTHING WHEN MATCHED THEN UPDATE SET \"Key\" = 'm' || s.k, \"Val ue\" = s.a WHEN NOT MATCHED THEN INSERT (\"Key\", n) VALUES ('n' || s.k, s.k)"
        ),
        25 => format!(
            "MERGE INTO here AS t USING items AS s ON t.x = s.k WHEN MATCHED AND s.b > {n} THEN UPDATE SET y = s.a, z = s.c WHEN MATCHED THEN DELETE WHEN NOT MATCHED AND s.k < {n} THEN INSERT VALUES (s.k, s.a, s.c)"
        ),
        26 => format!(
            "UPDATE here SET y = t.a, z = z + t.b FROM items AS t WHERE t.k = here.x AND {of_items} RETURNING here.*, t.g"
        ),
        27 => format!(
            "DELETE FROM here USING notes AS t WHERE t.w = here.x AND {of_notes} RETURNING here.*"
        ),
        28 => format!(
            "WITH gone AS (DELETE FROM items AS t WHERE {of_items} AND t.k > {n} RETURNING *) SELECT k, b, (SELECT count(*) FROM items) FROM gone"
        ),
        29 => format!(
            "WITH gone AS (DELETE FROM notes AS t WHERE {of_notes} RETURNING *), kept AS (INSERT INTO items (k, a, b) SELECT 1000 + row_number() OVER (ORDER BY k, v, w, f, j::text), v, w FROM gone RETURNING k, a, g) SELECT * FROM kept"
        ),
        30 => format!(
            "WITH raised AS (UPDATE items AS t SET b = t.b + {n} WHERE {of_items} RETURNING *) INSERT INTO notes (k, v, w) SELECT k, left(a, 9), b FROM raised RETURNING k, v, w"
        ),
        31 => format!(
            "WITH moved AS (DELETE FROM here WHERE x > {n} RETURNING *) UPDATE items AS t SET a = moved.y, b = moved.x FROM moved WHERE moved.x = t.k RETURNING t.k, t.a"
        ),
        32 => format!(
            "UPDATE {} SET b = b + {n}, a = 'viewed' WHERE k % 3 = {} RETURNING *",
            numbers.one_of(&["small", "checked"]),
            n % 3
        ),
        33 => format!(
            "WITH made AS (INSERT INTO {} VALUES ({}, 'by view', {n}), ({}, NULL, 2) RETURNING *) SELECT * FROM made",
            numbers.one_of(&["small", "checked"]),
            n + 200,
            n + 300
        ),
        34 => format!(
            "UPDATE barred AS t SET v = 'b' || w, k = k + {} WHERE w > {n} RETURNING *",
            n % 2
        ),
        36 => format!("INSERT INTO items (k, a, b) SELECT x, y, {n} FROM here ON CONFLICT (k) DO UPDATE SET a = excluded.a, b = (SELECT count(*) FROM notes) RETURNING k, a, b, g"),
        37 => format!("INSERT INTO items AS t (k, a) VALUES ({n}, 'up'), ({n} + 30, 'up') ON CONFLICT (k) DO UPDATE SET k = t.k + 500, a = excluded.a || t.b WHERE t.b > 5 RETURNING k, a, b"),
        38 => format!("WITH made AS (INSERT INTO \"Odd Names\" AS t (\"Key\", n) SELECT 'k' || x, x FROM here WHERE x <> {n} ON CONFLICT (\"Key\") DO UPDATE SET n = t.n + excluded.n RETURNING *) SELECT \"Key\", n, tags FROM made"),
        39 => format!("INSERT INTO checked AS t VALUES ({n}, 'c', {n}) ON CONFLICT (k) DO UPDATE SET b = t.b + 1 RETURNING *"),
        40 => format!("INSERT INTO items (k, a) SELECT x + {n}, y FROM here ON CONFLICT DO NOTHING RETURNING k, (SELECT count(*) FROM here)"),
        _ => format!(
            "INSERT INTO items (k, a, b) SELECT k + {}, v, w FROM (SELECT DISTINCT ON (k) * FROM notes ORDER BY k, w DESC, v) AS s RETURNING k, a, g, (SELECT count(*) FROM items)",
            n * 12
        ),
    }
}

/// Runs so many statements on both sides, and compares.
fn compare(cluster: &TestCluster, replicas: u32, seed: u64, count: usize) {
    let schemas = [format!("plain{replicas}"), format!("sharded{replicas}")];
    let [mut plain, mut sharded] = schemas.clone().map(|schema| {
        let mut session = cluster.new_session();
        session.sql(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}, public; SET timezone = 'UTC'; {TABLES}"));
        session
    });
    for (table, key) in [("items", "k"), ("notes", "k"), ("\"Odd Names\"", "Key")] {
        cluster.distribute(&format!("{}.{table}", schemas[1]), key, 5, replicas);
    }
    for session in [&mut plain, &mut sharded] {
        session.sql(LOCAL);
    }
    let mut numbers = Numbers(testkit::seed(seed));
    let mut mismatches = String::new();
    let (mut done, mut failed) = (0, 0);
    for turn in 0..count {
        if turn % 12 == 0 {
            for session in [&mut plain, &mut sharded] {
                session.sql(ROWS);
            }
        }
        let statement = statement(&mut numbers);
        // Each third as a plan for all values.
        let statement = if turn % 3 == 0 {
            format!(
                "SET plan_cache_mode = force_generic_plan; PREPARE it AS {statement}; EXECUTE it; RESET plan_cache_mode"
            )
        } else {
            statement
        };
        let [expected, found] = [&mut plain, &mut sharded].map(|session| run(session, &statement));
        if turn % 3 == 0 {
            for session in [&mut plain, &mut sharded] {
                session.sql("DEALLOCATE ALL");
            }
        }
        match &expected {
            Ok(_) => done += 1,
            Err(_) => failed += 1,
        }
        if expected != found {
            writeln!(mismatches, "{statement}\n    {found:?}\n    should be {expected:?}")
                .expect("a string takes all text");
        }
        let mut differ = false;
        for contents in CONTENTS {
            let [expected, found] = [&mut plain, &mut sharded].map(|session| session.sql(contents));
            if expected != found {
                differ = true;
                writeln!(
                    mismatches,
                    "after {statement}\n    {contents}\n    {found:?}\n    should be {expected:?}"
                )
                .expect("a string takes all text");
            }
        }
        if differ {
            for session in [&mut plain, &mut sharded] {
                session.sql(ROWS);
            }
        }
        assert!(mismatches.len() < 20_000, "different results:\n{mismatches}");
    }
    assert!(mismatches.is_empty(), "different results:\n{mismatches}");
    assert!(done > failed * 2, "{failed} of {count} statements fail: they test little");
    for table in ["items", "notes", "\"Odd Names\""] {
        let table = format!("{}.{table}", schemas[1]);
        assert_eq!(cluster.unhealthy(&table), 0);
        cluster.assert_placements_equal(&table);
    }
}

/// The rows in order, or the SQLSTATE.
fn run(session: &mut Session, statement: &str) -> Result<Vec<Vec<String>>, String> {
    let mut answer = session.try_sql(statement).map_err(|error| error.sqlstate);
    if let Ok(rows) = &mut answer {
        rows.sort();
    }
    answer
}

#[test]
fn generated_writes_do_what_they_do_on_local_tables() {
    let cluster = TestCluster::up(3);
    cluster.on_all_nodes(TYPES);
    compare(&cluster, 1, 1, 500);
    compare(&cluster, 2, 2, 500);
}
