//! Constants of simple statements that stand for any other.

use std::fmt::Write;

use testkit::{Session, SqlError, TestCluster};

use crate::create_kv;

const SHAPES: &str = include_str!("shapes.sql");

/// How often each shape is run, with other constants each time.
const TIMES: usize = 9;

const TYPES: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
    CREATE DOMAIN positive AS int CHECK (value > 0);
    CREATE FUNCTION plus_one(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1';
";

const TABLES: &str = "
    CREATE TABLE c (k int PRIMARY KEY, i2 int2, i4 int4 DEFAULT 4, i8 int8, n numeric(10,2), f4 float4, f8 float8, t text,
        vc varchar(5), ch char(4), b bool, d date, ts timestamptz, tn timestamp, iv interval, u uuid, by bytea, j jsonb, a int[],
        ta text[], e mood, dm positive);
    CREATE TABLE p (k int, code text, n int, note text);
    CREATE UNIQUE INDEX ON p (k, code) WHERE n > 0;
";

const ROWS: &str = r#"
    SELECT i, i * 3, i * 7 - 40, i * 1000000000::int8, i * 1.25, i * 0.5, i / 3.0, 'text ' || i, 'v' || i, 'c' || i, i % 2 = 0,
        date '2020-01-01' + i, timestamptz '2020-01-01 12:00+00' + i * interval '1 hour', timestamp '2020-01-01' + i * interval '1 day',
        i * interval '90 minutes', lpad(i::text, 32, '0')::uuid, decode(lpad(i::text, 4, '0'), 'hex'),
        jsonb_build_object('a', i, 'b', 'it''s'), ARRAY[i, i + 1, NULL], ARRAY['a', 'it''s ' || i, NULL],
        (ARRAY['sad', 'ok', 'happy'])[i % 3 + 1]::mood, i
    FROM generate_series(1, 24) AS i
"#;

/// The constants of a kind.
fn constants(kind: &str) -> &'static [&'static str] {
    match kind {
        "key" => &[
            "1",
            "2",
            "3",
            "5",
            "7",
            "8",
            "13",
            "17",
            "24",
            "99",
            "-1",
            "NULL",
            "2147483647",
            "12",
        ],
        "bigkey" => &[
            "1::bigint",
            "3000000000",
            "-9000000000000000000",
            "7::int8",
            "24::bigint",
            "NULL::bigint",
            "2147483648",
            "12::bigint",
        ],
        "smallkey" => {
            &["1::int2", "5::int2", "'7'::smallint", "24::int2", "12::int2", "13::smallint"]
        }
        "int" => &[
            "0",
            "1",
            "-1",
            "7",
            "23",
            "-40",
            "2147483647",
            "-2147483648",
            "NULL",
            "'12'",
            "'-3'",
            "4",
            "2",
        ],
        "smallint" => &["0", "1", "-1", "32767", "-32768", "32768", "NULL", "'12'"],
        "count" => &["1", "2", "3", "4"],
        "big" => &[
            "3000000000",
            "-3000000000",
            "9223372036854775807",
            "5::bigint",
            "NULL::bigint",
            "'77'::int8",
        ],
        "num" => &[
            "0.0",
            "1.5",
            "-0.005",
            "1.005",
            "2.345",
            "99999999.99",
            "123456789.99",
            "'NaN'::numeric",
            "1e10",
            "-17.25",
            "NULL::numeric",
            "'1.005'",
            "12.5",
        ],
        "numtext" => &["'1'", "'-5'", "'abc'", "'2147483648'", "''", "' 7 '", "'1.5'"],
        "text" => &[
            "'abc'",
            "''",
            "'it''s'",
            r"'back\slash'",
            r"E'tab\there\\'",
            r"E'line\nbreak'",
            "'ünïcödé'",
            "'日本語テキスト'",
            "'%'",
            "'a_c'",
            "'\"q\"'",
            "'$1'",
            "NULL",
            "'abcdef'",
            "'abcde   '",
            "'  sp  '",
            "'v1'",
            "'c2'",
            "'text 5'",
            "'NULL'",
            "'{}'",
            r"U&'\0061\00e9'",
            "$$dollar 'q'$$",
            "'text 13'",
        ],
        "textkey" => &["'a'", "'b'", "'c'", "'it''s'", "'ä'"],
        "pattern" => &[
            "'text%'", "'%1_'", "'v_'", "'%'", r"'a\%c'", "'%''%'", "'ü%'", "NULL", "''", r"'%\\'",
        ],
        "date" => &[
            "'2020-01-05'",
            "date '1999-12-31'",
            "'infinity'",
            "NULL",
            "'2020-01-20'::date",
            "date '0044-03-15 BC'",
            "'2020-02-30'",
        ],
        "timestamptz" => &[
            "'2020-01-01 20:00+00'",
            "timestamptz '2020-01-02 00:00:00.123456+05:30'",
            "'infinity'",
            "NULL",
            "timestamptz '2020-06-01 10:00 Europe/Berlin'",
        ],
        "timestamp" => &[
            "'2020-01-05 10:00'",
            "timestamp '2020-01-09 23:59:59.999999'",
            "NULL",
            "'-infinity'",
            "timestamp '2020-02-29'",
        ],
        "interval" => &[
            "interval '1 day 2 hours'",
            "'90 minutes'",
            "interval '-1 month'",
            "interval '1-2'",
            "NULL",
            "interval '25' hour",
            "interval '0.5 seconds'",
        ],
        "zone" => &[
            "'UTC'",
            "'Asia/Kolkata'",
            "'America/New_York'",
            "interval '3 hours'",
            "'Nowhere/Land'",
        ],
        "unit" => &["'hour'", "'day'", "'month'", "'nonsense'"],
        "format" => &["'YYYY'", "'DD.MM.YYYY'", "'Day'", "''"],
        "uuid" => &[
            "'00000000-0000-0000-0000-000000000005'",
            "uuid '00000000-0000-0000-0000-000000000013'",
            "NULL",
            "'nonsense'",
        ],
        "bytea" => &[r"'\x0005'", r"'\x'", r"bytea '\x0013'", r"'\000\377'", "NULL", r"'\xzz'"],
        "bool" => &["true", "false", "NULL", "'t'", "'no'"],
        "jsonb" => &[
            r#"'{"a": 5}'"#,
            r#"'{}'"#,
            r#"jsonb '[1, "it''s", null]'"#,
            "'\"ü\"'",
            "NULL",
            "'nonsense'",
            "'1.50'",
            "'7'",
        ],
        "ints" => &[
            "'{1,2,NULL}'",
            "ARRAY[5, 6, NULL]",
            "'{}'::int[]",
            "ARRAY[7, 8]",
            "NULL::int[]",
            "ARRAY[[1, 2], [3, 4]]",
            "'[0:1]={1,2}'::int[]",
        ],
        "texts" => &[
            "'{a}'",
            "ARRAY['it''s 5']",
            "ARRAY['a', NULL]",
            "'{}'::text[]",
            "NULL",
            "ARRAY['ü', '{', '\"']",
        ],
        "mood" => &["'sad'", "'ok'", "'happy'", "NULL", "'angry'", "'ok'::mood"],
        _ => panic!("no constants of kind {kind}"),
    }
}

