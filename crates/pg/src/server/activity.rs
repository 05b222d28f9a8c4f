//! What backends have under way on nodes, in shared memory, for other sessions to see.
//!
//! Each backend has a slot, which nobody else writes, and changes it with a few plain stores: no lock, no system call.
//! Whoever reads a slot finds by its counter of changes whether it was changed meanwhile, and reads again, as PostgreSQL
//! does with `PgBackendStatus` (`src/include/utils/backend_status.h`). A slot tells the process and the moment of its start,
//! so that what a dead process has left is recognised by whoever knows the living ones.
//!
//! Nodes are known by numbers, under which their names stand in shared memory too; they are never removed. Beside them stands
//! when tables were last changed in which database, for whoever keeps statistics fresh.
//!
//! Without `shared_preload_libraries` there is no shared memory of ours, and nothing is told.

use crate::sys::shared_memory::Area;
use crate::sys::version;
use pgrx::pg_sys::{self, Oid};
use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering, fence};

/// Nodes that can be told apart; statements on others are told without their nodes.
const NODES: usize = 256;

/// Bytes of a node's name; longer ones are cut.
const NAME_BYTES: usize = 120;

/// Databases whose changes are told apart.
const DATABASES: usize = 64;

/// How often a slot is read again because its owner has changed it meanwhile.
const TRIES: usize = 1000;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Shards that the statement asks.
    Shards,
    /// Those that have answered to the end.
    ShardsDone,
    /// Rows that nodes have sent.
    RowsReceived,
    /// Bytes that nodes have sent.
    BytesReceived,
    /// Rows that nodes were sent to store.
    RowsSent,
    /// Bytes that nodes were sent.
    BytesSent,
}

const COUNTERS: usize = 6;

/// A node's place in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeNumber(u8);

impl NodeNumber {
    /// As a number.
    pub fn number(self) -> u8 {
        self.0
    }
}

/// A set of nodes.
#[derive(Default)]
struct NodeSet([AtomicU64; NODES / 64]);

impl NodeSet {
    /// Only the owner of the slot changes it, so that this need not be one step.
    fn set(&self, node: NodeNumber, is_in: bool) {
        let word = &self.0[usize::from(node.0) / 64];
        let bit = 1 << (node.0 % 64);
        let before = word.load(Ordering::Relaxed);
        word.store(if is_in { before | bit } else { before & !bit }, Ordering::Relaxed);
    }

    fn clear(&self) {
        for word in &self.0 {
            word.store(0, Ordering::Relaxed);
        }
    }

    fn names(&self, nodes: &[Node]) -> Vec<String> {
        let is_in =
            |number: usize| self.0[number / 64].load(Ordering::Relaxed) & (1 << (number % 64)) != 0;
        (0..NODES)
            .filter(|number| is_in(*number))
            .filter_map(|number| nodes[number].name())
            .collect()
    }
}

/// What a backend has under way.
#[repr(C, align(128))]
pub struct Slot {
    /// Odd while the slot is being changed.
    changes: AtomicU32,
    /// What is done; 0 for nothing.
    kind: AtomicU32,
    pid: AtomicI32,
    user: AtomicU32,
    backend_start: AtomicI64,
    since: AtomicI64,
    /// When the transaction began.
    transaction_start: AtomicI64,
    counters: [AtomicU64; COUNTERS],
    asked: NodeSet,
    waiting: NodeSet,
}

/// What another backend's slot says.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The process.
    pub pid: i32,
    /// When it was started.
    pub backend_start: i64,
    /// The role that logged in.
    pub user: Oid,
    /// What is done.
    pub kind: u32,
    /// Since when.
    pub since: i64,
    /// By [`Counter`].
    counters: [u64; COUNTERS],
    /// Nodes that were asked for something.
    pub nodes: Vec<String>,
    /// Those that have not answered to the end.
    pub waiting: Vec<String>,
}

impl Seen {
    /// What was counted.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }
}

/// A node's name. Once it is written it stays.
#[repr(C)]
struct Node {
    state: AtomicU32,
    length: AtomicU32,
    name: UnsafeCell<[u8; NAME_BYTES]>,
}

const FREE: u32 = 0;
const BEING_WRITTEN: u32 = 1;
const WRITTEN: u32 = 2;

impl Node {
    fn name(&self) -> Option<String> {
        if self.state.load(Ordering::Acquire) != WRITTEN {
            return None;
        }
        let length = (self.length.load(Ordering::Relaxed) as usize).min(NAME_BYTES);
        // SAFETY: whoever set the state has written the name before, and nobody writes it again.
        let name = unsafe { &*self.name.get() };
        Some(String::from_utf8_lossy(&name[..length]).into_owned())
    }

    /// Writes the name, if nobody has taken the place.
    fn take(&self, name: &str) -> bool {
        let order = (Ordering::Acquire, Ordering::Relaxed);
        if self.state.compare_exchange(FREE, BEING_WRITTEN, order.0, order.1).is_err() {
            return false;
        }
        // SAFETY: the exchange above succeeds for one process only, and readers wait for the state below.
        unsafe { (&mut *self.name.get())[..name.len()].copy_from_slice(name.as_bytes()) };
        self.length.store(name.len() as u32, Ordering::Relaxed);
        self.state.store(WRITTEN, Ordering::Release);
        true
    }
}

