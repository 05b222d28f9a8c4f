//! Opening a connection to a node: with libpq, as the role whose sessions are meant now, and what a refusal means.

/// Major versions of nodes.
mod node_version;

use super::{NoSession, deadlock, identity};
use crate::nodes;
use crate::settings;
use pg::catalog::table;
use pg::net::libpq::{Connection, Opening};
use pg::net::wait::{Readiness, WaitSet, clock};
use pg::server::commit;
use pg::{PgError, SqlState};
use shardmap::NodeAddress;
use std::time::Duration;

/// The longest single wait while interrupts are held.
const TICK: Duration = Duration::from_millis(50);

/// What `pg_shard.node_conninfo` does not set.
const OWN: [&str; 7] =
    ["host", "hostaddr", "port", "dbname", "user", "replication", "application_name"];

/// Starts to open a connection.
pub(super) fn start(node: &NodeAddress) -> Result<Connection, NoSession> {
    if node.host.len() > 255 {
        return Err(NoSession::Refused(PgError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "hostname exceeds the maximum length of 255",
        )));
    }
    let reach = nodes::reach(node);
    let mut options: Vec<(String, String)> = settings::node_options();
    let application = settings::application_name();
    let application = match identity::opens_for_all() {
        true => application,
        false => deadlock::identity().application(&application),
    };
    options.retain(|(keyword, _)| !OWN.contains(&keyword.as_str()));
    options.extend([
        ("host".to_owned(), reach.host.clone()),
        ("port".to_owned(), reach.port.to_string()),
        ("dbname".to_owned(), table::current_database()),
        ("user".to_owned(), identity::login()),
        ("client_encoding".to_owned(), table::encoding()),
        // Nodes tell by it who serves whom: see `deadlock.rs`.
        ("application_name".to_owned(), application),
    ]);
    // What we cannot speak is not asked for (`pg::net::link`), unless the operator insists.
    if !options.iter().any(|(keyword, _)| keyword == "gssencmode") {
        options.push(("gssencmode".to_owned(), "disable".to_owned()));
    }
    if reach.host.contains(',') {
        options.retain(|(keyword, _)| keyword != "target_session_attrs");
        options.push(("target_session_attrs".to_owned(), "primary".to_owned()));
    }
    let options: Vec<(&str, String)> =
        options.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    let mut connection = Connection::start(&options).map_err(NoSession::Refused)?;
    if identity::opens_for_all() {
        connection.note_key();
    }
    Ok(connection)
}

/// Opens a connection and waits for it, at most `pg_shard.connect_timeout`.
pub(super) fn connect(node: &NodeAddress) -> Result<Connection, NoSession> {
    connect_all(std::slice::from_ref(node)).remove(0).0
}

/// A connection that is being opened.
enum Attempt {
    Opening(Connection, Readiness),
    /// With the moment at which that was known.
    Done(Result<Connection, NoSession>, Duration),
}

/// Opens connections to all of them at once, and waits for each of them at most `pg_shard.connect_timeout`. Tells the moments at
/// which each was open, or refused.
pub(super) fn connect_all(nodes: &[NodeAddress]) -> Vec<(Result<Connection, NoSession>, Duration)> {
    let deadline = clock() + settings::connect_timeout();
    let mut all: Vec<Attempt> = nodes
        .iter()
        .map(|node| match start(node) {
            Ok(connection) => Attempt::Opening(connection, Readiness::Writable),
            Err(reason) => Attempt::Done(Err(reason), clock()),
        })
        .collect();
    loop {
        let (places, sockets): (Vec<usize>, Vec<_>) = all
            .iter()
            .enumerate()
            .filter_map(|(place, attempt)| match attempt {
                Attempt::Opening(connection, wanted) => {
                    Some((place, (connection.socket(), *wanted)))
                }
                Attempt::Done(..) => None,
            })
            .unzip();
        if places.is_empty() {
            break;
        }
        // libpq has none for a moment between two addresses.
        let mut ready = sockets.iter().position(|(socket, _)| *socket < 0);
        // Whoever holds interrupts sees to it himself that the wait ends.
        let is_held = commit::holds_interrupts();
        if is_held && commit::should_stop() {
            places.iter().for_each(|place| all[*place].give_up());
            break;
        }
        let left = deadline.saturating_sub(clock());
        if ready.is_none() && !left.is_zero() {
            let limit = if is_held { left.min(TICK) } else { left };
            ready = WaitSet::new(&sockets).wait(Some(limit));
        }
        match ready {
            Some(at) => all[places[at]].go_on(&nodes[places[at]]),
            None if clock() >= deadline => {
                places.iter().for_each(|place| all[*place].give_up());
            }
            None => {}
        }
    }
    all.into_iter()
        .filter_map(|attempt| match attempt {
            Attempt::Done(outcome, at) => Some((outcome, at)),
            Attempt::Opening(..) => None,
        })
        .collect()
}

