//! Changes of a table's definition: the distributed table and each of its shards become what a local table becomes, or the
//! statement fails alike and leaves everything as it was.

/// Two sessions, concurrent changes, and nodes that fail.
mod faults;

/// Beside clients with prepared statements.
mod beside_clients;

/// Indexes beside running statements, REINDEX and CLUSTER.
mod indexes;

/// Foreign keys.
mod foreign_keys;

/// Foreign keys of local tables.
mod local_referrers;

/// Roles.
mod roles;

/// Types, functions and extensions.
mod needs;

/// The same when they change.
mod objects;

/// The same when they are dropped.
mod dropped_objects;

use std::fmt::Write as _;
use testkit::{Rows, Session, TestCluster};

const FORMS: &str = include_str!("forms.txt");
const DESCRIBE: &str = include_str!("describe.sql");

/// Settled once for all tables.
const SETUP: &str = "CREATE ROLE first_owner; CREATE ROLE other_owner; CREATE ROLE reader; \
    CREATE SCHEMA l; CREATE SCHEMA d; CREATE SCHEMA elsewhere; GRANT ALL ON SCHEMA l, d, elsewhere TO first_owner, other_owner";

const TYPES: &str = "CREATE TYPE public.mood AS ENUM ('sad', 'happy'); \
    CREATE DOMAIN public.positive_int AS int CHECK (VALUE > 0)";

const TABLE: &str = "CREATE TABLE t ( \
      id int PRIMARY KEY, a int NOT NULL DEFAULT 5, b text DEFAULT 'b', c numeric(10,2), d timestamptz, e text COLLATE \"C\", \
      f int GENERATED ALWAYS AS (a * 2) STORED, g varchar(20) COMPRESSION pglz, h public.mood DEFAULT 'sad', \
      CONSTRAINT positive CHECK (a > 0), CONSTRAINT two CHECK (a < 100 OR b <> '')) WITH (fillfactor = 90, autovacuum_vacuum_threshold = 10); \
    ALTER TABLE t ALTER g SET (n_distinct = 3); \
    CREATE INDEX t_b ON t (b); CREATE UNIQUE INDEX t_ia ON t (id, a); CREATE INDEX t_lower ON t (lower(b)) WITH (fillfactor = 80); \
    CREATE STATISTICS t_stats ON a, b FROM t; COMMENT ON TABLE t IS 'old'; COMMENT ON COLUMN t.a IS 'old'; \
    GRANT SELECT, INSERT ON t TO reader; ALTER TABLE t OWNER TO first_owner; \
    ALTER TABLE t CLUSTER ON t_lower";

const ROWS: &str = "INSERT INTO t (id, a, b, c, d, e, g) SELECT i, i % 5 + 1, 'b' || i, CASE WHEN i % 3 > 0 THEN i / 4.0 END, \
    '2020-01-01 00:00Z'::timestamptz + i * interval '1 day', 'e' || i, 'g' || i FROM generate_series(1, 12) AS i; \
    ALTER TABLE t ADD CONSTRAINT late CHECK (id > 0) NOT VALID; ALTER TABLE t ADD CONSTRAINT wrong CHECK (id > 5) NOT VALID";

/// The changes, one a line.
fn forms() -> Vec<String> {
    let mut forms = Vec::new();
    let mut open = String::new();
    for line in FORMS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        match line.strip_suffix('\\') {
            Some(start) => open.push_str(start),
            None => forms.push(std::mem::take(&mut open) + line),
        }
    }
    forms
}

/// Subcommands that are given two at a time.
const SUBCOMMANDS: [&str; 18] = [
    "ADD COLUMN n int DEFAULT 3",
    "ADD COLUMN n text",
    "ADD CONSTRAINT k CHECK (a > 0)",
    "ADD CONSTRAINT k UNIQUE (id, b)",
    "DROP COLUMN b",
    "DROP COLUMN c",
    "DROP CONSTRAINT positive",
    "DROP CONSTRAINT t_pkey",
    "ADD PRIMARY KEY (id, a)",
    "ALTER a TYPE bigint",
    "ALTER b TYPE varchar(40)",
    "ALTER c TYPE int USING coalesce(c, 0)::int",
    "ALTER b SET NOT NULL",
    "ALTER a SET DEFAULT 9",
    "ALTER b DROP DEFAULT",
    "SET (fillfactor = 60)",
    "VALIDATE CONSTRAINT late",
    "REPLICA IDENTITY FULL",
];

struct Pair {
    cluster: TestCluster,
    session: Session,
    wrong: String,
    compared: usize,
}

impl Pair {
    fn new() -> Self {
        let cluster = TestCluster::up(2);
        cluster.on_all_nodes(SETUP);
        let session = cluster.new_session();
        Self { cluster, session, wrong: String::new(), compared: 0 }
    }

    /// Makes both tables anew; the distributed one has so many placements of each shard.
    fn create(&mut self, replicas: u32) {
        self.session.sql(
            "DROP TABLE IF EXISTS l.t, d.t, elsewhere.t; DROP TYPE IF EXISTS public.mood; DROP DOMAIN IF EXISTS public.positive_int",
        );
        self.cluster.on_workers(&format!(
            "DROP TYPE IF EXISTS public.mood CASCADE; DROP DOMAIN IF EXISTS public.positive_int CASCADE; {TYPES}"
        ));
        self.session.sql(TYPES);
        for schema in ["l", "d"] {
            self.session.sql(&format!("SET search_path = {schema}, public; {TABLE}"));
            if schema == "d" {
                self.session.sql("SELECT master_create_distributed_table('d.t', 'id')");
                self.session
                    .sql(&format!("SELECT master_create_worker_shards('d.t', 2, {replicas})"));
            }
            self.session.sql(ROWS);
        }
    }

