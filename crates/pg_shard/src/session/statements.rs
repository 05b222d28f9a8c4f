//! Which statements a node keeps prepared for a session. The least recently used ones are closed when there are
//! too many, but never one of the flight that is being put together: whoever looks a statement up relies on it until
//! the flight is sent.

use super::{Command, StatementKey};
use lru::LruCache;
use pg::PgError;
use sharing::{Digest, Lease, Table, digest};
use std::cell::RefCell;
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroUsize;

/// Digests that are kept.
const MOST_DIGESTS: NonZeroUsize = NonZeroUsize::new(8192).expect("is not zero");

type Digests = LruCache<StatementKey, Digest, BuildHasherDefault<KeyHasher>>;

thread_local! {
    /// By which digests the statements of this backend are known to all.
    static DIGESTS: RefCell<Digests> =
        RefCell::new(LruCache::with_hasher(MOST_DIGESTS, BuildHasherDefault::default()));
}

/// The statements of one session.
#[derive(Debug)]
pub(super) struct Statements {
    known: LruCache<StatementKey, u32, BuildHasherDefault<KeyHasher>>,
    /// Our own commands, a handful, which are never closed.
    commands: Vec<(StatementKey, u32)>,
    next: u32,
    /// Not known any more, but the node may have them.
    forgotten: Vec<u32>,
    /// The same, as soon as the flight that is put together has been sent.
    passing: Vec<u32>,
    /// The session is shared: what the node keeps is in the table.
    shared: Option<(&'static Table, Lease)>,
}

impl Default for Statements {
    fn default() -> Self {
        Self {
            known: LruCache::unbounded_with_hasher(BuildHasherDefault::default()),
            commands: Vec::new(),
            next: 0,
            forgotten: Vec::new(),
            passing: Vec::new(),
            shared: None,
        }
    }
}

/// What a statement is called, and what has to be done about that.
pub(super) struct Found {
    /// Its number.
    pub(super) number: u32,
    /// It has to be prepared.
    pub(super) is_new: bool,
}

/// A statement's text, made if it is needed.
pub(super) type Render<'a> = &'a dyn Fn() -> Result<String, PgError>;

/// The digest by which all backends know a statement; its text, if that had to be made.
fn digest_of(
    key: StatementKey,
    types: &[u32],
    render: Render<'_>,
) -> Result<(Digest, Option<String>), PgError> {
    if let Some(known) = DIGESTS.with_borrow_mut(|digests| digests.get(&key).copied()) {
        return Ok((known, None));
    }
    let text = render()?;
    let types: Vec<u8> = types.iter().flat_map(|it| it.to_le_bytes()).collect();
    let found = digest([text.as_bytes(), &types]);
    DIGESTS.with_borrow_mut(|digests| digests.put(key, found));
    Ok((found, Some(text)))
}

impl Statements {
    /// The session was this backend's alone, and is shared from now on.
    pub(super) fn begin_to_share(&mut self, table: &'static Table, lease: Lease) {
        self.forget_all();
        table.slot(lease.slot).statements.begin_at(self.next);
        self.shared = Some((table, lease));
    }

    /// The statements of the session are those that the table says.
    pub(super) fn share(&mut self, table: &'static Table, lease: Lease) {
        self.shared = Some((table, lease));
    }

    /// The session is gone.
    pub(super) fn forget_lease(&mut self) {
        *self = Self::default();
    }

    /// Statements are to be closed of which others do not know.
    pub(super) fn has_forgotten(&self) -> bool {
        !self.forgotten.is_empty() || !self.passing.is_empty()
    }

    fn table(&self) -> Option<&'static sharing::Statements> {
        self.shared.map(|(table, lease)| &table.slot(lease.slot).statements)
    }

    /// A flight is put together.
    pub(super) fn begin_flight(&mut self) {
        if let Some(table) = self.table() {
            self.forgotten.append(&mut self.passing);
            table.begin_flight();
        }
    }

    /// How the node knows the statement. A new one counts as prepared from now on; its text is made if it has to be prepared, or if
    /// `needs_text`.
    pub(super) fn find(
        &mut self,
        key: StatementKey,
        types: &[u32],
        needs_text: bool,
        render: Render<'_>,
    ) -> Result<(Found, Option<String>), PgError> {
        let Some(table) = self.table() else {
            let found = self.find_own(key);
            let text = (found.is_new || needs_text).then(render).transpose();
            if found.is_new && text.is_err() {
                self.forget(key);
            }
            return Ok((found, text?));
        };
        let (digest, text) = digest_of(key, types, render)?;
        let text = match text {
            None if needs_text || !table.has(digest) => Some(render()?),
            text => text,
        };
        let found = self.note(table.find(digest));
        let text = text.filter(|_| found.is_new || needs_text);
        Ok((found, text))
    }

    fn note(&mut self, found: sharing::Found) -> Found {
        self.forgotten.extend(found.closes);
        self.passing.extend(found.is_passing.then_some(found.number));
        Found { number: found.number, is_new: found.is_new }
    }

    fn find_own(&mut self, key: StatementKey) -> Found {
        if let Some(number) = self.known.get(&key) {
            return Found { number: *number, is_new: false };
        }
        let number = self.next_number();
        self.known.put(key, number);
        Found { number, is_new: true }
    }

    /// The number of a command of ours.
    pub(super) fn find_command(&mut self, command: Command) -> Found {
        let key = command.key();
        if let Some(table) = self.table()
            && let Ok((digest, _)) = digest_of(key, &[], &|| Ok(command.sql().into_owned()))
        {
            return self.note(table.find(digest));
        }
        if let Some((_, number)) = self.commands.iter().find(|(known, _)| *known == key) {
            return Found { number: *number, is_new: false };
        }
        let number = self.next_number();
        self.commands.push((key, number));
        Found { number, is_new: true }
    }

    fn next_number(&mut self) -> u32 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        number
    }

    /// Forgets the least recently used statements, so that `limit` are left with our commands among them, but not the
    /// last `in_use`.
    pub(super) fn trim(&mut self, limit: usize, in_use: usize) {
        // Places are kept for BEGIN and for what shows a commit, which may come only after this.
        let most = limit.saturating_sub(self.commands.len().max(2)).max(in_use);
        while self.known.len() > most {
            self.forgotten.extend(self.known.pop_lru().map(|(_, number)| number));
        }
    }

    /// The node does not have it after all.
    pub(super) fn forget(&mut self, key: StatementKey) {
        if let Some(table) = self.table() {
            match DIGESTS.with_borrow_mut(|digests| digests.get(&key).copied()) {
                Some(digest) => table.forget(digest),
                // Which one it is is not known any more.
                None => self.forget_all(),
            }
            return;
        }
        self.known.pop(&key);
        self.commands.retain(|(known, _)| *known != key);
    }

    /// Whether the node has any of them is not known, nor whether they are of any use.
    pub(super) fn forget_all(&mut self) {
        if let Some(table) = self.table() {
            table.drain(&mut |number| self.forgotten.push(number));
        }
        self.forgotten.extend(self.known.iter().map(|(_, number)| *number));
        self.forgotten.extend(self.commands.drain(..).map(|(_, number)| number));
        self.known.clear();
    }

    /// Statements that were forgotten, to be closed: closing one that the node does not have is no error.
    pub(super) fn take_forgotten(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.forgotten)
    }
}

/// Keys are small numbers of our own: two multiplications spread them well enough (Fibonacci hashing).
#[derive(Debug, Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_i64(&mut self, value: i64) {
        self.write_u64(value.cast_unsigned());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}
