//! Fields of a record.

use super::Format;
use memchr::{memchr, memchr2};
use std::borrow::Cow;

/// Where a field is in its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its first byte.
    pub start: usize,
    /// The byte behind its last one.
    pub end: usize,
    /// Some of it was in quotes.
    is_quoted: bool,
    /// Its bytes are not the value itself.
    is_coded: bool,
}

impl Field {
    /// It stands for NULL, as far as `FORCE_NULL` and `FORCE_NOT_NULL` do not say otherwise.
    pub fn is_null(&self, record: &[u8], format: &Format) -> bool {
        !self.is_quoted && record[self.start..self.end] == format.null
    }

    /// Its bytes as they are written.
    pub fn raw<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        &record[self.start..self.end]
    }

    /// The value.
    pub fn value<'a>(&self, record: &'a [u8], format: &Format) -> Cow<'a, [u8]> {
        let raw = self.raw(record);
        if !self.is_coded {
            Cow::Borrowed(raw)
        } else if format.csv {
            Cow::Owned(unquoted(raw, format))
        } else {
            Cow::Owned(unescaped(raw))
        }
    }
}

/// The fields of a record, one after the other. A CSV field whose quotes are not closed ends with the record.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    record: &'a [u8],
    format: &'a Format,
    /// None behind the last one.
    at: Option<usize>,
}

impl<'a> Fields<'a> {
    /// Those of `record`.
    pub fn of(record: &'a [u8], format: &'a Format) -> Self {
        Self { record, format, at: Some(0) }
    }

    fn text_field(&self, start: usize) -> Field {
        let mut is_coded = false;
        let mut at = start;
        let end = loop {
            match memchr2(self.format.delimiter, b'\\', &self.record[at..]) {
                None => break self.record.len(),
                Some(offset) if self.record[at + offset] == b'\\' => {
                    is_coded = true;
                    at += offset;
                    at += escape(&self.record[at..]).1;
                }
                Some(offset) => break at + offset,
            }
        };
        Field { start, end, is_quoted: false, is_coded }
    }

    fn csv_field(&self, start: usize) -> Field {
        let Format { delimiter, quote, escape, .. } = *self.format;
        let mut is_quoted = false;
        let mut at = start;
        let end = 'field: loop {
            match memchr2(delimiter, quote, &self.record[at..]) {
                None => break self.record.len(),
                Some(offset) if self.record[at + offset] == delimiter => break at + offset,
                Some(offset) => at += offset + 1,
            }
            is_quoted = true;
            loop {
                let rest = &self.record[at..];
                let found = if quote == escape {
                    memchr(quote, rest)
                } else {
                    memchr2(quote, escape, rest)
                };
                let Some(offset) = found else { break 'field self.record.len() };
                at += offset + 1;
                let next = self.record.get(at).copied();
                if rest[offset] == escape && next.is_some_and(|it| it == escape || it == quote) {
                    at += 1;
                } else if rest[offset] == quote {
                    break;
                }
            }
        };
        Field { start, end, is_quoted, is_coded: is_quoted }
    }
}

impl Iterator for Fields<'_> {
    type Item = Field;

    fn next(&mut self) -> Option<Field> {
        let start = self.at?;
        let field = if self.format.csv { self.csv_field(start) } else { self.text_field(start) };
        self.at = (field.end < self.record.len()).then_some(field.end + 1);
        Some(field)
    }
}

/// The byte that a backslash and what follows stand for, and how long that is; a backslash at the end is itself.
fn escape(text: &[u8]) -> (u8, usize) {
    let Some(letter) = text.get(1) else { return (b'\\', 1) };
    let digits = |from: usize, most: usize, radix: u32| {
        let digit = |byte: &u8| char::from(*byte).to_digit(radix);
        let digits: Vec<u32> = text[from..].iter().take(most).map_while(digit).collect();
        // Three octal digits may be more than a byte holds: the rest is cut off.
        let value = digits.iter().fold(0, |value, digit| value * radix + digit) as u8;
        (value, from + digits.len())
    };
    match letter {
        b'0'..=b'7' => digits(1, 3, 8),
        b'x' => match digits(2, 2, 16) {
            (_, 2) => (b'x', 2),
            found => found,
        },
        b'b' => (8, 2),
        b'f' => (12, 2),
        b'n' => (b'\n', 2),
        b'r' => (b'\r', 2),
        b't' => (b'\t', 2),
        b'v' => (11, 2),
        other => (*other, 2),
    }
}

fn unescaped(raw: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(offset) = memchr(b'\\', rest) {
        let (byte, length) = escape(&rest[offset..]);
        value.extend_from_slice(&rest[..offset]);
        value.push(byte);
        rest = &rest[offset + length..];
    }
    value.extend_from_slice(rest);
    value
}

fn unquoted(raw: &[u8], format: &Format) -> Vec<u8> {
    let Format { quote, escape, .. } = *format;
    let mut value = Vec::with_capacity(raw.len());
    let mut in_quote = false;
    let mut at = 0;
    while let Some(byte) = raw.get(at).copied() {
        at += 1;
        if in_quote
            && byte == escape
            && let Some(next) = raw.get(at).copied().filter(|it| *it == escape || *it == quote)
        {
            value.push(next);
            at += 1;
            continue;
        }
        if byte == quote {
            in_quote = !in_quote;
        } else {
            value.push(byte);
        }
    }
    value
}
