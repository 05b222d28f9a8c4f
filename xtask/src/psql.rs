//! SQL through psql, from the cluster's own copy of PostgreSQL: what is shown is what a person would see.

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cluster::{Cluster, NodeName};

use crate::process;

/// How many rows [`Psql::copy`] sends between two reports.
const ROWS_PER_REPORT: u64 = 1000;

/// Runs SQL in one database of one node; every call is a session of its own.
#[derive(Clone, Debug)]
pub(crate) struct Psql {
    program: PathBuf,
    node: NodeName,
    port: u16,
    database: String,
}

/// What psql printed for one statement.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The result as a table, or the command's tag, and how long it took.
    pub(crate) text: String,
    /// Warnings and notices with their details, or the error.
    pub(crate) messages: String,
    /// Whether the statement succeeded.
    pub(crate) success: bool,
}

impl Psql {
    /// psql for `node`, in the database in which the cluster has the extension.
    pub(crate) fn on(cluster: &Cluster, node: NodeName) -> Self {
        Self {
            program: cluster.bin("psql"),
            node,
            port: cluster.port(node),
            database: "postgres".to_owned(),
        }
    }

    /// The same in another database.
    pub(crate) fn in_database(self, database: &str) -> Self {
        Self { database: database.to_owned(), ..self }
    }

    /// The node that is asked.
    pub(crate) fn node(&self) -> NodeName {
        self.node
    }

    /// What a person would see who types `statement` with timing on.
    pub(crate) fn ask(&self, statement: &str) -> Result<Answer> {
        const ANNOUNCEMENT: &str = "Timing is on.\n";
        let mut command = self.command();
        command.args(["-c", r"\timing on", "-c", statement]).stdin(Stdio::null());
        let Output { status, stdout, stderr } =
            command.output().with_context(|| self.cannot_run())?;
        let text = String::from_utf8_lossy(&stdout);
        Ok(Answer {
            text: text.strip_prefix(ANNOUNCEMENT).unwrap_or(&text).trim_end().to_owned(),
            messages: String::from_utf8_lossy(&stderr).trim_end().to_owned(),
            success: status.success(),
        })
    }

    /// Runs statements of which nobody needs to see anything, unless one fails.
    pub(crate) fn run(&self, statements: &[&str]) -> Result<()> {
        let mut command = self.command();
        command.arg("--quiet");
        for statement in statements {
            command.args(["-c", statement]);
        }
        process::output_of(&mut command).map(drop)
    }

    /// Copies a file of rows in COPY's text format into `table`.
    pub(crate) fn copy_file(&self, table: &str, rows: &Path) -> Result<()> {
        self.run(&[&format!("\\copy {table} FROM '{}'", rows.display())])
    }

    /// Runs the statements of a file, in one session.
    pub(crate) fn run_script(&self, script: &Path) -> Result<()> {
        let mut command = self.command();
        command.arg("--quiet").arg("--file").arg(script);
        process::output_of(&mut command).map(drop)
    }

    /// The rows of `query`, each as its values.
    pub(crate) fn rows(&self, query: &str) -> Result<Vec<Vec<String>>> {
        let mut command = self.command();
        command.args(["--no-align", "--tuples-only", "--field-separator=\t", "-c", query]);
        let text = process::output_of(&mut command)?;
        Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
    }

    /// The one value that `query` yields.
    pub(crate) fn value(&self, query: &str) -> Result<String> {
        let mut rows = self.rows(query)?;
        let value = rows.pop().and_then(|mut row| row.pop()).filter(|_| rows.is_empty());
        value.with_context(|| format!("{} did not answer with one value: {query}", self.node))
    }

    /// Sends `rows`, each a line of COPY's text format, to `table`; `report` is told now and then how many have gone.
    ///
    /// The result is how long it took.
    pub(crate) fn copy(
        &self,
        table: &str,
        mut rows: impl Iterator<Item = impl Display>,
        report: impl Fn(u64),
    ) -> Result<Duration> {
        let started = Instant::now();
        let mut child = self
            .command()
            .args(["--quiet", "-c", &format!("COPY {table} FROM STDIN")])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| self.cannot_run())?;
        let mut stdin = BufWriter::new(child.stdin.take().context("psql has no standard input")?);
        let mut sent = 0_u64;
        let written = rows
            .try_for_each(|row| {
                sent += 1;
                if sent.is_multiple_of(ROWS_PER_REPORT) {
                    report(sent);
                }
                writeln!(stdin, "{row}")
            })
            .and_then(|()| stdin.flush());
        drop(stdin);
        // Why writing failed is in psql's own words, if it has any.
        let output = child.wait_with_output().context("cannot wait for psql")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("COPY into {table} on {} failed:\n{}", self.node, said.trim());
        }
        written.with_context(|| format!("cannot send the rows of {table} to {}", self.node))?;
        Ok(started.elapsed())
    }

    /// psql that reads no start-up file and nothing of our environment that would send it elsewhere.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        for name in postgres_variables() {
            command.env_remove(name);
        }
        command
            .args(["--no-psqlrc", "--host=127.0.0.1", "--username=postgres"])
            .args(["--set=ON_ERROR_STOP=1", "--pset=pager=off"])
            .arg(format!("--port={}", self.port))
            .arg(format!("--dbname={}", self.database));
        command
    }

    fn cannot_run(&self) -> String {
        format!("cannot run {}", self.program.display())
    }
}

/// The environment variables that PostgreSQL's programs heed: `PGHOST`, `PGOPTIONS` and their like.
pub(crate) fn postgres_variables() -> impl Iterator<Item = OsString> {
    env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("PG"))
}
