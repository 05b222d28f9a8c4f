//! Keys of every type, in names and schemas of every kind.

use testkit::TestCluster;

/// A type, two of its values that differ, and texts that mean the first one too.
const TYPES: &[(&str, &str, &str, &[&str])] = &[
    ("int", "7", "-8", &["7::bigint", "7::smallint", "(3 + 4)"]),
    ("bigint", "7", "-5000000000", &["7::int", "7::smallint", "7::bigint"]),
    ("smallint", "7", "-8", &["7::int", "7::bigint"]),
    ("text", "'seven'", "''", &["'seven'::varchar", "lower('SEVEN')"]),
    ("varchar(20)", "'seven'", "'ei\"g''ht'", &["'seven'::text", "'seven'::varchar"]),
    ("char(10)", "'seven'", "'eight'", &["'seven  '", "'seven'::char(10)"]),
    ("name", "'seven'", "'eight'", &["'seven'::name"]),
    ("numeric", "7.10", "-0.5", &["7.1", "7.1000::numeric(10,4)"]),
    ("float8", "0.5", "'-Infinity'", &["0.5::float4", "0.50"]),
    ("bool", "true", "false", &["'yes'", "NOT false"]),
    ("date", "'2016-04-25'", "'infinity'", &["date '2016-04-25'", "'25 Apr 2016'"]),
    ("timestamp", "'2016-04-25 22:04:55'", "'-infinity'", &["timestamp '2016-04-25 22:04:55.0'"]),
    (
        "timestamptz",
        "'2016-04-25 22:04:55+00'",
        "'infinity'",
        &["timestamptz '2016-04-26 00:04:55+02'"],
    ),
    ("time", "'22:04:55'", "'00:00'", &["time '22:04:55'"]),
    ("interval", "'1 day'", "'-1 month'", &["interval '24 hours'"]),
    (
        "uuid",
        "'6ba7b810-9dad-11d1-80b4-00c04fd430c8'",
        "'00000000-0000-0000-0000-000000000000'",
        &["'{6BA7B810-9DAD-11D1-80B4-00C04FD430C8}'::uuid"],
    ),
    ("inet", "'10.0.0.1'", "'::1'", &["inet '10.0.0.1/32'"]),
    ("jsonb", "'{\"a\": 1}'", "'[]'", &["'{\"a\":1}'::jsonb"]),
    ("int[]", "'{1,2}'", "'{}'", &["ARRAY[1, 2]"]),
    ("int4range", "'[1,3)'", "'empty'", &["int4range(1, 2, '[]')"]),
    ("bytea", "'\\x0007'", "''", &["decode('0007', 'hex')"]),
    ("\"char\"", "'a'", "'b'", &["'a'::\"char\""]),
    ("oid", "7", "4294967295", &["7::oid"]),
    ("key_enum", "'first'", "'second'", &["'first'::key_enum"]),
    ("key_domain", "'seven'", "'eight'", &["'seven'::text", "'seven'::key_domain"]),
    ("key_number", "7", "8", &["7::key_number"]),
    ("key_row", "'(1,a)'::key_row", "'(2,\"b c\")'::key_row", &["ROW(1, 'a')::key_row"]),
];

const NEW_TYPES: &str = "
    CREATE TYPE key_enum AS ENUM ('first', 'second');
    CREATE DOMAIN key_domain AS varchar(20) CHECK (VALUE <> 'bad');
    CREATE DOMAIN key_number AS int;
    CREATE TYPE key_row AS (number int, name text);
";

