//! Rust source as the checks see it: code without comments, strings and tests, and where functions begin and end.
//!
//! This is a scanner, not a parser. It knows just enough of Rust's lexical rules to tell code from text: nested comments,
//! raw strings, and that `'a` is a lifetime and `'a'` a character. Everything that is not code becomes blanks, so that
//! positions and line numbers stay those of the file.

/// The text of a file, in the three forms that the checks ask for.
#[derive(Debug)]
pub(super) struct Source {
    /// The file as it is.
    pub(super) text: String,
    /// Only code: comments and the insides of strings are blank, and so are modules under `#[cfg(test)]`.
    pub(super) code: String,
    /// As `code`, with the strings.
    pub(super) code_and_strings: String,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    /// Its name, without the type that it belongs to.
    pub(super) name: String,
    /// From the line with `fn` to the line with the closing brace.
    pub(super) lines: usize,
}

impl Source {
    /// Scans `text`.
    pub(super) fn new(text: String) -> Self {
        let (code, code_and_strings) = blank(&text);
        let tests = test_modules(&code);
        Self {
            code: without(&code, &tests),
            code_and_strings: without(&code_and_strings, &tests),
            text,
        }
    }

    /// The functions outside of tests, in order; one inside of another counts in both.
    pub(super) fn functions(&self) -> Vec<Function> {
        let code = self.code.as_bytes();
        let mut functions = Vec::new();
        for start in words(&self.code, "fn") {
            let name_at = skip_blanks(code, start + 2);
            let name_end = identifier_end(code, name_at);
            let Some(body) = body_of(code, name_end) else { continue };
            let Some(end) = closing(code, body) else { continue };
            if name_end > name_at {
                let lines = self.code[start..end].matches('\n').count() + 1;
                functions.push(Function { name: self.code[name_at..name_end].to_owned(), lines });
            }
        }
        functions
    }
}

/// Where `word` stands alone in `code`.
pub(super) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = at.checked_sub(1).map(|index| bytes[index]);
        let after = bytes.get(at + word.len());
        !before.is_some_and(is_in_identifier) && !after.copied().is_some_and(is_in_identifier)
    })
}

/// A byte of an identifier.
pub(super) fn is_in_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The end of the identifier that begins at `at`; `at` itself if none does.
pub(super) fn identifier_end(code: &[u8], at: usize) -> usize {
    let length =
        code[at.min(code.len())..].iter().take_while(|byte| is_in_identifier(**byte)).count();
    at + length
}

