//! Where a record ends.

use super::Format;
use memchr::{memchr2, memchr3};
use std::fmt;

/// How lines end; the first one decides for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineEnd {
    Newline,
    Return,
    Both,
}

/// Data that have no place in any record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadLine {
    /// A carriage return where lines do not end with one.
    Return {
        /// In CSV.
        csv: bool,
    },
    /// A newline where lines do not end with one.
    Newline {
        /// In CSV.
        csv: bool,
    },
    /// `\.` with something behind it.
    CorruptMarker,
    /// `\.` with something before or behind it, where it has to have its own line.
    MarkerInLine,
    /// `\.` with another line end than the lines before.
    OtherMarker,
}

impl BadLine {
    /// What PostgreSQL advises.
    pub fn hint(self) -> Option<&'static str> {
        match self {
            Self::Return { csv: false } => Some("Use \"\\r\" to represent carriage return."),
            Self::Return { csv: true } => {
                Some("Use quoted CSV field to represent carriage return.")
            }
            Self::Newline { csv: false } => Some("Use \"\\n\" to represent newline."),
            Self::Newline { csv: true } => Some("Use quoted CSV field to represent newline."),
            Self::CorruptMarker | Self::MarkerInLine | Self::OtherMarker => None,
        }
    }
}

impl fmt::Display for BadLine {
    /// PostgreSQL's own words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Return { csv: false } => "literal carriage return found in data",
            Self::Return { csv: true } => "unquoted carriage return found in data",
            Self::Newline { csv: false } => "literal newline found in data",
            Self::Newline { csv: true } => "unquoted newline found in data",
            Self::CorruptMarker => "end-of-copy marker corrupt",
            Self::MarkerInLine => "end-of-copy marker is not alone on its line",
            Self::OtherMarker => "end-of-copy marker does not match previous newline style",
        })
    }
}

impl std::error::Error for BadLine {}

/// A record at the beginning of the data that were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Bytes of the record, without its line end.
    pub length: usize,
    /// Bytes to go on behind: the line end, or the marker, too.
    pub consumed: usize,
    /// Newlines in its quotes.
    pub newlines: u32,
    /// Carriage returns in its quotes.
    pub returns: u32,
}

/// What comes next in the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A record.
    Record(Record),
    /// More data are needed to tell.
    More,
    /// Nothing, whatever may follow.
    End,
}

/// Finds the ends of records.
#[derive(Clone, Debug)]
pub struct Splitter {
    csv: bool,
    has_strict_marker: bool,
    quote: u8,
    /// None if it is the quote.
    escape: Option<u8>,
    line_end: Option<LineEnd>,
    ended: bool,
    /// Lines so far, those inside quotes too.
    lines: u64,
    // The record that is being looked for.
    scanned: usize,
    in_quote: bool,
    after_escape: bool,
    newlines: u32,
    returns: u32,
}

impl Splitter {
    /// For data in this format, from their beginning.
    pub fn new(format: &Format) -> Self {
        Self {
            csv: format.csv,
            has_strict_marker: format.has_strict_marker,
            quote: format.quote,
            escape: (format.escape != format.quote).then_some(format.escape),
            line_end: None,
            ended: false,
            lines: 0,
            scanned: 0,
            in_quote: false,
            after_escape: false,
            newlines: 0,
            returns: 0,
        }
    }

    /// The number of the line with which the last record has ended, as PostgreSQL counts; in an error, the bad one's.
    pub fn line(&self) -> u64 {
        self.lines
    }

