//! Which statements a node keeps prepared for a session. The least recently used ones are closed when there are
//! too many, but never one of the flight that is being put together: whoever looks a statement up relies on it until
//! the flight is sent.

use super::StatementKey;
use lru::LruCache;
use std::hash::{BuildHasherDefault, Hasher};

/// The statements of one session.
#[derive(Debug)]
pub(super) struct Statements {
    known: LruCache<StatementKey, u32, BuildHasherDefault<KeyHasher>>,
    /// Our own commands, a handful, which are never closed.
    commands: Vec<(StatementKey, u32)>,
    next: u32,
    /// Not known any more, but the node may have them.
    forgotten: Vec<u32>,
}

impl Default for Statements {
    fn default() -> Self {
        Self {
            known: LruCache::unbounded_with_hasher(BuildHasherDefault::default()),
            commands: Vec::new(),
            next: 0,
            forgotten: Vec::new(),
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

impl Statements {
    /// The statement's number. A new one counts as prepared from now on.
    pub(super) fn find(&mut self, key: StatementKey) -> Found {
        if let Some(number) = self.known.get(&key) {
            return Found { number: *number, is_new: false };
        }
        let number = self.next_number();
        self.known.put(key, number);
        Found { number, is_new: true }
    }

    /// The number of a command of ours.
    pub(super) fn find_command(&mut self, key: StatementKey) -> Found {
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
        self.known.pop(&key);
        self.commands.retain(|(known, _)| *known != key);
    }

    /// Whether the node has any of them is not known, nor whether they are of any use.
    pub(super) fn forget_all(&mut self) {
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