    /// Makes one change of both and compares.
    fn change(&mut self, form: &str) {
        let run = |session: &mut Session, schema: &str| {
            session.sql(&format!("SET search_path = {schema}, public"));
            // One statement after another, as a client would give them.
            let mut outcome = Ok(());
            for statement in statements(form) {
                outcome = outcome.and(session.try_sql(&statement).map(drop));
            }
            session.sql("ROLLBACK");
            outcome.map_err(|error| error.line())
        };
        // Types are there once only: what drops them is given to the distributed table, and then undone for the local one.
        let is_shared = form.starts_with("DROP TYPE")
            || form.starts_with("DROP DOMAIN")
            || form.contains("ALL TABLES")
            || form.starts_with("REASSIGN");
        let local = if is_shared { Ok(()) } else { run(&mut self.session, "l") };
        let distributed = run(&mut self.session, "d");
        self.compared += 1;
        let mut differences = String::new();
        if local != distributed {
            let _ = writeln!(differences, "local: {local:?}\ndistributed: {distributed:?}");
        }
        let expected = self.describe("l.t", "");
        let own = self.describe("d.t", "");
        compare(&mut differences, "the coordinator's table", &expected, &own);
        // Row security and identity are the coordinator's affair.
        for (node, name, suffix) in self.shards() {
            let mut session = self.cluster.session_on(node);
            let shard = describe(&mut session, &name, &suffix);
            compare(&mut differences, &format!("{name} on {node}"), &expected, &shard);
        }
        self.compare_rows(&mut differences);
        if !differences.is_empty() {
            let _ = writeln!(self.wrong, "==== {form}\n{differences}");
        }
    }

    fn describe(&mut self, table: &str, suffix: &str) -> Vec<String> {
        describe(&mut self.session, table, suffix)
    }

    /// The shards that are there: node, name and suffix.
    fn shards(&mut self) -> Vec<(testkit::NodeName, String, String)> {
        let placements = self.cluster.placements("d.t");
        let shards = placements.into_iter().map(|placement| {
            let suffix = format!("_{}", placement.shard);
            (placement.node, format!("d.t{suffix}"), suffix)
        });
        shards.collect()
    }

    fn compare_rows(&mut self, differences: &mut String) {
        let mut rows = |schema: &str| -> Result<Rows, String> {
            let sql = format!(
                "SELECT (SELECT string_agg(key || '=' || value, ' ' ORDER BY key) FROM jsonb_each_text(to_jsonb(t)) \
                 WHERE key NOT LIKE 'volatile%') FROM {schema}.t ORDER BY 1"
            );
            self.session.try_sql(&sql).map_err(|error| error.line())
        };
        let (local, distributed) = (rows("l"), rows("d"));
        if local != distributed {
            let _ = writeln!(differences, "rows: {local:?}\nbut     {distributed:?}");
        }
        let volatile = "SELECT column_name FROM information_schema.columns WHERE table_schema = 'd' AND column_name LIKE 'volatile%'";
        for row in self.session.sql(volatile) {
            let distinct =
                self.session.text(&format!("SELECT count(DISTINCT {}) FROM d.t", row[0]));
            if distinct != "12" {
                let _ = writeln!(differences, "{distinct} values of {}", row[0]);
            }
        }
    }
}

/// The statements of a form; a DO block has semicolons of its own.
fn statements(form: &str) -> Vec<String> {
    let mut statements: Vec<String> = Vec::new();
    for part in form.split("; ") {
        match statements.last_mut() {
            Some(last) if last.matches("$$").count() % 2 == 1 => {
                last.push_str("; ");
                last.push_str(part);
            }
            _ => statements.push(part.to_owned()),
        }
    }
    statements
}

fn describe(session: &mut Session, table: &str, suffix: &str) -> Vec<String> {
    let sql = DESCRIBE
        .replace("$1", table)
        .replace("$2", if suffix.is_empty() { "no such text" } else { suffix });
    session.sql("SET search_path = pg_catalog");
    let rows = session.try_sql(&sql).unwrap_or_else(|error| vec![vec![error.line()]]);
    rows.into_iter()
        .map(|mut row| row.remove(0).replace("d.t", "l.t").replace(" d.", " l."))
        .collect()
}

fn compare(differences: &mut String, what: &str, expected: &[String], found: &[String]) {
    for line in expected.iter().filter(|line| !found.contains(line)) {
        let _ = writeln!(differences, "{what} lacks   {line}");
    }
    for line in found.iter().filter(|line| !expected.contains(line)) {
        let _ = writeln!(differences, "{what} has     {line}");
    }
}

#[test]
fn shards_become_what_a_local_table_becomes() {
    let mut pair = Pair::new();
    for form in forms() {
        pair.create(1);
        pair.change(&form);
    }
    assert!(pair.compared >= 120, "only {} forms", pair.compared);
    assert!(pair.wrong.is_empty(), "{}", pair.wrong);
}

#[test]
fn two_changes_in_one_statement_reach_the_shards_together() {
    let mut pair = Pair::new();
    let mut number = 0;
    for (index, first) in SUBCOMMANDS.iter().enumerate() {
        for second in &SUBCOMMANDS[index + 1..] {
            // Some with two placements of each shard.
            number += 1;
            pair.create(1 + u32::from(number % 4 == 0));
            pair.change(&format!("ALTER TABLE t {first}, {second}"));
        }
    }
    assert!(pair.compared >= 150, "only {} pairs", pair.compared);
    assert!(pair.wrong.is_empty(), "{}", pair.wrong);
}
