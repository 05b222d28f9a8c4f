//! Ranges and multiranges in their text form, as PostgreSQL's output functions write it: `[1,5)`, `("a b",]`, `empty`,
//! `{[1,2),[3,4)}`.
//!
//! Whoever reads them by the types' input functions has the functions of the bounds' type called, users' functions among them.
//! Here they are taken apart only. Source of the format: `range_deparse` and `multirange_out`
//! (`src/backend/utils/adt/rangetypes.c`, `multirangetypes.c`).

/// One end of a range; its text is without quotes, and absent where there is no end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The value's text.
    pub text: Option<Vec<u8>>,
    /// The value belongs to the range.
    pub is_inclusive: bool,
}

/// A range that is taken apart: both ends, or none if it is empty.
pub type Range = Option<(Bound, Bound)>;

/// Takes a range apart; none if the text is not one.
pub fn range(text: &[u8]) -> Option<Range> {
    if text == b"empty" {
        return Some(None);
    }
    let (first, rest) = text.split_first()?;
    let (last, inside) = rest.split_last()?;
    let from_lower = match first {
        b'[' => true,
        b'(' => false,
        _ => return None,
    };
    let to_upper = match last {
        b']' => true,
        b')' => false,
        _ => return None,
    };
    let (lower, length) = value(inside);
    let behind = inside.get(length..)?.strip_prefix(b",")?;
    let (upper, length) = value(behind);
    (length == behind.len()).then_some(Some((
        Bound { text: lower, is_inclusive: from_lower },
        Bound { text: upper, is_inclusive: to_upper },
    )))
}

/// The text of each range in a multirange; none if the text is not one.
pub fn ranges(text: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = text.strip_prefix(b"{")?.strip_suffix(b"}")?;
    let mut all = Vec::new();
    while !rest.is_empty() {
        let end = end_of_range(rest)?;
        all.push(&rest[..end]);
        rest = &rest[end..];
        if !rest.is_empty() {
            rest = rest.strip_prefix(b",")?;
        }
    }
    Some(all)
}

/// A value up to the comma or the end, without its quotes, and how many bytes it takes; none if there is nothing.
fn value(text: &[u8]) -> (Option<Vec<u8>>, usize) {
    let mut plain = Vec::new();
    let (mut at, mut is_quoted) = (0, false);
    while let Some(&byte) = text.get(at) {
        match byte {
            b',' if !is_quoted => break,
            b'\\' => {
                at += 1;
                plain.extend(text.get(at));
            }
            b'"' if is_quoted && text.get(at + 1) == Some(&b'"') => {
                at += 1;
                plain.push(b'"');
            }
            b'"' => is_quoted = !is_quoted,
            _ => plain.push(byte),
        }
        at += 1;
    }
    let at = at.min(text.len());
    ((at > 0).then_some(plain), at)
}

/// Where the range ends with which the text begins.
fn end_of_range(text: &[u8]) -> Option<usize> {
    let (mut at, mut is_quoted) = (0, false);
    loop {
        match text.get(at)? {
            b'\\' => at += 1,
            b'"' => is_quoted = !is_quoted,
            b']' | b')' if !is_quoted => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(text: Option<&str>, is_inclusive: bool) -> Bound {
        Bound { text: text.map(|text| text.as_bytes().to_vec()), is_inclusive }
    }

    #[test]
    fn a_range_has_two_ends_or_is_empty() {
        assert_eq!(range(b"empty"), Some(None));
        assert_eq!(range(b"[1,5)"), Some(Some((bound(Some("1"), true), bound(Some("5"), false)))));
        assert_eq!(range(b"(,7]"), Some(Some((bound(None, false), bound(Some("7"), true)))));
        assert_eq!(range(b"(,)"), Some(Some((bound(None, false), bound(None, false)))));
    }

    #[test]
    fn quotes_and_backslashes_hold_what_would_end_a_value() {
        let text = br#"["a,]""b\\c","")"#;
        let expected = (bound(Some(r#"a,]"b\c"#), true), bound(Some(""), false));
        assert_eq!(range(text), Some(Some(expected)));
    }

    #[test]
    fn a_multirange_is_cut_between_its_ranges_only() {
        assert_eq!(ranges(b"{}"), Some(vec![]));
        let text = br#"{["a],(","b\""],(c,)}"#;
        assert_eq!(ranges(text), Some(vec![&br#"["a],(","b\""]"#[..], &b"(c,)"[..]]));
    }

    #[test]
    fn what_is_no_range_is_none() {
        for text in ["", "[", "[1", "[1)", "1,2", "[1,2", "[1,2,3)", "{[1,2)", "[\"1,2)", "[1\\"] {
            assert_eq!(range(text.as_bytes()), None, "{text}");
        }
        for text in ["", "{", "{[1,2)(3,4)}", "{[1,2}", "[1,2)"] {
            assert_eq!(ranges(text.as_bytes()), None, "{text}");
        }
    }
}