/// The first position from `at` on that is no white space.
pub(super) fn skip_blanks(code: &[u8], at: usize) -> usize {
    at + code[at.min(code.len())..].iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// The position behind the brace that closes the one at `open`.
pub(super) fn closing(code: &[u8], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in code.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// The brace that opens a function's body; none of a declaration, which ends with a semicolon.
fn body_of(code: &[u8], from: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, byte) in code.iter().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(at),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The spans of modules under `#[cfg(test)]` that stand in the file.
fn test_modules(code: &str) -> Vec<(usize, usize)> {
    let mut spans = Vec::new();
    for (start, attribute) in code.match_indices("#[cfg(test)]") {
        let item = skip_blanks(code.as_bytes(), start + attribute.len());
        if code[item..].starts_with("mod ")
            && let Some(open) = body_of(code.as_bytes(), item)
            && let Some(end) = closing(code.as_bytes(), open)
        {
            spans.push((start, end));
        }
    }
    spans
}

/// `text` with blanks for `spans`.
fn without(text: &str, spans: &[(usize, usize)]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for (start, end) in spans {
        blank_out(&mut bytes[*start..*end]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Blanks for everything but line ends.
fn blank_out(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| **byte != b'\n') {
        *byte = b' ';
    }
}

/// `text` with blanks for comments and insides of strings, and with blanks for comments alone.
fn blank(text: &str) -> (String, String) {
    let mut code = text.as_bytes().to_vec();
    let mut with_strings = code.clone();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match piece(bytes, at) {
            Piece::Code(end) => at = end,
            Piece::Comment(end) => {
                blank_out(&mut code[at..end]);
                blank_out(&mut with_strings[at..end]);
                at = end;
            }
            Piece::Text { inside, inside_end, end } => {
                blank_out(&mut code[inside..inside_end]);
                at = end;
            }
        }
    }
    let text_of = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text_of(code), text_of(with_strings))
}

/// What begins at a position, and where it ends.
enum Piece {
    Code(usize),
    Comment(usize),
    /// A string or a character, with its quotes.
    Text {
        inside: usize,
        inside_end: usize,
        end: usize,
    },
}

fn piece(bytes: &[u8], at: usize) -> Piece {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        return Piece::Comment(at + length);
    }
    if rest.starts_with(b"/*") {
        return Piece::Comment(at + block_comment(rest));
    }
    if is_in_identifier(bytes[at]) {
        let end = identifier_end(bytes, at);
        let is_prefix = matches!(&bytes[at..end], b"r" | b"br" | b"cr");
        return match raw_string(bytes, end).filter(|_| is_prefix) {
            Some(text) => text,
            None => Piece::Code(end),
        };
    }
    match bytes[at] {
        b'"' => quoted(bytes, at, b'"'),
        b'\'' if is_character(rest) => quoted(bytes, at, b'\''),
        _ => Piece::Code(at + 1),
    }
}

/// The length of a comment with those inside of it.
fn block_comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// A string whose `#` or quote stands at `at`, if one does.
fn raw_string(bytes: &[u8], at: usize) -> Option<Piece> {
    let hashes = bytes[at..].iter().take_while(|byte| **byte == b'#').count();
    let inside = at + hashes + 1;
    if bytes.get(at + hashes) != Some(&b'"') {
        return None;
    }
    let mut end_mark = vec![b'"'];
    end_mark.extend(std::iter::repeat_n(b'#', hashes));
    let length = bytes[inside..]
        .windows(end_mark.len())
        .position(|window| window == end_mark)
        .unwrap_or(bytes.len() - inside);
    let inside_end = inside + length;
    Some(Piece::Text { inside, inside_end, end: (inside_end + end_mark.len()).min(bytes.len()) })
}

/// `'x'` or `'\n'`, not a lifetime.
fn is_character(rest: &[u8]) -> bool {
    match rest.get(1) {
        Some(b'\\') => true,
        Some(byte) if byte.is_ascii() => rest.get(2) == Some(&b'\''),
        Some(_) => true,
        None => false,
    }
}

fn quoted(bytes: &[u8], at: usize, quote: u8) -> Piece {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != quote {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    let inside_end = end.min(bytes.len());
    Piece::Text { inside: at + 1, inside_end, end: (inside_end + 1).min(bytes.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::new(text.to_owned()).code
    }

    fn functions(text: &str) -> Vec<(String, usize)> {
        let functions = Source::new(text.to_owned()).functions();
        functions.into_iter().map(|function| (function.name, function.lines)).collect()
    }

    #[test]
    fn comments_and_strings_become_blanks() {
        assert_eq!(code("a // b\nc"), "a     \nc");
        assert_eq!(code("a /* b /* c */ d */ e"), "a                   e");
        assert_eq!(code(r#"f("x\"y")"#), r#"f("    ")"#);
        assert_eq!(code("r#\"a \" b\"# c"), "r#\"     \"# c");
        assert_eq!(Source::new("s(\"x\") // y".to_owned()).code_and_strings, "s(\"x\")     ");
    }

    #[test]
    fn a_lifetime_is_no_character() {
        assert_eq!(
            code("fn f<'a>(x: &'a str) { '{'; '\\''; }"),
            "fn f<'a>(x: &'a str) { ' '; '  '; }"
        );
    }

    #[test]
    fn tests_do_not_count() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}";
        assert_eq!(functions(text), [("a".to_owned(), 1), ("c".to_owned(), 1)]);
    }

    #[test]
    fn a_function_ends_with_its_brace() {
        let text = "trait T {\n    fn declared(&self) -> [u8; 4];\n}\nfn long(\n    x: [u8; 2],\n) {\n    if x {\n    }\n}\n";
        assert_eq!(functions(text), [("long".to_owned(), 6)]);
    }
}
