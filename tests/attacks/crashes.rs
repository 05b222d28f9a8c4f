//! Calls of our functions, as an ordinary role, with arguments that nobody should give.

use testkit::{NodeName, Session, TestCluster, wait_until};

/// Puts a coordinator's proof before a text, for tests of what lies behind it.
pub(crate) const SEALED: &str = "CREATE FUNCTION sealed(purpose text, role text, told text, age int DEFAULT 0) RETURNS text \
    LANGUAGE plpgsql SECURITY DEFINER AS $$
    DECLARE
        key bytea := (SELECT decode(secret, 'hex') FROM pgs_catalog.secret) || decode(repeat('00', 32), 'hex');
        inner_key bytea := key;
        outer_key bytea := key;
        message bytea := '';
        part text;
        given text := (extract(epoch FROM clock_timestamp() - '2000-01-01 00:00+00'::timestamptz)::bigint - age)::text;
    BEGIN
        FOR at IN 0..63 LOOP
            inner_key := set_byte(inner_key, at, get_byte(key, at) # 54);
            outer_key := set_byte(outer_key, at, get_byte(key, at) # 92);
        END LOOP;
        FOREACH part IN ARRAY ARRAY[purpose, role, given, told] LOOP
            message := message || int8send(octet_length(part)) || convert_to(part, 'UTF8');
        END LOOP;
        RETURN encode(sha256(outer_key || sha256(inner_key || message)), 'hex') || ' ' || given || E'\\n' || told;
    END $$";

/// What mallory has of her own: aggregates with states of many kinds, and a function that calls ours while it is called.
const OWN: &str = "
    CREATE FUNCTION m.keep(anyelement, anyelement) RETURNS anyelement LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1';
    CREATE AGGREGATE m.first(anyelement) (sfunc = m.keep, stype = anyelement, combinefunc = m.keep);
    CREATE FUNCTION m.put(anyarray, anyelement) RETURNS anyarray LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1 || $2; END';
    CREATE FUNCTION m.both(anyarray, anyarray) RETURNS anyarray LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1 || $2; END';
    CREATE AGGREGATE m.all(anyelement) (sfunc = m.put, stype = anyarray, combinefunc = m.both, initcond = '{}');
    CREATE TYPE m.pair AS (n int, t text);
    CREATE FUNCTION m.into_pair(m.pair, int) RETURNS m.pair LANGUAGE plpgsql IMMUTABLE AS
        'BEGIN IF $2 = 4 THEN RAISE EXCEPTION ''four''; END IF; RETURN ROW(coalesce(($1).n, 0) + $2, repeat(''x'', $2))::m.pair; END';
    CREATE FUNCTION m.pairs(m.pair, m.pair) RETURNS m.pair LANGUAGE sql IMMUTABLE AS 'SELECT $1';
    CREATE AGGREGATE m.pair_of(int) (sfunc = m.into_pair, stype = m.pair, combinefunc = m.pairs);
    CREATE AGGREGATE m.many(VARIADIC int[]) (sfunc = array_cat, stype = int[], combinefunc = array_cat);
    CREATE FUNCTION m.again(int) RETURNS int LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pgs_catalog.partial_state('m.all(anyelement)', 'integer',
            pgs_catalog.aggregate_definition('m.all(anyelement)', 'integer')::cstring, 'm', x) FROM generate_series(1, 3) x;
        PERFORM pgs_catalog.split_rows(sealed('split rows', 'mallory', E'abc 0 1977 23 0\\n0 -2147483648 2147483647\\n'), $1);
        RETURN $1;
    EXCEPTION WHEN duplicate_object THEN RETURN 0;
    END $$;";

/// A cluster of one worker with role `mallory`, the extension on both nodes, and a table of hers.
pub(crate) fn cluster() -> TestCluster {
    let cluster = TestCluster::up(1);
    cluster.on_all_nodes("CREATE ROLE mallory LOGIN; CREATE SCHEMA m AUTHORIZATION mallory");
    cluster.create_distributed("CREATE TABLE t (k int)", "t", "k", 2, 1);
    cluster.on_all_nodes(SEALED);
    cluster.on_all_nodes(&format!("SET ROLE mallory; {OWN}"));
    cluster.sql(
        "SET ROLE mallory; CREATE TABLE m.own (k int NOT NULL, v text); CREATE TABLE m.d (k int NOT NULL, v text); \
         SELECT master_create_distributed_table('m.d', 'k'); SELECT master_create_worker_shards('m.d', 2, 1); RESET ROLE",
    );
    cluster
}

pub(crate) fn as_mallory(cluster: &TestCluster, node: NodeName) -> Session {
    let mut session = cluster.session_on(node);
    session.sql("SET SESSION AUTHORIZATION mallory; SET statement_timeout = '20s'");
    session
}

/// A server that has crashed starts its processes anew.
fn started(cluster: &TestCluster, node: NodeName) -> String {
    cluster
        .session_on(node)
        .text("SELECT backend_start FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
}

/// Functions meant for nodes believed what a text told of the types of their arguments: a pointer was made of an integer, and
/// the server ended by signal 11. Each now compares the text with the arguments' real types.
#[test]
fn what_a_text_says_of_arguments_is_compared_with_their_types() {
    let cluster = cluster();
    let calls = [
        // A column hashed as text that is an integer.
        (
            "42804",
            "SELECT pgs_catalog.split_rows(sealed('split rows', 'mallory', E'abc 0 1995 25 0\\n0 -2147483648 2147483647\\n'), g) FROM generate_series(1,3) g",
        ),
        // Support function 1 of a family of btree indexes takes two arguments.
        (
            "22023",
            "SELECT pgs_catalog.split_rows(sealed('split rows', 'mallory', E'abc 0 1994 25 0\\n0 -2147483648 2147483647\\n'), g::text) FROM generate_series(1,3) g",
        ),
        (
            "22023",
            "SELECT pgs_catalog.split_rows(sealed('split rows', 'mallory', E'abc 9 1977 23 0\\n0 -2147483648 2147483647\\n'), g) FROM generate_series(1,3) g",
        ),
        (
            "22023",
            "SELECT pgs_catalog.split_rows(sealed('split rows', 'mallory', E'abc 0 1977 23 0\\n-1 -2147483648 2147483647\\n'), g) FROM generate_series(1,3) g",
        ),
        ("42501", "SELECT pgs_catalog.split_rows('', g) FROM generate_series(1,3) g"),
        ("22023", "SELECT pgs_catalog.split_rows(NULL, g) FROM generate_series(1,3) g"),
        ("42883", "SELECT pgs_catalog.split_rows_step(NULL, '', 1)"),
        ("42883", "SELECT pgs_catalog.split_rows_end(NULL)"),
        (
            "55000",
            "SELECT pgs_catalog.serial_state('pg_catalog.avg(numeric)','integer', pgs_catalog.aggregate_definition('pg_catalog.avg(numeric)','numeric')::cstring,'',g) FROM generate_series(1,2) g",
        ),
        (
            "42804",
            "SELECT pgs_catalog.serial_state('pg_catalog.avg(numeric)','numeric', pgs_catalog.aggregate_definition('pg_catalog.avg(numeric)','numeric')::cstring,'',g) FROM generate_series(1,2) g",
        ),
        // Text of a state that has bytes only, and the reverse.
        (
            "42804",
            "SELECT pgs_catalog.partial_state('pg_catalog.avg(numeric)','numeric', pgs_catalog.aggregate_definition('pg_catalog.avg(numeric)','numeric')::cstring,'',g::numeric) FROM generate_series(1,2) g",
        ),
        (
            "42804",
            "SELECT pgs_catalog.serial_state('pg_catalog.max(integer)','integer', pgs_catalog.aggregate_definition('pg_catalog.max(integer)','integer')::cstring,'',g) FROM generate_series(1,2) g",
        ),
        (
            "42804",
            "SELECT pgs_catalog.partial_state('pg_catalog.max(anyarray)','integer', '','',g) FROM generate_series(1,2) g",
        ),
        (
            "22023",
            "SELECT pgs_catalog.partial_state('pg_catalog.max(integer)','integer', '','',g) OVER () FROM generate_series(1,2) g",
        ),
        ("42883", "SELECT pgs_catalog.partial_state_step(NULL, '', '', '', '', 1)"),
        ("22023", "SELECT * FROM pgs_catalog.part_of_rows('abc', -1)"),
        // The server's reader of node trees reads past the end of a text that is cut off.
        ("22023", "SELECT column_to_column_name('t'::regclass, '{VAR :varno}')"),
        ("22023", "SELECT column_to_column_name('t'::regclass, '{VAR :varno 1 :varattno 1}')"),
        // A list of so many ranges takes all memory.
        (
            "22023",
            "SET ROLE mallory; CREATE TABLE m.many (k int NOT NULL); SELECT master_create_distributed_table('m.many', 'k'); SELECT master_create_worker_shards('m.many', 2147483647, 1)",
        ),
    ];
    let before = started(&cluster, NodeName::Coordinator);
    let mut session = as_mallory(&cluster, NodeName::Coordinator);
    let mut wrong = Vec::new();
    for (codes, call) in calls {
        match session.try_sql(call) {
            Err(error) if codes.split(' ').any(|code| code == error.sqlstate) => {}
            Err(error) => wrong.push(format!("{error}\nfor {call}")),
            Ok(rows) => wrong.push(format!("{rows:?}\nfor {call}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert_eq!(started(&cluster, NodeName::Coordinator), before, "no process has crashed");
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        // Xorshift, by Marsaglia.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

const TEXTS: &[&str] = &[
    "''",
    "'t'",
    "'m.d'",
    "'m.own'",
    "'k'",
    "'pg_class'",
    "'no such'",
    "repeat('x', 100000)",
    "E'\\n\\n'",
    "'%s%n'",
    "E'abc 0 1977 23 0\\n0 -2147483648 2147483647\\n'",
    "E'abc 0 1995 25 1\\n0 -2147483648 0\\n5000000000 1 2147483647\\n'",
    "E'abc 1 627 2277 0\\n0 -2147483648 2147483647\\n'",
    "E'abc 4294967295 4294967295 4294967295 4294967295\\n0 0 0\\n'",
    "E'abc 5432 1 0 1 1 127.0.0.1\\n'",
    "E'1 127.0.0.1\\nm.own'",
    "E'abc 0 4294967295 0 1 1 \\n'",
    "E'abc -1 1 0 18446744073709551615 18446744073709551615 x\\nabc 1 1 0 18446744073709551615 1 y\\n'",
    "'{VAR :varno 1 :varattno 1 :vartype 23 :vartypmod -1 :varcollid 0 :varlevelsup 0 :varnosyn 1 :varattnosyn 1 :location -1}'",
    "'{VAR :varno 1 :varattno 99999 :vartype 23'",
    "'pg_catalog.avg(numeric)'",
    "'pg_catalog.max(anyarray)'",
    "'pg_catalog.max(integer)'",
    "'pg_catalog.string_agg(text,text)'",
    "'pg_catalog.mode()'",
    "'pg_catalog.count(*)'",
    "'m.first(anyelement)'",
    "'m.all(anyelement)'",
    "'m.pair_of(integer)'",
    "'m.many(integer[])'",
    "'m.pair'",
    "'integer'",
    "'numeric'",
    "'text,text'",
    "'integer[]'",
    "'integer,,;('",
    "'public'",
    "'localhost'",
    "NULL",
];
const INTEGERS: &[&str] = &["0", "1", "-1", "2147483647", "-2147483648", "5432", "10000", "NULL"];
const COLUMNS: &[&str] = &[
    "g",
    "g::text",
    "m.again(g)",
    "ROW(g, 'x')::m.pair",
    "g::numeric",
    "ARRAY[g]",
    "NULL",
    "NULL::text",
    "ROW(g, 'x')",
    "'x'::name",
    "g::float8",
    "'(1,2)'::point",
    "to_jsonb(g)",
    "'abc'",
    "'x'::\"char\"",
    "int4range(g, g + 1)",
    "ARRAY[ROW(g)]",
    "repeat('y', 9000)",
    "(SELECT pgs_catalog.aggregate_definition('pg_catalog.max(integer)', 'integer'))",
];

/// Aggregates and the types that they may be told to be called with.
const AGGREGATES: &[(&str, &str)] = &[
    ("pg_catalog.avg(numeric)", "numeric"),
    ("pg_catalog.max(integer)", "integer"),
    ("pg_catalog.max(anyarray)", "integer[]"),
    ("pg_catalog.sum(integer)", "integer"),
    ("m.first(anyelement)", "integer"),
    ("m.first(anyelement)", "text"),
    ("m.first(anyelement)", "m.pair"),
    ("m.all(anyelement)", "integer"),
    ("m.all(anyelement)", "text"),
    ("m.pair_of(integer)", "integer"),
    ("m.many(integer[])", "integer[]"),
];

/// An argument of that type.
fn argument(dice: &mut Dice, type_name: &str) -> String {
    match type_name {
        "text" => {
            let text = dice.one_of(TEXTS);
            match dice.below(4) {
                0 => format!("sealed('split rows', 'mallory', {text})"),
                1 => format!("sealed('fetch rows', 'mallory', {text})"),
                2 => format!("sealed('copy a placement', 'mallory', {text})"),
                _ => format!("{text}::text"),
            }
        }
        "cstring" => match dice.below(4) {
            0 => "pgs_catalog.aggregate_definition('pg_catalog.avg(numeric)', 'numeric')::cstring"
                .to_owned(),
            1 => "pgs_catalog.aggregate_definition('pg_catalog.max(integer)', 'integer')::cstring"
                .to_owned(),
            _ => format!("{}::text::cstring", dice.one_of(TEXTS)),
        },
        "\"any\"" => {
            let count = dice.below(3) + 1;
            (0..count).map(|_| dice.one_of(COLUMNS).to_owned()).collect::<Vec<_>>().join(", ")
        }
        "text[]" => dice
            .one_of(&[
                "'{}'",
                "'{abc,NULL}'",
                "'{{a,b},{c,d}}'",
                "array_fill('a'::text, ARRAY[50000])",
                "NULL",
            ])
            .to_owned(),
        "internal" => "NULL".to_owned(),
        "\"char\"" => dice.one_of(&["'h'", "'r'", "''", "NULL"]).to_owned(),
        "regclass" | "oid" => dice
            .one_of(&[
                "'t'::regclass",
                "'m.own'::regclass",
                "'m.d'::regclass",
                "0::oid",
                "4294967295::oid",
                "NULL",
                "1259",
            ])
            .to_owned(),
        "double precision" => {
            dice.one_of(&["0", "-1", "'NaN'", "'Infinity'", "1e308", "NULL"]).to_owned()
        }
        _ => dice.one_of(INTEGERS).to_owned(),
    }
}

/// A statement that calls the function in one of the ways of SQL.
fn call(dice: &mut Dice, name: &str, kind: &str, types: &str) -> String {
    let arguments: Vec<String> =
        types.split(',').filter(|one| !one.is_empty()).map(|one| argument(dice, one)).collect();
    let call = match AGGREGATES[dice.below(AGGREGATES.len())] {
        // One that is told as the coordinator tells it, with arguments that may be others.
        (signature, inputs)
            if kind == "a" && types.starts_with("cstring") && dice.below(2) == 0 =>
        {
            format!(
                "{name}('{signature}', '{inputs}', pgs_catalog.aggregate_definition('{signature}', '{inputs}')::cstring, 'm, public', {})",
                argument(dice, "\"any\"")
            )
        }
        _ => format!("{name}({})", arguments.join(", ")),
    };
    let rows = dice.one_of(&["1, 0", "1, 1", "1, 5", "1, 3000"]);
    let from = format!("FROM generate_series({rows}) AS g");
    match (kind, dice.below(4)) {
        ("a", 0) => format!(
            "SELECT {call} OVER (ORDER BY g ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) {from}"
        ),
        ("a", 3) => {
            let ordered = format!("{} ORDER BY g DESC)", call.trim_end_matches(')'));
            format!("SELECT {} {from}", if call.ends_with("))") { &call } else { &ordered })
        }
        ("a", 1) => format!("SELECT {call} FILTER (WHERE g > 1) {from} GROUP BY g % 3"),
        ("a", _) => format!("SELECT {call}, {call} {from}"),
        (_, 0) => format!("SELECT * FROM generate_series(1, 3) AS g, LATERAL {call} AS r"),
        (_, 1) => format!("SELECT * FROM generate_series(1, 2) AS g, LATERAL {call} AS r(c int)"),
        (_, 2) => format!(
            "SELECT * FROM generate_series(1, 2) AS g, LATERAL {call} AS r(c text, d numeric[])"
        ),
        _ => format!("SELECT {call} {from}"),
    }
}

/// Our functions: name, kind, argument types with commas between them.
fn functions(cluster: &TestCluster) -> Vec<(String, String, String)> {
    let rows = cluster.sql(
        "SELECT p.oid::regproc, p.prokind, (SELECT coalesce(string_agg(format_type(a, NULL), ',' ORDER BY n), '') \
                FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS u(a, n)) \
         FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid \
         JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid \
         WHERE e.extname = 'pg_shard' AND (p.prokind = 'a' OR p.prolang = 13) ORDER BY 1",
    );
    rows.into_iter().map(|row| (row[0].clone(), row[1].clone(), row[2].clone())).collect()
}

/// Whatever an ordinary role calls our functions with, in several sessions at once, it gets rows or an error, and the
/// servers stay.
#[test]
fn no_call_of_ours_ends_a_server() {
    let cluster = cluster();
    let functions = functions(&cluster);
    assert!(functions.len() > 20, "{functions:?}");
    let nodes = [NodeName::Coordinator, NodeName::Worker(1)];
    let before = nodes.map(|node| started(&cluster, node));
    std::thread::scope(|scope| {
        for (number, node) in nodes.into_iter().cycle().take(4).enumerate() {
            let mut session = as_mallory(&cluster, node);
            let functions = &functions;
            scope.spawn(move || {
                let mut dice = Dice(testkit::seed(0x9e37_79b9 + number as u64 * 7919));
                if number > 1 {
                    // The latter is its name since PostgreSQL 16.
                    session.sql(
                        "SET parallel_setup_cost = 0; SELECT set_config(name, 'on', false) FROM pg_settings \
                         WHERE name IN ('force_parallel_mode', 'debug_parallel_query')",
                    );
                }
                let (mut internal, mut answered) = (Vec::new(), 0);
                for round in 0..1500 {
                    let (name, kind, types) = &functions[round % functions.len()];
                    let statement = call(&mut dice, name, kind, types);
                    let text = format!("BEGIN; {statement}; ROLLBACK");
                    let outcome = session.try_sql(&text);
                    answered += usize::from(outcome.is_ok() && kind == "a");
                    if let Err(error) = outcome {
                        if error.sqlstate == "XX000"
                            && !error.message.starts_with("could not store shard rows")
                        {
                            internal.push(format!("{error}\nfor {statement}"));
                        }
                        session.sql("ROLLBACK");
                    }
                }
                assert!(answered > 10, "only {answered} calls of aggregates were right by chance");
                assert!(internal.is_empty(), "{}", internal.join("\n\n"));
            });
        }
    });
    for (node, before) in nodes.into_iter().zip(before) {
        assert_eq!(started(&cluster, node), before, "no process of {node} has crashed");
    }
    wait_until("nothing is kept", || {
        cluster.text("SELECT count(*) FROM pg_ls_dir('base/pgsql_tmp', true, false) AS f WHERE f ~ '^pgsql_tmp\\.'") == "0"
    });
}
