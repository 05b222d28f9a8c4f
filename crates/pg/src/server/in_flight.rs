//! Writes that two nodes are committing at once, in a file that outlives this server's processes.
//!
//! A backend notes such a write before it sends the first COMMIT, and erases the note when both nodes have answered. The file is mapped
//! into memory, so that a note is a few stores: no system call, no flush. What is in the map belongs to the kernel and survives every process of the server. A
//! crash of the machine loses what the kernel has not written to disk.
//!
//! When the server starts, also after a crash of one backend, each note that is still there becomes a leftover: the placement may have missed the write.
//! Leftovers stay until a visitor has marked their placements, and until then whoever loads the metadata takes these placements for inactive.

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
    /// There may be leftovers.
    has_leftovers: AtomicU32,
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

#[repr(C, align(64))]
struct Note {
    /// 0 if the note is empty; otherwise the rest of it is valid.
    database: AtomicU32,
    pid: AtomicI32,
    started: AtomicI64,
    shard: AtomicI64,
    placement: AtomicI64,
    node: AtomicU64,
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
        self.database.store(0, Ordering::Release);
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

// SAFETY: a number, which is not used.
static CREATION: Area<AtomicU32> = unsafe { Area::new(c"pg_shard in flight", || 0, begin_server) };

/// Has the file mapped when the server starts, if the library is being preloaded; once, when it is loaded.
pub fn register() {
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
                .detail(
                    "A crash of this server may leave two placements different without a mark.",
                ),
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
            self.leave(database, missed);
            note.erase();
        }
    }

    fn leave(self, database: u32, missed: Missed) {
        let entry = (database, missed);
        let leftovers = &self.header.leftovers;
        if leftovers.iter().any(|known| known.read() == Some(entry)) {
            return;
        }
        if let Some(free) = leftovers.iter().find(|note| note.read().is_none()) {
            free.write(database, missed);
            self.header.has_leftovers.store(1, Ordering::Release);
        }
    }
}

/// A note of this backend, which is erased when it is dropped.
#[derive(Debug)]
pub struct InFlight(Option<usize>);

/// Notes that a write is about to be committed which the placement may miss if this process dies. A backend has one note at a time.
pub fn begin(missed: Missed) -> InFlight {
    let place = version::backend_index();
    let note = map().zip(place).and_then(|(map, place)| map.notes.get(place));
    let Some(note) = note else { return InFlight(None) };
    note.write(database(), missed);
    InFlight(place)
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let note = map().zip(self.0).and_then(|(map, place)| map.notes.get(place));
        if let Some(note) = note {
            note.erase();
        }
    }
}

/// What writes of this database may have missed when a process died.
pub fn leftovers() -> Vec<Missed> {
    let Some(map) = map() else { return Vec::new() };
    if map.header.has_leftovers.load(Ordering::Relaxed) == 0 {
        return Vec::new();
    }
    let here = database();
    let all = map.header.leftovers.iter().filter_map(Note::read);
    all.filter(|(database, _)| *database == here).map(|(_, missed)| missed).collect()
}

/// These leftovers of this database have been seen to.
pub fn forget(settled: &[Missed]) {
    let Some(map) = map() else { return };
    let here = database();
    let mut is_empty = true;
    for note in &map.header.leftovers {
        match note.read() {
            Some((database, missed)) if database == here && settled.contains(&missed) => {
                note.erase()
            }
            Some(_) => is_empty = false,
            None => {}
        }
    }
    // Only the postmaster adds some, when nobody else is there.
    if is_empty {
        map.header.has_leftovers.store(0, Ordering::Release);
    }
}