/// A database whose tables were changed.
#[repr(C)]
struct Database {
    oid: AtomicU32,
    changed: AtomicI64,
    /// What was told last of failures there.
    told: AtomicU64,
}

/// Our shared memory; the slots follow it.
#[repr(C, align(128))]
struct Shared {
    slots: usize,
    nodes: [Node; NODES],
    databases: [Database; DATABASES],
}

// SAFETY: all bytes zero is valid; everything in it but the number of slots, which nobody changes, is atomic or written once.
static SHARED: Area<Shared> = unsafe {
    let slots = || slot_count() * size_of::<Slot>();
    Area::new(c"pg_shard activity", slots, |shared| (*shared).slots = slot_count())
};

/// Asks for shared memory, if the library is being preloaded; once, when it is loaded.
pub fn reserve() {
    SHARED.reserve();
}

fn slot_count() -> usize {
    // SAFETY: set before the hooks are called, and never changed.
    usize::try_from(unsafe { pg_sys::MaxBackends }).unwrap_or(0)
}

fn shared() -> Option<&'static Shared> {
    SHARED.get()
}

fn slots() -> &'static [Slot] {
    let Some(shared) = shared() else { return &[] };
    // SAFETY: the slots follow the header; there are so many.
    unsafe {
        let first = SHARED.pointer().add(1).cast::<Slot>();
        std::slice::from_raw_parts(first, shared.slots)
    }
}

/// This backend's slot.
pub fn mine() -> Option<&'static Slot> {
    slots().get(version::backend_index()?)
}

/// When the client's last message came; nothing changes it before the next.
pub fn statement_start() -> i64 {
    // SAFETY: reads a global of the backend.
    unsafe { raw::GetCurrentStatementStartTimestamp() }
}

/// Now, in PostgreSQL's count.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { raw::GetCurrentTimestamp() }
}

mod raw {
    //! Called without pgrx' guard, since they raise nothing.
    unsafe extern "C-unwind" {
        /// Raises nothing: reads a variable or the clock (`src/backend/access/transam/xact.c`).
        pub(super) fn GetCurrentStatementStartTimestamp() -> i64;
        /// Raises nothing: reads a variable or the clock (`src/backend/access/transam/xact.c`).
        pub(super) fn GetCurrentTransactionStartTimestamp() -> i64;
        /// Raises nothing: reads a variable or the clock (`src/backend/access/transam/xact.c`).
        pub(super) fn GetCurrentTimestamp() -> i64;
    }
}

impl Slot {
    fn change(&self, body: impl FnOnce()) {
        let before = self.changes.load(Ordering::Relaxed);
        self.changes.store(before | 1, Ordering::Relaxed);
        fence(Ordering::Release);
        body();
        self.changes.store((before | 1).wrapping_add(1), Ordering::Release);
    }

    /// Something begins, with all counters at zero.
    pub fn begin(&self, kind: u32, since: i64) {
        self.change(|| {
            // SAFETY: globals of the backend; it has a PGPROC as long as it has a number.
            unsafe {
                self.pid.store(pg_sys::MyProcPid, Ordering::Relaxed);
                self.user.store((*pg_sys::MyProc).roleId.to_u32(), Ordering::Relaxed);
                self.backend_start.store(pg_sys::MyStartTimestamp, Ordering::Relaxed);
                let transaction_start = raw::GetCurrentTransactionStartTimestamp();
                self.transaction_start.store(transaction_start, Ordering::Relaxed);
            }
            for counter in &self.counters {
                counter.store(0, Ordering::Relaxed);
            }
            self.asked.clear();
            self.waiting.clear();
            self.since.store(since, Ordering::Relaxed);
            self.kind.store(kind, Ordering::Relaxed);
        });
    }

    /// It is of this kind; 0 says that it is over.
    pub fn set_kind(&self, kind: u32) {
        self.kind.store(kind, Ordering::Relaxed);
    }

    /// Counts.
    pub fn add(&self, counter: Counter, number: u64) {
        let counter = &self.counters[counter as usize];
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(number), Ordering::Relaxed);
    }

    /// A node has been asked for something.
    pub fn asks(&self, node: NodeNumber) {
        self.asked.set(node, true);
        self.waiting.set(node, true);
    }

    /// It has answered to the end, or never will.
    pub fn has_answered(&self, node: NodeNumber) {
        self.waiting.set(node, false);
    }

    fn see(&self, nodes: &[Node]) -> Option<Seen> {
        for _ in 0..TRIES {
            let before = self.changes.load(Ordering::Acquire);
            let seen = Seen {
                pid: self.pid.load(Ordering::Relaxed),
                backend_start: self.backend_start.load(Ordering::Relaxed),
                user: Oid::from(self.user.load(Ordering::Relaxed)),
                kind: self.kind.load(Ordering::Relaxed),
                since: self.since.load(Ordering::Relaxed),
                counters: std::array::from_fn(|at| self.counters[at].load(Ordering::Relaxed)),
                nodes: self.asked.names(nodes),
                waiting: self.waiting.names(nodes),
            };
            fence(Ordering::Acquire);
            if before & 1 == 0 && self.changes.load(Ordering::Relaxed) == before {
                return (seen.kind != 0).then_some(seen);
            }
            std::hint::spin_loop();
        }
        None
    }
}

