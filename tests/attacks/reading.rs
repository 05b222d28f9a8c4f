//! Reading rows of the attacker's: PostgreSQL runs nothing of hers to show a value that is stored.

use crate::Spy;

/// Values of domains came back through the domain's input function, which ran its CHECK for each row in the reader's name, and
/// refused rows that were older than the constraint.
#[test]
fn a_stored_value_of_a_domain_is_not_checked_again_by_whoever_reads_it() {
    let spy = Spy::up(2);
    let cluster = &spy.cluster;
    spy.on_all_nodes_as_mallory(
        "CREATE DOMAIN m.dom AS varchar(5) CHECK (value IS NULL OR m.spy(value) IS NOT NULL);
         CREATE DOMAIN m.list AS int[] CHECK (value IS NULL OR m.spy(value) IS NOT NULL);
         CREATE TYPE m.comp AS (a int, d m.dom, n numeric(6, 2))",
    );
    for table in ["t", "plain"] {
        cluster.session_as("mallory").sql(&format!(
            "CREATE TABLE m.{table} (k int PRIMARY KEY, d m.dom, a m.dom[], l m.list, c m.comp, e m.comp)"
        ));
    }
    cluster.session_as("mallory").sql("SELECT public.create_distributed_table('m.t', 'k', 4)");
    for table in ["t", "plain"] {
        cluster.session_as("mallory").sql(&format!(
            "INSERT INTO m.{table} SELECT i, 'd' || i, ARRAY['x', NULL, 'y' || i], ARRAY[i, 2], ROW(i, 'z', 1.5)::m.comp, NULL \
             FROM generate_series(1, 9) AS i"
        ));
    }
    spy.assert_only(&["mallory"], "her own statements");
    let mut session = cluster.new_session();
    for query in [
        "SELECT * FROM V ORDER BY k",
        "SELECT * FROM V WHERE k = 3",
        "SELECT pg_typeof(d), pg_typeof(a), pg_typeof(a[1]), pg_typeof(l), pg_typeof(c), pg_typeof((c).d) FROM V ORDER BY k",
        "SELECT (c).d, (c).n, a[3], l[1], d || 'x' FROM V ORDER BY k",
        "SELECT c, count(*) FROM V GROUP BY c ORDER BY c",
        "SELECT a = a, a || a, c = c, to_json(c), to_json(a) FROM V ORDER BY k",
        "SELECT x, x.c FROM V AS x ORDER BY k",
        "SELECT max(d), min(l), array_agg(c ORDER BY k) FROM V",
        "SELECT x.k FROM V AS x JOIN V AS y ON x.d = y.d AND x.c = y.c ORDER BY 1",
    ] {
        let local = session.text(&query.replace('V', "m.plain"));
        spy.assert_only(&[], query);
        assert_eq!(session.text(&query.replace('V', "m.t")), local, "{query}");
        spy.assert_only(&[], query);
    }
    // Rows that are older than a constraint of the domain stay readable, as in PostgreSQL.
    spy.on_all_nodes_as_mallory(
        "ALTER DOMAIN m.dom ADD CONSTRAINT late CHECK (value <> 'd3') NOT VALID",
    );
    assert_eq!(session.text("SELECT d FROM m.t WHERE k = 3"), "d3");
    assert_eq!(session.text("SELECT count(d) FROM m.t"), "9");
}
