//! Reads made up from seeds: the same rows on distributed tables as on local ones of the same content.
//!
//! The tables are in `tables.sql`, several pairs of them cut alike. `generator.rs` makes a SELECT of a number; the first
//! 1,500 numbers are always run, and so are `above.sql`, `correlated.sql` and `once_wrong.sql`, which keeps what was once answered wrongly. To hunt for
//! more: `PGSHARD_FUZZ=20000 PGSHARD_FUZZ_FROM=5000 cargo test --release -p testkit --test reads hunt`.

/// Numbers that look random.
mod random;

/// What the generator knows of the tables.
mod schema;

/// SELECTs.
mod generator;

/// FROM of these statements.
mod from_list;

/// Their groups and aggregates.
mod grouping;

/// Their sub-queries.
mod nested_queries;

/// Expressions.
mod expression;

/// Statistics that are kept fresh unasked.
mod fresh;

/// A small side and what the workers find for it.
mod matched;

/// Answers, and whether two are the same.
mod answer;

/// ANALYZE and VACUUM.
mod statistics;

/// Tables that are whole on every worker.
mod reference;

/// Sub-queries that are computed for each row of another.
mod sub_queries;

/// ORDER BY.
mod sorted;

/// What is too much, and samples.
mod limits;

/// Aggregates of users.
mod own_aggregates;

/// Snapshots of nodes.
mod snapshots;

/// Which shards are asked.
mod pruned;

/// Plans.
mod plans;

/// TPC-H.
mod tpch;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use testkit::postgres::{Config, SimpleQueryMessage};
use testkit::{NodeName, Rows, Session, SqlError, TestCluster, wait_until};

use crate::answer::{Answer, is_same};
use crate::generator::Statement;
use crate::random::Random;
use crate::schema::{LOCAL, TABLES, TYPES, Type, VIEWS};

const ROWS: &str = include_str!("tables.sql");
const ONCE_WRONG: &str = include_str!("once_wrong.sql");
const ABOVE: &str = include_str!("above.sql");
const CORRELATED: &str = include_str!("correlated.sql");
const ERRORS: &str = include_str!("errors.sql");

/// How many made-up statements are always run.
const USUAL: u64 = 1500;

/// How many others are run if nobody says how many.
const SHORT_HUNT: u64 = 100;

/// The SQLSTATE of a statement that ran into its timeout.
const QUERY_CANCELED: &str = "57014";

/// The SQLSTATE that stands for a server that hung up, and what it says when another session has crashed.
const LOST: &str = "LOST!";
const CRASH_SHUTDOWN: &str = "57P02";

/// How many sessions on each side run them.
const THREADS: usize = 3;

/// The statements of a file, without its remarks; `[int8 39] SELECT $1` has a parameter.
fn statements(file: &str) -> Vec<Statement> {
    let lines: Vec<&str> = file.lines().filter(|line| !line.starts_with("--")).collect();
    let text = lines.join("\n") + "\n";
    let parts = text.split(";\n").map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (list, sql) = match part.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
                Some((list, sql)) => (list, sql),
                None => ("", part),
            };
            let parameters = list.split(", ").filter_map(|one| one.split_once(' '));
            let parameters = parameters.map(|(name, value)| {
                let of = Type::ALL.into_iter().find(|of| of.name() == name);
                (of.expect("a type of the generator"), value.to_owned())
            });
            Statement { sql: sql.to_owned(), parameters: parameters.collect(), ordered: false }
        })
        .collect()
}

/// A cluster with the tables in the schemas `plain` and `sharded`.
fn cluster_with_tables() -> TestCluster {
    let cluster = TestCluster::up(4);
    cluster.on_all_nodes(TYPES);
    cluster.on_workers("CREATE EXTENSION IF NOT EXISTS pg_shard");
    cluster.sql(LOCAL);
    let (definitions, rows) =
        ROWS.split_once("INSERT INTO").expect("tables come before their rows");
    let secured = "GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA {} TO reader; ALTER TABLE customers ENABLE ROW LEVEL SECURITY; \
                   CREATE POLICY most ON customers TO reader USING (grp IS DISTINCT FROM 3);";
    cluster.sql(&format!(
        "SET search_path = plain, public; {definitions}{VIEWS}{}INSERT INTO{rows}",
        secured.replace("{}", "plain")
    ));
    cluster.sql(&format!(
        "SET search_path = sharded, public; {definitions}{VIEWS}{}",
        secured.replace("{}", "sharded")
    ));
    for table in &TABLES {
        if let Some((shards, copies)) = table.shards {
            cluster.distribute(
                &format!("sharded.{}", table.name),
                table.columns[0].0.trim_matches('"'),
                shards,
                copies,
            );
        }
        cluster.sql(&format!("INSERT INTO sharded.{0} SELECT * FROM plain.{0}", table.name));
    }
    cluster.sql("ANALYZE");
    cluster
}

