//! PostgreSQL's isolation tests, by its own `isolationtester`.
//!
//! A specification has a setup, sessions with steps, and permutations of the steps. Another setup is put behind its own,
//! which distributes the tables. `isolationtester` asks the server whether a session waits for another; on the
//! coordinator of distributed tables that function is replaced by one that asks the workers too.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result};
use cluster::{Cluster, NodeName};

use super::compare::{Verdict, sorted};
use super::report::Played;
use super::script::Unit;
use super::source::Source;
use super::stage::{self, DATABASE, Tables};
use super::terminal::Answer;
use crate::psql;

/// How many seconds a step may wait before `isolationtester` cancels it.
const PATIENCE: &str = "20";

/// What each permutation's part of the output begins with.
const PERMUTATION: &str = "starting permutation: ";

/// Plays a specification on both sides.
pub(crate) fn play(
    cluster: &Cluster,
    source: &Source,
    tester: &Path,
    name: &str,
) -> Result<Played> {
    let specification = fs::read_to_string(source.specification(name))?;
    let expected = permutations(&output(cluster, tester, Tables::Local, &specification)?);
    let distributed = with_distribution(&specification);
    let found = permutations(&output(cluster, tester, Tables::Distributed, &distributed)?);
    let units = expected.into_iter().enumerate().map(|(number, (steps, local))| {
        let answer = found.get(number).filter(|(theirs, _)| *theirs == steps);
        let answer = answer.map(|(_, answer)| answer.clone()).unwrap_or_default();
        let verdict = compare(&local, &answer);
        let unit = Unit { line: number + 1, text: format!("{steps}\n"), statements: Vec::new() };
        (unit, local, answer, verdict)
    });
    Ok(Played { name: name.to_owned(), units: units.collect(), left_local: Vec::new() })
}

/// The specification with a second setup, before the sessions.
fn with_distribution(specification: &str) -> String {
    let is_session = |line: &&str| line.trim_start().starts_with("session");
    let before: Vec<&str> = specification.lines().take_while(|line| !is_session(line)).collect();
    let after: Vec<&str> = specification.lines().skip(before.len()).collect();
    // A teardown may stand before the sessions, behind which there is no place for a setup.
    let end = before.iter().position(|line| line.trim_start().starts_with("teardown"));
    let (setup, teardown) = before.split_at(end.unwrap_or(before.len()));
    let call = ["setup { CALL regress_runner.distribute(); }"];
    [setup, &call, teardown, &after].concat().join("\n") + "\n"
}

/// What `isolationtester` prints.
fn output(cluster: &Cluster, tester: &Path, tables: Tables, specification: &str) -> Result<String> {
    stage::prepare(cluster, tables)?;
    if tables == Tables::Distributed {
        see_waits_on_workers(cluster)?;
    }
    let port = cluster.port(NodeName::Coordinator);
    let mut command = Command::new(tester);
    for name in psql::postgres_variables() {
        command.env_remove(name);
    }
    let mut child = command
        .arg(format!("host=127.0.0.1 port={port} user=postgres dbname={DATABASE}"))
        .env("PGISOLATIONTIMEOUT", PATIENCE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {}", tester.display()))?;
    let mut stdin = child.stdin.take().context("isolationtester has no standard input")?;
    let text = specification.to_owned();
    let writer = thread::spawn(move || stdin.write_all(text.as_bytes()));
    let printed = child.wait_with_output().context("cannot wait for isolationtester")?;
    writer.join().expect("writing does not panic").context("isolationtester reads nothing")?;
    Ok(String::from_utf8_lossy(&printed.stdout).into_owned())
}

/// Replaces the function by which `isolationtester` learns that a session waits. PostgreSQL calls its own by their OIDs, whatever
/// `CREATE OR REPLACE` has made of them, so another takes the name. What a node answers at once is not taken for waiting.
fn see_waits_on_workers(cluster: &Cluster) -> Result<()> {
    let ports: Vec<String> =
        cluster.workers().into_iter().map(|node| cluster.port(node).to_string()).collect();
    let sql = format!(
        "CREATE EXTENSION dblink SCHEMA regress_runner; \
         ALTER FUNCTION pg_catalog.pg_isolation_test_session_is_blocked(integer, integer[]) \
             RENAME TO pg_isolation_test_session_is_blocked_here; \
         CREATE FUNCTION pg_catalog.pg_isolation_test_session_is_blocked(integer, integer[]) RETURNS boolean \
         LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$ \
         BEGIN \
             IF pg_blocking_pids($1) && $2 THEN RETURN true; END IF; \
             RETURN EXISTS (SELECT FROM pgs_catalog.activity WHERE pid = $1 AND waiting_for IS NOT NULL \
                 AND since < clock_timestamp() - interval '300 ms') AND EXISTS ( \
                 SELECT FROM unnest('{{{ports}}}'::int[]) AS port, LATERAL regress_runner.dblink( \
                     format('host=127.0.0.1 port=%s user=postgres dbname={DATABASE}', port), \
                     'SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = ''Lock''') AS w(waiting int) \
                 WHERE waiting > 0); \
         END $$",
        ports = ports.join(",")
    );
    let mut coordinator = stage::connect(cluster, NodeName::Coordinator)?;
    coordinator.simple_query(&sql).context("cannot make waits on workers seen").map(drop)
}

/// The permutations of an output: their steps, and what was printed.
fn permutations(output: &str) -> Vec<(String, Answer)> {
    let mut parts = Vec::new();
    for line in output.lines() {
        if let Some(steps) = line.strip_prefix(PERMUTATION) {
            parts.push((steps.to_owned(), Answer::default()));
        } else if let Some((_, answer)) = parts.last_mut() {
            answer.output.push(line.to_owned());
        }
    }
    parts
}

fn compare(local: &Answer, distributed: &Answer) -> Verdict {
    if sorted(&local.output) == sorted(&distributed.output) {
        return Verdict::Equal;
    }
    let errors = |answer: &Answer| -> Vec<String> {
        answer
            .output
            .iter()
            .filter_map(|line| Some(line.split_once("ERROR:  ")?.1.to_owned()))
            .collect()
    };
    let (expected, found) = (errors(local), errors(distributed));
    let waits =
        |answer: &Answer| answer.output.iter().filter(|line| line.contains("<waiting")).count();
    let reason = if let Some(error) = found.iter().find(|error| !expected.contains(error)) {
        format!("error {error}")
    } else if let Some(error) = expected.iter().find(|error| !found.contains(error)) {
        format!("no error {error}")
    } else if waits(local) != waits(distributed) {
        "other steps wait".to_owned()
    } else {
        "other rows or another order of steps".to_owned()
    };
    Verdict::Differs(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_distributed_behind_the_specifications_own_setup() {
        let text = "setup\n{\n CREATE TABLE t (a int);\n}\n\nteardown\n{\n DROP TABLE t;\n}\n\nsession s1\nstep a { SELECT; }";
        let found = with_distribution(text);
        let at = |part: &str| found.find(part).unwrap();
        assert!(at("CREATE TABLE") < at("CALL") && at("CALL") < at("teardown"));
    }
}
