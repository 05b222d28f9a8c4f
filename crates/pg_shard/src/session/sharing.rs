//! Sessions that all backends of this server share (`pg::server::shared`): claiming one, giving it back, and what goes with it.
//!
//! A transaction claims a session when it first needs one and keeps it to its end. Then it is given back, if all that is known of it
//! is known for certain: it is at rest, nothing unread, and nothing was done on it that stays with it. Otherwise it is closed, or stays with
//! this backend ([`Session::is_private`]). A session is claimed again by whoever logs in as the same role, to the same server,
//! with the same options of the connection, and has settings of its own (`app.tenant`) under the same names.

use super::identity::{Remembered, Wanted};
use super::pool::SessionRef;
use super::{NoSession, Session, moment};
use crate::nodes;
use crate::settings::{self, ConnectionSettings};
use pg::catalog::table;
use pg::net::adopted::Adopted;
use pg::net::link::Link;
use pg::net::wait::clock;
use pg::server::settings::own_setting_names;
use pg::server::{activity, commit, shared};
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::NodeAddress;
use sharing::{Digest, Fact, Key, Lease, Limits, Table, digest};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// What a session knows, in the table.
mod fact {
    use super::Fact;
    pub(super) const ROLE: Fact = Fact(0);
    pub(super) const SETTINGS: [Fact; 2] = [Fact(1), Fact(2)];
    pub(super) const OWN: [Fact; 2] = [Fact(3), Fact(4)];
    pub(super) const SHARERS: Fact = Fact(5);
    pub(super) const HOLDER: Fact = Fact(6);
    pub(super) const MAX_PREPARED: Fact = Fact(7);
    pub(super) const CAN_ANCHOR: Fact = Fact(8);
    pub(super) const KNOWS_GATE: Fact = Fact(9);
    pub(super) const KEEPING: Fact = Fact(10);
    pub(super) const STARTED: Fact = Fact(11);
}

/// Sockets that a backend keeps of sessions that it does not have.
const MOST_SHELLS: usize = 256;

/// By what sessions of a role to a node are known, and when that holds.
struct Known {
    login: Oid,
    version: u64,
    options: ConnectionSettings,
    group: usize,
    key: Key,
    own: Option<Digest>,
}

thread_local! {
    /// Sessions that this backend has had, with their sockets.
    static SHELLS: RefCell<HashMap<usize, (u32, SessionRef)>> = RefCell::default();
    /// By node, for each role that has logged in there.
    static KNOWN: RefCell<HashMap<NodeAddress, Vec<Known>>> = RefCell::default();
    static EPOCH: Cell<u32> = const { Cell::new(0) };
}

/// Room for a session that is about to be opened.
pub(super) struct Room {
    table: &'static Table,
    lease: Option<Lease>,
    own: Option<Digest>,
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.table.retire(lease, shared::me(), &mut shared::wake);
        }
    }
}

/// What there is for whoever wants a session.
pub(super) enum Offer {
    /// A session, which may have been lost meanwhile.
    Session(SessionRef),
    /// One is to be opened that others will use too.
    Room(Room),
    /// One is to be opened that nobody else uses.
    Private,
}

/// A session of the role to the node, or room for one. `holds_one` tells that this transaction has one already: then it does not wait.
pub(super) fn offer(
    wanted: Wanted,
    node: &NodeAddress,
    holds_one: bool,
) -> Result<Offer, NoSession> {
    let Some(table) = table_in_use() else { return Ok(Offer::Private) };
    let Some((group, key, own)) = group(table, wanted, node) else { return Ok(Offer::Private) };
    let limits = Limits::of(settings::max_sessions_per_node());
    let may_wait = !holds_one && !commit::holds_interrupts();
    if !may_wait || !table.has_queue(group) {
        while let Some(lease) = table.claim(group, shared::me()) {
            if let Some(session) = take_over(table, lease, node, own) {
                return Ok(Offer::Session(session));
            }
        }
        if let Ok(lease) = table.reserve(group, shared::me(), limits.for_who(!may_wait)) {
            shared::wake_keeper();
            return Ok(Offer::Room(Room { table, lease: Some(lease), own }));
        }
    }
    if may_wait && let Some(offer) = wait(table, (group, own), node, limits.first) {
        return Ok(offer);
    }
    Err(NoSession::Refused(no_room(table, &key, node, may_wait)))
}

