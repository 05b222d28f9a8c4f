//! Deadlocks over nodes: a backend that has waited for a node for some time looks whether it waits for itself.
//!
//! What a deadlock is, and who gives way, the crate `deadlock` decides. Here the servers are looked at: the nodes where this backend
//! has something under way, and if it waits for a lock on one of them, all nodes for which any backend of this server waits, and this server
//! itself. Who a node's process serves its application's name tells. Nothing of it needs rights: `pg_locks`, `pg_blocking_pids` and
//! the application's name are there for every role, and statements are not asked for.
//!
//! Only who waits for a node looks; a backend that waits for a lock of this server stands in the circle as any other.

use super::inquiry::Inquiry;
use super::pool;
use crate::{catalog, settings};
use deadlock::{Hold, Identity, Look, Member, Place, Step, Verdict, Wait};
use pg::catalog::table;
use pg::net::wait::{clock, poll_uninterrupted};
use pg::server::commit::should_stop;
use pg::server::{activity, shared, waits};
use pg::{PgError, SqlState};
use shardmap::{NodeAddress, ShardId};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

/// Between two looks.
const BETWEEN: Duration = Duration::from_millis(50);

/// Separates the columns of an answer.
const SEPARATOR: char = '\u{1f}';

/// A row for each process that waits and each that it waits for.
const QUESTION: &str = "SET search_path = pg_catalog, pg_temp; \
    SELECT concat_ws(E'\\x1f', l.pid::text, l.locktype, coalesce(extract(epoch FROM l.waitstart)::text, ''), \
    coalesce(a.application_name, ''), h.pid::text, coalesce(b.application_name, ''), coalesce(c.relname, '')) \
    FROM pg_locks AS l CROSS JOIN LATERAL unnest(pg_blocking_pids(l.pid)) AS h(pid) \
    LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid LEFT JOIN pg_stat_activity AS b ON b.pid = h.pid \
    LEFT JOIN pg_class AS c ON c.oid = coalesce(l.relation, (SELECT t.relation FROM pg_locks AS t \
    WHERE t.pid = l.pid AND t.locktype = 'tuple' AND t.granted LIMIT 1)) \
    WHERE NOT l.granted";

thread_local!(static IS_LOOKING: Cell<bool> = const { Cell::new(false) });

/// This backend, as nodes know it.
pub(crate) fn identity() -> Identity {
    Identity {
        coordinator: waits::system_identifier(),
        pid: pg::server::transaction::backend_pid(),
    }
}

/// Looks whether this backend, which has waited for nodes for some time, is to give way in a deadlock: then that is the error.
/// True if it waits for a lock on a node. `goes_on` tells whether it still waits.
pub(crate) fn look(goes_on: &dyn Fn() -> bool) -> Result<bool, PgError> {
    struct Looking;
    impl Drop for Looking {
        fn drop(&mut self) {
            IS_LOOKING.set(false);
        }
    }
    if IS_LOOKING.replace(true) {
        return Ok(false);
    }
    let _looking = Looking;
    // Where interrupts are held nobody else would heed them.
    let goes_on: &dyn Fn() -> bool = &|| goes_on() && !should_stop();
    let busy = pool::nodes(true);
    let mut servers = Servers { nodes: busy, inquiry: Inquiry::default() };
    if servers.nodes.is_empty() {
        return Ok(false);
    }
    let me = identity();
    match servers.look_at_nodes(Look::default(), goes_on) {
        Some(seen) if seen.is_waiting(me) => {}
        _ => return Ok(false),
    }
    let awaited = activity::awaited_nodes();
    servers.add(pool::nodes(false));
    servers.add(awaited.iter().filter_map(|name| node_of(name)).collect());
    // One that has nothing under way any more is giving way just now, though nodes may not have heard it yet.
    let begun = |it: Identity| {
        let start = || activity::transaction_start(it.pid).unwrap_or(i64::MAX);
        (it.coordinator == me.coordinator).then(start)
    };
    let Some(first) = servers.look(goes_on) else { return Ok(false) };
    if first.alone().verdict(me, &begun) == Verdict::Waits {
        return Ok(true);
    }
    let until = clock() + BETWEEN;
    while clock() < until && goes_on() {
        poll_uninterrupted(&[], Duration::from_millis(5));
    }
    let Some(second) = servers.look(goes_on) else { return Ok(false) };
    match first.and(&second).verdict(me, &begun) {
        Verdict::GivesWay(steps) => Err(servers.error(me, &steps)),
        Verdict::Waits | Verdict::AnotherGivesWay => Ok(true),
    }
}

/// A node by the name under which activity knows it.
fn node_of(name: &str) -> Option<NodeAddress> {
    let (host, port) = name.rsplit_once(':')?;
    Some(NodeAddress { host: host.into(), port: port.parse().ok()? })
}

/// The servers that are looked at: this one and nodes, which are the places from 1.
struct Servers {
    nodes: Vec<NodeAddress>,
    inquiry: Inquiry,
}

