//! Messages from a node, cut out of the bytes that came.
//!
//! A message's body stays in the inbox's buffer until more bytes are received; nothing is copied. One byte
//! behind every body may be overwritten by whoever reads it: PostgreSQL's receive functions put a zero there
//! and take it back (`ReadArrayBinary`, `src/backend/utils/adt/arrayfuncs.c`).
//!
//! A message's announced length allocates nothing: the buffer grows with the bytes that have come.

use std::fmt;
use std::ops::Range;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A statement is prepared.
    Parsed,
    /// A statement has its arguments; if it reads, the node has taken its snapshot.
    Bound,
    /// Arguments are bound, a statement is closed, or a row description came: nothing to do.
    Ignored,
    /// A row.
    Row,
    /// A command is done.
    Complete,
    /// A command was empty.
    Empty,
    /// A command failed.
    Error,
    /// The flight is at its end.
    Ready(TransactionStatus),
    /// The node waits for COPY data.
    CopyIn,
    /// The node sends COPY data.
    CopyOut,
    /// A piece of COPY data.
    CopyData,
    /// The end of COPY data.
    CopyDone,
}

/// Where the node's transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Outside a transaction block.
    Idle,
    /// In one.
    InBlock,
    /// In one that can only be rolled back.
    Failed,
}

/// What a completed command says of the end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is stored.
    Committed,
    /// It is not.
    RolledBack,
    /// It was another command.
    OfAnother,
}

/// A message; its body lies in the [`Inbox`] it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    body: Range<usize>,
}

/// The bytes are no messages of this protocol: the connection cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lost synchronization with server")
    }
}

impl std::error::Error for Malformed {}

/// Bytes received and not yet read.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// The latest commit time that was reported and not taken.
    commit_time: Option<i64>,
}

/// The parameter by which a node reports when transactions have committed, with the zero byte behind its name.
const COMMIT_TIME: &[u8] = b"pg_shard.commit_time\0";

/// Room that is offered to a read at least.
const ROOM: usize = 8 * 1024;

/// A buffer that is larger than this is given back once it is empty.
const KEPT: usize = 128 * 1024;

/// The longest message: PostgreSQL's own limit for what it palloces.
const LONGEST: usize = 0x3fff_ffff;

