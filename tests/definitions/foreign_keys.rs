//! Foreign keys of distributed tables act as those of local ones, in writes of every way, and what cannot be enforced is refused.

use crate::{compare, statements};
use std::fmt::Write as _;
use testkit::{NodeName, Session, TestCluster};

const FORMS: &str = include_str!("foreign_keys.txt");

const TABLES: &str = "CREATE TABLE rr (id int PRIMARY KEY); \
    CREATE TABLE r (id int PRIMARY KEY, rr_id int REFERENCES rr); \
    CREATE TABLE p (k int, id int, n text, PRIMARY KEY (k, id)); \
    CREATE TABLE c (k int, id int, p_id int, r_id int REFERENCES r ON DELETE CASCADE ON UPDATE CASCADE, n text, PRIMARY KEY (k, id), \
      CONSTRAINT c_p FOREIGN KEY (k, p_id) REFERENCES p); \
    CREATE TABLE g (k int, id int, c_id int, PRIMARY KEY (k, id), \
      FOREIGN KEY (k, c_id) REFERENCES c ON DELETE CASCADE, CONSTRAINT small CHECK (c_id < 50)); \
    CREATE TABLE x (k int, id int, p_id int, PRIMARY KEY (k, id), \
      CONSTRAINT x_p FOREIGN KEY (k, p_id) REFERENCES p ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED); \
    CREATE TABLE t (k int, id int, parent int, PRIMARY KEY (k, id), FOREIGN KEY (k, parent) REFERENCES t ON DELETE CASCADE)";

const ROWS: &str = "INSERT INTO rr SELECT i FROM generate_series(1, 3) AS i; \
    INSERT INTO r SELECT i, 1 + i % 3 FROM generate_series(1, 4) AS i; \
    INSERT INTO p SELECT i % 6, i FROM generate_series(1, 48) AS i; \
    INSERT INTO c SELECT i % 6, i, CASE WHEN i % 6 IN (1, 2) THEN i END, 1 + i % 2 FROM generate_series(1, 24) AS i; \
    INSERT INTO g SELECT i % 6, i, i FROM generate_series(1, 12) AS i; \
    INSERT INTO x SELECT i % 6, i, i FROM generate_series(1, 48) AS i WHERE i % 6 > 2; \
    INSERT INTO t SELECT i % 6, i, CASE WHEN i > 6 THEN i - 6 END FROM generate_series(1, 30) AS i";

const NAMES: [&str; 7] = ["rr", "r", "p", "c", "g", "x", "t"];

/// Makes the tables in both schemas; in `d` with so many placements of each shard.
fn create(session: &mut Session, replicas: u32) {
    session.sql("DROP SCHEMA IF EXISTS l, d CASCADE; CREATE SCHEMA l; CREATE SCHEMA d");
    session.sql(&format!("SET search_path = l; {TABLES}; {ROWS}"));
    session.sql(&format!("SET search_path = d, public; {TABLES}"));
    session.sql(&format!(
        "SELECT create_reference_table('rr'); SELECT create_reference_table('r'); \
         SELECT create_distributed_table('p', 'k', 4, {replicas})"
    ));
    for table in ["c", "g", "x", "t"] {
        session
            .sql(&format!("SELECT create_distributed_table('{table}', 'k', colocate_with => 'p')"));
    }
    session.sql(ROWS);
}

/// What a form's statements answer, without the schema's name.
pub(super) fn run(session: &mut Session, schema: &str, form: &str) -> Vec<String> {
    session.sql(&format!("SET search_path = {schema}, public"));
    let mut answers = Vec::new();
    for statement in statements(form) {
        answers.push(match session.try_sql(&statement) {
            Ok(rows) => format!("{rows:?}"),
            Err(error) => format!(
                "{} {} {} {} {}",
                error.line(),
                error.detail,
                error.schema,
                error.table,
                error.constraint
            )
            .replace(&format!(" {schema} "), " "),
        });
    }
    session.sql("ROLLBACK");
    answers
}

/// What the tables hold, and their foreign keys.
fn contents(session: &mut Session, schema: &str) -> Vec<String> {
    session.sql(&format!("SET search_path = {schema}"));
    let mut lines = Vec::new();
    for table in NAMES {
        let rows = session.try_sql(&format!("SELECT {table}::text FROM {table} ORDER BY {table}"));
        lines.push(format!("{table} {rows:?}"));
    }
    lines.extend(keys(session, &format!("n.nspname = '{schema}'"), ""));
    lines
}

