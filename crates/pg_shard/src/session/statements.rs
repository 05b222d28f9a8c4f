//! Which statements a node keeps prepared for a session. The least recently used one is closed when there are
//! too many.

use super::StatementKey;
use lru::LruCache;
use std::hash::{BuildHasherDefault, Hasher};

/// The statements of one session.
#[derive(Debug)]
pub(super) struct Statements {
    known: LruCache<StatementKey, u32, BuildHasherDefault<KeyHasher>>,
    next: u32,
    /// Not known any more, but the node may have them.
    forgotten: Vec<u32>,
}

impl Default for Statements {
    fn default() -> Self {
        Self {
            known: LruCache::unbounded_with_hasher(BuildHasherDefault::default()),
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
    /// This one has to be closed.
    pub(super) closed: Option<u32>,
}

impl Statements {
    /// The node has it.
    pub(super) fn knows(&self, key: StatementKey) -> bool {
        self.known.contains(&key)
    }

    /// The statement's number; if it is a new one, the session keeps `limit` at most.
    pub(super) fn find(&mut self, key: StatementKey, limit: usize) -> Found {
        if let Some(number) = self.known.get(&key) {
            return Found { number: *number, is_new: false, closed: None };
        }
        let closed = if self.known.len() >= limit {
            self.known.pop_lru().map(|(_, number)| number)
        } else {
            None
        };
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.known.put(key, number);
        Found { number, is_new: true, closed }
    }

    /// The node does not have it after all.
    pub(super) fn forget(&mut self, key: StatementKey) {
        self.known.pop(&key);
    }

    /// Whether the node has any of them is not known, nor whether they are of any use.
    pub(super) fn forget_all(&mut self) {
        self.forgotten.extend(self.known.iter().map(|(_, number)| *number));
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
