//! Opening sessions: several at once, so that nodes that do not answer cost their time-out once and not once each.

use super::about_node::{ABOUT_NODE, AboutNode};
use super::connect::connect_all;
use super::{Expect, Failure, NoSession, Session, pooler};
use crate::settings;
use pg::net::libpq::Connection;
use pg::net::link::Link;
use pg::net::wait::clock;
use pg::server::commit;
use shardmap::NodeAddress;
use std::time::Duration;

/// Settings that change what our statements mean, how values are read and written, or whether a session lasts: whatever is
/// set for the role or the database on the node, they are these. Those that follow the client's are in `identity.rs`.
const PINNED: &str = "SET role = none; SET search_path = pg_catalog, pg_temp; SET extra_float_digits = 3; \
    SET standard_conforming_strings = on; SET escape_string_warning = on; SET backslash_quote = safe_encoding; \
    SET array_nulls = on; SET transform_null_equals = off; SET quote_all_identifiers = off; \
    SET xmlbinary = base64; SET row_security = on; SET gin_fuzzy_search_limit = 0; SET exit_on_error = off; \
    SET check_function_bodies = on; SET default_transaction_read_only = off; \
    SET default_transaction_deferrable = off; SET default_transaction_isolation = 'read committed'; \
    SET client_connection_check_interval = '2s'; SET statement_timeout = 0; SET lock_timeout = 0; \
    SET idle_in_transaction_session_timeout = 0; SET pg_shard.tell_commits = on; \
    SELECT CASE WHEN pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL \
    THEN pg_catalog.set_config('transaction_timeout', '0', false) END";

/// What became of an attempt to open a session, and how long it took.
type Opened = (Result<Session, NoSession>, Duration);

impl Session {
    /// Opens a session to each of the nodes; two attempts, as pg_shard 1.2 makes.
    pub(crate) fn open_all(nodes: &[NodeAddress]) -> Vec<(Result<Self, NoSession>, Duration)> {
        let since = clock();
        let mut all = open_once(nodes);
        let is_left = |(outcome, _): &Opened| matches!(outcome, Err(NoSession::Unreachable(_)));
        let left: Vec<usize> = (0..all.len()).filter(|at| is_left(&all[*at])).collect();
        let is_stopped = commit::holds_interrupts() && commit::should_stop();
        if !left.is_empty() && !is_stopped {
            let again: Vec<NodeAddress> = left.iter().map(|at| nodes[*at].clone()).collect();
            for (at, (outcome, _)) in left.into_iter().zip(open_once(&again)) {
                all[at] = (outcome, clock() - since);
            }
        }
        all
    }

    /// Opens a session to one node.
    pub(crate) fn open(node: &NodeAddress) -> Result<Self, NoSession> {
        Self::open_all(std::slice::from_ref(node)).remove(0).0
    }

    /// Takes over a connection and sends the settings that never change.
    fn begin_to_open(node: &NodeAddress, connection: Connection) -> Result<Self, NoSession> {
        let link = Link::new(connection).map_err(NoSession::Refused)?;
        let mut session = Self::new(node, link);
        session.link.flight().query(&format!(
            "SELECT {ABOUT_NODE}; {PINNED}; SET idle_session_timeout = {}",
            settings::idle_session_timeout()
        ));
        session.expects.extend([Expect::Statement, Expect::Preliminary, Expect::Sync]);
        session.flush().map_err(no_session)?;
        Ok(session)
    }

    /// Waits until the node has taken them.
    fn finish_opening(mut self) -> Result<Self, NoSession> {
        let mut met = None;
        let opened = self.finish(&mut |row| {
            met = row.first_text();
            Ok(())
        });
        opened.map_err(no_session)?;
        let (about, met) = AboutNode::read(&met.unwrap_or_default());
        self.about = about;
        self.compare_clocks();
        pooler::check(&self.node, self.link.connection().backend_pid(), &met)?;
        Ok(self)
    }
}

fn open_once(nodes: &[NodeAddress]) -> Vec<Opened> {
    let since = clock();
    let connections = connect_all(nodes);
    // Every node works at its settings before the first one is waited for.
    let begun: Vec<_> = nodes
        .iter()
        .zip(connections)
        .map(|(node, (connection, at))| {
            (connection.and_then(|connection| Session::begin_to_open(node, connection)), at)
        })
        .collect();
    begun
        .into_iter()
        .map(|(begun, connected)| match begun {
            Ok(session) => (session.finish_opening(), clock().saturating_sub(since)),
            Err(reason) => (Err(reason), connected.saturating_sub(since)),
        })
        .collect()
}

fn no_session(failure: Failure) -> NoSession {
    match failure {
        Failure::Lost(error) => NoSession::Unreachable(error),
        Failure::Statement(error) => NoSession::Refused(error),
    }
}