impl Inbox {
    /// Where received bytes go; [`Self::received`] says how many came. Bodies of earlier messages are gone.
    pub fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > KEPT {
                self.bytes = Vec::new();
            }
        }
        // The length is the other side's word: no more room is made for it than bytes have come already.
        let here = self.end - self.start;
        let wanted = self.pending_length().unwrap_or(0).min(here).max(ROOM);
        if self.bytes.len() < self.end + wanted + 1 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.bytes.len() < self.end + wanted + 1 {
                self.bytes.resize(self.end + wanted + 1, 0);
            }
        }
        let last = self.bytes.len() - 1;
        &mut self.bytes[self.end..last]
    }

    /// Nothing has come that was not taken.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// `n` bytes have come into the room.
    pub fn received(&mut self, n: usize) {
        self.end = (self.end + n).min(self.bytes.len().saturating_sub(1));
    }

    /// How much of the first message is still missing.
    fn pending_length(&self) -> Option<usize> {
        let head = self.bytes[self.start..self.end].get(1..5)?;
        let length = u32::from_be_bytes(head.try_into().ok()?) as usize;
        Some((length.min(LONGEST) + 1).saturating_sub(self.end - self.start))
    }

    /// The next whole message, if it is here. What says nothing to a session (notices, changed settings) is
    /// passed over.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the bytes are no message.
    pub fn message(&mut self) -> Result<Option<Message>, Malformed> {
        loop {
            let here = &self.bytes[self.start..self.end];
            let [kind, a, b, c, d, ..] = *here else { return Ok(None) };
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            if !(4..=LONGEST).contains(&length) {
                return Err(Malformed);
            }
            if here.len() < length + 1 {
                return Ok(None);
            }
            let body = self.start + 5..self.start + 1 + length;
            self.start = body.end;
            let kind = match kind {
                b'1' => Kind::Parsed,
                b'2' => Kind::Bound,
                b'3' | b'T' | b't' | b'n' => Kind::Ignored,
                b'D' => Kind::Row,
                b'C' | b's' => Kind::Complete,
                b'I' => Kind::Empty,
                b'E' => Kind::Error,
                b'Z' => Kind::Ready(match self.bytes.get(body.start) {
                    Some(b'I') => TransactionStatus::Idle,
                    Some(b'T') => TransactionStatus::InBlock,
                    Some(b'E') => TransactionStatus::Failed,
                    _ => return Err(Malformed),
                }),
                b'G' => Kind::CopyIn,
                b'H' => Kind::CopyOut,
                b'd' => Kind::CopyData,
                b'c' => Kind::CopyDone,
                b'S' => {
                    let reported = commit_time(&self.bytes[body]);
                    self.commit_time = self.commit_time.max(reported);
                    continue;
                }
                b'N' | b'A' => continue,
                _ => return Err(Malformed),
            };
            return Ok(Some(Message { kind, body }));
        }
    }

    /// The latest commit time that the node has reported since somebody asked.
    pub fn take_commit_time(&mut self) -> Option<i64> {
        self.commit_time.take()
    }

    /// A message's body.
    pub fn body(&self, message: &Message) -> &[u8] {
        &self.bytes[message.body.clone()]
    }

    /// A row.
    pub fn row(&mut self, message: &Message) -> Row<'_> {
        let length = message.body.len();
        Row { bytes: &mut self.bytes[message.body.start..=message.body.end], length }
    }

    /// What COMMIT, or another command that ends a transaction, has come to. In a transaction that has failed it rolls back,
    /// without an error.
    pub fn ending(&self, message: &Message, command: &str) -> Ending {
        match self.body(message).strip_suffix(b"\0") {
            Some(tag) if tag == command.as_bytes() => Ending::Committed,
            Some(b"ROLLBACK") => Ending::RolledBack,
            _ => Ending::OfAnother,
        }
    }

    /// How many rows a command says it concerned: the last word of its tag.
    pub fn affected(&self, message: &Message) -> u64 {
        let tag = self.body(message).strip_suffix(b"\0").unwrap_or_default();
        let word = tag.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        std::str::from_utf8(word).ok().and_then(|word| word.parse().ok()).unwrap_or(0)
    }
}

/// The commit time that a changed parameter reports, if it does.
fn commit_time(body: &[u8]) -> Option<i64> {
    let number = body.strip_prefix(COMMIT_TIME)?.strip_suffix(b"\0")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// One row: its values lie one after the other, each behind its length.
#[derive(Debug)]
pub struct Row<'a> {
    bytes: &'a mut [u8],
    length: usize,
}

impl Row<'_> {
    /// Where each column's value is; none for NULL. Replaces what is in `places`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if lengths and body disagree.
    pub fn columns(&self, places: &mut Vec<Option<Range<usize>>>) -> Result<(), Malformed> {
        places.clear();
        let body = &self.bytes[..self.length];
        let count =
            u16::from_be_bytes([*body.first().ok_or(Malformed)?, *body.get(1).ok_or(Malformed)?]);
        let mut at = 2;
        for _ in 0..count {
            let head = body.get(at..at + 4).ok_or(Malformed)?;
            let length = i32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            at += 4;
            places.push(match usize::try_from(length) {
                Err(_) => None,
                Ok(length) => {
                    let place = at..at + length;
                    at = place.end;
                    if at > body.len() {
                        return Err(Malformed);
                    }
                    Some(place)
                }
            });
        }
        Ok(())
    }

    /// All of it, as it came.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The row to be kept.
    pub fn to_owned(&self) -> OwnedRow {
        // With the byte behind it, which readers may change for a while.
        OwnedRow::of(self.bytes())
    }

    /// A value's bytes.
    pub fn value(&self, place: Range<usize>) -> &[u8] {
        &self.bytes[..self.length][place]
    }

    /// A value's bytes and the one behind them, which may be changed as long as it is put back.
    pub fn value_and_next(&mut self, place: Range<usize>) -> &mut [u8] {
        &mut self.bytes[place.start..=place.end]
    }

    /// The first column as text; none if it is NULL or there is none.
    pub fn first_text(&self) -> Option<String> {
        let mut places = Vec::new();
        self.columns(&mut places).ok()?;
        let place = places.into_iter().next()??;
        Some(String::from_utf8_lossy(self.value(place)).into_owned())
    }
}