/// A statement as both sides take it, and how.
enum Way {
    AsItStands,
    Prepared,
    Cursor,
}

/// The sessions that answer.
struct Sides {
    plain: Session,
    sharded: Session,
}

impl Sides {
    fn of(cluster: &TestCluster, role: &str) -> Self {
        let mut config: Config = cluster
            .conninfo(NodeName::Coordinator)
            .parse()
            .expect("a cluster knows how to reach its nodes");
        config.user(role);
        let session = |schema: &str| {
            // After a crash the server takes a moment.
            let mut found = None;
            wait_until("the coordinator accepts sessions", || {
                found = Session::try_open(&config).ok();
                found.is_some()
            });
            let mut session = found.expect("it was waited for");
            session.sql(&format!("SET search_path = {schema}, public; SET statement_timeout = '5s'; SET timezone = 'UTC'"));
            session
        };
        Self { plain: session("plain"), sharded: session("sharded") }
    }

    /// What is wrong with the answer to a statement, if anything; and whether the statement is one that fails.
    fn compare(&mut self, statement: &Statement, seed: u64) -> Verdict {
        let mut random = Random::new(!testkit::seed(seed));
        let way = match random.below(8) {
            0 if statement.parameters.is_empty() && !statement.sql.contains(" FOR ") => Way::Cursor,
            1 | 2 => Way::Prepared,
            _ if !statement.parameters.is_empty() => Way::Prepared,
            _ => Way::AsItStands,
        };
        let expected = run(&mut self.plain, statement, &way);
        let settings = random_settings(&mut random);
        if !settings.is_empty() {
            let _ = ask(
                &mut self.sharded,
                &settings.iter().fold(String::new(), |all, (name, value)| {
                    format!("{all}SET {name} = {value};")
                }),
            );
        }
        let found = run(&mut self.sharded, statement, &way);
        if !settings.is_empty() {
            let _ = ask(
                &mut self.sharded,
                &settings
                    .iter()
                    .fold(String::new(), |all, (name, _)| format!("{all}RESET {name};")),
            );
        }
        match (expected, found) {
            (Answer::Error(error), _) | (_, Answer::Error(error))
                if [LOST, CRASH_SHUTDOWN].contains(&error.sqlstate.as_str()) =>
            {
                Verdict::Crash
            }
            (Answer::Error(error), _) | (_, Answer::Error(error))
                if error.sqlstate == QUERY_CANCELED =>
            {
                Verdict::TooSlow
            }
            (Answer::Error(expected), Answer::Error(found))
                if expected.sqlstate == found.sqlstate =>
            {
                Verdict::SameError(expected.line())
            }
            (expected, found) if is_same(&expected, &found, statement.ordered) => Verdict::SameRows,
            (expected, found) => {
                Verdict::Wrong(answer::difference(&expected, &found, statement.ordered), settings)
            }
        }
    }
}

enum Verdict {
    SameRows,
    SameError(String),
    TooSlow,
    Crash,
    Wrong(String, Vec<(&'static str, &'static str)>),
}

impl Verdict {
    /// The verdict for a person.
    fn text(&self) -> String {
        match self {
            Verdict::SameRows => "the same rows".to_owned(),
            Verdict::SameError(error) => format!("the same error: {error}"),
            Verdict::TooSlow => "too slow".to_owned(),
            Verdict::Crash => "the server crashed".to_owned(),
            Verdict::Wrong(difference, settings) => format!("with {settings:?}: {difference}"),
        }
    }
}

