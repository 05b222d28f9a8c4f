//! Writes that two nodes are committing at once, in a file that outlives this server's processes.
//!
//! A backend notes such a write before it sends the first COMMIT, and erases the note when the placements are equal or the one that is behind is
//! marked. The file is mapped into memory, so that a note is a few stores: no system call, no flush. What is in the map belongs to the kernel and survives every process of the server. A
//! crash of the machine loses what the kernel has not written to disk.
//!
//! A note becomes a leftover when its backend could not store the mark, and when its backend is gone: the placement may have missed the write. The
//! start of the server, also after a crash of one backend, takes leftovers off the places of the backends as long as there is room elsewhere; the rest
//! stay where they are. Leftovers stay until a visitor has marked their placements, and until then whoever loads the metadata takes these
//! placements for inactive. A backend whose place is taken by a leftover has no note: it must write in a way that needs none.

use crate::server::given_up::Process;
use crate::sys::error::{self, PgError, SqlState};
use crate::sys::shared_memory::Area;
use crate::sys::version;
use pgrx::pg_sys;
use std::ffi::c_int;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// The file, in the data directory.
const FILE: &str = "pg_shard_in_flight";

/// What the file begins with, by the version of its layout.
const MAGIC: u64 = u64::from_be_bytes(*b"pgshard2");

/// Leftovers that the file has room for.
const LEFTOVERS: usize = 1024;

/// What the file holds; the notes of the backends follow. All bytes zero is the beginning.
#[repr(C, align(64))]
struct Header {
    magic: AtomicU64,
    /// As many leftovers as there are, or more.
    count: AtomicU32,
    leftovers: [Note; LEFTOVERS],
}

/// What a write may miss, and who was to execute it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The shard.
    pub shard: i64,
    /// The placement.
    pub placement: i64,
    /// Its node, by a number that stands for it.
    pub node: u64,
    /// The node's process.
    pub process: Process,
}

#[derive(Debug)]
#[repr(C, align(64))]
struct Note {
    /// 0 if the note is empty; otherwise the rest of it is valid.
    database: AtomicU32,
    pid: AtomicI32,
    started: AtomicI64,
    shard: AtomicI64,
    placement: AtomicI64,
    node: AtomicU64,
    /// 1 if it is a leftover, although it is at a backend's place.
    is_left: AtomicU32,
}

impl Note {
    fn write(&self, database: u32, missed: Missed) {
        self.shard.store(missed.shard, Ordering::Relaxed);
        self.placement.store(missed.placement, Ordering::Relaxed);
        self.node.store(missed.node, Ordering::Relaxed);
        self.pid.store(missed.process.pid, Ordering::Relaxed);
        self.started.store(missed.process.started, Ordering::Relaxed);
        self.database.store(database, Ordering::Release);
    }

    fn erase(&self) {
        // In this order: see `place`.
        self.database.store(0, Ordering::Release);
        self.is_left.store(0, Ordering::Release);
    }

    fn is_empty(&self) -> bool {
        self.database.load(Ordering::Acquire) == 0
    }

    fn read(&self) -> Option<(u32, Missed)> {
        let database = self.database.load(Ordering::Acquire);
        let missed = Missed {
            shard: self.shard.load(Ordering::Relaxed),
            placement: self.placement.load(Ordering::Relaxed),
            node: self.node.load(Ordering::Relaxed),
            process: Process {
                pid: self.pid.load(Ordering::Relaxed),
                started: self.started.load(Ordering::Relaxed),
            },
        };
        (database != 0).then_some((database, missed))
    }
}

/// The map, in the postmaster and in all processes that it has started since.
#[derive(Clone, Copy)]
struct Map {
    header: &'static Header,
    notes: &'static [Note],
}

static HEADER: AtomicPtr<Header> = AtomicPtr::new(null_mut());
static NOTES: OnceLock<usize> = OnceLock::new();

/// For tests: how many leftovers there is room for.
static ROOM: OnceLock<fn() -> usize> = OnceLock::new();

// SAFETY: a number, which is not used.
static CREATION: Area<AtomicU32> = unsafe { Area::new(c"pg_shard in flight", || 0, begin_server) };

/// Has the file mapped when the server starts, if the library is being preloaded; once, when it is loaded.
/// Tests have it find less room for leftovers.
pub fn register(room: fn() -> usize) {
    let _ = ROOM.set(room);
    CREATION.reserve();
}

/// Called whenever shared memory is created: by the postmaster, before any other process is there.
///
/// # Safety
///
/// There is none.
unsafe fn begin_server(_creation: *mut AtomicU32) {
    // A crash of a backend has the postmaster come here again; it has the map already.
    if map().is_none()
        && let Err(reason) = open()
    {
        error::log(
            PgError::new(SqlState::WARNING, format!("could not map file \"{FILE}\": {reason}"))
                .detail("Statements that write two placements need another round trip."),
        );
    }
    if let Some(map) = map() {
        map.collect();
    }
}

