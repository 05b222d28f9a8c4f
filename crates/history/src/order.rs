//! In which order values came into their lists, and what single reads show.

use crate::transaction::{Anomaly, End, Operation, Transaction};
use std::collections::{HashMap, HashSet};

/// A value's list, and the transaction that has appended it.
type Writers = HashMap<(u32, u64), usize>;

/// The order of each list.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// The longest list that was read of each key.
    pub(crate) lists: HashMap<u32, Vec<u64>>,
    /// Who has appended what.
    pub(crate) writers: Writers,
    /// Who has committed appends that nobody has read: they come behind all others, in no known order.
    pub(crate) unread: HashMap<u32, Vec<usize>>,
}

impl Orders {
    /// Finds the orders, and what in the reads cannot be.
    pub(crate) fn of(history: &[Transaction]) -> (Self, Vec<Anomaly>) {
        let mut found = Vec::new();
        let writers = writers(history);
        let mut lists: HashMap<u32, (usize, Vec<u64>)> = HashMap::new();
        for (reader, transaction) in history.iter().enumerate() {
            if transaction.end == End::Aborted {
                continue;
            }
            for (key, list) in outer_reads(transaction) {
                let entry = lists.entry(key).or_insert_with(|| (reader, Vec::new()));
                let common = entry.1.len().min(list.len());
                if entry.1[..common] != list[..common] {
                    found.push(Anomaly::TwoOrders { key, readers: [entry.0, reader] });
                } else if list.len() > entry.1.len() {
                    *entry = (reader, list);
                }
            }
            found.extend(not_itself(transaction, reader));
        }
        let lists: HashMap<u32, Vec<u64>> =
            lists.into_iter().map(|(key, (_, list))| (key, list)).collect();
        let mut unread: HashMap<u32, Vec<usize>> = HashMap::new();
        for (&(key, value), &writer) in &writers {
            let is_read = lists.get(&key).is_some_and(|list| list.contains(&value));
            if history[writer].end == End::Committed && !is_read {
                unread.entry(key).or_default().push(writer);
            }
        }
        let orders = Self { lists, writers, unread };
        for (reader, transaction) in history.iter().enumerate() {
            if transaction.end != End::Aborted {
                found.extend(orders.wrong_reads(history, reader));
            }
        }
        (orders, found)
    }

    /// Values that no committed transaction has left as the last ones of the lists that this transaction has read.
    fn wrong_reads(&self, history: &[Transaction], reader: usize) -> Vec<Anomaly> {
        let mut found = Vec::new();
        for (key, list) in outer_reads(&history[reader]) {
            let mut seen = HashSet::new();
            for value in &list {
                if !seen.insert(*value) {
                    found.push(Anomaly::Twice { key, value: *value, reader });
                }
                match self.writers.get(&(key, *value)) {
                    Some(writer) if history[*writer].end != End::Aborted => {}
                    _ => found.push(Anomaly::NotCommitted { key, value: *value, reader }),
                }
            }
            let last =
                list.last().and_then(|value| Some((value, self.writers.get(&(key, *value))?)));
            let Some((value, writer)) = last.filter(|(_, writer)| **writer != reader) else {
                continue;
            };
            let of_writer = appended(&history[*writer], key);
            if of_writer.last() != Some(value) {
                found.push(Anomaly::Intermediate { key, value: *value, reader });
            }
        }
        found
    }

    /// Values that were acknowledged before a transaction began, and that it did not read.
    pub(crate) fn missed(&self, history: &[Transaction]) -> Vec<Anomaly> {
        let places: HashMap<(u32, u64), usize> = self
            .lists
            .iter()
            .flat_map(|(key, list)| {
                list.iter().enumerate().map(|(place, value)| ((*key, *value), place))
            })
            .collect();
        // Of each list, by the time of the acknowledgement: the value that stands last of all that were acknowledged till then.
        let mut by_key: HashMap<u32, Vec<(u64, usize, u64)>> = HashMap::new();
        for (&(key, value), &writer) in &self.writers {
            if history[writer].end == End::Committed {
                let place = places.get(&(key, value)).copied().unwrap_or(usize::MAX);
                by_key.entry(key).or_default().push((history[writer].ended, place, value));
            }
        }
        for acknowledged in by_key.values_mut() {
            acknowledged.sort_unstable();
            for at in 1..acknowledged.len() {
                if acknowledged[at - 1].1 > acknowledged[at].1 {
                    (acknowledged[at].1, acknowledged[at].2) =
                        (acknowledged[at - 1].1, acknowledged[at - 1].2);
                }
            }
        }
        let mut found = Vec::new();
        for (reader, transaction) in history.iter().enumerate() {
            if transaction.end == End::Aborted {
                continue;
            }
            for (key, list) in outer_reads(transaction) {
                let Some(acknowledged) = by_key.get(&key) else { continue };
                let count = acknowledged.partition_point(|(ended, ..)| *ended < transaction.began);
                if let Some((_, place, value)) = count.checked_sub(1).map(|last| acknowledged[last])
                    && place >= list.len()
                {
                    found.push(Anomaly::Missed { key, value, reader });
                }
            }
        }
        found
    }
}

fn writers(history: &[Transaction]) -> Writers {
    let mut writers = Writers::new();
    for (writer, transaction) in history.iter().enumerate() {
        for operation in &transaction.operations {
            if let Operation::Append { key, value } = operation {
                writers.insert((*key, *value), writer);
            }
        }
    }
    writers
}

/// What a transaction has appended to a list, in order.
fn appended(transaction: &Transaction, wanted: u32) -> Vec<u64> {
    let values = transaction.operations.iter().filter_map(|operation| match operation {
        Operation::Append { key, value } if *key == wanted => Some(*value),
        _ => None,
    });
    values.collect()
}

/// The lists that a transaction has read, without what it had appended itself.
pub(crate) fn outer_reads(transaction: &Transaction) -> Vec<(u32, Vec<u64>)> {
    let mut own: HashMap<u32, usize> = HashMap::new();
    let mut reads = Vec::new();
    for operation in &transaction.operations {
        match operation {
            Operation::Append { key, .. } => *own.entry(*key).or_default() += 1,
            Operation::Read { key, list } => {
                let own = own.get(key).copied().unwrap_or(0);
                reads.push((*key, list[..list.len().saturating_sub(own)].to_vec()));
            }
        }
    }
    reads
}

/// Reads that do not end with what the transaction had appended.
fn not_itself(transaction: &Transaction, reader: usize) -> Vec<Anomaly> {
    let mut own: HashMap<u32, Vec<u64>> = HashMap::new();
    let mut found = Vec::new();
    for operation in &transaction.operations {
        match operation {
            Operation::Append { key, value } => own.entry(*key).or_default().push(*value),
            Operation::Read { key, list } => {
                if own.get(key).is_some_and(|own| !list.ends_with(own)) {
                    found.push(Anomaly::NotItself { key: *key, reader });
                }
            }
        }
    }
    found
}

/// Transactions that have read a list in two states, which one snapshot does not have.
pub(crate) fn changed_under_reader(history: &[Transaction]) -> Vec<Anomaly> {
    let mut found = Vec::new();
    for (reader, transaction) in history.iter().enumerate() {
        let mut first: HashMap<u32, Vec<u64>> = HashMap::new();
        if transaction.end == End::Aborted {
            continue;
        }
        for (key, list) in outer_reads(transaction) {
            if *first.entry(key).or_insert_with(|| list.clone()) != list {
                found.push(Anomaly::NotItself { key, reader });
            }
        }
    }
    found
}
