//! What a node says of itself when a session begins.

/// Its process, how many transactions can be prepared, whether it has what shows that one has committed, and when the process was started,
/// in seconds.
pub(super) const ABOUT_NODE: &str = "pg_catalog.concat_ws(' ', pg_catalog.pg_backend_pid(), \
     pg_catalog.current_setting('max_prepared_transactions'), \
     pg_catalog.to_regprocedure('pgs_catalog.begin_decision(pg_catalog.int8)') IS NOT NULL, \
     (SELECT pg_catalog.extract('epoch', backend_start) FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid())))";

/// The answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AboutNode {
    /// How many transactions can be prepared there at once.
    pub(crate) max_prepared: u32,
    /// Transactions there can show that they have committed.
    pub(super) can_anchor: bool,
    /// When the process was started by the node's clock, in microseconds; 0 if that is unknown.
    pub(super) started: i64,
}

impl AboutNode {
    /// Reads the answer to [`ABOUT_NODE`]; the number of the process comes with it.
    pub(super) fn read(answer: &str) -> (Self, String) {
        let mut fields = answer.split(' ');
        let process = fields.next().unwrap_or_default().to_owned();
        let about = Self {
            max_prepared: fields.next().and_then(|field| field.parse().ok()).unwrap_or(0),
            can_anchor: fields.next() == Some("t"),
            started: fields.next().and_then(microseconds).unwrap_or(0),
        };
        (about, process)
    }
}

/// Of seconds with six places.
fn microseconds(seconds: &str) -> Option<i64> {
    let (whole, parts) = seconds.split_once('.').unwrap_or((seconds, ""));
    format!("{whole}{parts:0<6}").parse().ok()
}
