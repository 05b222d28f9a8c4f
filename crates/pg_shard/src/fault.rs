//! Faults that tests ask for: what a superuser has named in `pg_shard.fault_point` happens when a commit over several nodes comes
//! to that point. Commits on one node have no such points.

use crate::settings;
use pg::catalog::table;
use std::time::Duration;

/// How long a pause is at most.
const PAUSE: Duration = Duration::from_secs(30);

/// A commit has come to this point.
pub(crate) fn point(name: &str) {
    let Some(wanted) = settings::fault_point() else { return };
    match wanted.split_once(':') {
        Some((point, "kill")) if point == name => pg::server::background::crash(),
        Some((point, "pause")) if point == name => pause(),
        _ => {}
    }
}

/// Says in a file of the data directory that it has come here, and waits until somebody removes the file.
fn pause() {
    let path = format!("{}/pg_shard_paused", table::data_directory());
    if std::fs::write(&path, "").is_err() {
        return;
    }
    let until = pg::net::wait::clock() + PAUSE;
    while std::path::Path::new(&path).exists() && pg::net::wait::clock() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How many leftovers of writes that were under way there is room for: none after "leftovers:none".
pub(crate) fn room_for_leftovers() -> usize {
    let is_none = settings::fault_point().is_some_and(|wanted| wanted == "leftovers:none");
    if is_none { 0 } else { usize::MAX }
}