fn open() -> std::io::Result<()> {
    // SAFETY: set before the hooks are called, and never changed.
    let backends = usize::try_from(unsafe { pg_sys::MaxBackends }).unwrap_or(0);
    // PostgreSQL's processes work in the data directory.
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(FILE)?;
    let known = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    let length = known.max(size_of::<Header>() + backends * size_of::<Note>());
    let length_for_c = libc::off_t::try_from(length).map_err(std::io::Error::other)?;
    // SAFETY: the file is open. Its blocks are there before it is mapped: a full disk must not become a SIGBUS.
    let allocated = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length_for_c) };
    if allocated != 0 {
        return Err(std::io::Error::from_raw_os_error(allocated));
    }
    let (protection, fd): (c_int, c_int) = (libc::PROT_READ | libc::PROT_WRITE, file.as_raw_fd());
    // SAFETY: a new mapping of a file that is as long; it is never unmapped.
    let start = unsafe { libc::mmap(null_mut(), length, protection, libc::MAP_SHARED, fd, 0) };
    if start == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    let header: *mut Header = start.cast();
    // SAFETY: the mapping is page-aligned and as long as the header; nobody else uses it yet, and all bytes zero is valid.
    unsafe {
        if (*header).magic.load(Ordering::Relaxed) != MAGIC {
            std::ptr::write_bytes(start.cast::<u8>(), 0, length);
            (*header).magic.store(MAGIC, Ordering::Relaxed);
        }
    }
    let _ = NOTES.set((length - size_of::<Header>()) / size_of::<Note>());
    HEADER.store(header, Ordering::Release);
    Ok(())
}

fn map() -> Option<Map> {
    let start = HEADER.load(Ordering::Relaxed);
    // SAFETY: null, or what `open` has mapped for as long as the process lives; the notes follow the header, there are so many,
    // and everything in them is atomic.
    unsafe {
        let header = start.as_ref()?;
        let notes = std::slice::from_raw_parts(start.add(1).cast::<Note>(), *NOTES.get()?);
        Some(Map { header, notes })
    }
}

fn database() -> u32 {
    // SAFETY: a global of the process.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

impl Map {
    /// Before there are backends: what dead ones have noted becomes leftovers.
    fn collect(self) {
        for note in self.notes {
            let Some((database, missed)) = note.read() else { continue };
            if self.has_moved(database, missed) {
                note.erase();
            } else {
                note.is_left.store(1, Ordering::Release);
            }
        }
        let count = self.leftovers().count();
        self.header.count.store(u32::try_from(count).unwrap_or(u32::MAX), Ordering::Release);
    }

    /// Before there are backends: makes it a leftover in the room for them, if there is some.
    fn has_moved(self, database: u32, missed: Missed) -> bool {
        let room = (ROOM.get().copied().unwrap_or(|| LEFTOVERS))().min(LEFTOVERS);
        let leftovers = &self.header.leftovers[..room];
        if leftovers.iter().any(|known| known.read() == Some((database, missed))) {
            return true;
        }
        let free = leftovers.iter().find(|note| note.is_empty());
        if let Some(free) = free {
            free.write(database, missed);
        }
        free.is_some()
    }

    /// Those of all databases, and where they are.
    fn leftovers(self) -> impl Iterator<Item = (&'static Note, u32, Missed)> {
        let at_places = self.notes.iter().filter(|note| note.is_left.load(Ordering::Acquire) != 0);
        let all = self.header.leftovers.iter().chain(at_places);
        all.filter_map(|note| note.read().map(|(database, missed)| (note, database, missed)))
    }

    /// The note is from now on a leftover.
    fn leave(self, note: &Note) {
        // Whoever sees the note must look for it: the count comes first.
        self.header.count.fetch_add(1, Ordering::AcqRel);
        note.is_left.store(1, Ordering::Release);
    }
}

/// The place of this backend's note, which is free.
#[derive(Clone, Copy, Debug)]
pub struct Place(&'static Note);

/// What a backend finds at its place.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// Nothing.
    Free(Place),
    /// No place, or a leftover.
    Taken,
    /// What an earlier backend has left there, which is a leftover from now on: see [`InFlight::leave`].
    Left,
}

/// The place of this backend's note. A backend has one note at a time.
pub fn place() -> Found {
    let Some((map, place)) = map().zip(version::backend_index()) else { return Found::Taken };
    let Some(note) = map.notes.get(place) else { return Found::Taken };
    // A visitor erases a leftover by its database first, so a note that is none, looked at first, is empty or a backend's.
    if note.is_left.load(Ordering::Acquire) != 0 {
        return Found::Taken;
    }
    if note.is_empty() {
        return Found::Free(Place(note));
    }
    map.leave(note);
    Found::Left
}

/// A note of this backend. It stays there until it is said to be settled.
#[derive(Debug)]
#[must_use]
pub struct InFlight(Place);

impl Place {
    /// Notes that a write is about to be committed which the placement may miss if this process dies.
    pub fn note(self, missed: Missed) -> InFlight {
        self.0.write(database(), missed);
        InFlight(self)
    }
}

impl InFlight {
    /// Both placements are equal, or one is marked.
    pub fn settle(self) {
        self.0.0.erase();
    }

    /// This placement is the one that is behind, and could not be marked: the note becomes a leftover. All backends must learn of it, and somebody
    /// must come and mark it.
    pub fn leave(self, missed: Missed) {
        let Some(map) = map() else { return };
        self.0.0.write(database(), missed);
        map.leave(self.0.0);
    }
}

/// What writes of a database may have missed.
#[derive(Clone, Copy, Debug)]
pub struct Leftover {
    /// What.
    pub missed: Missed,
    note: &'static Note,
}

/// What writes of this database may have missed, because a process died or could not mark it.
pub fn leftovers() -> Vec<Leftover> {
    let Some(map) = map() else { return Vec::new() };
    if map.header.count.load(Ordering::Acquire) == 0 {
        return Vec::new();
    }
    let here = database();
    let all = map.leftovers().filter(|(_, database, _)| *database == here);
    all.map(|(note, _, missed)| Leftover { missed, note }).collect()
}

/// These leftovers have been seen to. Nobody else may do that at the same time.
pub fn forget(settled: &[Leftover]) {
    let Some(map) = map() else { return };
    for leftover in settled {
        leftover.note.erase();
        map.header.count.fetch_sub(1, Ordering::AcqRel);
    }
}