/// A row that somebody keeps.
#[derive(Clone, Debug)]
pub struct OwnedRow {
    bytes: Vec<u8>,
}

impl OwnedRow {
    /// The row of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { bytes: [bytes, &[0]].concat() }
    }

    /// The row, to be read.
    pub fn as_row(&mut self) -> Row<'_> {
        let length = self.bytes.len() - 1;
        Row { bytes: &mut self.bytes, length }
    }
}

/// The fields of an error: each a letter and a text.
pub fn error_fields(body: &[u8]) -> impl Iterator<Item = (u8, String)> {
    let mut left = body;
    std::iter::from_fn(move || {
        let (letter, rest) = left.split_first()?;
        if *letter == 0 {
            return None;
        }
        let end = rest.iter().position(|byte| *byte == 0)?;
        left = &rest[end + 1..];
        Some((*letter, String::from_utf8_lossy(&rest[..end]).into_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn deliver(inbox: &mut Inbox, mut bytes: &[u8], piece: usize) -> Vec<(Kind, Vec<u8>)> {
        let mut read = Vec::new();
        while !bytes.is_empty() {
            let room = inbox.room();
            let n = piece.min(room.len()).min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
            inbox.received(n);
            bytes = &bytes[n..];
            while let Some(message) = inbox.message().expect("these are messages") {
                read.push((message.kind, inbox.body(&message).to_vec()));
            }
        }
        read
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
        [&[kind], &length[..], body].concat()
    }

    #[test]
    fn the_latest_reported_commit_time_is_kept() {
        let mut inbox = Inbox::default();
        let bytes = [
            message(b'S', b"pg_shard.commit_time\x0077\0"),
            message(b'S', b"pg_shard.commit_time\x0042\0"),
            message(b'S', b"TimeZone\0UTC\0"),
            message(b'S', b"pg_shard.commit_time\0many\0"),
        ]
        .concat();
        assert_eq!(deliver(&mut inbox, &bytes, 5), []);
        assert_eq!(inbox.take_commit_time(), Some(77));
        assert_eq!(inbox.take_commit_time(), None);
    }

    #[test]
    fn notices_and_changed_settings_are_passed_over() {
        let bytes = [
            message(b'1', b""),
            message(b'N', b"SNOTICE\0\0"),
            message(b'S', b"TimeZone\0UTC\0"),
            message(b'Z', b"T"),
        ]
        .concat();
        let read = deliver(&mut Inbox::default(), &bytes, 3);
        let kinds: Vec<Kind> = read.into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [Kind::Parsed, Kind::Ready(TransactionStatus::InBlock)]);
    }

    #[test]
    fn a_row_tells_null_from_empty() {
        let body = [&[0, 3][..], &[0, 0, 0, 2], b"ab", &[255; 4], &[0; 4]].concat();
        let mut inbox = Inbox::default();
        let bytes = message(b'D', &body);
        inbox.room()[..bytes.len()].copy_from_slice(&bytes);
        inbox.received(bytes.len());
        let row = inbox.message().expect("a message").expect("whole");
        let mut row = inbox.row(&row);
        let mut places = Vec::new();
        row.columns(&mut places).expect("well formed");
        assert_eq!(places, [Some(6..8), None, Some(16..16)]);
        assert_eq!(row.value(6..8), b"ab");
        assert_eq!(row.value_and_next(16..16).len(), 1);
        assert_eq!(row.first_text().as_deref(), Some("ab"));
    }

    #[test]
    fn a_row_whose_lengths_lie_is_malformed() {
        let mut inbox = Inbox::default();
        let bytes = message(b'D', &[0, 1, 0, 0, 0, 9, 1]);
        inbox.room()[..bytes.len()].copy_from_slice(&bytes);
        inbox.received(bytes.len());
        let row = inbox.message().expect("a message").expect("whole");
        assert_eq!(inbox.row(&row).columns(&mut Vec::new()), Err(Malformed));
    }

    #[test]
    fn bytes_that_are_no_message_are_malformed() {
        for bytes in [&b"HTTP/1.1"[..], b"Z\0\0\0\x05?", b"D\0\0\0\x01"] {
            let mut inbox = Inbox::default();
            inbox.room()[..bytes.len()].copy_from_slice(bytes);
            inbox.received(bytes.len());
            assert_eq!(inbox.message(), Err(Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn the_tag_says_how_many_rows() {
        for (tag, rows) in [("INSERT 0 7", 7), ("UPDATE 12", 12), ("BEGIN", 0), ("", 0)] {
            let mut inbox = Inbox::default();
            let bytes = message(b'C', &[tag.as_bytes(), b"\0"].concat());
            inbox.room()[..bytes.len()].copy_from_slice(&bytes);
            inbox.received(bytes.len());
            let done = inbox.message().expect("a message").expect("whole");
            assert_eq!(inbox.affected(&done), rows, "{tag}");
        }
    }

    #[test]
    fn the_tag_says_how_a_transaction_has_ended() {
        for (tag, ending) in [
            ("COMMIT", Ending::Committed),
            ("ROLLBACK", Ending::RolledBack),
            ("COMMIT PREPARED", Ending::OfAnother),
            ("INSERT 0 1", Ending::OfAnother),
        ] {
            let mut inbox = Inbox::default();
            let bytes = message(b'C', &[tag.as_bytes(), b"\0"].concat());
            inbox.room()[..bytes.len()].copy_from_slice(&bytes);
            inbox.received(bytes.len());
            let done = inbox.message().expect("a message").expect("whole");
            assert_eq!(inbox.ending(&done, "COMMIT"), ending, "{tag}");
        }
    }

    #[test]
    fn an_error_has_its_fields() {
        let body = b"SERROR\0VERROR\0C23505\0Mduplicate key\0\0";
        let fields: Vec<_> = error_fields(body).collect();
        assert_eq!(fields[2], (b'C', "23505".to_owned()));
        assert_eq!(fields.len(), 4);
        assert_eq!(error_fields(b"Mcut off").count(), 0);
    }

    #[test]
    fn a_long_message_takes_memory_as_its_bytes_come() {
        let mut inbox = Inbox::default();
        let announced = [&b"D"[..], &0x3fff_ffff_u32.to_be_bytes()].concat();
        inbox.room()[..announced.len()].copy_from_slice(&announced);
        inbox.received(announced.len());
        assert_eq!(inbox.message(), Ok(None));
        let mut came = announced.len();
        while came < 4 << 20 {
            let room = inbox.room().len();
            assert!(room <= came.max(ROOM) * 2, "{room} bytes of room after {came}");
            assert!(inbox.bytes.len() <= came * 2 + 2 * ROOM, "after {came} bytes");
            inbox.received(room);
            came += room;
            assert_eq!(inbox.message(), Ok(None));
        }
    }

    #[test]
    fn a_message_longer_than_a_gigabyte_is_malformed() {
        let mut inbox = Inbox::default();
        let announced = [&b"D"[..], &0x4000_0000_u32.to_be_bytes()].concat();
        inbox.room()[..announced.len()].copy_from_slice(&announced);
        inbox.received(announced.len());
        assert_eq!(inbox.message(), Err(Malformed));
    }

    proptest! {
        #[test]
        fn messages_come_out_whole_however_they_are_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20_000), 1..8),
            piece in 1usize..9_000,
        ) {
            let bytes: Vec<u8> = bodies.iter().flat_map(|body| message(b'd', body)).collect();
            let read = deliver(&mut Inbox::default(), &bytes, piece);
            let read: Vec<Vec<u8>> = read.into_iter().map(|(_, body)| body).collect();
            prop_assert_eq!(read, bodies);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut inbox = Inbox::default();
            inbox.room()[..bytes.len()].copy_from_slice(&bytes);
            inbox.received(bytes.len());
            while let Ok(Some(message)) = inbox.message() {
                let _ = inbox.row(&message).columns(&mut Vec::new());
                let _ = error_fields(inbox.body(&message)).count();
            }
        }
    }
}