/// Foreign keys as they stand in the catalogs of a server, without the names of schemas and shards.
fn keys(session: &mut Session, filter: &str, column: &str) -> Vec<String> {
    session.sql("SET search_path = pg_catalog");
    let sql = format!(
        "SELECT DISTINCT {column} concat_ws(' ', regexp_replace(c.relname, '_[0-9]{{5,}}$', ''), k.conname, \
           regexp_replace(regexp_replace(pg_get_constraintdef(k.oid), '_[0-9]{{5,}}\\(', '('), 'REFERENCES [ld]\\.', 'REFERENCES '), \
           obj_description(k.oid), (SELECT string_agg(DISTINCT tgenabled::text, '') FROM pg_trigger WHERE tgconstraint = k.oid)) \
         FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace \
         WHERE k.contype = 'f' AND {filter} AND c.relname <> 'late' ORDER BY 1"
    );
    session.sql(&sql).into_iter().map(|row| row.join(" ")).collect()
}

#[test]
fn foreign_keys_act_as_those_of_local_tables() {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    let mut wrong = String::new();
    let forms = FORMS.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    for (number, form) in forms.enumerate() {
        // Every other one with two placements of each shard.
        let replicas = 1 + u32::from(number % 2 == 1);
        create(&mut session, replicas);
        let (form, may_differ) = form.strip_prefix("~ ").map_or((form, false), |form| (form, true));
        let values = |line: &String| match line.find(")=(").filter(|_| may_differ) {
            Some(at) => line[..at].to_owned(),
            None => line.clone(),
        };
        let expected: Vec<String> = run(&mut session, "l", form).iter().map(values).collect();
        let found: Vec<String> = run(&mut session, "d", form).iter().map(values).collect();
        let mut differences = String::new();
        compare(&mut differences, "the answer", &expected, &found);
        let expected = contents(&mut session, "l");
        compare(&mut differences, "the table", &expected, &contents(&mut session, "d"));
        let expected = keys(&mut session, "n.nspname = 'l'", "");
        for node in cluster.workers() {
            let found = keys(&mut cluster.session_on(node), "n.nspname = 'd'", "");
            compare(&mut differences, &format!("{node}"), &expected, &found);
        }
        if replicas > 1 {
            NAMES.iter().filter(|name| **name != "late").for_each(|name| {
                cluster.assert_placements_equal(&format!("d.{name}"));
            });
        }
        if !differences.is_empty() {
            let _ = writeln!(wrong, "==== {form}\n{differences}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_nodes_cannot_check_is_refused_with_what_would_work() {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    create(&mut session, 1);
    session.sql("SET search_path = d, public");
    session.sql("CREATE TABLE lone (id int PRIMARY KEY); CREATE TABLE o (k int, id int, PRIMARY KEY (k, id))");
    session.sql("SELECT create_distributed_table('o', 'k', 3)");
    session.sql("CREATE TABLE m (k int, id int PRIMARY KEY REFERENCES lone)");
    for (statement, detail) in [
        ("ALTER TABLE c ADD FOREIGN KEY (id, k) REFERENCES p NOT VALID", "does not refer to"),
        ("ALTER TABLE c ADD FOREIGN KEY (k, id) REFERENCES o NOT VALID", "different nodes"),
        ("ALTER TABLE c ADD FOREIGN KEY (id) REFERENCES lone NOT VALID", "local table"),
        ("ALTER TABLE r ADD FOREIGN KEY (id, id) REFERENCES p NOT VALID", "different nodes"),
        (
            "ALTER TABLE g ADD FOREIGN KEY (k, id) REFERENCES c ON DELETE SET NULL",
            "distribution column",
        ),
        (
            "ALTER TABLE g ADD FOREIGN KEY (k, id) REFERENCES c ON UPDATE SET NULL",
            "distribution column",
        ),
        ("SELECT create_distributed_table('m', 'id')", "no rows to check"),
        ("SELECT create_reference_table('m')", "no rows to check"),
        ("SELECT undistribute_table('p')", ""),
        ("SELECT undistribute_table('r')", ""),
    ] {
        let error = session.error(statement);
        assert_eq!(error.sqlstate, "0A000", "{statement}: {error}");
        assert!(error.detail.contains(detail), "{statement}: {error}");
        assert!(!error.hint.is_empty(), "{statement}: {error}");
    }
}

/// A local table may refer to a distributed one; nobody would look there when the row goes with another, on its node.
#[test]
fn rows_to_which_local_tables_refer_stay() {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    create(&mut session, 1);
    session.sql("SET search_path = d, public");
    session.sql(
        "CREATE TABLE lone (k int, id int, FOREIGN KEY (k, id) REFERENCES g ON DELETE CASCADE); \
         CREATE TABLE lone_t (k int, id int, FOREIGN KEY (k, id) REFERENCES t)",
    );
    session.sql("INSERT INTO lone SELECT k, id FROM g");
    assert_eq!(session.error("INSERT INTO lone VALUES (1, 999)").sqlstate, "23503");
    for statement in [
        "DELETE FROM c WHERE k = 1",
        "DELETE FROM r WHERE id = 1",
        "WITH gone AS (DELETE FROM c RETURNING k) SELECT count(*) FROM gone",
        "PREPARE gone AS DELETE FROM c WHERE k = $1; EXECUTE gone (1)",
        "DELETE FROM t WHERE k = 1 AND id = 1",
    ] {
        let error = session.error(statement);
        assert_eq!(error.sqlstate, "0A000", "{statement}: {error}");
        assert!(error.message.contains("of local table \"lone"), "{statement}: {error}");
    }
    session.sql("UPDATE g SET c_id = NULL WHERE k = 1; INSERT INTO g VALUES (1, 500, NULL)");
    session.sql("SELECT create_distributed_table('lone', 'k', colocate_with => 'g'); DELETE FROM c WHERE k = 2");
    session.sql("DELETE FROM g WHERE k = 1");
    assert_eq!(session.text("SELECT count(*) FROM lone WHERE k IN (1, 2)"), "0");
}

/// The stale rows of a placement would be checked against those of another.
#[test]
fn placements_that_foreign_keys_link_are_marked_and_repaired_together() {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    create(&mut session, 2);
    session.sql("SET search_path = d, public");
    cluster.kill(NodeName::Worker(2)).expect("the worker runs");
    session.sql("INSERT INTO p VALUES (1, 600)");
    cluster.start(NodeName::Worker(2)).expect("the worker comes back");
    cluster.wait_for(NodeName::Worker(2));
    for table in ["d.p", "d.c", "d.g", "d.x", "d.r"] {
        assert!(cluster.unhealthy(table) > 0, "{table}");
    }
    session.sql("INSERT INTO c VALUES (1, 600, 600, 1); DELETE FROM x; DELETE FROM c WHERE k = 2; DELETE FROM p WHERE k = 2");
    for table in ["d.rr", "d.c", "d.p", "d.g", "d.r", "d.x", "d.t"] {
        cluster.repair(table);
    }
    for table in NAMES {
        cluster.assert_placements_equal(&format!("d.{table}"));
    }
    let expected = keys(&mut session, "n.nspname = 'l'", "");
    let found = keys(&mut cluster.session_on(NodeName::Worker(2)), "n.nspname = 'd'", "");
    assert_eq!(found, expected);
    assert_eq!(session.error("INSERT INTO d.c VALUES (1, 601, 999, 1)").sqlstate, "23503");
    assert_eq!(session.error("DELETE FROM d.p WHERE k = 1").sqlstate, "23503");
}

/// A shard with foreign keys counted as one that cannot be compared.
#[test]
fn placements_with_foreign_keys_can_be_compared() {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    create(&mut session, 2);
    for table in NAMES {
        let found =
            session.sql(&format!("SELECT * FROM pgs_catalog.check_placements('d.{table}')"));
        assert!(found.is_empty(), "{table}: {found:?}");
    }
    let mut node = cluster.session_on(NodeName::Worker(2));
    let shard = cluster.tables_on(NodeName::Worker(2), "g_%").pop().expect("it has shards");
    let lost = node.count(&format!("DELETE FROM {shard}"));
    let found = "SELECT rows_missing + rows_surplus FROM pgs_catalog.check_placements('d.g')";
    assert_eq!(session.text(found), lost.to_string());
}

/// A reference table cannot leave out the node of the only placement of a shard that refers to it.
#[test]
fn a_write_that_a_referring_shard_needs_does_not_leave_its_node_out() {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    create(&mut session, 1);
    cluster.kill(NodeName::Worker(2)).expect("the worker runs");
    let error = session.error("DELETE FROM d.r WHERE id = 4");
    assert!(error.message.contains("cannot write table \"r\" without node"), "{error}");
    cluster.start(NodeName::Worker(2)).expect("the worker comes back");
    cluster.wait_for(NodeName::Worker(2));
    assert_eq!(cluster.unhealthy("d.r"), 0);
    session.sql("DELETE FROM d.r WHERE id = 4");
}

/// undistribute_table acts as the owner under restrictions, where no deferred trigger may fire: it failed with 42501 for tables with a
/// deferred foreign key, as every ORM makes them.
#[test]
fn tables_with_deferred_foreign_keys_become_local_again() {
    let cluster = TestCluster::up(2);
    cluster.sql(
        "CREATE TABLE a (k int PRIMARY KEY); CREATE TABLE b (k int REFERENCES a DEFERRABLE INITIALLY DEFERRED, n int); \
         INSERT INTO a SELECT generate_series(1, 10); SELECT create_distributed_table('a', 'k', 4)",
    );
    // What a deferred trigger waits for stays where it is: COMMIT failed with XX001.
    let distribute = "SELECT create_distributed_table('b', 'k', 4, colocate_with => 'a')";
    let error = cluster.error(&format!("INSERT INTO b SELECT k, 1 FROM a; {distribute}"));
    assert_eq!(
        error.line(),
        "55006: cannot distribute \"b\" because it has pending trigger events"
    );
    cluster.sql("INSERT INTO b SELECT k, 1 FROM a");
    cluster.sql(distribute);
    cluster.sql("BEGIN; SELECT undistribute_table('b'); SELECT undistribute_table('a'); COMMIT");
    assert_eq!(cluster.text("SELECT count(*), sum(n) FROM b JOIN a USING (k)"), "10|10");
    assert_eq!(cluster.error("INSERT INTO b VALUES (11)").sqlstate, "23503");
    assert_eq!(cluster.error("DELETE FROM a WHERE k = 1").sqlstate, "23503");
}

/// A placement that was repaired or moved enforced what had been turned off.
#[test]
fn triggers_that_are_off_stay_off_where_shards_are_made_anew() {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    create(&mut session, 2);
    session.sql("SET search_path = d, public; ALTER TABLE c DISABLE TRIGGER ALL; ALTER TABLE p DISABLE TRIGGER ALL");
    let modes = |node: NodeName, table: &str| {
        let sql = format!(
            "SELECT string_agg(DISTINCT t.tgenabled::text, '') FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid \
             WHERE c.relname ~ '^{table}_[0-9]+$' AND t.tgisinternal"
        );
        cluster.session_on(node).text(&sql)
    };
    cluster.kill(NodeName::Worker(2)).expect("the worker runs");
    session.sql("INSERT INTO p VALUES (1, 600); INSERT INTO c VALUES (1, 600, 601, 1)");
    session.sql("INSERT INTO c SELECT k, id + 700, NULL, 1 FROM p");
    cluster.start(NodeName::Worker(2)).expect("the worker comes back");
    cluster.wait_for(NodeName::Worker(2));
    for table in ["d.rr", "d.r", "d.p", "d.c", "d.g", "d.x", "d.t"] {
        cluster.repair(table);
    }
    for node in cluster.workers() {
        assert_eq!(modes(node, "c"), "D", "{node}");
        assert_eq!(modes(node, "p"), "D", "{node}");
        assert_eq!(modes(node, "g"), "O", "{node}");
    }
    // Rows that break a foreign key come along.
    assert_eq!(session.text("SELECT count(*) FROM c WHERE p_id = 601"), "1");
    cluster.assert_placements_equal("d.c");
    session.sql("ALTER TABLE c ENABLE TRIGGER ALL");
    assert_eq!(session.error("INSERT INTO c VALUES (1, 601, 601, 1)").sqlstate, "23503");
}

#[test]
fn a_single_trigger_of_a_constraint_is_not_turned_off() {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    create(&mut session, 1);
    session.sql("SET search_path = d, public");
    let one = session.text(
        "SELECT quote_ident(tgname) FROM pg_trigger WHERE tgrelid = 'c'::regclass AND tgisinternal LIMIT 1",
    );
    let error = session.error(&format!("ALTER TABLE c DISABLE TRIGGER {one}"));
    assert_eq!(error.sqlstate, "0A000");
    assert_eq!(
        error.message,
        "cannot enable or disable a single system trigger of distributed table \"c\""
    );
    // Whoever may not turn them off here does not do so on the nodes.
    session.sql("CREATE ROLE plain LOGIN; ALTER TABLE c OWNER TO plain; GRANT ALL ON SCHEMA d TO plain; SET ROLE plain");
    let error = session.error("ALTER TABLE c DISABLE TRIGGER ALL");
    assert_eq!(error.sqlstate, "42501", "{error}");
    assert_eq!(session.error("SET session_replication_role = replica").sqlstate, "42501");
    // What a superuser has set holds for the role that it takes on.
    session.sql("RESET ROLE; SET session_replication_role = replica; SET ROLE plain");
    session.sql("INSERT INTO c VALUES (1, 100, 999, 1)");
    session.sql("RESET ROLE; RESET session_replication_role; SET ROLE plain");
    assert_eq!(session.error("INSERT INTO c VALUES (1, 101, 999, 1)").sqlstate, "23503");
}