/// Waits in order for a session, or for room; none if that takes too long.
fn wait(
    table: &'static Table,
    (group, own): (usize, Option<Digest>),
    node: &NodeAddress,
    most: u32,
) -> Option<Offer> {
    let limit = settings::session_wait_timeout();
    let began = clock();
    loop {
        let left = limit.map(|limit| limit.saturating_sub(clock() - began));
        let (lease, is_session) = shared::wait(group, most, left)?;
        if !is_session {
            // Another may have been closed for it.
            shared::wake_keeper();
            return Some(Offer::Room(Room { table, lease: Some(lease), own }));
        }
        if let Some(session) = take_over(table, lease, node, own) {
            return Some(Offer::Session(session));
        }
    }
}

/// The table, if this backend is to share sessions.
fn table_in_use() -> Option<&'static Table> {
    let table = shared::table().filter(|_| settings::shared_sessions() && shared::is_client())?;
    let epoch = table.epoch();
    if EPOCH.replace(epoch) != epoch {
        SHELLS.with_borrow_mut(HashMap::clear);
    }
    // Without a keeper there is nobody to pass sockets.
    (epoch > 0).then_some(table)
}

/// The error for whoever has waited in vain, or must not wait.
fn no_room(table: &Table, key: &Key, node: &NodeAddress, has_waited: bool) -> PgError {
    let most = settings::max_sessions_per_node();
    let mut holders: Vec<i32> = table
        .all()
        .iter()
        .filter(|seen| seen.node == key.node && seen.owner > 0)
        .map(|seen| seen.owner)
        .collect();
    holders.sort_unstable();
    holders.dedup();
    let holders: Vec<String> = holders.iter().map(ToString::to_string).collect();
    let reason = match has_waited {
        true => "pg_shard.session_wait_timeout is over.",
        false => "The transaction holds a session already, so that it must not wait for another.",
    };
    PgError::new(
        SqlState::TOO_MANY_CONNECTIONS,
        format!("no session to node \"{node}\" is free, and pg_shard.max_sessions_per_node is {most}"),
    )
    .detail(format!("{reason} Processes that hold its sessions: {}.", holders.join(", ")))
    .hint("Raise pg_shard.max_sessions_per_node, or look at pgs_catalog.sessions for transactions that do not end.")
}

/// The group of the sessions that may serve.
fn group(
    table: &Table,
    wanted: Wanted,
    node: &NodeAddress,
) -> Option<(usize, Key, Option<Digest>)> {
    let version = nodes::version();
    let options = settings::connection_settings();
    let own = own_setting_names().as_deref().map(digest_of);
    let login = wanted.login;
    KNOWN.with_borrow_mut(|known| {
        let of_login = known.get(node).and_then(|all| all.iter().find(|it| it.login == login));
        if let Some(it) = of_login
            && it.version == version
            && it.options == options
            && it.own == own
            && table.is_group(it.group, it.key.digest)
        {
            return Some((it.group, it.key, it.own));
        }
        let key = key_of(login, node, &options.to_text(), own)?;
        let group = table.group(&key)?;
        let all = known.entry(node.clone()).or_default();
        all.retain(|it| it.login != login);
        all.push(Known { login, version, options, group, key, own });
        Some((group, key, own))
    })
}

fn digest_of(names: &[String]) -> Digest {
    digest(names.iter().map(String::as_bytes))
}

