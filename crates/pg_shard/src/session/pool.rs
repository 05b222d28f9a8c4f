//! Which sessions there are: one per node and user, opened when first needed, kept until the backend ends.

use super::{Failure, NoSession, Session};
use pg::table;
use pg::wait::clock;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::NodeAddress;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

/// A session that several may hold.
pub(crate) type SessionRef = Rc<RefCell<Session>>;

/// An attempt to connect that took this long is not repeated by reads for a while.
const SLOW: Duration = Duration::from_millis(300);

/// How long reads leave a node alone that did not answer.
const AVOIDANCE: Duration = Duration::from_secs(10);

thread_local! {
    static AVOIDED: RefCell<HashMap<NodeAddress, Duration>> = RefCell::new(HashMap::new());
    static ACTING: Cell<Oid> = const { Cell::new(Oid::INVALID) };
    static SESSIONS: RefCell<HashMap<(NodeAddress, String), SessionRef>> = RefCell::new(HashMap::new());
}

/// Runs `body`, which asks for sessions, on behalf of a role: the owner of a view, whose rights count for the tables
/// below it. Zero is the current user. `body` computes nothing for the client, who is still himself.
pub(crate) fn acting_as<T>(role: Oid, body: impl FnOnce() -> T) -> T {
    struct Before(Oid);
    impl Drop for Before {
        fn drop(&mut self) {
            ACTING.set(self.0);
        }
    }
    let _before = Before(ACTING.replace(role));
    body()
}

/// The role whose name sessions carry now.
pub(crate) fn user() -> String {
    match ACTING.get() {
        Oid::INVALID => table::current_user(),
        role => table::role_name(role),
    }
}

/// A session to a node, ready for a statement.
///
/// A kept connection that the server has closed meanwhile (a restart) is replaced before it is used, so that
/// it never counts against the node. Rows that somebody else still expects on the session are spilled first.
pub(crate) fn session(node: &NodeAddress) -> Result<SessionRef, NoSession> {
    let key = (node.clone(), user());
    let known = SESSIONS.with_borrow(|sessions| sessions.get(&key).cloned());
    if let Some(session) = known {
        let good = {
            let session = session.borrow();
            session.is_usable() && !session.is_stale()
        };
        if good {
            super::stream::claim(&session).map_err(|failure| match failure {
                Failure::Lost(error) => NoSession::Unreachable(error),
                Failure::Statement(error) => NoSession::Refused(error),
            })?;
            session.borrow_mut().settle_copy();
            let usable = {
                let mut session = session.borrow_mut();
                session.proven = session.depth > 0;
                session.is_usable()
            };
            if usable {
                return Ok(session);
            }
        }
        SESSIONS.with_borrow_mut(|sessions| sessions.remove(&key));
    }
    let since = clock();
    let opened = Session::open(node);
    if matches!(opened, Err(NoSession::Unreachable(_))) && clock() - since >= SLOW {
        AVOIDED.with_borrow_mut(|avoided| avoided.insert(node.clone(), clock() + AVOIDANCE));
    }
    let session = Rc::new(RefCell::new(opened?));
    SESSIONS.with_borrow_mut(|sessions| sessions.insert(key, Rc::clone(&session)));
    Ok(session)
}

/// Nodes that did not answer a moment ago: reads use other placements if there are any, so that a node behind
/// a dead network costs its time-out once and not once a statement.
pub(crate) fn avoided() -> Vec<NodeAddress> {
    AVOIDED.with_borrow_mut(|avoided| {
        if avoided.is_empty() {
            return Vec::new();
        }
        avoided.retain(|_, until| *until > clock());
        avoided.keys().cloned().collect()
    })
}

/// Notes that a node has fallen silent.
pub(crate) fn avoid(node: &NodeAddress) {
    AVOIDED.with_borrow_mut(|avoided| avoided.insert(node.clone(), clock() + AVOIDANCE));
}

/// All sessions of this backend.
pub(crate) fn all() -> Vec<SessionRef> {
    SESSIONS.with_borrow(|sessions| sessions.values().cloned().collect())
}

/// Forgets sessions that are broken.
pub(crate) fn discard_broken() {
    SESSIONS.with_borrow_mut(|sessions| {
        sessions
            .retain(|_, session| session.try_borrow().map_or(true, |session| session.is_usable()));
    });
}

/// The warning of pg_shard 1.2 for a node that cannot be reached.
pub(crate) fn connection_failed(node: &NodeAddress, error: &PgError) -> PgError {
    PgError::new(SqlState::CONNECTION_FAILURE, format!("Connection failed to {node}"))
        .detail(format!("Remote message: {}", error.message()))
}
