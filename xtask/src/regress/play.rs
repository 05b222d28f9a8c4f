//! A file, played from its first unit to its last.
//!
//! Between the units the runner does what makes tables distributed while the file knows nothing of it: a table is
//! distributed when rows are first asked of it, and made local again before its definition changes, since the extension
//! refuses such changes. What is not a table, such as types and functions, is made on the workers as well.

use std::collections::BTreeSet;

use anyhow::Result;
use cluster::Cluster;
use cluster::postgres::Client;

use super::compare;
use super::kind;
use super::script::Unit;
use super::source::Source;
use super::stage::{self, DATABASE, Tables};
use super::terminal::{Answer, Ending, Terminal};

/// A column, as `table column`, that held NULLs.
pub(crate) type Nullable = BTreeSet<String>;

/// Lets the roles of the file log in.
const LOGIN_FOR_ALL: &str = "DO $$ DECLARE r record; BEGIN \
    FOR r IN SELECT rolname FROM pg_roles WHERE rolname ~ '^regress' AND NOT rolcanlogin \
    LOOP EXECUTE format('ALTER ROLE %I LOGIN', r.rolname); END LOOP; END $$";

/// A file being played.
pub(crate) struct Player<'a> {
    cluster: &'a Cluster,
    source: &'a Source,
    tables: Tables,
    terminal: Terminal,
    workers: Vec<Client>,
    /// Whether a table may be there that has not been distributed.
    has_new_tables: bool,
    /// The columns that have been seen to hold NULLs.
    pub(crate) nullable: Nullable,
}

impl<'a> Player<'a> {
    /// A player in a fresh database. `nullable` are columns that cannot be distribution columns.
    pub(crate) fn new(
        cluster: &'a Cluster,
        source: &'a Source,
        tables: Tables,
        nullable: Nullable,
    ) -> Result<Self> {
        stage::prepare(cluster, tables)?;
        let mut workers = Vec::new();
        if tables == Tables::Distributed {
            let mut coordinator = stage::connect(cluster, cluster::NodeName::Coordinator)?;
            for (table, column) in nullable.iter().filter_map(|column| column.split_once(' ')) {
                let sql =
                    "INSERT INTO regress_runner.nullable VALUES ($1::text::name, $2::text::name)";
                coordinator.execute(sql, &[&table, &column])?;
            }
            let nodes = cluster.workers().into_iter();
            workers = nodes.map(|node| stage::connect(cluster, node)).collect::<Result<_>>()?;
        }
        let terminal = Terminal::open(cluster, DATABASE, source)?;
        Ok(Self { cluster, source, tables, terminal, workers, has_new_tables: false, nullable })
    }

    /// Plays all units.
    pub(crate) fn play(&mut self, units: &[Unit]) -> Result<Vec<Answer>> {
        units.iter().map(|unit| self.unit(unit)).collect()
    }

    /// The tables that have stayed local, each with the reason.
    pub(crate) fn left_local(&self) -> Result<Vec<(String, String)>> {
        let mut coordinator = stage::connect(self.cluster, cluster::NodeName::Coordinator)?;
        let sql = "SELECT name::text, reason FROM regress_runner.left_local ORDER BY 1";
        let rows = coordinator.query(sql, &[])?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    fn unit(&mut self, unit: &Unit) -> Result<Answer> {
        let kinds: Vec<_> = unit.statements.iter().map(|statement| kind::of(statement)).collect();
        if self.tables == Tables::Distributed {
            if kinds.iter().any(|kind| kind.defines) {
                self.helper(&format!("CALL regress_runner.localize({});", quoted(unit)))?;
                self.has_new_tables = true;
            } else if kinds.iter().any(|kind| kind.uses_rows) && self.has_new_tables {
                self.helper("CALL regress_runner.distribute();")?;
                self.has_new_tables = false;
            }
        }
        let answer = self.run(&unit.text)?;
        self.has_new_tables |= kinds.iter().any(|kind| kind.makes_tables);
        match self.tables {
            Tables::Local if kinds.iter().any(|kind| kind.uses_rows) => {
                let found = self.helper(&format!(
                    "SELECT '@' || c FROM regress_runner.nulls_in({}) AS c;",
                    quoted(unit)
                ))?;
                let columns = found.output.iter().filter_map(|line| line.trim().strip_prefix('@'));
                self.nullable.extend(columns.map(str::to_owned));
            }
            Tables::Distributed if compare::errors(&answer.messages).is_empty() => {
                for (statement, kind) in unit.statements.iter().zip(&kinds) {
                    if kind.concerns_workers {
                        self.on_workers(statement);
                    }
                }
            }
            _ => {}
        }
        Ok(answer)
    }

    /// Runs what is not part of the file. That it fails in an aborted transaction is no matter.
    fn helper(&mut self, text: &str) -> Result<Answer> {
        self.run(text)
    }

    /// Runs a text; a new session takes the place of one that has been lost.
    fn run(&mut self, text: &str) -> Result<Answer> {
        let cluster = self.cluster;
        let answer = self.terminal.run(text, || {
            // If this fails, no answer comes, and the session counts as lost.
            let _ = stage::cancel_all(cluster);
        });
        if answer.ending == Ending::Lost {
            self.terminal = Terminal::open(cluster, DATABASE, self.source)?;
        }
        Ok(answer)
    }

    /// Repeats a statement on the workers. What fails there shows when something needs it.
    fn on_workers(&mut self, statement: &str) {
        for worker in &mut self.workers {
            let _ = worker.simple_query(statement);
        }
        if kind::makes_role(statement) {
            // Sessions to the workers are those of the file's roles, which need not be able to log in here.
            for node in self.cluster.workers() {
                let worker = stage::connect(self.cluster, node);
                let _ = worker.map(|mut worker| worker.simple_query(LOGIN_FOR_ALL));
            }
        }
    }
}

/// A unit's statements as a literal.
fn quoted(unit: &Unit) -> String {
    format!("$regress_runner${}$regress_runner$", unit.statements.join(";\n"))
}
