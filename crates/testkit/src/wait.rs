//! Waiting for something to become true.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything that a test waits for may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until the answer is yes; panics after a minute of no.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited a minute for this: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
