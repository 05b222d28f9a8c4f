//! Transactions as their clients saw them, and what must not be.

use std::fmt;

/// What a transaction did, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Appended a value to a list. No value is appended twice to a list.
    Append {
        /// Of the list.
        key: u32,
        /// The value.
        value: u64,
    },
    /// Read a list.
    Read {
        /// Of the list.
        key: u32,
        /// What stood in it.
        list: Vec<u64>,
    },
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client was told that it has committed.
    Committed,
    /// The client was told that it has not.
    Aborted,
    /// The client was told nothing.
    Unknown,
}

/// A transaction as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// When it began: before the client sent anything.
    pub began: u64,
    /// When it ended: after the client was told so. No two moments of a history are equal.
    pub ended: u64,
    /// How.
    pub end: End,
    /// What it did.
    pub operations: Vec<Operation>,
}

impl Transaction {
    pub(crate) fn is_read_only(&self) -> bool {
        self.operations.iter().all(|operation| matches!(operation, Operation::Read { .. }))
    }
}

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A transaction sees whole transactions that have committed. Those that only read have one snapshot: they are single
    /// statements. (READ COMMITTED.)
    Statements,
    /// Each transaction has one snapshot. (REPEATABLE READ, snapshot isolation.)
    Snapshot,
    /// As if one after the other.
    Serializable,
}

/// What must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anomaly {
    /// A value was read that was never appended, or by a transaction that has not committed. (G1a)
    NotCommitted {
        /// Of the list.
        key: u32,
        /// The value.
        value: u64,
        /// Who has read it, by the number in the history.
        reader: usize,
    },
    /// A value was read that its transaction has followed by another, which was not read. (G1b)
    Intermediate {
        /// Of the list.
        key: u32,
        /// The value.
        value: u64,
        /// Who has read it, by the number in the history.
        reader: usize,
    },
    /// Two reads that cannot both be beginnings of one list.
    TwoOrders {
        /// Of the list.
        key: u32,
        /// Who has read them, by their numbers in the history.
        readers: [usize; 2],
    },
    /// A value stands twice in a list.
    Twice {
        /// Of the list.
        key: u32,
        /// The value.
        value: u64,
        /// Who has read it, by the number in the history.
        reader: usize,
    },
    /// A transaction did not see what it had done itself, or saw a list in two states between which it did nothing.
    NotItself {
        /// Of the list.
        key: u32,
        /// Who has read it, by the number in the history.
        reader: usize,
    },
    /// A value that was acknowledged before the reader began was not read.
    Missed {
        /// Of the list.
        key: u32,
        /// The value.
        value: u64,
        /// Who has read it, by the number in the history.
        reader: usize,
    },
    /// Transactions each of which depends on the next, by their numbers in the history.
    Cycle(Vec<(usize, Edge)>),
}

/// Why a transaction comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Edge {
    /// Its value stands before the other's.
    WriteWrite,
    /// The other has read its value.
    WriteRead,
    /// It has read a list before the other appended to it.
    ReadWrite,
    /// It had ended when the other began.
    Time,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