/// Settings that lead to other plans and to no other rows.
fn random_settings(random: &mut Random) -> Vec<(&'static str, &'static str)> {
    let all = [
        ("enable_hashjoin", "off"),
        ("enable_nestloop", "off"),
        ("enable_mergejoin", "off"),
        ("enable_hashagg", "off"),
        ("enable_sort", "off"),
        ("enable_material", "off"),
        ("enable_memoize", "off"),
        ("work_mem", "'64kB'"),
        ("join_collapse_limit", "1"),
        ("geqo_threshold", "2"),
        ("pg_shard.enable_pushdown", "off"),
    ];
    if random.chance(60) {
        return Vec::new();
    }
    all.into_iter().filter(|_| random.chance(25)).collect()
}

fn run(session: &mut Session, statement: &Statement, way: &Way) -> Answer {
    let outcome = match way {
        Way::AsItStands => ask(session, &statement.sql),
        Way::Prepared => {
            let types: Vec<&str> = statement.parameters.iter().map(|(of, _)| of.name()).collect();
            let values: Vec<&str> =
                statement.parameters.iter().map(|(_, value)| value.as_str()).collect();
            let list = |of: &[&str]| {
                if of.is_empty() { String::new() } else { format!("({})", of.join(", ")) }
            };
            let generic =
                if statement.sql.len().is_multiple_of(2) { "force_generic_plan" } else { "auto" };
            let prepare = format!(
                "SET plan_cache_mode = {generic}; PREPARE it{} AS {}",
                list(&types),
                statement.sql
            );
            ask(session, &prepare).and_then(|_| {
                let once = format!("EXECUTE it{}", list(&values));
                let rows = ask(session, &once).and_then(|_| ask(session, &once));
                ask(session, "DEALLOCATE it").and(rows)
            })
        }
        Way::Cursor => {
            let declare = format!("BEGIN; DECLARE it NO SCROLL CURSOR FOR {}", statement.sql);
            let rows = ask(session, &declare).and_then(|_| {
                let mut rows = ask(session, "FETCH 3 FROM it")?;
                rows.extend(ask(session, "FETCH ALL FROM it")?);
                Ok(rows)
            });
            ask(session, "ROLLBACK").and(rows)
        }
    };
    match outcome {
        Ok(rows) => Answer::Rows(rows),
        Err(error) => Answer::Error(error),
    }
}

/// The rows of a statement; that the server hung up is an error like others.
fn ask(session: &mut Session, sql: &str) -> Result<Rows, SqlError> {
    if session.client().is_closed() {
        return Err(lost());
    }
    let outcome = session.client().simple_query(sql);
    match outcome {
        Ok(messages) => Ok(messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(
                    (0..row.len()).map(|at| row.get(at).unwrap_or("NULL").to_owned()).collect(),
                ),
                _ => None,
            })
            .collect()),
        Err(error) => Err(error.as_db_error().map_or_else(lost, SqlError::from)),
    }
}

fn lost() -> SqlError {
    let text = String::new;
    SqlError {
        sqlstate: LOST.to_owned(),
        message: "the server hung up".to_owned(),
        detail: text(),
        hint: text(),
        schema: text(),
        column: text(),
        datatype: text(),
        constraint: text(),
        table: text(),
        context: text(),
    }
}

/// Runs statements of many seeds; what is wrong is in the result.
fn run_seeds(cluster: &TestCluster, seeds: Range<u64>) -> (String, BTreeMap<&'static str, u64>) {
    let next = AtomicU64::new(seeds.start);
    let mut wrong = String::new();
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    std::thread::scope(|scope| {
        let work = || {
            run_some_seeds(cluster, || {
                Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < seeds.end)
            })
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let (its_wrong, its_counts) = thread.join().expect("what may fail is in the result");
            wrong += &its_wrong;
            its_counts
                .into_iter()
                .for_each(|(kind, many)| *counts.entry(kind).or_default() += many);
        }
    });
    (wrong, counts)
}

