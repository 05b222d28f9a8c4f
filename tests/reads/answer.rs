//! Answers, and whether two are the same.

use testkit::{Rows, SqlError};

/// What a statement yields.
#[expect(clippy::large_enum_variant, reason = "an answer lives for one comparison")]
pub(crate) enum Answer {
    Rows(Rows),
    Error(SqlError),
}

/// Whether both are the same rows, in order if that is decided, or errors of the same SQLSTATE.
pub(crate) fn is_same(expected: &Answer, found: &Answer, ordered: bool) -> bool {
    match (expected, found) {
        (Answer::Rows(expected), Answer::Rows(found)) => are_same_rows(expected, found, ordered),
        (Answer::Error(expected), Answer::Error(found)) => expected.sqlstate == found.sqlstate,
        _ => false,
    }
}

fn are_same_rows(expected: &Rows, found: &Rows, ordered: bool) -> bool {
    if expected.len() != found.len() {
        return false;
    }
    let (expected, found) = (normal(expected, ordered), normal(found, ordered));
    expected.iter().zip(&found).all(|(expected, found)| {
        expected.len() == found.len()
            && expected.iter().zip(found).all(|(expected, found)| is_same_value(expected, found))
    })
}

/// Rows with equal numbers written alike, and sorted if their order says nothing.
fn normal(rows: &Rows, ordered: bool) -> Rows {
    let mut rows: Rows =
        rows.iter().map(|row| row.iter().map(|value| normal_value(value)).collect()).collect();
    if !ordered {
        rows.sort();
    }
    rows
}

/// `1.50` and `1.5` are equal, and which of several equal values stands for all is not decided.
fn normal_value(value: &str) -> String {
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'-');
    if is_number && value.matches('.').count() == 1 {
        let text = value.trim_end_matches('0').trim_end_matches('.');
        return if text.is_empty() || text == "-0" || text == "-" {
            "0".to_owned()
        } else {
            text.to_owned()
        };
    }
    if value == "-0" { "0".to_owned() } else { value.to_owned() }
}

/// Equal texts, or fractions that differ by what another order of additions may change.
fn is_same_value(expected: &str, found: &str) -> bool {
    if expected == found {
        return true;
    }
    if !expected.contains(['.', 'e']) && !found.contains(['.', 'e']) {
        return false;
    }
    match (expected.parse::<f64>(), found.parse::<f64>()) {
        (Ok(expected), Ok(found)) => {
            (expected - found).abs() <= 1e-8 * expected.abs().max(found.abs()).max(1e-3)
        }
        _ => false,
    }
}

/// Where two answers part, for a person.
pub(crate) fn difference(expected: &Answer, found: &Answer, ordered: bool) -> String {
    let (expected, found) = match (expected, found) {
        (Answer::Rows(expected), Answer::Rows(found)) => {
            (normal(expected, ordered), normal(found, ordered))
        }
        (Answer::Error(expected), Answer::Rows(_)) => {
            return format!("rows, should be the error {expected}");
        }
        (Answer::Rows(_), Answer::Error(found)) => return format!("the error {found}"),
        (Answer::Error(expected), Answer::Error(found)) => {
            return format!("the error {found}, should be {expected}");
        }
    };
    let mut missing = expected.clone();
    let mut surplus = Vec::new();
    for row in &found {
        match missing.iter().position(|other| other == row) {
            Some(at) => drop(missing.swap_remove(at)),
            None => surplus.push(row.clone()),
        }
    }
    let some = |rows: &Rows| rows.iter().take(3).map(|row| row.join("|")).collect::<Vec<_>>();
    format!(
        "{} rows, should be {}; missing {:?}, surplus {:?}",
        found.len(),
        expected.len(),
        some(&missing),
        some(&surplus)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_by_value_and_fractions_with_tolerance() {
        let rows = |text: &str| Answer::Rows(vec![vec![text.to_owned()]]);
        assert!(is_same(&rows("1.50"), &rows("1.5"), true));
        assert!(is_same(&rows("0.333333333333333"), &rows("0.333333333333334"), true));
        assert!(!is_same(&rows("0.3333"), &rows("0.3334"), true));
        assert!(!is_same(&rows("12345678901"), &rows("12345678902"), true));
    }
}