/// Counts in this backend's slot.
pub fn count(counter: Counter, number: u64) {
    if let Some(slot) = mine() {
        slot.add(counter, number);
    }
}

/// What backends have under way, as far as the current user may see it (`HAS_PGSTAT_PERMISSIONS`, `pgstatfuncs.c`).
pub fn all() -> Vec<Seen> {
    let Some(shared) = shared() else { return Vec::new() };
    // SAFETY: looks at roles by OID.
    let may_see = |role: Oid| unsafe {
        let user = pg_sys::GetUserId();
        pg_sys::has_privs_of_role(user, Oid::from(pg_sys::ROLE_PG_READ_ALL_STATS))
            || pg_sys::has_privs_of_role(user, role)
    };
    slots()
        .iter()
        .filter_map(|slot| slot.see(&shared.nodes))
        .filter(|seen| may_see(seen.user))
        .collect()
}

/// When the transaction began in which a backend has something under way on nodes.
pub fn transaction_start(pid: i32) -> Option<i64> {
    let is_it = |slot: &&Slot| {
        slot.pid.load(Ordering::Relaxed) == pid && slot.kind.load(Ordering::Relaxed) != 0
    };
    slots().iter().find(is_it).map(|slot| slot.transaction_start.load(Ordering::Relaxed))
}

/// The nodes for which some backend waits.
pub fn awaited_nodes() -> Vec<String> {
    let Some(shared) = shared() else { return Vec::new() };
    let all = NodeSet::default();
    for slot in slots().iter().filter(|slot| slot.kind.load(Ordering::Relaxed) != 0) {
        for (word, of_slot) in all.0.iter().zip(&slot.waiting.0) {
            word.fetch_or(of_slot.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
    all.names(&shared.nodes)
}

/// The name of a node with this number.
pub fn node_name(number: usize) -> Option<String> {
    shared()?.nodes.get(number)?.name()
}

/// The number of a node with this name; none if there are too many nodes.
pub fn node_number(name: &str) -> Option<NodeNumber> {
    let name = &name[..name.floor_char_boundary(NAME_BYTES)];
    for (number, node) in shared()?.nodes.iter().enumerate() {
        // Two who come for the same name at once may both write it: whoever reads names does not mind.
        if node.take(name) || node.name().is_some_and(|known| known == name) {
            return u8::try_from(number).ok().map(NodeNumber);
        }
    }
    None
}

thread_local! {
    /// The place of this backend's database among those of the shared memory.
    static DATABASE: Cell<Option<usize>> = const { Cell::new(None) };
}

fn database(oid: Oid) -> Option<&'static Database> {
    let databases = &shared()?.databases;
    if let Some(known) = DATABASE.get().and_then(|at| databases.get(at))
        && known.oid.load(Ordering::Relaxed) == oid.to_u32()
    {
        return Some(known);
    }
    databases.iter().enumerate().find_map(|(at, entry)| {
        let order = (Ordering::Relaxed, Ordering::Relaxed);
        let is_ours = match entry.oid.compare_exchange(0, oid.to_u32(), order.0, order.1) {
            Ok(_) => true,
            Err(other) => other == oid.to_u32(),
        };
        is_ours.then(|| {
            DATABASE.set(Some(at));
            entry
        })
    })
}

/// Notes that tables of this backend's database have been changed just now.
pub fn note_change() {
    // SAFETY: a global of the backend.
    if let Some(entry) = database(unsafe { pg_sys::MyDatabaseId }) {
        entry.changed.store(now(), Ordering::Relaxed);
    }
}

/// When tables of a database were last changed, since the server was started; if nobody can know, now.
pub fn last_change(oid: Oid) -> i64 {
    let Some(shared) = shared() else { return now() };
    let known = shared.databases.iter().find(|it| it.oid.load(Ordering::Relaxed) == oid.to_u32());
    match known {
        Some(entry) => entry.changed.load(Ordering::Relaxed),
        None if shared.databases.iter().all(|it| it.oid.load(Ordering::Relaxed) != 0) => now(),
        None => 0,
    }
}

/// Whether this is news: `what` is remembered for this backend's database, and is not what was remembered there.
pub fn is_news(what: u64) -> bool {
    // SAFETY: a global of the backend.
    let entry = database(unsafe { pg_sys::MyDatabaseId });
    entry.is_none_or(|entry| entry.told.swap(what, Ordering::Relaxed) != what)
}

// SAFETY: the one field that is not atomic is written by the one process that has taken its place, before the others may
// read it.
unsafe impl Sync for Node {}