#[test]
fn a_key_of_any_type_leads_to_one_shard_however_it_is_written() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes(NEW_TYPES);
    let mut wrong = Vec::new();
    for (number, (key_type, value, other, same)) in TYPES.iter().enumerate() {
        let table = format!("of_type_{number}");
        cluster.create_distributed(
            &format!("CREATE TABLE {table} (key {key_type} PRIMARY KEY, v int)"),
            &table,
            "key",
            8,
            1,
        );
        cluster.sql(&format!(
            "INSERT INTO {table} VALUES ({value}, 1); INSERT INTO {table} VALUES ({other}, 2)"
        ));
        let written_alike = std::iter::once(value).chain(same.iter());
        for text in written_alike {
            let found = cluster.text(&format!("SELECT v FROM {table} WHERE key = {text}"));
            let plan = cluster
                .text(&format!("EXPLAIN (COSTS OFF) SELECT v FROM {table} WHERE key = {text}"));
            if found != "1" || !plan.contains("Shards: 1 of 8") {
                wrong.push(format!("{key_type} = {text}: {found:?}\n{plan}"));
            }
        }
        let mut session = cluster.session();
        assert_eq!(
            session.count(&format!("UPDATE {table} SET v = 10 WHERE key = {value}")),
            1,
            "{key_type}"
        );
        assert_eq!(session.text(&format!("PREPARE {table}_by_key ({key_type}) AS SELECT v FROM {table} WHERE key = $1; EXECUTE {table}_by_key ({value})")), "10", "{key_type}");
        assert_eq!(
            session.text(&format!("SELECT v FROM {table} ORDER BY v")),
            "2\n10",
            "{key_type}"
        );
        assert_eq!(
            session.error(&format!("INSERT INTO {table} VALUES ({value}, 3)")).sqlstate,
            "23505",
            "{key_type}"
        );
        assert_eq!(
            session.count(&format!("DELETE FROM {table} WHERE key = {other}")),
            1,
            "{key_type}"
        );
        assert_eq!(session.text(&format!("SELECT count(*) FROM {table}")), "1", "{key_type}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(cluster.error("INSERT INTO of_type_24 VALUES ('bad', 1)").sqlstate, "23514");
}

#[test]
fn lists_of_keys_prune_and_other_conditions_do_not_lose_rows() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed(
        "CREATE TABLE pruned (key int PRIMARY KEY, v text)",
        "pruned",
        "key",
        16,
        1,
    );
    cluster.sql("INSERT INTO pruned SELECT i, 'v' || i FROM generate_series(1, 100) AS i");
    let shards = |condition: &str| {
        let plan =
            cluster.text(&format!("EXPLAIN (COSTS OFF) SELECT * FROM pruned WHERE {condition}"));
        let (_, rest) = plan
            .split_once("Shards: ")
            .unwrap_or_else(|| panic!("no number of shards for {condition}:\n{plan}"));
        rest.split(' ').next().and_then(|count| count.parse::<u32>().ok()).expect("a number")
    };
    let exact = |keys: &[i32]| {
        let mut shards: Vec<i64> = keys
            .iter()
            .map(|key| cluster.shard_of("pruned", &format!("hashint4({key})")))
            .collect();
        shards.sort_unstable();
        shards.dedup();
        u32::try_from(shards.len()).expect("few")
    };
    assert_eq!(shards("key = 1"), 1);
    assert_eq!(shards("key IN (1, 2, 3)"), exact(&[1, 2, 3]));
    assert_eq!(shards("key = ANY ('{1,2,3,4,5}')"), exact(&[1, 2, 3, 4, 5]));
    assert_eq!(shards("key = ANY (ARRAY[7, NULL])"), 1);
    assert_eq!(shards("key = 1 OR key = 2"), exact(&[1, 2]));
    assert_eq!(shards("key IN (1, 2, 3) AND key IN (3, 4)"), 1);
    assert_eq!(shards("key = 1 OR v = 'v2'"), 16);
    assert_eq!(shards("key > 98"), 16);
    assert_eq!(shards("key IN (1, 2) OR (key = 3 AND v = 'v3')"), exact(&[1, 2, 3]));
    assert_eq!(
        cluster.text(
            "SELECT key FROM pruned WHERE key IN (1, 2) OR (key = 3 AND v = 'v3') ORDER BY 1"
        ),
        "1\n2\n3"
    );
    assert_eq!(cluster.text("SELECT count(*) FROM pruned WHERE key = 1 AND key = 2"), "0");

    let mut session = cluster.new_session();
    let rows = session
        .client()
        .query("SELECT key FROM pruned WHERE key = ANY ($1) ORDER BY 1", &[&vec![5, 50, 500]]);
    let keys: Vec<i32> =
        rows.expect("a query by an array of keys").iter().map(|row| row.get(0)).collect();
    assert_eq!(keys, [5, 50]);
    assert_eq!(session.count("UPDATE pruned SET v = 'one' WHERE key IN (5)"), 1);
    assert_eq!(session.count("DELETE FROM pruned WHERE key = ANY ('{5}')"), 1);
}

