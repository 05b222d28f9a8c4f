//! Clients of the story: they read, write and move money, half of them by prepared statements, and write down what they were told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use testkit::postgres::types::ToSql;
use testkit::postgres::{Error, Statement};
use testkit::{Random, Session, SqlError, TestCluster};

/// Accounts; each begins with this much.
pub(crate) const ACCOUNTS: i32 = 1000;
pub(crate) const MONEY: i64 = 100;

/// Keys of the table whose shards have one placement each.
pub(crate) const ALONE: i32 = 200;

/// What a client was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Transfers, each of which has a row in `history`.
    pub(crate) transfers: u64,
    /// How often `alone` was raised for each key.
    pub(crate) raised: Vec<u64>,
    /// Errors, with what was done: the key in `alone`, if it was that.
    pub(crate) errors: Vec<(Option<i32>, SqlError)>,
}

/// What all clients share.
#[derive(Default)]
pub(crate) struct Signals {
    pub(crate) is_over: AtomicBool,
    /// How much they have done.
    pub(crate) done: AtomicU64,
}

const TRANSFER: [&str; 3] = [
    "UPDATE accounts SET money = money - 1 WHERE id = $1",
    "INSERT INTO history (id, other) VALUES ($1, $2)",
    "UPDATE accounts SET money = money + 1 WHERE id = $1",
];
const READ: &str = "SELECT money, length(name)::bigint FROM accounts JOIN kinds ON kinds.id = kind WHERE accounts.id = $1";
const TOTAL: &str = "SELECT count(*), sum(money)::bigint FROM accounts";
const RAISE: &str = "UPDATE alone SET n = n + 1 WHERE id = $1";

/// Runs statements with parameters, as prepared statements or as text.
struct Client {
    session: Session,
    is_prepared: bool,
    prepared: HashMap<String, Statement>,
}

impl Client {
    fn run(&mut self, sql: &str, values: &[i32]) -> Result<Vec<Vec<i64>>, SqlError> {
        if !self.is_prepared {
            let mut text = sql.to_owned();
            for (number, value) in values.iter().enumerate() {
                text = text.replace(&format!("${}", number + 1), &value.to_string());
            }
            let rows = self.session.try_sql(&text)?;
            let number = |text: &String| text.parse().unwrap_or(0);
            return Ok(rows.iter().map(|row| row.iter().map(number).collect()).collect());
        }
        let client = self.session.client();
        let statement = match self.prepared.get(sql) {
            Some(statement) => statement.clone(),
            None => client.prepare(sql).map_err(|error| sql_error(&error))?,
        };
        self.prepared.insert(sql.to_owned(), statement.clone());
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|it| it as _).collect();
        let rows = client.query(&statement, &values).map_err(|error| sql_error(&error))?;
        Ok(rows.iter().map(|row| (0..row.len()).map(|at| row.get(at)).collect()).collect())
    }

    fn transfer(&mut self, from: i32, to: i32) -> Result<(), SqlError> {
        let (first, second) = (from.min(to), from.max(to));
        let sign = |id| if id == from { 0 } else { 2 };
        self.session.try_sql("BEGIN")?;
        let done = self
            .run(TRANSFER[sign(first)], &[first])
            .and_then(|_| self.run(TRANSFER[1], &[from, to]))
            .and_then(|_| self.run(TRANSFER[sign(second)], &[second]));
        match done {
            Ok(_) => self.session.try_sql("COMMIT").map(drop),
            Err(error) => {
                self.session.try_sql("ROLLBACK")?;
                Err(error)
            }
        }
    }
}

fn sql_error(error: &Error) -> SqlError {
    SqlError::from(error.as_db_error().unwrap_or_else(|| panic!("a session has ended: {error:?}")))
}

/// One client, until all is over.
pub(crate) fn run(cluster: &TestCluster, number: u64, signals: &Signals) -> Told {
    let mut client = Client {
        session: cluster.new_session(),
        is_prepared: number.is_multiple_of(2),
        prepared: HashMap::new(),
    };
    let mut random = Random(number + 1);
    let mut told = Told { raised: vec![0; ALONE as usize + 1], ..Told::default() };
    let mut one_of = |limit: i32| 1 + i32::try_from(random.below(limit as u64)).unwrap_or(0);
    while !signals.is_over.load(Ordering::Relaxed) {
        let (choice, id) = (one_of(10), one_of(ACCOUNTS));
        let mut key = None;
        let outcome = match choice {
            1..=4 => client.run(READ, &[id]).map(|rows| assert_eq!(rows.len(), 1, "account {id}")),
            5..=7 => {
                let other = 1 + (id + one_of(ACCOUNTS - 1) - 1) % ACCOUNTS;
                let outcome = client.transfer(id, other);
                told.transfers += u64::from(outcome.is_ok());
                outcome
            }
            8 => client.run(TOTAL, &[]).map(|rows| {
                let all = i64::from(ACCOUNTS);
                assert_eq!(rows, [[all, all * MONEY]], "a total is wrong");
            }),
            _ => {
                let id = one_of(ALONE);
                key = Some(id);
                let outcome = client.run(RAISE, &[id]);
                told.raised[id as usize] += u64::from(outcome.is_ok());
                outcome.map(drop)
            }
        };
        match outcome {
            Ok(()) => _ = signals.done.fetch_add(1, Ordering::Relaxed),
            Err(error) => told.errors.push((key, error)),
        }
    }
    told
}
