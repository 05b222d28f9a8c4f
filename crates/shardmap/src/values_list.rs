//! An INSERT of one row made one of several.
//!
//! `INSERT INTO t (k, v) VALUES ($1, $2) ... RETURNING v + $3` for two rows is
//! `INSERT INTO t (k, v) VALUES ($1, $2), ($4, $5) ... RETURNING v + $3`: the values of the first row stand first among
//! the parameters, then come those that belong to no row, then the values of the other rows.

/// The statement for so many rows; none if it has no list of values.
///
/// `columns` parameters belong to the row of `sql`, `others` to none.
pub fn repeat_row(sql: &str, columns: usize, others: usize, rows: usize) -> Option<String> {
    let (start, end) = find_row(sql)?;
    let row = &sql[start..end];
    let mut whole = String::with_capacity(sql.len() + (rows.saturating_sub(1)) * (row.len() + 16));
    whole.push_str(&sql[..end]);
    for number in 1..rows {
        whole.push_str(", ");
        push_renumbered(&mut whole, row, others + number * columns);
    }
    whole.push_str(&sql[end..]);
    Some(whole)
}

/// Where the row in parentheses behind VALUES begins and ends.
fn find_row(sql: &str) -> Option<(usize, usize)> {
    const VALUES: &str = "VALUES (";
    let (mut depth, mut quote, mut start) = (0_usize, None, None);
    for (at, byte) in sql.bytes().enumerate() {
        match (quote, byte) {
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'(') => {
                let behind = at + 1;
                if depth == 0 && start.is_none() && sql[..behind].ends_with(VALUES) {
                    start = Some(at);
                }
                depth += 1;
            }
            (None, b')') => {
                depth = depth.checked_sub(1)?;
                if let (0, Some(start)) = (depth, start) {
                    return Some((start, at + 1));
                }
            }
            (None, _) => {}
        }
    }
    None
}

/// Appends a row whose parameters have numbers that are higher by `offset`.
fn push_renumbered(out: &mut String, row: &str, offset: usize) {
    let mut quote = None;
    let mut rest = row;
    while let Some(letter) = rest.chars().next() {
        let length = letter.len_utf8();
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(letter),
            (None, '$') => {
                let digits = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
                if let Ok(number) = rest[1..=digits].parse::<usize>() {
                    out.push_str(&format!("${}", number + offset));
                    rest = &rest[1 + digits..];
                    continue;
                }
            }
            (None, _) => {}
        }
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_numbered_behind_what_belongs_to_none() {
        assert_eq!(
            repeat_row("INSERT INTO s.t AS a (k, v) VALUES ($1, $2) RETURNING v + $3", 2, 1, 3)
                .unwrap(),
            "INSERT INTO s.t AS a (k, v) VALUES ($1, $2), ($4, $5), ($6, $7) RETURNING v + $3"
        );
    }

    #[test]
    fn one_row_stays_as_it_is() {
        let sql = "INSERT INTO t (k) VALUES ($1)";
        assert_eq!(repeat_row(sql, 1, 0, 1).unwrap(), sql);
    }

    #[test]
    fn names_are_not_taken_for_the_list() {
        let sql = r#"INSERT INTO "VALUES (" ("a VALUES (", "$1") OVERRIDING SYSTEM VALUE VALUES ($1::"x$1)".y(3,2), $2) ON CONFLICT (k) DO NOTHING"#;
        assert_eq!(
            repeat_row(sql, 2, 0, 2).unwrap(),
            r#"INSERT INTO "VALUES (" ("a VALUES (", "$1") OVERRIDING SYSTEM VALUE VALUES ($1::"x$1)".y(3,2), $2), ($3::"x$1)".y(3,2), $4) ON CONFLICT (k) DO NOTHING"#
        );
        assert_eq!(repeat_row("INSERT INTO t DEFAULT VALUES", 0, 0, 2), None);
    }
}