/// Runs the statements of the seeds that `next` gives.
fn run_some_seeds(
    cluster: &TestCluster,
    next: impl Fn() -> Option<u64>,
) -> (String, BTreeMap<&'static str, u64>) {
    let mut superuser = Sides::of(cluster, "postgres");
    let mut reader = Sides::of(cluster, "reader");
    let mut wrong = String::new();
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    let is_told = std::env::var_os("PGSHARD_FUZZ_ERRORS").is_some();
    while let Some(seed) = next() {
        let statement = generator::statement(seed);
        let sides = if seed % 6 == 5 { &mut reader } else { &mut superuser };
        let kind = match sides.compare(&statement, seed) {
            Verdict::SameRows => "the same rows",
            Verdict::SameError(error) => {
                if is_told {
                    eprintln!("{seed}: {error}\n    {}", statement.sql);
                }
                "the same error"
            }
            Verdict::Crash => {
                *sides = Sides::of(cluster, if seed % 6 == 5 { "reader" } else { "postgres" });
                let text = format!(
                    "seed {seed}: the server crashed, or another session's: {}\n",
                    statement.sql
                );
                wrong.write_str(&text).expect("a string takes all text");
                "a crash"
            }
            Verdict::TooSlow => {
                if is_told {
                    eprintln!("{seed}: too slow\n    {}", statement.sql);
                }
                "too slow"
            }
            Verdict::Wrong(difference, settings) => {
                let parameters: Vec<&str> =
                    statement.parameters.iter().map(|(_, value)| value.as_str()).collect();
                let text = format!(
                    "seed {seed}: {}\n    parameters {parameters:?}, settings {settings:?}\n    {difference}\n",
                    statement.sql
                );
                wrong.write_str(&text).expect("a string takes all text");
                "wrong"
            }
        };
        *counts.entry(kind).or_default() += 1;
    }
    (wrong, counts)
}

#[test]
fn reads_made_up_from_seeds_yield_the_rows_that_they_yield_on_local_tables() {
    let cluster = cluster_with_tables();
    let (wrong, counts) = run_seeds(&cluster, 0..USUAL);
    assert!(wrong.is_empty(), "different answers:\n{wrong}");
    let same = counts.get("the same rows").copied().unwrap_or_default();
    assert!(same * 100 >= USUAL * 98, "too few statements have an answer in time: {counts:?}");
}

#[test]
fn what_was_once_answered_wrongly_is_answered_as_on_local_tables() {
    same_rows(ONCE_WRONG);
}

#[test]
fn windows_groups_and_distinct_rows_of_all_kinds_are_those_of_local_tables() {
    same_rows(ABOVE);
}

#[test]
fn correlated_sub_queries_of_all_kinds_yield_what_they_yield_on_local_tables() {
    same_rows(CORRELATED);
}

/// Each statement of a file, in several ways.
fn same_rows(file: &str) {
    same_rows_on(&cluster_with_tables(), file);
}

fn same_rows_on(cluster: &TestCluster, file: &str) {
    let mut sides = Sides::of(cluster, "postgres");
    let mut wrong = String::new();
    let has_icu = cluster.has_icu();
    let is_known = |statement: &Statement| has_icu || !statement.sql.contains("x-icu");
    for statement in statements(file).into_iter().filter(is_known) {
        for seed in 0..6 {
            let verdict = sides.compare(&statement, seed);
            if !matches!(verdict, Verdict::SameRows) {
                writeln!(wrong, "{}\n    {}", statement.sql, verdict.text())
                    .expect("a string takes all text");
            }
        }
    }
    assert!(wrong.is_empty(), "different answers:\n{wrong}");
}

#[test]
fn what_fails_on_local_tables_fails_with_the_same_sqlstate() {
    let cluster = cluster_with_tables();
    let mut sides = Sides::of(&cluster, "postgres");
    let mut wrong = String::new();
    let all = statements(ERRORS);
    assert!(all.len() >= 50, "statements got lost");
    for statement in all {
        for seed in 0..4 {
            let verdict = sides.compare(&statement, seed);
            if !matches!(verdict, Verdict::SameError(_)) {
                writeln!(wrong, "{}\n    {}", statement.sql, verdict.text())
                    .expect("a string takes all text");
            }
        }
    }
    assert!(wrong.is_empty(), "different answers:\n{wrong}");
}

#[test]
fn a_hunt_among_other_seeds_as_long_as_the_environment_says_finds_nothing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let many = number("PGSHARD_FUZZ").unwrap_or(SHORT_HUNT);
    let from = number("PGSHARD_FUZZ_FROM").unwrap_or(USUAL);
    let cluster = cluster_with_tables();
    let (wrong, counts) = run_seeds(&cluster, from..from + many);
    eprintln!("{counts:?}");
    assert!(wrong.is_empty(), "different answers:\n{wrong}");
}
