//! What is measured: one statement by key, through one protocol, with one or two placements.
//!
//! The floors and aims are those of the design: shares of direct PostgreSQL's throughput on one machine with two cores,
//! 8 clients, 16 shards on 4 workers.

use std::fmt;

use serde::Serialize;

/// How many rows `accounts` has.
pub(crate) const ACCOUNTS: u32 = 100_000;

/// One statement, run over and over by every client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    /// One row with a random key into a table without an index.
    Insert,
    /// One row by primary key.
    Select,
    /// One column of one row by primary key.
    Update,
}

/// How pgbench sends statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// As text, values included.
    Simple,
    /// Prepared once, then bound and executed.
    Prepared,
}

/// How many placements every shard has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placements {
    One,
    Two,
}

/// How long a client keeps its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// For the whole run.
    Spooled,
    /// For one statement: what is measured is the time to the first row of a cold session.
    Cold,
}

/// The shares of direct PostgreSQL's throughput that a case is held to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Goal {
    /// The share that we must reach.
    pub(crate) floor: f64,
    /// The share that we want to reach.
    pub(crate) aim: f64,
}

/// One line of the result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Case {
    pub(crate) statement: Statement,
    pub(crate) protocol: Protocol,
    pub(crate) placements: Placements,
    pub(crate) shards: u16,
    pub(crate) sessions: Sessions,
    /// None for what is measured only to be compared.
    pub(crate) goal: Option<Goal>,
}

/// How many shards a table has, unless the case says otherwise.
pub(crate) const SHARDS: u16 = 16;

/// The other numbers of shards that a point SELECT is measured with: its cost must not grow with them.
pub(crate) const OTHER_SHARDS: [u16; 3] = [1, 256, 1024];

impl Case {
    const fn new(
        statement: Statement,
        protocol: Protocol,
        placements: Placements,
        floor: f64,
        aim: f64,
    ) -> Self {
        let goal = Some(Goal { floor, aim });
        Self { statement, protocol, placements, shards: SHARDS, sessions: Sessions::Spooled, goal }
    }

    /// A prepared point SELECT on a table of so many shards.
    const fn select_over(shards: u16) -> Self {
        Self {
            statement: Statement::Select,
            protocol: Protocol::Prepared,
            placements: Placements::One,
            shards,
            sessions: Sessions::Spooled,
            goal: None,
        }
    }

    /// Whether the forwarder is measured too: it has one session for each client, and knows neither shards nor placements.
    pub(crate) fn is_forwarded(self) -> bool {
        self.shards == SHARDS
            && self.placements == Placements::One
            && self.sessions == Sessions::Spooled
    }

    /// The pgbench script.
    pub(crate) fn script(self) -> String {
        let accounts = match self.shards {
            SHARDS => self.placements.accounts_table().to_owned(),
            shards => accounts_over(shards),
        };
        self.statement.script(self.placements.reviews_table(), &accounts)
    }
}

/// The table of accounts with that many shards.
pub(crate) fn accounts_over(shards: u16) -> String {
    format!("accounts_{shards}_shards")
}

/// All cases.
pub(crate) const CASES: [Case; 14] = {
    use Placements::{One, Two};
    use Protocol::{Prepared, Simple};
    use Statement::{Insert, Select, Update};
    [
        Case::new(Select, Simple, One, 0.55, 0.65),
        Case::new(Select, Prepared, One, 0.45, 0.55),
        Case::new(Insert, Simple, One, 0.55, 0.65),
        Case::new(Insert, Prepared, One, 0.55, 0.65),
        Case::new(Insert, Simple, Two, 0.30, 0.40),
        Case::new(Insert, Prepared, Two, 0.30, 0.40),
        Case::new(Update, Simple, One, 0.60, 0.75),
        Case::new(Update, Prepared, One, 0.60, 0.75),
        Case::new(Update, Simple, Two, 0.30, 0.40),
        Case::new(Update, Prepared, Two, 0.30, 0.40),
        Case::select_over(OTHER_SHARDS[0]),
        Case::select_over(OTHER_SHARDS[1]),
        Case::select_over(OTHER_SHARDS[2]),
        Case { sessions: Sessions::Cold, goal: None, ..Case::new(Select, Simple, One, 0.0, 0.0) },
    ]
};

impl fmt::Display for Case {
    /// The name of the case: `insert-prepared`, `update-simple-2-placements`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statement = match self.statement {
            Statement::Insert => "insert",
            Statement::Select => "select",
            Statement::Update => "update",
        };
        let placements = match self.placements {
            Placements::One => "",
            Placements::Two => "-2-placements",
        };
        write!(f, "{statement}-{}{placements}", self.protocol.word())?;
        match self.shards {
            SHARDS => {}
            1 => f.write_str("-1-shard")?,
            shards => write!(f, "-{shards}-shards")?,
        }
        match self.sessions {
            Sessions::Spooled => Ok(()),
            Sessions::Cold => f.write_str("-cold-session"),
        }
    }
}

impl Protocol {
    /// What pgbench's option `--protocol` calls it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Prepared => "prepared",
        }
    }
}

impl Placements {
    /// The number.
    pub(crate) fn count(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    /// The table of reviews whose shards have that many.
    pub(crate) fn reviews_table(self) -> &'static str {
        match self {
            Self::One => "customer_reviews",
            Self::Two => "customer_reviews_twice",
        }
    }

    /// The table of accounts whose shards have that many.
    pub(crate) fn accounts_table(self) -> &'static str {
        match self {
            Self::One => "accounts",
            Self::Two => "accounts_twice",
        }
    }
}

impl Statement {
    /// Whether every run waits for the disk, unless commits do not.
    pub(crate) fn is_write(self) -> bool {
        match self {
            Self::Insert | Self::Update => true,
            Self::Select => false,
        }
    }

    /// The pgbench script, on these tables.
    fn script(self, reviews: &str, accounts: &str) -> String {
        let random_account = format!("\\set aid random(1, {ACCOUNTS})\n");
        match self {
            Self::Insert => {
                format!("\\set id random(1, 1000000)\nINSERT INTO {reviews} VALUES (:id);\n")
            }
            Self::Select => {
                format!("{random_account}SELECT abalance FROM {accounts} WHERE aid = :aid;\n")
            }
            Self::Update => format!(
                "{random_account}\\set delta random(-5000, 5000)\n\
                 UPDATE {accounts} SET abalance = abalance + :delta WHERE aid = :aid;\n"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let names: HashSet<String> = CASES.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), CASES.len());
        assert!(names.contains("insert-prepared") && names.contains("update-simple-2-placements"));
    }

    #[test]
    fn every_aim_lies_between_its_floor_and_direct_postgres() {
        for case in CASES {
            let Some(Goal { floor, aim }) = case.goal else { continue };
            assert!(floor < aim && aim < 1.0, "{case}");
        }
    }

    #[test]
    fn two_placements_are_measured_for_writes_only() {
        assert!(
            CASES
                .iter()
                .all(|case| case.placements == Placements::One || case.statement.is_write())
        );
    }

    #[test]
    fn a_script_names_the_table_with_as_many_placements() {
        let twice = CASES.iter().find(|case| case.placements == Placements::Two);
        assert_eq!(
            twice.expect("there is one").script(),
            "\\set id random(1, 1000000)\nINSERT INTO customer_reviews_twice VALUES (:id);\n"
        );
        assert!(Case::select_over(256).script().contains("FROM accounts_256_shards WHERE"));
    }
}
