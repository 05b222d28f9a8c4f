//! Aggregates of users: in parts on the workers where all nodes have the same, on the coordinator otherwise, and the same rows
//! as on local tables either way.

use testkit::{NodeName, Session, TestCluster};

const AGGREGATES: &str = "
    CREATE FUNCTION add_or_seven(s int8, x int4) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT coalesce(s, 0) + coalesce(x, 7)';
    CREATE FUNCTION add_both(a int8, b int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT coalesce(a + b, a, b)';
    CREATE AGGREGATE total(int4) (sfunc = add_or_seven, stype = int8, combinefunc = add_both);
    CREATE FUNCTION shown(a int8) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN 'is ' || coalesce(a::text, '?'); END $$;
    CREATE FUNCTION twice(a int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT a * 2';
    CREATE FUNCTION dot_step(s int8, x int4, y int4) RETURNS int8 LANGUAGE plpgsql IMMUTABLE STRICT AS
        $$ BEGIN RETURN s + twice(x) * y; END $$;
    CREATE AGGREGATE dot(int4, int4) (sfunc = dot_step, stype = int8, combinefunc = int8pl, finalfunc = shown, initcond = '0');
    CREATE AGGREGATE mean(int8) (sfunc = int8_avg_accum, stype = internal, combinefunc = int8_avg_combine,
        serialfunc = int8_avg_serialize, deserialfunc = int8_avg_deserialize, finalfunc = numeric_poly_avg);
    CREATE AGGREGATE mean4(int4) (sfunc = int4_avg_accum, stype = int8[], combinefunc = int4_avg_combine, finalfunc = int8_avg,
        initcond = '{0,0}');
    CREATE FUNCTION larger(anyelement, anyelement) RETURNS anyelement LANGUAGE sql IMMUTABLE STRICT AS
        'SELECT CASE WHEN $2 > $1 THEN $2 ELSE $1 END';
    CREATE AGGREGATE largest(anyelement) (sfunc = larger, stype = anyelement, combinefunc = larger);
    CREATE FUNCTION sorted(anycompatiblearray) RETURNS text LANGUAGE sql IMMUTABLE AS
        'SELECT string_agg(coalesce(x::text, ''-''), '' '' ORDER BY x::text COLLATE \"C\") FROM unnest($1) AS x';
    CREATE AGGREGATE collect(anycompatible) (sfunc = array_append, stype = anycompatiblearray, combinefunc = array_cat, finalfunc = sorted);
    CREATE TYPE extent AS (low numeric, high numeric, at timestamptz, note text);
    CREATE FUNCTION widen(s extent, x int4, at timestamptz) RETURNS extent LANGUAGE sql IMMUTABLE AS
        'SELECT least((s).low, x), greatest((s).high, x), greatest((s).at, at), coalesce((s).note, ''a \"b\", (c)'')';
    CREATE FUNCTION join_extents(a extent, b extent) RETURNS extent LANGUAGE sql IMMUTABLE AS
        'SELECT CASE WHEN a IS NULL THEN b WHEN b IS NULL THEN a
         ELSE ROW(least((a).low, (b).low), greatest((a).high, (b).high), greatest((a).at, (b).at), (a).note)::extent END';
    CREATE AGGREGATE extent_of(int4, timestamptz) (sfunc = widen, stype = extent, combinefunc = join_extents);
    CREATE FUNCTION count_step(s int8) RETURNS int8 LANGUAGE sql IMMUTABLE STRICT AS 'SELECT s + 1';
    CREATE AGGREGATE rows(*) (sfunc = count_step, stype = int8, combinefunc = int8pl, initcond = '0');
    CREATE FUNCTION add_all(s int8, VARIADIC x int4[]) RETURNS int8 LANGUAGE sql IMMUTABLE AS
        'SELECT s + (SELECT coalesce(sum(y), 0) FROM unnest(x) AS y)';
    CREATE AGGREGATE total_all(VARIADIC int4[]) (sfunc = add_all, stype = int8, combinefunc = int8pl, initcond = '0');
";

const TABLE: &str = "(k int, g int, v int, w text, at timestamptz)";

fn cluster_with_rows(definitions_on_workers: bool) -> TestCluster {
    let cluster = TestCluster::up_with(3, &[("autovacuum", "off")]);
    cluster.on_all_nodes("CREATE ROLE owner LOGIN; CREATE ROLE reader LOGIN");
    cluster.sql(AGGREGATES);
    if definitions_on_workers {
        cluster.on_workers(AGGREGATES);
    }
    cluster.on_workers("CREATE EXTENSION IF NOT EXISTS pg_shard");
    let spread = format!("CREATE TABLE spread {TABLE}; GRANT SELECT ON spread TO owner, reader");
    cluster.create_distributed(&spread, "spread", "k", 8, 1);
    cluster.sql(&format!(
        "CREATE TABLE plain {TABLE}; GRANT SELECT ON plain TO owner, reader; \
         INSERT INTO plain SELECT i, nullif(i % 7, 3), nullif(i * 31 % 500, 4), 'w' || i % 11, \
         timestamptz '2020-01-01' + i % 90 * interval '1 hour' FROM generate_series(1, 3000) AS i; \
         INSERT INTO spread SELECT * FROM plain; ANALYZE spread"
    ));
    cluster
}

const CALLS: &str = "total(v), dot(v, g), dot(g, k) FILTER (WHERE v > 20), mean(v), mean4(v) FILTER (WHERE k % 3 = 0), \
     largest(w), largest(at), largest(v), collect(v % 10), collect(w) FILTER (WHERE v < 5), extent_of(v, at), rows(*), \
     rows(*) FILTER (WHERE w = 'w5'), total_all(v, g, k), count(*), avg(v)";

fn compare(session: &mut Session, shape: &str, is_in_parts: bool) {
    let query = |table: &str| {
        let query = shape.replace("CALLS", CALLS).replace("FROM t", &format!("FROM {table} t"));
        format!("SELECT r::text FROM ({query}) AS r ORDER BY 1")
    };
    session.sql("SET DateStyle = 'SQL, DMY'; SET IntervalStyle = sql_standard");
    assert_eq!(session.text(&query("spread")), session.text(&query("plain")), "{shape}");
    let plan = session.text(&format!("EXPLAIN {}", query("spread")));
    assert_eq!(plan.contains("partial_state("), is_in_parts, "{shape}: {plan}");
}

const SHAPES: [&str; 9] = [
    "SELECT CALLS FROM t",
    "SELECT CALLS FROM t WHERE v < 0",
    "SELECT CALLS FROM t WHERE k % 500 = 7",
    "SELECT g, CALLS FROM t GROUP BY g",
    "SELECT k, CALLS FROM t WHERE k < 300 GROUP BY k HAVING total(v) > 100",
    "SELECT g, w, CALLS FROM t GROUP BY ROLLUP (g, w)",
    "SELECT g, w, GROUPING(g, w), CALLS FROM t GROUP BY GROUPING SETS ((g), (w), ())",
    "SELECT w, CALLS FROM t JOIN (SELECT k AS l FROM spread) AS o ON l = k GROUP BY w",
    "SELECT g + 1, CALLS FROM t GROUP BY g + 1 HAVING dot(v, g) <> 'is 0'",
];

#[test]
fn they_are_computed_in_parts_where_all_nodes_have_the_same() {
    let cluster = cluster_with_rows(true);
    let mut session = cluster.new_session();
    for shape in SHAPES {
        compare(&mut session, shape, true);
        session.sql("SET search_path = pg_temp, \"$user\", public");
        compare(&mut session, shape, true);
        session.sql("RESET search_path");
    }
    session.sql("BEGIN; UPDATE spread SET v = 1 WHERE k < 50; UPDATE plain SET v = 1 WHERE k < 50");
    compare(&mut session, SHAPES[3], true);
    session.sql("ROLLBACK");
    for other in [
        // Neither order nor distinct values can be put together from parts.
        "SELECT g, collect(v ORDER BY v) FROM t GROUP BY g",
        "SELECT g, total(DISTINCT v) FROM t GROUP BY g",
    ] {
        compare(&mut session, other, false);
    }
}

#[test]
fn a_view_lends_its_owners_rights_on_tables_and_not_on_what_a_user_has_others_execute() {
    let cluster = cluster_with_rows(true);
    cluster.sql(
        "CREATE VIEW lent AS SELECT * FROM spread; ALTER VIEW lent OWNER TO owner; GRANT SELECT ON lent TO reader",
    );
    let mut session = cluster.session_as("reader");
    let plan = session.text("EXPLAIN SELECT total(v) FROM lent");
    assert!(!plan.contains("partial_state("), "{plan}");
    let sums = |table: &str| format!("SELECT total(v) FROM {table}");
    assert_eq!(session.text(&sums("lent")), session.text(&sums("plain")));
}

#[test]
fn they_are_computed_on_the_coordinator_where_a_node_has_none_or_another() {
    let cluster = cluster_with_rows(false);
    for shape in SHAPES {
        compare(&mut cluster.new_session(), shape, false);
    }
    let total = "SELECT g, total(v) FROM t GROUP BY g";
    cluster.on_workers(AGGREGATES);
    compare(&mut cluster.new_session(), total, true);

    // What a body mentions counts as well.
    let dot = "SELECT g, dot(v, g) FROM t GROUP BY g";
    let change = |factor: i32| {
        format!(
            "CREATE OR REPLACE FUNCTION twice(a int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT a * {factor}'"
        )
    };
    cluster.session_on(NodeName::Worker(2)).sql(&change(3));
    compare(&mut cluster.new_session(), dot, false);
    compare(&mut cluster.new_session(), total, true);
    cluster.session_on(NodeName::Worker(2)).sql(&change(2));
    compare(&mut cluster.new_session(), dot, true);

    // So do types.
    let extent = "SELECT g, extent_of(v, at) FROM t GROUP BY g";
    cluster.session_on(NodeName::Worker(3)).sql("ALTER TYPE extent ADD ATTRIBUTE more int");
    compare(&mut cluster.new_session(), extent, false);
    cluster.session_on(NodeName::Worker(3)).sql("ALTER TYPE extent DROP ATTRIBUTE more");
    compare(&mut cluster.new_session(), extent, true);

    // The extension.
    cluster.session_on(NodeName::Worker(1)).sql("DROP EXTENSION pg_shard CASCADE");
    compare(&mut cluster.new_session(), total, false);
}

#[test]
fn a_kept_plan_is_made_anew_when_an_aggregate_has_changed_on_a_node_or_here() {
    let cluster = cluster_with_rows(true);
    let mut session = cluster.new_session();
    session.sql("SET plan_cache_mode = force_generic_plan");
    session.sql("PREPARE spread AS SELECT g, dot(v, g) FROM spread GROUP BY g ORDER BY g");
    session.sql("PREPARE plain AS SELECT g, dot(v, g) FROM plain GROUP BY g ORDER BY g");
    let before = session.text("EXECUTE spread");
    assert_eq!(before, session.text("EXECUTE plain"));
    assert!(session.text("EXPLAIN EXECUTE spread").contains("partial_state("));
    let change = |factor: i32| {
        format!(
            "CREATE OR REPLACE FUNCTION twice(a int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT a * {factor}'"
        )
    };

    // A node's is another one: it is never used, and found out once.
    cluster.session_on(NodeName::Worker(1)).sql(&change(5));
    let error = session.error("EXECUTE spread");
    assert_eq!(error.sqlstate, "55000", "{error:?}");
    assert!(error.hint.contains("Run the statement again"), "{error:?}");
    assert_eq!(session.text("EXECUTE spread"), before);

    // The coordinator's is another one.
    let mut other = cluster.new_session();
    other.sql("SET plan_cache_mode = force_generic_plan");
    cluster.session_on(NodeName::Worker(1)).sql(&change(2));
    other.sql("PREPARE spread AS SELECT g, dot(v, g) FROM spread GROUP BY g ORDER BY g");
    assert_eq!(other.text("EXECUTE spread"), before);
    assert!(other.text("EXPLAIN EXECUTE spread").contains("partial_state("));
    cluster.sql(&change(7));
    for session in [&mut session, &mut other] {
        let now = session.text("EXECUTE spread");
        assert_ne!(now, before);
        assert_eq!(now, cluster.text("SELECT g, dot(v, g) FROM plain GROUP BY g ORDER BY g"));
    }
}

#[test]
fn what_parts_would_change_is_not_computed_in_parts() {
    let cluster = cluster_with_rows(true);
    cluster.on_all_nodes(
        "CREATE AGGREGATE from_hundred(int4) (sfunc = int4_sum, stype = int8, combinefunc = int8pl, initcond = '100'); \
         CREATE FUNCTION noted(s int8, x int4) RETURNS int8 LANGUAGE sql VOLATILE AS 'SELECT coalesce(s, 0) + x'; \
         CREATE AGGREGATE volatile_total(int4) (sfunc = noted, stype = int8, combinefunc = int8pl); \
         CREATE FUNCTION zero_at_least(int8, int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($1, 0) + coalesce($2, 0)'; \
         CREATE AGGREGATE total_or_null(int4) (sfunc = int4_sum, stype = int8, combinefunc = zero_at_least)",
    );
    let mut session = cluster.new_session();
    // Each part would begin with a hundred.
    compare(&mut session, "SELECT g, from_hundred(v) FROM t GROUP BY g", false);
    // Parts without rows would be combined to no NULL.
    compare(&mut session, "SELECT total_or_null(v) FROM t WHERE v < 0", false);
    // It may look at tables, which are not the coordinator's.
    compare(&mut session, "SELECT g, volatile_total(k) FROM t GROUP BY g", false);
}

#[test]
fn rights_are_checked_as_for_the_aggregate_itself() {
    let cluster = cluster_with_rows(true);
    compare(&mut cluster.session_as("reader"), "SELECT total(v) FROM t", true);
    // A node that would refuse is not asked to.
    cluster.on_workers("REVOKE EXECUTE ON FUNCTION total(int4) FROM PUBLIC");
    compare(&mut cluster.session_as("reader"), "SELECT total(v) FROM t", false);
    cluster.sql("REVOKE EXECUTE ON FUNCTION total(int4) FROM PUBLIC");
    let error = cluster.session_as("reader").error("SELECT total(v) FROM spread");
    assert_eq!(error.sqlstate, "42501", "{error:?}");
}