impl Servers {
    fn add(&mut self, nodes: Vec<NodeAddress>) {
        for node in nodes {
            if !self.nodes.contains(&node) {
                self.nodes.push(node);
            }
        }
    }

    fn look(&mut self, goes_on: &dyn Fn() -> bool) -> Option<Look> {
        let mut look = Look::default();
        look_here(&mut look);
        self.look_at_nodes(look, goes_on)
    }

    fn look_at_nodes(&mut self, mut look: Look, goes_on: &dyn Fn() -> bool) -> Option<Look> {
        for (node, rows) in self.inquiry.ask(&self.nodes, QUESTION, goes_on)? {
            let Some(at) = self.nodes.iter().position(|known| *known == node) else { continue };
            read_answer(&mut look, Place(at + 1), &rows);
            // A statement by itself leaves a shared session without its name; the table of shared sessions knows who has it.
            for (pid, owner) in shared::users_of(&node.to_string()) {
                let coordinator = identity().coordinator;
                look.serves(Place(at + 1), pid, Identity { coordinator, pid: owner });
            }
        }
        Some(look)
    }

    fn name(&self, place: Place) -> String {
        match place.0.checked_sub(1).and_then(|at| self.nodes.get(at)) {
            Some(node) => format!("on node \"{node}\""),
            None => "on this server".to_owned(),
        }
    }

    fn error(&self, me: Identity, steps: &[Step]) -> PgError {
        let waits: Vec<String> = steps.iter().map(|step| self.sentence(me, step)).collect();
        let members: BTreeSet<Member> = steps.iter().map(|step| step.waiter).collect();
        let statements = |for_user| -> Vec<String> {
            members
                .iter()
                .filter_map(|member| match member {
                    Member::Backend(it) if it.coordinator == me.coordinator => {
                        let text = waits::statement_of(it.pid, for_user)?;
                        Some(format!("Process {}: {text}", it.pid))
                    }
                    _ => None,
                })
                .collect()
        };
        let code = SqlState::DEADLOCK_DETECTED;
        let all = [waits.clone(), statements(false)].concat().join("\n");
        pg::sys::error::log(PgError::new(code, "deadlock over nodes").detail(all));
        let shown = [waits, statements(true)].concat().join("\n");
        PgError::new(code, "deadlock detected")
            .detail(shown)
            .hint("See server log for query details.")
    }

    fn sentence(&self, me: Identity, step: &Step) -> String {
        let waiter = name_of(me, step.waiter);
        let what = match step.table.as_deref() {
            Some(table) => format!("a lock of table \"{table}\""),
            None => "a lock".to_owned(),
        };
        let holder = name_of(me, step.holder);
        let place = self.name(step.place);
        let mut sentence = format!("{waiter} waits {place} for {what}; blocked by {holder}.");
        if let Some(first) = sentence.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        sentence
    }
}

fn name_of(me: Identity, member: Member) -> String {
    match member {
        Member::Backend(it) if it.coordinator == me.coordinator => format!("process {}", it.pid),
        Member::Backend(it) => format!("process {} of another coordinator", it.pid),
        Member::Process(_, pid) => format!("process {pid} there"),
    }
}

/// Who waits for locks of this server: every process is a backend of this coordinator.
fn look_here(look: &mut Look) {
    let here = identity().coordinator;
    for wait in waits::waits() {
        for pid in wait.holders.iter().chain([&wait.pid]).filter(|pid| **pid != 0) {
            look.serves(Place::HERE, *pid, Identity { coordinator: here, pid: *pid });
        }
        look.waits(Wait {
            place: Place::HERE,
            pid: wait.pid,
            since: wait.since.to_string(),
            hold: if wait.is_momentary { Hold::Moment } else { Hold::Transaction },
            holders: wait.holders,
            table: wait.table.map(table::relation_name),
        });
    }
}

fn read_answer(look: &mut Look, place: Place, rows: &[String]) {
    for row in rows {
        let columns: Vec<&str> = row.splitn(7, SEPARATOR).collect();
        let [pid, lock, since, waiter, holder_pid, holder, relation] = columns[..] else {
            continue;
        };
        let (Ok(pid), Ok(holder_pid)) = (pid.parse(), holder_pid.parse()) else { continue };
        for (pid, application) in [(pid, waiter), (holder_pid, holder)] {
            if let Some(backend) = Identity::of_application(application) {
                look.serves(place, pid, backend);
            }
        }
        look.waits(Wait {
            place,
            pid,
            since: since.to_owned(),
            hold: Hold::of_lock(lock),
            holders: vec![holder_pid],
            table: table_of(relation),
        });
    }
}

/// The name of the table whose shard has this name; none for other relations.
fn table_of(relation: &str) -> Option<String> {
    let (_, number) = relation.rsplit_once('_')?;
    let oid = catalog::table_of_shard(ShardId(number.parse().ok()?))?;
    Some(table::relation_name(oid))
}

/// After how long a wait for nodes is looked into; none for never.
pub(crate) fn patience() -> Option<Duration> {
    settings::deadlock_timeout()
}
