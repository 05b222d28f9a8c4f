//! A client that writes by every way there is, and keeps account of what it was told.

use crate::Dice;
use std::io::Write;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use testkit::postgres::{self, SimpleQueryMessage};
use testkit::{Session, TestCluster};

/// What a client knows of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Stored,
    Deleted,
    /// By this error.
    Refused(String),
    /// The connection was lost, or the server says that nobody knows.
    Unknown(String),
}

/// A row and what its client knows of it.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) table: &'static str,
    pub(crate) id: i64,
    pub(crate) told: Told,
    /// What `v` may be, if the row is there.
    pub(crate) values: RangeInclusive<i64>,
    /// How it was written.
    pub(crate) way: &'static str,
    /// How many statements the client had run by then.
    pub(crate) statements: usize,
}

pub(crate) struct Client<'a> {
    cluster: &'a TestCluster,
    session: Session,
    pid: &'a AtomicI32,
    dice: Dice,
    next: i64,
    said: Vec<Said>,
    history: Vec<String>,
}

/// What a client has run, statement by statement, and what it knows of its rows.
pub(crate) struct Account {
    pub(crate) said: Vec<Said>,
    pub(crate) history: Vec<String>,
}

/// How a statement or a group of them ended.
type Outcome = Result<(), Told>;

impl<'a> Client<'a> {
    pub(crate) fn new(cluster: &'a TestCluster, number: usize, pid: &'a AtomicI32) -> Self {
        let session = cluster.new_session();
        let mut client = Self {
            cluster,
            session,
            pid,
            dice: Dice::new(number as u64 + 1),
            next: (number as i64 + 1) * 10_000_000,
            said: Vec::new(),
            history: Vec::new(),
        };
        client.connect();
        client
    }

    /// A new session, until one lives for long enough to tell who it is.
    fn connect(&mut self) {
        self.pid.store(0, Ordering::Relaxed);
        self.session = self.cluster.new_session();
        let pid = self.session.text("SELECT pg_backend_pid()").parse().expect("a number");
        self.pid.store(pid, Ordering::Relaxed);
    }

    pub(crate) fn write_until(mut self, is_over: &AtomicBool) -> Account {
        while !is_over.load(Ordering::Relaxed) {
            let limit = match self.dice.roll(3) {
                0 => format!("{}ms", 1 + self.dice.roll(25)),
                _ => "0".to_owned(),
            };
            // May be struck as well.
            let _ = self.run(&format!("SET statement_timeout = '{limit}'"));
            self.write();
            self.clean();
        }
        self.pid.store(0, Ordering::Relaxed);
        Account { said: self.said, history: self.history }
    }

    /// Out of whatever transaction is open, on a session that lives.
    fn clean(&mut self) {
        loop {
            let done = self.run("ROLLBACK").is_ok() && self.is_in_step();
            if self.session.client().is_closed() {
                self.connect();
            } else if done {
                return;
            }
        }
    }

