//! The text and CSV formats of COPY: where a record ends, and what one of its fields says.
//!
//! A record is what PostgreSQL makes a row of: a line, or several if a quoted value has line breaks in it. Nothing is
//! decoded that nobody asks for, so that records can be handed on byte by byte. The rules, odd ones included, are those of
//! `src/backend/commands/copyfromparse.c`, since who gets a record next must read it as we do: one style of line ends for
//! all of the data, `\.` that ends them, line breaks in quotes that count as lines.
//!
//! Bytes are looked at one by one. That is right in encodings in which no byte of a longer character is below 128: those
//! that a server can have, but not all of those that a client can.

/// Where records end.
mod split;

/// Fields of a record.
mod fields;

#[cfg(test)]
mod tests;

pub use fields::{Field, Fields};
pub use split::{BadLine, Next, Record, Splitter};

/// How the data are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// CSV; otherwise text.
    pub csv: bool,
    /// Between two fields.
    pub delimiter: u8,
    /// Around a CSV value.
    pub quote: u8,
    /// Before a quote inside a quoted CSV value.
    pub escape: u8,
    /// What stands for NULL.
    pub null: Vec<u8>,
    /// The end-of-copy marker has a line of its own, and is none in CSV: since PostgreSQL 18. Otherwise it may follow a text record,
    /// and a line of CSV that is the marker ends the data too.
    pub has_strict_marker: bool,
}

impl Format {
    /// PostgreSQL's text format as it is without options.
    pub fn text() -> Self {
        let null = b"\\N".to_vec();
        Self { csv: false, delimiter: b'\t', null, ..Self::csv() }
    }

    /// PostgreSQL's CSV format as it is without options.
    pub fn csv() -> Self {
        Self {
            csv: true,
            delimiter: b',',
            quote: b'"',
            escape: b'"',
            null: Vec::new(),
            has_strict_marker: false,
        }
    }

    /// No two of the characters that mean something are the same or could be taken for the end of a line.
    ///
    /// PostgreSQL accepts a few combinations (a line break as the quote) that we do not care to follow.
    pub fn is_plain(&self) -> bool {
        let is_odd = |byte: u8| matches!(byte, b'\n' | b'\r' | 0 | 128..);
        let quotes = [self.quote, self.escape];
        !is_odd(self.delimiter)
            && self.delimiter != b'\\'
            && (!self.csv
                || !quotes.into_iter().any(|byte| is_odd(byte) || byte == self.delimiter)
                    && self.quote != b'\\')
    }

    /// Appends a value as a field.
    pub fn append(&self, value: &[u8], out: &mut Vec<u8>) {
        if self.csv {
            out.push(self.quote);
            for byte in value {
                if *byte == self.quote || *byte == self.escape {
                    out.push(self.escape);
                }
                out.push(*byte);
            }
            out.push(self.quote);
            return;
        }
        for byte in value {
            let letter = match byte {
                b'\n' => b'n',
                b'\r' => b'r',
                b'\\' => b'\\',
                byte if *byte == self.delimiter => *byte,
                _ => {
                    out.push(*byte);
                    continue;
                }
            };
            out.extend_from_slice(&[b'\\', letter]);
        }
    }
}
