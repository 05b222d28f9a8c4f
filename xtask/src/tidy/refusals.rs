//! What is refused stands in the book: every message of 0A000 in the code has its entry among the limits.

use super::source::{Source, skip_blanks};

/// What stands before a message: `PgError::unsupported`, a function of that name, or the SQLSTATE.
const BEFORE: [&str; 2] = ["unsupported(", "SqlState::FEATURE_NOT_SUPPORTED,"];

/// Shorter pieces of a message would be found anywhere.
const TELLING: usize = 8;

/// The messages with which `source` refuses, as they stand in the code.
pub(super) fn messages(source: &Source) -> Vec<String> {
    let code = &source.code_and_strings;
    let after =
        BEFORE.iter().flat_map(|call| code.match_indices(call).map(|(at, it)| at + it.len()));
    after.filter_map(|at| literal(code, at)).collect()
}

/// The string that begins at `at`, also as the first argument of `format!`.
fn literal(code: &str, at: usize) -> Option<String> {
    let mut at = skip_blanks(code.as_bytes(), at);
    if let Some(rest) = code[at..].strip_prefix("format!(") {
        at = skip_blanks(code.as_bytes(), code.len() - rest.len());
    }
    let text = code[at..].strip_prefix('"')?;
    let mut message = String::new();
    let mut letters = text.chars();
    loop {
        match letters.next()? {
            '"' => return Some(message),
            '\\' => match letters.next()? {
                // A line that goes on: its indentation is not part of it.
                '\n' => letters = letters.as_str().trim_start().chars(),
                letter => message.push(letter),
            },
            letter => message.push(letter),
        }
    }
}

/// Whether `page` has all that `message` says beside what differs from case to case.
pub(super) fn is_documented(message: &str, page: &str) -> bool {
    let mut rest = message;
    let mut pieces = Vec::new();
    while let Some((before, after)) = rest.split_once('{') {
        pieces.push(before);
        rest = after.split_once('}').map_or("", |(_, behind)| behind);
    }
    pieces.push(rest);
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let pieces = pieces.into_iter().map(|piece| piece.trim_matches([' ', '"', ':']));
    pieces.filter(|piece| piece.len() >= TELLING).all(|piece| page.contains(piece))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_with_and_without_places_to_fill() {
        let text = "fn f() { PgError::unsupported(\n  \"cannot do\", \"hint\"); unsupported(format!(\"cannot \\\n    \\\"{x}\\\"\"), y); unsupported(x); \
                    PgError::new(SqlState::FEATURE_NOT_SUPPORTED, \"never\") }";
        let messages = messages(&Source::new(text.to_owned()));
        assert_eq!(messages, ["cannot do", "cannot \"{x}\"", "never"]);
    }

    #[test]
    fn what_differs_from_case_to_case_does_not_count() {
        let page = "`0A000 cannot execute ALTER\n  TABLE on distributed table \"t\"`";
        assert!(is_documented("cannot execute {command} on distributed table \"{}\"", page));
        assert!(!is_documented("cannot modify distributed table \"{}\" this way", page));
    }
}