    /// The server answers what it is asked, and not the statement before: it has said nothing that nobody asked for. False if
    /// it was struck.
    fn is_in_step(&mut self) -> bool {
        let number = self.history.len().to_string();
        let answer = self.session.client().simple_query(&format!("SELECT {number}"));
        let told = match answer {
            Ok(messages) => messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            }),
            Err(_) => return false,
        };
        let last = self.history.len().saturating_sub(12);
        assert_eq!(
            told.as_ref(),
            Some(&number),
            "an answer belongs to another statement, after\n{}",
            self.history[last..].join("\n")
        );
        true
    }

    fn id(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    fn table(&mut self) -> &'static str {
        ["single", "pair"][self.dice.roll(2) as usize]
    }

    fn run(&mut self, sql: &str) -> Outcome {
        let outcome =
            self.session.client().simple_query(sql).map(drop).map_err(|error| told(&error));
        self.record(sql, &outcome);
        outcome
    }

    /// Keeps account of a statement, so that the servers' logs can be read beside it.
    fn record(&mut self, what: &str, outcome: &Outcome) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let pid = self.pid.load(Ordering::Relaxed);
        self.history.push(format!(
            "{}.{:03} [{pid}] {what}: {outcome:?}",
            since.as_secs() % 86400,
            since.subsec_millis()
        ));
    }

    fn note(&mut self, table: &'static str, ids: &[i64], outcome: &Outcome, way: &'static str) {
        let told = outcome.clone().err().unwrap_or(Told::Stored);
        let statements = self.history.len();
        self.said.extend(ids.iter().map(|id| Said {
            table,
            id: *id,
            told: told.clone(),
            values: 0..=0,
            way,
            statements,
        }));
    }

    fn write(&mut self) {
        let table = self.table();
        match self.dice.roll(15) {
            0 | 1 => {
                let id = self.id();
                let done = self.run(&format!("INSERT INTO {table} VALUES ({id})"));
                self.note(table, &[id], &done, "by key");
            }
            2 => {
                let id = self.id();
                let done = self.extended(&format!("INSERT INTO {table} (id) VALUES ($1)"), id);
                self.note(table, &[id], &done, "extended protocol");
            }
            3 => {
                let ids: Vec<i64> = (0..5).map(|_| self.id()).collect();
                let rows: Vec<String> = ids.iter().map(|id| format!("({id})")).collect();
                let done = self.run(&format!("INSERT INTO {table} VALUES {}", rows.join(", ")));
                self.note(table, &ids, &done, "several rows");
            }
            4 => self.copy(table),
            5 => self.block(),
            6 => {
                let (a, b) = (self.id(), self.id());
                let done = self.run(&format!(
                    "INSERT INTO single VALUES ({a}); INSERT INTO pair VALUES ({b})"
                ));
                self.note("single", &[a], &done, "statements of one text");
                self.note("pair", &[b], &done, "statements of one text");
            }
            7 => self.procedure(),
            8 => self.change(table),
            9 => {
                let id = self.id();
                let done = self.run(&format!("INSERT INTO {table} VALUES ({id}) RETURNING id, v"));
                self.note(table, &[id], &done, "with RETURNING");
            }
            10 => {
                let ids: Vec<i64> = (0..40).map(|_| self.id()).collect();
                let (first, last) = (ids[0], ids[39]);
                let done = self.run(&format!(
                    "INSERT INTO {table} SELECT i FROM generate_series({first}, {last}) AS i"
                ));
                self.note(table, &ids, &done, "a query's rows");
            }
            11 => {
                let ids: Vec<i64> = (0..40).map(|_| self.id()).collect();
                let (first, last) = (ids[0], ids[39]);
                let done =
                    self.run(&format!("COPY {table} (id) FROM PROGRAM 'seq {first} {last}'"));
                self.note(table, &ids, &done, "COPY of a program");
            }
            12 => self.savepoints(),
            13 => {
                let (a, b) = (self.id(), self.id());
                let done = self.run(&format!("SELECT one_of_two({a}, {b})"));
                self.note("single", &[a], &undone(), "undone in a function");
                self.note("pair", &[b], &done, "function");
            }
            _ => self.delete(table),
        }
    }

    fn extended(&mut self, sql: &str, id: i64) -> Outcome {
        let client = self.session.client();
        let outcome = match client.prepare(sql) {
            Ok(statement) => {
                client.execute(&statement, &[&id]).map(drop).map_err(|error| told(&error))
            }
            Err(error) => Err(refused(&error)),
        };
        self.record(&format!("{sql} [{id}]"), &outcome);
        outcome
    }

    fn copy(&mut self, table: &'static str) {
        let ids: Vec<i64> = (0..60).map(|_| self.id()).collect();
        let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
        let in_block = self.dice.roll(2) == 0;
        if in_block && self.run("BEGIN").is_err() {
            return;
        }
        let client = self.session.client();
        let copied = match client.copy_in(&format!("COPY {table} (id) FROM STDIN")) {
            Err(error) => Err(refused(&error)),
            Ok(mut writer) => writer
                .write_all(lines.as_bytes())
                .map_err(|error| Told::Unknown(error.to_string()))
                .and_then(|()| writer.finish().map(drop).map_err(|error| told(&error))),
        };
        self.record(&format!("COPY {table} of {ids:?}"), &copied);
        // The driver sends a Sync with the statement and another behind the rows. A server that has refused the statement before
        // it met the first answers both, and the driver takes the second answer for that to its next statement.
        let is_out_of_step = copied.is_err();
        let done = match copied {
            // The driver returns before it has heard of an error behind the rows, and COMMIT of what has failed raises none.
            Ok(()) if in_block => match self.run("SELECT 1") {
                Ok(()) => self.run("COMMIT"),
                Err(Told::Unknown(why) | Told::Refused(why)) => Err(Told::Refused(why)),
                Err(told) => Err(told),
            },
            // This driver does not wait for the end of the implicit transaction, and so hears nothing of its commit.
            Ok(()) => Err(Told::Unknown("it was copied".to_owned())),
            Err(Told::Unknown(why)) if in_block => Err(Told::Refused(why)),
            Err(told) => Err(told),
        };
        self.note(table, &ids, &done, "COPY");
        if is_out_of_step {
            self.connect();
        }
    }

    fn block(&mut self) {
        let (a, b) = (self.id(), self.id());
        let begun = self
            .run("BEGIN")
            .and_then(|()| self.run(&format!("INSERT INTO single VALUES ({a})")))
            .and_then(|()| self.run(&format!("INSERT INTO pair VALUES ({b})")));
        let done = match begun {
            Ok(()) => self.run("COMMIT"),
            // Before COMMIT was sent nothing can be stored.
            Err(Told::Unknown(why) | Told::Refused(why)) => Err(Told::Refused(why)),
            Err(told) => Err(told),
        };
        self.note("single", &[a], &done, "block");
        self.note("pair", &[b], &done, "block");
    }

    /// A block with a savepoint that is released, or rolled back to.
    fn savepoints(&mut self) {
        let [a, b, c] = [self.id(), self.id(), self.id()];
        let is_released = self.dice.roll(2) == 0;
        let end = if is_released { "RELEASE s" } else { "ROLLBACK TO s" };
        let begun = self
            .run(&format!("BEGIN; INSERT INTO single VALUES ({a}); SAVEPOINT s"))
            .and_then(|()| self.run(&format!("INSERT INTO pair VALUES ({b})")))
            .and_then(|()| self.run(end))
            .and_then(|()| self.run(&format!("INSERT INTO single VALUES ({c})")));
        let done = match begun {
            Ok(()) => self.run("COMMIT"),
            // Before COMMIT was sent nothing can be stored.
            Err(Told::Unknown(why) | Told::Refused(why)) => Err(Told::Refused(why)),
            Err(told) => Err(told),
        };
        self.note("single", &[a, c], &done, "around a savepoint");
        let inner = if is_released { done } else { undone() };
        self.note("pair", &[b], &inner, "behind a savepoint");
    }

    fn procedure(&mut self) {
        let (a, b) = (self.id(), self.id());
        let done = self.run(&format!("CALL two_steps({a}, {b})"));
        let first = match &done {
            // The first step may have been committed before.
            Err(Told::Refused(why)) => Err(Told::Unknown(why.clone())),
            other => other.clone(),
        };
        self.note("pair", &[a], &first, "procedure");
        self.note("single", &[b], &done, "procedure");
    }

    /// A row, and then changes of it.
    fn change(&mut self, table: &'static str) {
        let id = self.id();
        let done = self.run(&format!("INSERT INTO {table} VALUES ({id})"));
        self.note(table, &[id], &done, "by key");
        if done.is_err() {
            return;
        }
        let (mut least, mut most) = (0, 0);
        for _ in 0..4 {
            match self.run(&format!("UPDATE {table} SET v = v + 1 WHERE id = {id}")) {
                Ok(()) => (least, most) = (least + 1, most + 1),
                Err(Told::Unknown(_)) => {
                    most += 1;
                    break;
                }
                Err(_) => {}
            }
        }
        if let Some(said) = self.said.last_mut() {
            (said.values, said.way) = (least..=most, "changed");
        }
    }

    fn delete(&mut self, table: &'static str) {
        let id = self.id();
        let done = self.run(&format!("INSERT INTO {table} VALUES ({id})"));
        self.note(table, &[id], &done, "by key");
        if done.is_ok() {
            let told = match self.run(&format!("DELETE FROM {table} WHERE id = {id}")) {
                Ok(()) => Told::Deleted,
                Err(Told::Unknown(why)) => Told::Unknown(why),
                Err(_) => Told::Stored,
            };
            if let Some(said) = self.said.last_mut() {
                (said.told, said.way) = (told, "deleted");
            }
        }
    }
}

/// What is rolled back by itself is not stored, whatever becomes of the rest.
fn undone() -> Outcome {
    Err(Told::Refused("it was rolled back".to_owned()))
}

fn told(error: &postgres::Error) -> Told {
    match error.as_db_error() {
        Some(error) if ["08007", "57P01"].contains(&error.code().code()) => {
            Told::Unknown(error.to_string())
        }
        Some(error) => Told::Refused(format!("{}: {error}", error.code().code())),
        None => Told::Unknown(error.to_string()),
    }
}

/// The error of what stores nothing.
fn refused(error: &postgres::Error) -> Told {
    Told::Refused(error.to_string())
}
