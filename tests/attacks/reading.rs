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
    let mut mallory = spy.cluster.session_as("mallory");
    mallory.sql("ALTER DOMAIN m.dom ADD CONSTRAINT late CHECK (value <> 'd3') NOT VALID");
    assert_eq!(session.text("SELECT d FROM m.t WHERE k = 3"), "d3");
    assert_eq!(session.text("SELECT count(d) FROM m.t"), "9");
}

/// Parts of parts were read by their own input functions: a range over a domain, and whatever a row or an array holds that is a
/// row, an array or a range itself.
#[test]
fn a_domain_in_a_part_of_a_value_is_not_checked_either() {
    let spy = Spy::up(2);
    spy.on_all_nodes_as_mallory(
        "CREATE DOMAIN m.dom AS int CHECK (value IS NULL OR m.spy(value) IS NOT NULL);
         CREATE DOMAIN m.word AS text CHECK (value IS NULL OR m.spy(value) IS NOT NULL);
         CREATE TYPE m.span AS RANGE (subtype = m.dom, multirange_type_name = m.spans);
         CREATE TYPE m.words AS RANGE (subtype = m.word, multirange_type_name = m.wordss);
         CREATE TYPE m.inner AS (gone int, a int, d m.dom, w m.word[]);
         ALTER TYPE m.inner DROP ATTRIBUTE gone;
         CREATE DOMAIN m.checked AS m.inner CHECK (value IS NULL OR m.spy(1) IS NOT NULL);
         CREATE DOMAIN m.list AS int[] CHECK (value IS NULL OR m.spy(1) IS NOT NULL);
         CREATE TYPE m.outer AS (i m.inner, c m.checked, l m.list, ls m.list[], s m.span, t numeric(6, 2));
         CREATE TYPE m.over AS RANGE (subtype = m.inner, multirange_type_name = m.overs)",
    );
    let mut mallory = spy.cluster.session_as("mallory");
    for table in ["t", "plain"] {
        mallory.sql(&format!(
            "CREATE TABLE m.{table} (k int PRIMARY KEY, s m.span, ss m.spans, w m.words, ws m.wordss, i m.inner, \
             c m.checked, a m.inner[], sa m.span[], o m.outer, oa m.outer[], ov m.over, ovs m.overs)"
        ));
    }
    mallory.sql("SELECT public.create_distributed_table('m.t', 'k', 4)");
    for table in ["t", "plain"] {
        mallory.sql(&format!(
            r#"INSERT INTO m.{table} SELECT g, m.span(g, g + 5, '[]'), '{{[1,3),[7,9]}}', '["a,b","c\"d"]', '{{["(",")"],(x,)}}',
               ROW(g, g, '{{"a b",NULL,"c,d"}}')::m.inner, ROW(g, g, '{{}}')::m.inner, ARRAY[ROW(1, g, NULL)::m.inner, NULL],
               ARRAY[ARRAY[m.span(g, NULL), 'empty']], ROW(ROW(g, g, '{{x}}'), ROW(g, NULL, NULL), '{{1,2}}',
               ARRAY['{{3,4}}'::m.list], m.span(NULL, g), 1.5)::m.outer,
               ARRAY[ROW(NULL, NULL, '{{1}}', NULL, 'empty', 2)::m.outer], m.over(ROW(1, g, '{{p}}')::m.inner, NULL),
               m.overs(m.over(ROW(1, g, '{{p}}')::m.inner, ROW(2, g, '{{q}}')::m.inner))
               FROM generate_series(1, 5) AS g"#
        ));
    }
    spy.assert_only(&["mallory"], "her own statements");
    let mut session = spy.cluster.new_session();
    for query in [
        "SELECT * FROM V ORDER BY k",
        "SELECT * FROM V WHERE k = 3",
        "SELECT pg_typeof(s), pg_typeof(c), pg_typeof(sa), pg_typeof((o).c), pg_typeof((o).ls), pg_typeof((o).ls[1]) FROM V ORDER BY k",
        "SELECT lower(s), upper(s), isempty(sa[1][2]), s @> s, ss * ss = ss, upper(ws), lower(ov) FROM V ORDER BY k",
        "SELECT ((o).i).w[1], ((o).c).a, (o).l[2], upper((o).s), (oa[1]).t, a[1] FROM V ORDER BY k",
        "SELECT o, count(*), max(lower(s)), min(array_to_string(sa, ';')) FROM V GROUP BY o ORDER BY o",
        "SELECT array_dims(sa), array_dims(a), a || a, to_json(o), to_json(oa) FROM V ORDER BY k",
        "SELECT x FROM V AS x ORDER BY k",
        "SELECT x.k FROM V AS x JOIN V AS y ON x.i = y.i AND x.s = y.s AND x.ss = y.ss AND x.ov = y.ov ORDER BY 1",
    ] {
        let local = session.text(&query.replace('V', "m.plain"));
        spy.assert_only(&[], query);
        assert_eq!(session.text(&query.replace('V', "m.t")), local, "{query}");
        spy.assert_only(&[], query);
    }
    session.sql("SELECT undistribute_table('m.t')");
    assert_eq!(
        session.text("SELECT * FROM m.t ORDER BY k"),
        session.text("SELECT * FROM m.plain ORDER BY k")
    );
    spy.assert_only(&["mallory"], "undistribute_table");
}
