//! Whatever a worker's administrator has set for a role or a database, statements mean what they mean on the coordinator.

use testkit::TestCluster;

/// Settings, each with a value that changes what statements mean or how values are read and written.
const HOSTILE: [(&str, &str); 26] = [
    ("array_nulls", "off"),
    ("standard_conforming_strings", "off"),
    ("backslash_quote", "off"),
    ("escape_string_warning", "off"),
    ("transform_null_equals", "on"),
    ("quote_all_identifiers", "on"),
    ("bytea_output", "escape"),
    ("xmlbinary", "hex"),
    ("xmloption", "document"),
    ("datestyle", "'German'"),
    ("intervalstyle", "'sql_standard'"),
    ("extra_float_digits", "'-15'"),
    ("timezone", "'Asia/Kolkata'"),
    ("timezone_abbreviations", "'India'"),
    ("client_encoding", "'LATIN1'"),
    ("search_path", "'nowhere'"),
    ("row_security", "off"),
    ("lc_monetary", "'C'"),
    ("default_transaction_read_only", "on"),
    ("default_transaction_isolation", "'serializable'"),
    ("default_transaction_deferrable", "on"),
    ("statement_timeout", "1"),
    ("lock_timeout", "1"),
    ("idle_in_transaction_session_timeout", "1"),
    ("gin_fuzzy_search_limit", "1"),
    ("exit_on_error", "on"),
];

const VALUES: &str = "(1, ARRAY['x', NULL, 'null'], E'back\\\\slash''quote', '\\x00ff', 0.1, 1e-300, '<a/>text', \
    '2024-05-06', '2024-05-06 07:08:09.123456+00', '-1 day -02:03:04', '12.34', 'pg_class', 'é\u{20ac}', NULL)";

#[test]
fn settings_of_a_role_on_a_worker_change_no_value_and_end_no_session() {
    // array_nulls = off for the role stored NULL in arrays as the string. A session now sets all that matters itself.
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE ROLE app LOGIN SUPERUSER");
    let columns = "(k int, a text[], s text, b bytea, f float4, d float8, x xml, day date, at timestamptz, i interval, \
                   m money, c regclass, u text, n int)";
    cluster.sql(&format!("CREATE TABLE local {columns}"));
    cluster.create_distributed(&format!("CREATE TABLE t {columns}"), "t", "k", 2, 2);
    let alter = HOSTILE.map(|(name, value)| format!("ALTER ROLE app SET {name} = {value}"));
    cluster.on_workers(&alter.join("; "));
    let mut session = cluster.session_as("app");
    let copied = "COPY {} (k, a, at) FROM PROGRAM 'printf \"2\\\\t{NULL,\\\\\"NULL\\\\\"}\\\\t2024-01-01 00:00 IST\\\\n\"'";
    for table in ["local", "t"] {
        session.sql(&format!("INSERT INTO {table} VALUES {VALUES}"));
        session.sql(&format!(
            "PREPARE add_{table}(text[]) AS INSERT INTO {table} (k, a) VALUES (3, $1)"
        ));
        session.sql(&format!("EXECUTE add_{table}(ARRAY[NULL, 'NULL'])"));
        session.sql(&copied.replacen("{}", table, 1));
        session.sql(&format!(
            "INSERT INTO {table} (k, a, s) SELECT i, ARRAY[NULL, 'NULL'], '\\' || i FROM generate_series(10, 20) AS i"
        ));
        session.sql(&format!("UPDATE {table} SET s = s || '\\', a = a || NULL::text WHERE k > 15"));
    }
    for query in [
        "SELECT * FROM {} ORDER BY k",
        "SELECT a[1] IS NULL, a[2], s FROM {} WHERE k = 2",
        "SELECT b::text, x::text, at::text, i::text, m::text, c::text, f::text, d::text FROM {} WHERE k = 1",
        "SELECT count(*) FROM {} WHERE n = NULL",
        "SELECT count(*), max(s) FROM {} WHERE s LIKE '%\\\\'",
    ] {
        assert_eq!(
            session.text(&query.replace("{}", "t")),
            session.text(&query.replace("{}", "local")),
            "{query}"
        );
    }
    // Sessions last, through errors too, and transactions are what the client asks for.
    assert_eq!(session.error("INSERT INTO t VALUES (1, '{', '')").sqlstate, "22P02");
    session.sql("BEGIN; UPDATE t SET n = 1; SELECT pg_sleep(0.05); UPDATE t SET n = 2; COMMIT");
    assert_eq!(session.text("SELECT min(n), max(n) FROM t"), "2|2");
    assert_eq!(session.warnings(), []);
    assert_eq!(cluster.unhealthy("t"), 0);
    assert_eq!(cluster.assert_placements_equal("t"), 14);
}
