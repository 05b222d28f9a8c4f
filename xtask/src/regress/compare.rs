//! Whether a unit has the same answer on distributed tables as on local ones.
//!
//! Compared are rows and command tags as psql prints them, and SQLSTATE and message of errors. Notices, details, hints
//! and plans are not.

use super::kind;
use super::script::Unit;
use super::terminal::{Answer, Ending};

/// What became of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The same answer.
    Equal,
    /// The same rows in another order, though the statement has an ORDER BY: it may leave ties open.
    Order,
    /// A plan, which is not compared.
    Plan,
    /// Refused where the local table answers, with this message.
    Refused(String),
    /// Another answer, and what kind of.
    Differs(String),
}

/// Compares the answers of a unit.
pub(crate) fn compare(unit: &Unit, local: &Answer, distributed: &Answer) -> Verdict {
    match distributed.ending {
        Ending::Complete => {}
        ending if ending == local.ending => return Verdict::Equal,
        Ending::Hanging => return Verdict::Differs("no answer came; cancelled".to_owned()),
        Ending::Lost => return Verdict::Differs("the connection was lost".to_owned()),
    }
    let (expected, found) = (errors(&local.messages), errors(&distributed.messages));
    if expected != found {
        return errors_differ(&expected, &found);
    }
    if unit.statements.iter().any(|statement| kind::of(statement).shows_plan) {
        return Verdict::Plan;
    }
    if local.output == distributed.output {
        Verdict::Equal
    } else if sorted(&local.output) != sorted(&distributed.output) {
        Verdict::Differs("other rows".to_owned())
    } else if unit.statements.iter().all(|statement| has_order(statement)) {
        Verdict::Order
    } else {
        Verdict::Equal
    }
}

/// The errors among psql's messages, as `SQLSTATE: message`.
pub(crate) fn errors(messages: &[String]) -> Vec<String> {
    messages.iter().filter_map(|line| error(line).map(str::to_owned)).collect()
}

/// What stands behind `ERROR:`, if a line begins so.
fn error(line: &str) -> Option<&str> {
    ["ERROR:  ", "FATAL:  ", "PANIC:  "].iter().find_map(|prefix| line.strip_prefix(prefix))
}

/// The verdict on errors that are not the same.
fn errors_differ(expected: &[String], found: &[String]) -> Verdict {
    let is_new = |error: &&String| !expected.contains(error);
    match (expected.iter().find(|error| !found.contains(error)), found.iter().find(is_new)) {
        (_, Some(found)) if found.starts_with("0A000") => Verdict::Refused(general(found)),
        (_, Some(found)) if found.starts_with("25P02") => {
            Verdict::Differs("in a transaction that an earlier difference has ended".to_owned())
        }
        (None, Some(found)) => Verdict::Differs(format!("error {}", general(found))),
        (Some(expected), None) => Verdict::Differs(format!("no error {}", general(expected))),
        (Some(expected), Some(found)) => {
            Verdict::Differs(format!("error {} instead of {}", general(found), general(expected)))
        }
        (None, None) => Verdict::Differs("an error at another place".to_owned()),
    }
}

/// A message without the names in it, so that like ones fall together.
fn general(message: &str) -> String {
    let parts: Vec<&str> = message.split('"').collect();
    let with_gaps: Vec<&str> =
        parts.iter().enumerate().map(|(n, part)| if n % 2 == 0 { *part } else { "..." }).collect();
    with_gaps.join("\"")
}

/// The output with the rows of each table sorted.
pub(crate) fn sorted(output: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::with_capacity(output.len());
    let mut first_row = None;
    for line in output {
        let is_rule = !line.is_empty() && line.chars().all(|c| c == '-' || c == '+');
        let is_end = line.starts_with('(') && (line.ends_with(" rows)") || line == "(1 row)");
        if let (true, Some(start)) = (is_end, first_row) {
            lines[start..].sort();
            first_row = None;
        }
        lines.push(line.trim_end().to_owned());
        if is_rule && first_row.is_none() {
            first_row = Some(lines.len());
        }
    }
    lines
}

/// Whether an ORDER BY stands outside of all parentheses and quotes.
fn has_order(statement: &str) -> bool {
    let (mut depth, mut quote, mut outside) = (0_u32, None, String::new());
    for c in statement.to_lowercase().chars() {
        match (quote, c) {
            (Some(open), _) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, c) if depth == 0 => outside.push(c),
            (None, _) => {}
        }
    }
    let words: Vec<&str> = outside.split_whitespace().collect();
    words.windows(2).any(|pair| pair == ["order", "by"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(output: &[&str], messages: &[&str]) -> Answer {
        let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        Answer { output: owned(output), messages: owned(messages), ending: Ending::Complete }
    }

    fn unit(statement: &str) -> Unit {
        Unit { line: 1, text: statement.to_owned(), statements: vec![statement.to_owned()] }
    }

    #[test]
    fn order_counts_only_where_the_statement_has_one() {
        let one = answer(&[" a ", "---", " 1", " 2", "(2 rows)"], &[]);
        let other = answer(&[" a ", "---", " 2", " 1", "(2 rows)"], &[]);
        assert_eq!(compare(&unit("SELECT a FROM t"), &one, &other), Verdict::Equal);
        assert_eq!(compare(&unit("SELECT a FROM t ORDER BY b"), &one, &other), Verdict::Order);
        let inner = "SELECT a FROM (SELECT * FROM t ORDER BY a) AS s";
        assert_eq!(compare(&unit(inner), &one, &other), Verdict::Equal);
    }

    #[test]
    fn errors_are_compared_by_sqlstate_and_message() {
        let one = answer(&[], &["ERROR:  23505: duplicate", "DETAIL:  here"]);
        let same = answer(&[], &["ERROR:  23505: duplicate", "DETAIL:  there"]);
        let refused = answer(&[], &["ERROR:  0A000: cannot modify \"t\" this way"]);
        assert_eq!(compare(&unit("SELECT 1"), &one, &same), Verdict::Equal);
        assert_eq!(
            compare(&unit("SELECT 1"), &one, &refused),
            Verdict::Refused("0A000: cannot modify \"...\" this way".to_owned())
        );
    }
}