    /// What ends a line.
    pub fn line_end(&self) -> &'static [u8] {
        match self.line_end {
            None | Some(LineEnd::Newline) => b"\n",
            Some(LineEnd::Return) => b"\r",
            Some(LineEnd::Both) => b"\r\n",
        }
    }

    /// Line breaks in the quotes of a record that count as lines; `first` says that the reader knows nothing of how
    /// lines end yet.
    pub fn inner_lines(&self, record: &Record, first: bool) -> u32 {
        if !first && self.line_end == Some(LineEnd::Newline) {
            record.newlines
        } else {
            record.returns
        }
    }

    /// Looks for the next record in `data`, which begin where it begins; `is_all` says that no more will come.
    ///
    /// After [`Next::More`] it is to be called with the same data and some more behind them.
    ///
    /// # Errors
    ///
    /// If PostgreSQL would not take the data.
    pub fn next(&mut self, data: &[u8], is_all: bool) -> Result<Next, BadLine> {
        if self.ended {
            return Ok(Next::End);
        }
        let first = self.line_end.is_none();
        let found =
            if self.csv { self.next_csv(data, is_all) } else { self.next_text(data, is_all) };
        match &found {
            Ok(Next::More) => return found,
            Ok(Next::Record(record)) => {
                self.lines += 1 + u64::from(self.inner_lines(record, first));
            }
            Ok(Next::End) => self.ended = true,
            Err(_) => self.lines += 1,
        }
        self.scanned = 0;
        (self.in_quote, self.after_escape) = (false, false);
        (self.newlines, self.returns) = (0, 0);
        found
    }

    fn next_text(&mut self, data: &[u8], is_all: bool) -> Result<Next, BadLine> {
        loop {
            let Some(offset) = memchr3(b'\n', b'\r', b'\\', &data[self.scanned..]) else {
                self.scanned = data.len();
                return Ok(self.rest(data, is_all));
            };
            let at = self.scanned + offset;
            self.scanned = at;
            match data[at] {
                b'\\' => match data.get(at + 1) {
                    None if is_all => return Ok(self.rest(data, is_all)),
                    None => return Ok(Next::More),
                    Some(b'.') => {
                        return match self.marker(data, at, is_all)? {
                            None => Ok(Next::More),
                            Some(true) if at == 0 || !self.has_strict_marker => {
                                Ok(self.marked(data, at))
                            }
                            _ if self.has_strict_marker => Err(BadLine::MarkerInLine),
                            _ => Err(BadLine::CorruptMarker),
                        };
                    }
                    Some(_) => self.scanned = at + 2,
                },
                _ => return self.end_line(data, at, is_all),
            }
        }
    }

    fn next_csv(&mut self, data: &[u8], is_all: bool) -> Result<Next, BadLine> {
        if self.scanned == 0 && data.first() == Some(&b'\\') && !self.has_strict_marker {
            match data.get(1) {
                None if !is_all => return Ok(Next::More),
                Some(b'.') => match self.marker(data, 0, is_all)? {
                    None => return Ok(Next::More),
                    Some(true) => return Ok(self.marked(data, 0)),
                    Some(false) => {}
                },
                _ => {}
            }
        }
        loop {
            let rest = &data[self.scanned..];
            let found = match (self.in_quote, self.escape) {
                (true, Some(escape)) => {
                    let line_break = memchr2(b'\n', b'\r', rest);
                    let within = line_break.map_or(rest, |at| &rest[..at]);
                    memchr2(self.quote, escape, within).or(line_break)
                }
                _ => memchr3(self.quote, b'\n', b'\r', rest),
            };
            let Some(offset) = found else {
                self.after_escape &= rest.is_empty();
                self.scanned = data.len();
                return Ok(self.rest(data, is_all));
            };
            let (at, byte) = (self.scanned + offset, rest[offset]);
            if !self.in_quote && byte != self.quote {
                self.scanned = at;
                return self.end_line(data, at, is_all);
            }
            // An escape counts for what follows at once.
            let after_escape = self.after_escape && offset == 0;
            self.after_escape = false;
            if self.in_quote && Some(byte) == self.escape {
                self.after_escape = !after_escape;
            } else if byte == self.quote {
                self.in_quote ^= !after_escape;
            } else if byte == b'\n' {
                self.newlines += 1;
            } else {
                self.returns += 1;
            }
            self.scanned = at + 1;
        }
    }

    /// The end of the data so far.
    fn rest(&self, data: &[u8], is_all: bool) -> Next {
        match (is_all, data.len()) {
            (false, _) => Next::More,
            (true, 0) => Next::End,
            (true, length) => self.record(length, length),
        }
    }

    fn record(&self, length: usize, consumed: usize) -> Next {
        let (newlines, returns) = (self.newlines, self.returns);
        Next::Record(Record { length, consumed, newlines, returns })
    }

    /// A line break outside quotes.
    fn end_line(&mut self, data: &[u8], at: usize, is_all: bool) -> Result<Next, BadLine> {
        let csv = self.csv;
        if data[at] == b'\n' {
            return match self.line_end {
                Some(LineEnd::Return | LineEnd::Both) => Err(BadLine::Newline { csv }),
                None | Some(LineEnd::Newline) => {
                    self.line_end = Some(LineEnd::Newline);
                    Ok(self.record(at, at + 1))
                }
            };
        }
        match (self.line_end, data.get(at + 1)) {
            (Some(LineEnd::Newline), _) => Err(BadLine::Return { csv }),
            (Some(LineEnd::Return), _) => Ok(self.record(at, at + 1)),
            (None | Some(LineEnd::Both), None) if !is_all => Ok(Next::More),
            (None | Some(LineEnd::Both), Some(b'\n')) => {
                self.line_end = Some(LineEnd::Both);
                Ok(self.record(at, at + 2))
            }
            (Some(LineEnd::Both), _) => Err(BadLine::Return { csv }),
            (None, _) => {
                self.line_end = Some(LineEnd::Return);
                Ok(self.record(at, at + 1))
            }
        }
    }

    /// Whether `\.` at `at` ends the data; none if that cannot be told yet.
    fn marker(&self, data: &[u8], at: usize, is_all: bool) -> Result<Option<bool>, BadLine> {
        let mut behind = data[at + 2..].iter().copied();
        let mut next = || behind.next().or(is_all.then_some(0));
        if self.line_end == Some(LineEnd::Both) {
            match next() {
                None => return Ok(None),
                Some(b'\r') => {}
                Some(b'\n') if !self.csv => return Err(BadLine::OtherMarker),
                Some(_) => return Ok(Some(false)),
            }
        }
        let expected = match self.line_end {
            None => None,
            Some(LineEnd::Newline | LineEnd::Both) => Some(b'\n'),
            Some(LineEnd::Return) => Some(b'\r'),
        };
        match next() {
            None => Ok(None),
            Some(byte @ (b'\n' | b'\r')) => {
                if expected.is_none_or(|expected| expected == byte) {
                    Ok(Some(true))
                } else {
                    Err(BadLine::OtherMarker)
                }
            }
            Some(_) => Ok(Some(false)),
        }
    }

    /// `\.` at `at`: what stands before it is the last record.
    fn marked(&mut self, data: &[u8], at: usize) -> Next {
        self.ended = true;
        if at == 0 { Next::End } else { self.record(at, data.len()) }
    }
}
