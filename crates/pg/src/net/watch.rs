//! Waits for nodes that take long: the extension is asked, now and then, whether they will ever end.
//!
//! A wait that is shorter costs a look at the clock, or nothing.

use crate::extension::extension;
use crate::net::clock::clock;
use crate::sys::error::{self, PgError};
use std::ffi::c_int;
use std::time::Duration;

/// The longest time between two questions in a wait that is for no lock.
const RARELY: Duration = Duration::from_secs(5);

/// A wait that may take long.
#[derive(Debug, Default)]
pub struct Watch {
    since: Option<Duration>,
    next: Duration,
}

impl Watch {
    /// The longest wait before the next [`Self::look`].
    pub fn patience(&self) -> Option<Duration> {
        let patience = extension().lock_patience()?;
        Some(match self.since {
            None => patience,
            Some(_) => self.next.saturating_sub(clock()).max(Duration::from_millis(1)),
        })
    }

    /// A wait begins, if none has.
    pub fn begin(&mut self) {
        if self.since.is_none()
            && let Some(patience) = extension().lock_patience()
        {
            let now = clock();
            (self.since, self.next) = (Some(now), now + patience);
        }
    }

    /// Something has come: what is waited for now is another wait.
    pub fn begin_again(&mut self) {
        self.since = None;
    }

    /// Nothing has come on these sockets for a moment. Raises an error if nothing ever will.
    pub fn look(&mut self, sockets: &[c_int]) {
        if let Some(error) = self.find(sockets) {
            error::raise::<()>(Err(error));
        }
    }

    /// The same for waits that nothing may interrupt: returns the error.
    pub fn find(&mut self, sockets: &[c_int]) -> Option<PgError> {
        let patience = extension().lock_patience()?;
        self.begin();
        let now = clock();
        if now < self.next {
            return None;
        }
        let waited = self.since.map_or(patience, |since| now - since);
        match extension().has_waited_long(&|| !any_readable(sockets)) {
            Ok(for_lock) => {
                let rarely = waited.clamp(patience, RARELY.max(patience));
                self.next = clock() + if for_lock { patience } else { rarely };
                None
            }
            Err(error) => Some(error),
        }
    }
}

/// One of the sockets has something to read.
fn any_readable(sockets: &[c_int]) -> bool {
    let wanted = |socket: &c_int| libc::pollfd { fd: *socket, events: libc::POLLIN, revents: 0 };
    let mut wanted: Vec<libc::pollfd> = sockets.iter().map(wanted).collect();
    // SAFETY: a list of as many entries as is said; does not wait.
    unsafe { libc::poll(wanted.as_mut_ptr(), wanted.len() as libc::nfds_t, 0) > 0 }
}
