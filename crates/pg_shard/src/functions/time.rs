//! The clock and commit times, for whoever commits on several nodes.

use pg::PgError;
use pg::sys::error::raise;
use pg::time::{self, Time};
use pgrx::pg_extern;

/// The clock; NULL if the library is not preloaded.
#[pg_extern]
fn clock() -> Option<i64> {
    time::now().map(Time::number)
}

/// When a transaction of this server has committed that is visible: `at` and the time, or `by` and a time that is not earlier.
#[pg_extern]
fn committed_at(transaction: i64) -> Option<String> {
    time::when_committed(transaction.cast_unsigned()).map(|when| when.to_string())
}

/// The current transaction must not commit before that time. Tells the clock.
#[pg_extern]
fn commit_at(time: i64) -> Option<i64> {
    raise(given(time).and_then(time::commit_at)).map(Time::number)
}

/// The transaction of the next COMMIT PREPARED has committed elsewhere at that time, or not after it.
#[pg_extern]
fn commit_prepared_at(time: i64, is_exact: bool) {
    time::commit_prepared_at(raise(given(time)), is_exact);
}

/// When the session's last transaction with changes has committed.
#[pg_extern]
fn commit_time() -> Option<i64> {
    time::last_commit().map(Time::number)
}

fn given(number: i64) -> Result<Time, PgError> {
    Time::from_number(number).ok_or_else(|| {
        PgError::new(pg::SqlState::INVALID_PARAMETER_VALUE, "a commit time must not be negative")
    })
}