impl Attempt {
    /// The socket is ready.
    fn go_on(&mut self, node: &NodeAddress) {
        let given_up = Self::Done(Err(no_answer()), clock());
        let Self::Opening(mut connection, _) = std::mem::replace(self, given_up) else { return };
        *self = match connection.poll_opening() {
            Opening::WaitReadable => Self::Opening(connection, Readiness::Readable),
            Opening::WaitWritable => Self::Opening(connection, Readiness::Writable),
            Opening::Open => {
                let checked = node_version::check(&connection, node);
                Self::Done(checked.map(|()| connection).map_err(NoSession::Refused), clock())
            }
            Opening::Failed => Self::Done(Err(classify(&connection, node)), clock()),
        };
    }

    fn give_up(&mut self) {
        *self = Self::Done(Err(no_answer()), clock());
    }
}

fn no_answer() -> NoSession {
    let limit = settings::connect_timeout().as_secs_f32();
    NoSession::Unreachable(PgError::new(
        SqlState::CONNECTION_FAILURE,
        format!("no answer within {limit} s"),
    ))
}

pub(super) fn classify(connection: &Connection, node: &NodeAddress) -> NoSession {
    let (code, message) = connection.opening_error();
    match code {
        None if message.starts_with("invalid ") => NoSession::Refused(not_valid(message)),
        None if connection.is_network_failure() => {
            NoSession::Unreachable(PgError::new(SqlState::CONNECTION_FAILURE, message))
        }
        None => NoSession::Refused(
            PgError::new(
                SqlState::CANNOT_CONNECT,
                format!("could not connect to worker \"{node}\""),
            )
            .detail(message)
            .hint("This server has refused to connect, or could not. Look at pg_shard.node_conninfo, the password file and the certificates here."),
        ),
        Some(code) if matches!(&code.class(), b"57" | b"08") => {
            NoSession::Unreachable(PgError::new(SqlState::CONNECTION_FAILURE, message))
        }
        Some(SqlState::TOO_MANY_CONNECTIONS) => NoSession::Refused(
            PgError::new(SqlState::TOO_MANY_CONNECTIONS, format!("worker \"{node}\" has no connection slot left"))
                .detail(message)
                .hint("Raise max_connections on the worker, or put a connection pool before the coordinator."),
        ),
        Some(code) => NoSession::Refused(
            PgError::new(code, format!("could not connect to worker \"{node}\"")).detail(message).hint(format!(
                "Role \"{}\" and database \"{}\" must exist on the worker and be reachable with the server's own credentials.",
                identity::login(),
                table::current_database()
            )),
        ),
    }
}

/// libpq has refused the options before it has reached anybody. Its text quotes them: who may not see the setting, in which a
/// password may stand, is not told what it is.
fn not_valid(message: String) -> PgError {
    let error = PgError::new(
        SqlState::CONFIG_FILE_ERROR,
        "the setting \"pg_shard.node_conninfo\" is not valid",
    );
    if table::is_superuser() {
        error.detail(message)
    } else {
        error.hint("Ask whoever runs the server: it has the options of connections to nodes.")
    }
}
