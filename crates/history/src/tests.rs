//! Small histories, each with the anomaly it is known by.

use crate::{Anomaly, Edge, End, Level, Operation, Transaction, check};
use proptest::prelude::*;
use std::collections::HashMap;

/// `a1` appends 1 to list `a`; `a:12` reads 1 and 2 of it; `!` at the front says that it has aborted, `?` that nobody knows.
fn transaction(began: u64, ended: u64, text: &str) -> Transaction {
    let (end, text) = match text.as_bytes() {
        [b'!', ..] => (End::Aborted, &text[1..]),
        [b'?', ..] => (End::Unknown, &text[1..]),
        _ => (End::Committed, text),
    };
    let digit = |letter: char| u64::from(letter.to_digit(10).expect("values are digits"));
    let operations = text.split_whitespace().map(|word| {
        let (key, rest) = word.split_at(1);
        let key = u32::from(key.as_bytes()[0]);
        match rest.strip_prefix(':') {
            Some(list) => Operation::Read { key, list: list.chars().map(digit).collect() },
            None => Operation::Append { key, value: digit(rest.chars().next().expect("a value")) },
        }
    });
    Transaction { began, ended, end, operations: operations.collect() }
}

/// All of them at the same time.
fn together(texts: &[&str]) -> Vec<Transaction> {
    let count = texts.len() as u64;
    (0..).zip(texts).map(|(number, text)| transaction(number, count + number, text)).collect()
}

/// One after the other.
fn in_turn(texts: &[&str]) -> Vec<Transaction> {
    (0..).zip(texts).map(|(number, text)| transaction(2 * number, 2 * number + 1, text)).collect()
}

fn edges(history: &[Transaction], level: Level) -> Vec<Edge> {
    match &check(history, level)[..] {
        [Anomaly::Cycle(cycle)] => cycle.iter().map(|(_, edge)| *edge).collect(),
        other => panic!("a cycle is expected: {other:?}"),
    }
}

const ALL: [Level; 3] = [Level::Statements, Level::Snapshot, Level::Serializable];

#[test]
fn transactions_in_turn_are_possible() {
    let history = in_turn(&["a1 b1", "a:1 a2 a:12", "b:1 b2", "a:12 b:12"]);
    for level in ALL {
        assert_eq!(check(&history, level), []);
    }
}

#[test]
fn half_a_transaction_is_seen() {
    // The torn read: one list with the value, the other without it.
    let history = together(&["a1 b1", "a:1 b:"]);
    for level in ALL {
        assert_eq!(edges(&history, level).len(), 2);
    }
}

#[test]
fn two_readers_see_two_transactions_in_different_orders() {
    let history = together(&["a1", "b1", "a:1 b:", "a: b:1"]);
    for level in ALL {
        assert_eq!(edges(&history, level).len(), 4, "long fork");
    }
}

#[test]
fn what_was_acknowledged_before_is_missed() {
    let history = in_turn(&["a1", "a:", "a:1"]);
    for level in ALL {
        let missed = Anomaly::Missed { key: u32::from(b'a'), value: 1, reader: 1 };
        assert_eq!(check(&history, level), [missed]);
    }
    let never = in_turn(&["a1", "a2", "a:2"]);
    assert!(matches!(check(&never, Level::Statements)[..], [Anomaly::Missed { value: 1, .. }]));
}

#[test]
fn a_value_is_read_that_was_rolled_back() {
    let history = together(&["!a1", "a:1"]);
    assert!(matches!(check(&history, Level::Statements)[0], Anomaly::NotCommitted { .. }));
    assert_eq!(check(&together(&["?a1", "a:1"]), Level::Serializable), []);
    assert_eq!(check(&together(&["?a1", "a:"]), Level::Serializable), []);
}

#[test]
fn a_value_is_read_before_its_transaction_was_done() {
    let history = together(&["a1 a2", "a:1"]);
    assert!(matches!(check(&history, Level::Statements)[0], Anomaly::Intermediate { .. }));
}

#[test]
fn two_reads_have_different_orders() {
    let history = together(&["a1", "a2", "a:12", "a:21"]);
    assert!(matches!(check(&history, Level::Statements)[0], Anomaly::TwoOrders { .. }));
}

#[test]
fn a_value_stands_twice() {
    let history = together(&["a1", "a:11"]);
    assert!(matches!(check(&history, Level::Statements)[0], Anomaly::Twice { .. }));
}

#[test]
fn a_transaction_does_not_see_its_own_append() {
    let history = together(&["a1 a:"]);
    assert!(matches!(check(&history, Level::Statements)[0], Anomaly::NotItself { .. }));
}

#[test]
fn an_update_is_lost_only_where_snapshots_are_promised() {
    // Both have read the list before either appended, and both have committed.
    let history = together(&["a: a1", "a: a2", "a:12"]);
    assert_eq!(check(&history, Level::Statements), []);
    assert_eq!(edges(&history, Level::Snapshot), [Edge::ReadWrite, Edge::WriteWrite]);
}

#[test]
fn write_skew_is_possible_unless_serializable() {
    let history = together(&["a: b: a1", "a: b: b1"]);
    let read = together(&["a: b: a1", "a: b: b1", "a:1 b:1"]);
    assert_eq!(check(&history, Level::Snapshot), []);
    assert_eq!(check(&read, Level::Snapshot), []);
    assert_eq!(edges(&read, Level::Serializable), [Edge::ReadWrite, Edge::ReadWrite]);
}

#[test]
fn a_snapshot_does_not_change() {
    let history = together(&["a1", "a: a:1"]);
    assert_eq!(check(&history, Level::Statements)[..].len(), 1, "a reader is one statement");
    let writer = together(&["a1", "a: b1 a:1"]);
    assert_eq!(check(&writer, Level::Statements), []);
    assert!(matches!(check(&writer, Level::Snapshot)[..], [Anomaly::NotItself { .. }]));
}

#[test]
fn appends_to_two_lists_in_different_orders_are_a_cycle() {
    let history = together(&["a1 b1", "a2 b2", "a:12 b:21"]);
    assert_eq!(edges(&history, Level::Statements), [Edge::WriteWrite, Edge::WriteWrite]);
}

proptest! {
    /// What one list of lists does, one transaction after the other, is possible whatever clients do at the same time.
    #[test]
    fn what_one_server_did_in_turn_is_serializable(
        choices in prop::collection::vec((0_u32..4, 0_u32..4, any::<bool>(), 0_u64..5), 1..60)
    ) {
        let mut lists: HashMap<u32, Vec<u64>> = HashMap::new();
        let mut history = Vec::new();
        for (number, (first, second, writes, early)) in (0_u64..).zip(choices) {
            let mut operations = Vec::new();
            for key in [first, second] {
                if writes {
                    let value = number * 2 + u64::from(operations.len() == 1);
                    lists.entry(key).or_default().push(value);
                    operations.push(Operation::Append { key, value });
                } else {
                    let list = lists.get(&key).cloned().unwrap_or_default();
                    operations.push(Operation::Read { key, list });
                }
            }
            // Around the moment at which it happened.
            let began = (number * 10).saturating_sub(early * 10) + 1;
            history.push(Transaction { began, ended: number * 10 + early * 10 + 2, end: End::Committed, operations });
        }
        prop_assert_eq!(check(&history, Level::Serializable), []);
    }
}