fn key_of(login: Oid, node: &NodeAddress, options: &str, own: Option<Digest>) -> Option<Key> {
    let number = activity::node_number(&node.to_string())?.number();
    let reach = nodes::reach(node);
    let (host, port) = (node.host.to_string(), node.port.to_string());
    let parts: [String; 9] = [
        host,
        port,
        reach.host,
        reach.port.to_string(),
        options.to_owned(),
        table::current_database(),
        table::encoding(),
        login.to_u32().to_string(),
        own.map_or(String::new(), |own| format!("{own:?}")),
    ];
    Some(Key {
        digest: digest(parts.iter().map(String::as_bytes)),
        node: u32::from(number),
        database: table::database().to_u32(),
        role: login.to_u32(),
    })
}

/// The session of a lease that this backend has just got; none if it cannot be had, and then it is closed.
fn take_over(
    table: &'static Table,
    lease: Lease,
    node: &NodeAddress,
    own: Option<Digest>,
) -> Option<SessionRef> {
    let known = SHELLS.with_borrow_mut(|shells| shells.remove(&lease.slot));
    let session = known
        .filter(|(generation, _)| *generation == lease.generation)
        .map(|(_, session)| session)
        .or_else(|| fetch(table, lease, node));
    let Some(session) = session else {
        table.retire(lease, shared::me(), &mut shared::wake);
        shared::wake_keeper();
        return None;
    };
    session.borrow_mut().begin_lease(table, lease, own);
    Some(session)
}

fn fetch(table: &Table, lease: Lease, node: &NodeAddress) -> Option<SessionRef> {
    let slot = table.slot(lease.slot);
    let (backend, key) = slot.told();
    let socket = shared::fetch(lease)?;
    let link = Link::of_adopted(Adopted::new(socket, backend, key));
    Some(Rc::new(RefCell::new(Session::new(node, link))))
}

/// The session is in the table, and this backend needs it.
pub(super) fn is_shared(session: &SessionRef) -> bool {
    session.try_borrow().map_or(true, |session| session.lease.is_some() && !session.is_kept)
}

/// Gives back what can be given back, of the sessions that nobody uses any more; tells which of the others are to stay.
pub(super) fn give_back(session: SessionRef) -> Option<SessionRef> {
    let Some(table) = shared::table() else { return Some(session) };
    let lease = {
        let Ok(mut open) = session.try_borrow_mut() else { return Some(session) };
        if open.lease.is_none() {
            drop(open);
            return Some(session);
        }
        if open.is_kept {
            drop(open);
            return Some(session);
        }
        if !open.can_be_shared() || Rc::strong_count(&session) > 1 {
            if open.is_at_rest() && Rc::strong_count(&session) == 1 {
                open.keep(table);
            }
            drop(open);
            return Some(session);
        }
        open.end_lease(table)?
    };
    SHELLS.with_borrow_mut(|shells| {
        if shells.len() >= MOST_SHELLS {
            shells.clear();
        }
        shells.insert(lease.slot, (lease.generation, session));
    });
    if !table.give_back(lease, shared::me(), &mut shared::wake) {
        table.retire(lease, shared::me(), &mut shared::wake);
        shared::wake_keeper();
    }
    None
}

impl Room {
    /// Makes a session that has just been opened one that others will use too, if it can be.
    pub(super) fn fill(mut self, session: &mut Session) {
        let Some(lease) = self.lease else { return };
        if !session.is_at_rest() || !session.link.adopt() {
            return;
        }
        let slot = self.table.slot(lease.slot);
        let connection = session.link.connection();
        slot.tell(connection.backend(), connection.cancel_key().unwrap_or(0), activity::now());
        let is_kept = shared::give(lease, session.socket());
        if is_kept && self.table.opened(lease, shared::me()) {
            self.lease = None;
            session.lease = Some(lease);
            session.statements.begin_to_share(self.table, lease);
            session.standing.share(self.own);
        }
    }
}