/// Numbers without a pattern that matters (xorshift).
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).expect("is below the sides")
    }
}

/// A statement of a shape.
fn statement(shape: &str, dice: &mut Dice, next_key: &mut u32) -> String {
    let mut text = String::new();
    let mut rest = shape;
    while let Some((before, after)) = rest.split_once('{') {
        let (kind, after) = after.split_once('}').expect("a brace is closed");
        text.push_str(before);
        if kind == "newkey" {
            *next_key += 1;
            text.push_str(&next_key.to_string());
        } else {
            let pool = constants(kind);
            text.push_str(pool[dice.throw(pool.len())]);
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

/// The statement is about a row whose key is NULL.
fn is_null_key(statement: &str) -> bool {
    let of_row = ["VALUES (NULL", ", NULL)"].iter().any(|text| statement.contains(text));
    let is_row = statement.starts_with("INSERT") && of_row;
    is_row || statement.contains("k = NULL")
}

#[test]
fn statements_that_differ_in_constants_answer_as_they_do_on_local_tables() {
    let cluster = TestCluster::up(3);
    cluster.on_all_nodes(TYPES);
    let [mut plain, mut sharded] = ["plain", "sharded"].map(|schema| {
        let mut session = cluster.new_session();
        session.sql(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}, public; SET timezone = 'UTC'; {TABLES}"));
        session
    });
    cluster.distribute("sharded.c", "k", 6, 2);
    cluster.distribute("sharded.p", "k", 6, 1);
    for session in [&mut plain, &mut sharded] {
        session.sql(&format!("INSERT INTO c {ROWS}"));
        session.sql("INSERT INTO p SELECT i, 'a', i % 3 FROM generate_series(1, 24) AS i");
    }
    let shapes: Vec<&str> =
        SHAPES.lines().filter(|line| !line.is_empty() && !line.starts_with("--")).collect();
    assert!(shapes.len() > 120, "shapes got lost");
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let mut next_key = 1000;
    let mut mismatches = String::new();
    let (mut answers, mut errors) = (0, 0);
    // LATIN1 first: a letter beyond ASCII comes in two, of which none must be cut or come from elsewhere.
    for settings in [
        "SET client_encoding = LATIN1; SET datestyle = 'ISO, DMY'; SET intervalstyle = 'iso_8601'",
        "SET client_encoding = UTF8; SET datestyle = 'ISO, MDY'; SET intervalstyle = 'postgres'",
        "SET datestyle = 'German'; SET intervalstyle = 'sql_standard'; SET timezone = 'Asia/Kolkata'; SET bytea_output = 'escape'",
        "SET datestyle = 'SQL, DMY'; SET intervalstyle = 'postgres_verbose'; SET timezone = 'America/New_York'; SET plan_cache_mode = force_generic_plan",
    ] {
        let is_latin = settings.contains("LATIN1");
        plain.sql(settings);
        sharded.sql(settings);
        // Round by round, so that shapes take turns.
        for _ in 0..TIMES {
            for shape in &shapes {
                let statement = statement(shape, &mut dice, &mut next_key);
                if is_latin && ["char(", "left(", "U&"].iter().any(|cut| statement.contains(cut)) {
                    continue;
                }
                // Told otherwise, and said in the book: such a row has no shard, and such a condition is not asked.
                if statement.starts_with("INSERT") && is_null_key(&statement) {
                    continue;
                }
                let [mut expected, found] = [&mut plain, &mut sharded].map(|session| {
                    // Workers name what is not PostgreSQL's own with its schema.
                    let told = |error: SqlError| error.line().replace("domain public.", "domain ");
                    let mut answer = session.try_sql(&statement).map_err(told);
                    if let Ok(rows) = &mut answer {
                        rows.sort();
                    }
                    answer
                });
                if expected.is_err() && found == Ok(Vec::new()) && is_null_key(&statement) {
                    expected = Ok(Vec::new());
                }
                *(if expected.is_ok() { &mut answers } else { &mut errors }) += 1;
                if expected != found {
                    writeln!(mismatches, "{statement}\n    {found:?}\n    should be {expected:?}")
                        .expect("a string takes all text");
                }
            }
        }
    }
    assert!(mismatches.is_empty(), "different answers:\n{mismatches}");
    assert!(answers > 3000 && errors > 100, "{answers} answers, {errors} errors");
    for table in ["c", "p"] {
        let rows = format!("SELECT * FROM {table} ORDER BY {table}::text");
        assert_eq!(plain.text(&rows), sharded.text(&rows));
        assert_eq!(cluster.unhealthy(&format!("sharded.{table}")), 0);
        cluster.assert_placements_equal(&format!("sharded.{table}"));
    }
}

#[test]
fn a_client_of_another_encoding_has_its_letters_in_constants() {
    let cluster = TestCluster::up(2);
    create_kv(&cluster, 2);
    let mut utf8 = cluster.new_session();
    // psql in LATIN1: one byte for each letter.
    let statements = b"SET client_encoding = LATIN1;\n\
        UPDATE kv SET s = 'caf\xe9' WHERE k = 1;\n\
        UPDATE kv SET s = '\xfcber' WHERE k = 2;\n\
        SELECT s FROM kv WHERE k = 1 AND s = 'caf\xe9';\n\
        SELECT s FROM kv WHERE k = 2 AND s = '\xfcber';\n";
    // The helper's input is text; the bytes travel as psql escapes.
    let escaped: String = statements
        .iter()
        .map(|byte| {
            if byte.is_ascii() {
                char::from(*byte).to_string()
            } else {
                format!("'||convert_from('\\x{byte:02x}', 'LATIN1')||'")
            }
        })
        .collect();
    let output = cluster.psql(testkit::NodeName::Coordinator, &["-qAt"], &escaped);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"caf\xe9\n\xfcber\n");
    assert_eq!(utf8.text("SELECT s FROM kv WHERE k = 1 AND s = 'café'"), "café");
    assert_eq!(utf8.text("SELECT s FROM kv WHERE k = 2 AND s = 'über'"), "über");
    // In LATIN1 the two bytes of é are two letters, in the same session and the same shape.
    utf8.sql("SET client_encoding = LATIN1");
    assert_eq!(utf8.text("SELECT count(*) FROM kv WHERE k = 1 AND s = 'café'"), "0");
    utf8.sql("SET client_encoding = UTF8");
    assert_eq!(utf8.text("SELECT count(*) FROM kv WHERE k = 1 AND s = 'café'"), "1");
}

#[test]
fn the_search_path_decides_which_of_two_tables_of_a_name_is_meant() {
    let cluster = TestCluster::up(2);
    for (schema, value) in [("one", 1), ("two", 2)] {
        cluster.sql(&format!("CREATE SCHEMA {schema}"));
        cluster.create_distributed(
            &format!("CREATE TABLE {schema}.t (k int PRIMARY KEY, v int)"),
            &format!("{schema}.t"),
            "k",
            4,
            2,
        );
        cluster.sql(&format!(
            "INSERT INTO {schema}.t SELECT i, {value} FROM generate_series(1, 20) AS i"
        ));
    }
    cluster.on_all_nodes(
        "CREATE SCHEMA IF NOT EXISTS one; CREATE SCHEMA IF NOT EXISTS two;
         CREATE FUNCTION one.f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 100';
         CREATE FUNCTION two.f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 200'",
    );
    let mut session = cluster.new_session();
    session.sql("SET search_path = one; PREPARE get(int) AS SELECT v FROM t WHERE k = $1");
    for key in 1..=10 {
        for (path, value) in [("one", 1), ("two", 2), ("two, one", 2), ("one, two", 1)] {
            session.sql(&format!("SET search_path = {path}"));
            assert_eq!(
                session.text(&format!("SELECT v FROM t WHERE k = {key}")),
                value.to_string()
            );
            assert_eq!(session.text(&format!("EXECUTE get({key})")), value.to_string());
            let raised = format!("UPDATE t SET v = f(v) WHERE k = {} RETURNING v", key + 10);
            let before = session.text(&format!("SELECT v FROM t WHERE k = {}", key + 10));
            let before: i32 = before.parse().expect("a number");
            assert_eq!(session.text(&raised), (before + value * 100).to_string());
        }
    }
    // A schema of the session's own hides both, and goes again.
    session.sql(
        "SET search_path = one; CREATE TEMP TABLE t (k int, v int); INSERT INTO t VALUES (1, -1)",
    );
    assert_eq!(session.text("SELECT v FROM t WHERE k = 1"), "-1");
    assert_eq!(session.text("EXECUTE get(1)"), "-1");
    session.sql("DROP TABLE pg_temp.t");
    assert_eq!(session.text("SELECT v FROM t WHERE k = 1"), "1");
    assert_eq!(session.text("EXECUTE get(1)"), "1");
}

#[test]
fn a_role_uses_the_plans_of_another_but_not_its_rights() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes(
        "CREATE ROLE reader LOGIN; CREATE ROLE writer LOGIN; CREATE ROLE of_column LOGIN",
    );
    cluster.sql(
        "CREATE TABLE t (k int PRIMARY KEY, v int, owner text); GRANT SELECT ON t TO reader; GRANT ALL ON t TO writer;
         GRANT SELECT (k, v) ON t TO of_column;
         CREATE TABLE mine (k int, owner text, v int); GRANT SELECT ON mine TO reader, writer;
         ALTER TABLE mine ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON mine USING (owner = current_user)",
    );
    cluster.distribute("t", "k", 4, 2);
    cluster.distribute("mine", "k", 4, 2);
    cluster.sql("INSERT INTO t SELECT i, i, 'x' FROM generate_series(1, 20) AS i");
    cluster.sql("INSERT INTO mine SELECT i, r, i FROM generate_series(1, 20) AS i, unnest(ARRAY['reader', 'writer', 'postgres']) AS r");
    let denied = "42501: permission denied for table t";
    let mut session = cluster.new_session();
    session.sql("PREPARE put(int) AS UPDATE t SET v = v + 1 WHERE k = $1; PREPARE own(int) AS SELECT owner FROM mine WHERE k = $1");
    for key in 1..=8 {
        for role in ["postgres", "writer", "reader", "of_column", "writer"] {
            session.sql(&format!("SET ROLE {role}"));
            let may_write = role == "postgres" || role == "writer";
            let select = session.try_sql(&format!("SELECT owner FROM t WHERE k = {key}"));
            let narrow = session.try_sql(&format!("SELECT v FROM t WHERE k = {key}"));
            let update = session.try_sql(&format!("UPDATE t SET v = v + 1 WHERE k = {key}"));
            let prepared = session.try_sql(&format!("EXECUTE put({key})"));
            assert!(narrow.is_ok(), "{role}");
            if role == "of_column" {
                assert_eq!(select.expect_err("not its column").line(), denied);
            } else {
                assert_eq!(select.expect("it may read"), [["x"]]);
            }
            for outcome in [update, prepared] {
                match outcome {
                    Ok(_) => assert!(may_write, "{role}"),
                    Err(error) => assert!(error.line() == denied && !may_write, "{role}: {error}"),
                }
            }
            // Row-level security: the same words, other rows.
            if role != "of_column" {
                let rows = if role == "postgres" { "postgres\nreader\nwriter" } else { role };
                let lines = |text: String| {
                    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                    lines.sort();
                    lines.join("\n")
                };
                assert_eq!(
                    lines(session.text(&format!("SELECT owner FROM mine WHERE k = {key}"))),
                    rows
                );
                assert_eq!(lines(session.text(&format!("EXECUTE own({key})"))), rows);
            }
        }
    }
    session.sql("RESET ROLE");
    assert_eq!(session.text("SELECT v FROM t WHERE k = 3"), "9");
}

/// What the session says of a function's change: the same statement before and after it.
fn function_cluster() -> (TestCluster, Session) {
    let cluster = TestCluster::up(2);
    create_kv(&cluster, 2);
    cluster.on_all_nodes(
        "CREATE FUNCTION raised(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1'",
    );
    let mut session = cluster.new_session();
    session.sql("PREPARE put(int) AS UPDATE kv SET v = raised(v) WHERE k = $1");
    for key in 1..=7 {
        session.sql(&format!("UPDATE kv SET v = raised(v) WHERE k = {key}; EXECUTE put({key})"));
    }
    (cluster, session)
}

#[test]
fn a_function_that_becomes_volatile_is_computed_here_from_the_next_statement_on() {
    let (cluster, mut session) = function_cluster();
    for _ in 0..2 {
        cluster.on_all_nodes("ALTER FUNCTION raised(int) VOLATILE");
        for statement in ["UPDATE kv SET v = raised(v) WHERE k = 20", "EXECUTE put(20)"] {
            let plan = session.text(&format!("EXPLAIN {statement}"));
            assert!(plan.contains("decided row by row"), "{statement}: {plan}");
            assert_eq!(session.count(statement), 1, "{statement}");
        }
        cluster.on_all_nodes("ALTER FUNCTION raised(int) IMMUTABLE");
        session.sql("UPDATE kv SET v = raised(v) WHERE k = 20; EXECUTE put(20)");
    }
    assert_eq!(session.text("SELECT v FROM kv WHERE k = 20"), "8");
    assert_eq!(cluster.unhealthy("kv"), 0);
    cluster.assert_placements_equal("kv");
}

#[test]
fn a_renamed_function_is_called_by_its_name() {
    let (cluster, mut session) = function_cluster();
    cluster.on_all_nodes("ALTER FUNCTION raised(int) RENAME TO lifted");
    session.sql("UPDATE kv SET v = lifted(v) WHERE k = 20");
    cluster
        .on_all_nodes("CREATE SCHEMA elsewhere; ALTER FUNCTION lifted(int) SET SCHEMA elsewhere");
    session.sql("UPDATE kv SET v = elsewhere.lifted(v) WHERE k = 20");
    assert_eq!(session.text("SELECT v FROM kv WHERE k = 20"), "2");
    // As on local tables: what is prepared is the text.
    assert_eq!(session.error("EXECUTE put(20)").sqlstate, "42883");
    assert_eq!(session.error("UPDATE kv SET v = raised(v) WHERE k = 20").sqlstate, "42883");
}

#[test]
fn a_renamed_type_is_called_by_its_name_in_all_sessions() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE TYPE colour AS ENUM ('red', 'blue')");
    cluster.create_distributed(
        "CREATE TABLE cars (k int PRIMARY KEY, c colour)",
        "cars",
        "k",
        16,
        2,
    );
    let mut session = cluster.new_session();
    session.sql("INSERT INTO cars VALUES (1, 'red')");
    cluster.sql("ALTER TYPE colour RENAME TO color");
    for key in 2..=20 {
        session.sql(&format!("INSERT INTO cars VALUES ({key}, 'red')"));
    }
    let mut session = cluster.new_session();
    for key in 21..=40 {
        session.sql(&format!("INSERT INTO cars VALUES ({key}, 'red')"));
        session.sql(&format!("UPDATE cars SET c = 'blue' WHERE k = {key}"));
        assert_eq!(session.text(&format!("SELECT c FROM cars WHERE k = {key}")), "blue");
    }
}