#[test]
fn names_need_no_care() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE SCHEMA \"My Schema\"; CREATE SCHEMA other");
    let table = r#""My Schema"."Order ""Lines""""#;
    cluster.sql(&format!(
        r#"CREATE TABLE {table} ("Key, first" text, "select" int DEFAULT 5 CHECK ("select" > 0), "ümläut" date,
           CONSTRAINT "The Key" PRIMARY KEY ("Key, first"));
           CREATE INDEX "An Index" ON {table} ("select")"#
    ));
    cluster.distribute(table, "Key, first", 4, 2);
    let mut session = cluster.session();
    session.sql(&format!(
        r#"INSERT INTO {table} ("Key, first") SELECT 'k' || i FROM generate_series(1, 20) AS i"#
    ));
    assert_eq!(
        session.count(&format!(
            r#"UPDATE {table} AS "T" SET "select" = "select" + 1 WHERE "T"."Key, first" = 'k3'"#
        )),
        1
    );
    assert_eq!(
        session.text(&format!(r#"SELECT "select" FROM {table} WHERE "Key, first" = 'k3'"#)),
        "6"
    );
    assert_eq!(
        session.text(&format!(r#"SELECT sum("Order ""Lines"""."select") FROM {table}"#)),
        "101"
    );
    let error = session.error(&format!(r#"INSERT INTO {table} VALUES ('k3')"#));
    assert_eq!((error.sqlstate.as_str(), error.constraint.as_str()), ("23505", "The Key"));
    session.sql(&format!(r#"INSERT INTO {table} VALUES ('k3') ON CONFLICT ON CONSTRAINT "The Key" DO UPDATE SET "select" = 9"#));
    assert_eq!(
        session.text(&format!(r#"DELETE FROM {table} WHERE "Key, first" = 'k3' RETURNING *"#)),
        "k3|9|NULL"
    );
    drop(session);
    assert_eq!(cluster.assert_placements_equal(table), 19);

    // Tables of one name in two schemas, found by the search path of the moment.
    for schema in ["public", "other"] {
        cluster.create_distributed(
            &format!("CREATE TABLE {schema}.twin (key int, place text)"),
            &format!("{schema}.twin"),
            "key",
            4,
            1,
        );
        cluster.sql(&format!("INSERT INTO {schema}.twin VALUES (1, '{schema}')"));
    }
    let mut session = cluster.new_session();
    session.sql("PREPARE place AS SELECT place FROM twin WHERE key = 1");
    assert_eq!(session.text("EXECUTE place"), "public");
    session.sql("SET search_path = other");
    assert_eq!(session.text("EXECUTE place"), "other");
    assert_eq!(session.text("SELECT place FROM public.twin"), "public");
    session.sql("INSERT INTO twin VALUES (2, 'other too')");
    assert_eq!(session.text("SELECT count(*) FROM twin"), "2");

    // Names that PostgreSQL is asked to quote always, as pg_dump can.
    session.sql("SET quote_all_identifiers = on");
    assert_eq!(session.text("SELECT place FROM other.twin WHERE key = 1 AND place <> ''"), "other");
    assert_eq!(session.text("SELECT count(*), max(place) FROM other.twin"), "2|other too");
    session.sql("UPDATE other.twin SET place = place WHERE key + 0 = 1");
    session.sql("INSERT INTO other.twin VALUES (3, 'c'), (4, 'd') RETURNING key");
    session.sql("CREATE TABLE other.quoted (key int PRIMARY KEY, \"Place\" text UNIQUE)");
    session.sql("SELECT public.master_create_distributed_table('other.quoted', 'key')");
    session.sql("SELECT public.master_create_worker_shards('other.quoted', 2, 1)");
    session.sql("INSERT INTO other.quoted VALUES (1, 'x')");
    session.sql("RESET quote_all_identifiers");

    // The longest name that still has room for a shard's number.
    let long = "l".repeat(56);
    cluster.create_distributed(&format!("CREATE TABLE {long} (key int)"), &long, "key", 2, 1);
    cluster.sql(&format!("INSERT INTO {long} VALUES (1)"));
    assert_eq!(cluster.text(&format!("SELECT * FROM {long}")), "1");
    let longer = "l".repeat(57);
    cluster.sql(&format!("CREATE TABLE {longer} (key int)"));
    let error =
        cluster.error(&format!("SELECT master_create_distributed_table('{longer}', 'key')"));
    assert_eq!(error.line(), format!("42622: shard name too long to extend: \"{longer}\""));
    assert_eq!(
        error.hint,
        "Rename the table or index to 55 bytes or less before it is distributed."
    );
    // The same for an index, also one that came between.
    cluster.sql("CREATE TABLE short (key int)");
    cluster.sql("SELECT master_create_distributed_table('short', 'key')");
    cluster.sql(&format!("CREATE INDEX {longer}_i ON short (key)"));
    let error = cluster.error("SELECT master_create_worker_shards('short', 2, 1)");
    assert_eq!(error.line(), format!("42622: shard name too long to extend: \"{longer}_i\""));
}
