//! Areas of shared memory: asked for when the library is preloaded, all bytes zero at first, and found by every process that the
//! postmaster starts.

use pgrx::pg_sys;
use std::ffi::CStr;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// An area that begins with a `T`; what it has behind that is its owner's affair.
pub(crate) struct Area<T: 'static> {
    name: &'static CStr,
    /// Bytes behind the `T`; asked when the number of backends is known.
    more: fn() -> usize,
    has_lock: bool,
    /// Fills in what is not zero.
    begin: unsafe fn(*mut T),
    place: AtomicPtr<T>,
}

impl<T: 'static> Area<T> {
    /// # Safety
    ///
    /// All bytes zero is a valid `T`, which is used by several processes at once. `begin` is called with such a one that nobody else uses yet.
    pub(crate) const unsafe fn new(
        name: &'static CStr,
        more: fn() -> usize,
        begin: unsafe fn(*mut T),
    ) -> Self {
        Self { name, more, has_lock: false, begin, place: AtomicPtr::new(null_mut()) }
    }

    /// With a lock of PostgreSQL's, in the tranche of the area's name.
    pub(crate) const fn with_lock(mut self) -> Self {
        self.has_lock = true;
        self
    }

    /// Asks for it, if the library is being preloaded; once, when it is loaded.
    pub(crate) fn reserve(&'static self) {
        // SAFETY: a global of the process.
        if !unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
            return;
        }
        AREAS.lock().unwrap_or_else(PoisonError::into_inner).push(self);
        install();
    }

    /// Where it is; null in a server that has not preloaded the library.
    pub(crate) fn pointer(&self) -> *mut T {
        self.place.load(Ordering::Relaxed)
    }

    /// What it begins with.
    pub(crate) fn get(&self) -> Option<&'static T> {
        // SAFETY: null, or what `place` has made, which stays as long as the process; several may use it (`new`).
        unsafe { self.pointer().as_ref() }
    }
}

/// Areas of all types.
trait Wanted: Sync {
    fn request(&self);
    fn place(&self);
}

impl<T: 'static> Wanted for Area<T> {
    fn request(&self) {
        // SAFETY: the postmaster calls the hook where shared memory may be asked for.
        unsafe {
            pg_sys::RequestAddinShmemSpace(size_of::<T>() + (self.more)());
            if self.has_lock {
                pg_sys::RequestNamedLWLockTranche(self.name.as_ptr(), 1);
            }
        }
    }

    fn place(&self) {
        let size = size_of::<T>() + (self.more)();
        let mut found = false;
        // SAFETY: the postmaster calls the hook once for each creation of shared memory, before any other process is there, so no
        // lock is needed. The memory is as large as asked for and aligned to 128 bytes (`ShmemAllocRaw`, `shmem.c`); all bytes
        // zero is a valid value of it (`new`).
        unsafe {
            let area: *mut T =
                pg_sys::ShmemInitStruct(self.name.as_ptr(), size, &raw mut found).cast();
            if !found && area.addr().is_multiple_of(align_of::<T>()) {
                std::ptr::write_bytes(area.cast::<u8>(), 0, size);
                (self.begin)(area);
                self.place.store(area, Ordering::Relaxed);
            }
        }
    }
}

static AREAS: Mutex<Vec<&'static dyn Wanted>> = Mutex::new(Vec::new());

#[derive(Clone, Copy)]
struct Previous {
    request: pg_sys::shmem_request_hook_type,
    startup: pg_sys::shmem_startup_hook_type,
}

static PREVIOUS: OnceLock<Previous> = OnceLock::new();

fn install() {
    // SAFETY: `_PG_init` runs alone on the main thread of the postmaster; hooks are plain function pointers.
    unsafe {
        let previous =
            Previous { request: pg_sys::shmem_request_hook, startup: pg_sys::shmem_startup_hook };
        if PREVIOUS.set(previous).is_ok() {
            pg_sys::shmem_request_hook = Some(request);
            pg_sys::shmem_startup_hook = Some(startup);
        }
    }
}

fn areas() -> Vec<&'static dyn Wanted> {
    AREAS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// An error ends the postmaster, so what this frame holds need not be dropped.
unsafe extern "C-unwind" fn request() {
    if let Some(Previous { request: Some(previous), .. }) = PREVIOUS.get() {
        // SAFETY: what another library has put there, called as the postmaster would.
        unsafe { previous() };
    }
    areas().into_iter().for_each(Wanted::request);
}

/// As for [`request`].
unsafe extern "C-unwind" fn startup() {
    if let Some(Previous { startup: Some(previous), .. }) = PREVIOUS.get() {
        // SAFETY: what another library has put there, called as the postmaster would.
        unsafe { previous() };
    }
    areas().into_iter().for_each(Wanted::place);
}