impl Session {
    /// This backend has the session from now on: what is known of it is in the table.
    fn begin_lease(&mut self, table: &'static Table, lease: Lease, own: Option<Digest>) {
        let slot = table.slot(lease.slot);
        let pair = |facts: [Fact; 2]| Digest(slot.fact(facts[0]), slot.fact(facts[1]));
        self.lease = Some(lease);
        self.lost = None;
        (self.is_private, self.is_kept) = (false, false);
        self.about.max_prepared = slot.fact(fact::MAX_PREPARED) as u32;
        self.about.can_anchor = slot.fact(fact::CAN_ANCHOR) == 1;
        self.about.started = slot.fact(fact::STARTED).cast_signed();
        self.knows_gate = slot.fact(fact::KNOWS_GATE) == 1;
        self.keeping = moment::Keeping::from_code(slot.fact(fact::KEEPING));
        self.known_sharers =
            u16::try_from(slot.fact(fact::SHARERS)).ok().and_then(|n| n.checked_sub(1));
        let known = Remembered {
            role: slot.fact(fact::ROLE),
            settings: pair(fact::SETTINGS),
            own: pair(fact::OWN),
            holder: slot.fact(fact::HOLDER),
        };
        self.standing.take_over(&known, own);
        self.statements.share(table, lease);
    }

    /// Notes in the table what is known of the session.
    fn end_lease(&mut self, table: &Table) -> Option<Lease> {
        let lease = self.lease.take()?;
        let slot = table.slot(lease.slot);
        let known = self.standing.hand_over();
        slot.note(fact::ROLE, known.role);
        for (facts, Digest(high, low)) in [(fact::SETTINGS, known.settings), (fact::OWN, known.own)]
        {
            slot.note(facts[0], high);
            slot.note(facts[1], low);
        }
        slot.note(fact::HOLDER, known.holder);
        slot.note(fact::SHARERS, self.known_sharers.map_or(0, |n| u64::from(n) + 1));
        slot.note(fact::MAX_PREPARED, u64::from(self.about.max_prepared));
        slot.note(fact::CAN_ANCHOR, u64::from(self.about.can_anchor));
        slot.note(fact::STARTED, self.about.started.cast_unsigned());
        slot.note(fact::KNOWS_GATE, u64::from(self.knows_gate));
        slot.note(fact::KEEPING, self.keeping.code());
        slot.note_change(activity::statement_start());
        Some(lease)
    }

    /// All that is known of the session is in the table, or will be, and nothing was done on it that is not known.
    fn can_be_shared(&self) -> bool {
        self.is_at_rest()
            && !self.is_private
            && !self.is_out_of_step()
            && self.status == protocol::TransactionStatus::Idle
            && (self.snapshot.is_none() && self.imported.is_none() && !self.is_ending)
            && (self.cancelling.is_none() && !self.is_held && !self.is_deciding)
            && (self.stored.is_empty() && self.expects.is_empty())
            && self.link.is_quiet()
            && self.standing.can_be_shared()
            && !self.statements.has_forgotten()
    }

    /// It stays with this backend, as it is, as long as there is room for others.
    fn keep(&mut self, table: &Table) {
        if let Some(lease) = self.lease {
            self.is_kept = true;
            table.slot(lease.slot).note_change(activity::statement_start());
            table.keep(lease, shared::me(), &mut shared::wake);
            if !table.is_current(lease) {
                shared::wake_keeper();
            }
        }
    }

    /// This backend needs it again; false if it was closed meanwhile.
    pub(super) fn need(&mut self) -> bool {
        if !std::mem::take(&mut self.is_kept) {
            return true;
        }
        let lease = self.lease.zip(shared::table());
        lease.is_none_or(|(lease, table)| table.need(lease, shared::me()))
    }

    /// The session is gone, for whoever has its socket too.
    pub(super) fn retire(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        self.statements.forget_lease();
        if let Some(table) = shared::table() {
            table.retire(lease, shared::me(), &mut shared::wake);
            shared::wake_keeper();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.lease.is_some() {
            self.link.hang_up();
            self.retire();
        }
    }
}
