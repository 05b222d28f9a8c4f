//! Sessions: one connection per node, kept for the life of the backend.
//!
//! A session carries one statement at a time. Everything that a statement needs before it (settings that
//! changed, BEGIN, savepoints, the preparation) travels in the same flight, so that it costs one round trip.
//! Rows come one by one and are read when the executor wants them; if somebody else needs the session first,
//! the reader's rest is spilled ([`stream`]).
//!
//! Failures are of two kinds: the node said no ([`Failure::Statement`], the user's error), or the connection
//! broke ([`Failure::Lost`], and nobody knows what the node did).

/// Snapshots that are older than a placement.
pub(crate) mod age;

/// Rights that are lent to a node for a flight.
mod acting;

/// Whether a silent node is still at work.
pub(crate) mod alive;

/// What a node says of itself.
mod about_node;

/// Opening connections.
mod connect;

/// What a flight consists of.
mod flight;

/// Waits that would never end.
pub(crate) mod deadlock;

/// SET CONSTRAINTS of the transaction.
pub(crate) mod constraints;

/// SERIALIZABLE over several nodes.
pub(crate) mod gate;

/// How a session takes part in that.
mod gate_lock;

/// COPY on a session.
mod copy;

/// Waits that nothing may interrupt.
pub(crate) mod ending;

/// In whose name nodes are asked.
pub(crate) mod identity;

/// Questions to several nodes while a session waits.
mod inquiry;

/// What nodes answer to questions about themselves.
pub(crate) mod capabilities;

/// The moment at which a statement reads on all nodes.
mod chosen_time;
pub(crate) mod moment;
/// Opening sessions.
mod opening;
pub(crate) mod statement_time;

/// Which sessions there are.
pub(crate) mod pool;

/// Connection pools between coordinator and node.
mod pooler;

/// What is bound and executed later.
mod portal_names;
mod portals;

/// What a session is asked.
mod request;

/// Secrets that nodes have told.
mod known_secrets;

/// Proofs that a coordinator instructs a node.
pub(crate) mod secrets;

/// One snapshot of each node for a statement.
pub(crate) mod snapshot;

/// Sessions that all backends share.
mod sharing;

/// Statements that are prepared on a node.
mod statements;

/// A statement's rows on their way in.
pub(crate) mod stream;

/// Role and settings that have changed.
mod telling;

/// What a session says and is told when several nodes commit.
pub(crate) mod two_phase;

pub(crate) use request::{BEGIN_ACTING, END_ACTING};
pub(crate) use request::{Command, Request, Sql, StatementKey, next_template};

use crate::activity::Told;
use crate::{settings, transaction};
use ::commit::Evidence;
use about_node::AboutNode;
use age::Age;
use ending::{OnInterrupt, PATIENCE};
use identity::Standing;
use pg::net::libpq::Cancelling;
use pg::net::link::Link;
use pg::net::wait::{Readiness, WaitSet, clock};
use pg::server::transaction::Isolation;
use pg::time::Time;
use pg::{PgError, SqlState};
use pool::SessionRef;
use portal_names::Portals;
use protocol::{Arguments, Ending, Kind, Message, Row, StatementName, TransactionStatus};
use shardmap::NodeAddress;
use snapshot::Snapshot;
use statements::Statements;
use std::collections::VecDeque;
use std::time::Duration;
use stream::Stream;

/// Why a session could not do what it was asked.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The connection broke; the outcome is unknown.
    Lost(PgError),
    /// The node answered with an error.
    Statement(PgError),
}

impl Failure {
    /// The node does not know the statement any more, or its plan has become useless: nothing was done, and sent
    /// once more the statement is prepared anew.
    pub(crate) fn is_stale_statement(&self) -> bool {
        matches!(self, Self::Statement(error) if is_stale_statement(error))
    }
}

fn is_stale_statement(error: &PgError) -> bool {
    error.sqlstate() == SqlState::INVALID_SQL_STATEMENT_NAME
        || error.sqlstate() == SqlState::FEATURE_NOT_SUPPORTED
            && error.message().starts_with("cached plan must not")
}

/// Why there is no session.
#[derive(Clone, Debug)]
pub(crate) enum NoSession {
    /// Nobody answers there, or the server is starting up or shutting down.
    Unreachable(PgError),
    /// A healthy server refused us: rights, database, connection limit.
    Refused(PgError),
}

/// What comes next from a session.
pub(crate) enum Event {
    /// A row, which [`Session::row`] shows until the session is asked again.
    Row(Message),
    /// Nothing yet.
    Wait,
    /// The statement is done and concerned that many rows.
    Done(u64),
}

/// What a flight's next answers belong to.
#[derive(Debug)]
enum Expect {
    /// BEGIN, SAVEPOINT, settings.
    Preliminary,
    /// The preparation of a statement that is kept.
    Prepare(StatementKey),
    /// The transaction's evidence.
    Evidence,
    /// The statement itself.
    Statement,
    /// The end.
    Sync,
}

/// How far the COMMIT of a remote transaction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commit {
    NotAsked,
    /// The command, as its answer names it.
    Asked(&'static str),
    Answered(Ending),
}

/// A connection to a node.
#[derive(Debug)]
pub(crate) struct Session {
    /// The node.
    pub(crate) node: NodeAddress,
    link: Link,
    /// Its place among those that all backends share.
    lease: Option<::sharing::Lease>,
    /// Something was done that may stay with the session: nobody else is to have it.
    is_private: bool,
    /// It stays with this backend, which does not need it now.
    is_kept: bool,
    /// 0 outside a remote transaction, 1 inside, one more for each savepoint.
    pub(crate) depth: u32,
    /// The remote transaction has changed something.
    pub(crate) wrote: bool,
    /// The remote transaction holds locks that matter.
    pub(crate) locked: bool,
    /// What the node has said of itself.
    pub(crate) about: AboutNode,
    /// The next flight that begins a transaction or goes on with one has it show so.
    wants_evidence: bool,
    /// What the remote transaction has written to show it, and how deep it was.
    evidence: Option<(Evidence, u32)>,
    /// Something of the remote transaction has been read.
    pub(crate) has_answered: bool,
    /// The remote transaction is there, or is about to begin, for a statement's snapshot only.
    pub(crate) snapshot: Option<Snapshot>,
    /// The name of another session's snapshot, for the remote transaction that begins next.
    imported: Option<String>,
    /// How old that one is.
    imported_age: Option<u64>,
    /// How old the remote transaction's snapshot is.
    age: Age,
    /// How the remote transaction has gone through the node's gate.
    gate: gate::Gate,
    /// The node has one.
    knows_gate: bool,
    /// Such a transaction was ended, and the answer has not been read.
    is_ending: bool,
    /// Why the connection is broken: whoever asks again is told the same.
    lost: Option<PgError>,
    /// Its role and its settings.
    standing: Standing,
    /// On how many nodes of this one's host the next statement runs at once, this one included.
    pub(crate) sharers: u16,
    /// What the node has been told of that; none if it may have forgotten.
    known_sharers: Option<u16>,
    /// The next statement is to be answered as soon as the node has taken its snapshot; see [`Self::wait_for_snapshot`].
    pub(crate) announces: bool,
    statements: Statements,
    portals: Portals,
    expects: VecDeque<Expect>,
    error: Option<PgError>,
    affected: u64,
    status: TransactionStatus,
    /// The statement that was sent last is not committed before a Sync follows.
    is_held: bool,
    /// What is under way is committed by the node without being told to by another message.
    commits_itself: bool,
    /// Whether COMMIT is under way.
    commit: Commit,
    /// A request to stop that the node may not have heard yet, and when it was made.
    cancelling: Option<(Duration, Cancelling)>,
    /// Rows of a COPY TO are coming.
    copying_out: bool,
    /// How many COPYs have been queued; each is known by its number.
    copies: u64,
    /// How many of them the node has not answered: the last ones.
    storing: u64,
    /// What became of those that it has answered, until somebody asks.
    stored: Vec<(u64, Result<(), Failure>)>,
    /// Rows that the node keeps for others, until it is told to drop them.
    pub(crate) keeps: Vec<String>,
    /// Whoever reads rows right now.
    pub(crate) reader: Option<Stream>,
    /// What other sessions of the server see of this one.
    told: Told,
    /// The node can be asked for what was committed at a time.
    keeping: moment::Keeping,
    /// The commit time that the node has reported last.
    pub(crate) reported: Option<Time>,
    /// What the node reports is not acknowledged yet: the transaction is committed when all nodes have.
    pub(crate) is_deciding: bool,
    /// When statements read here.
    pub(crate) times: moment::Times,
}

/// The command for rows of that name; for all without one.
fn drop_rows(name: &str) -> String {
    format!("SELECT pgs_catalog.drop_rows('{{{name}}}')")
}

/// Waits until some session has received something, or is found to be lost: that one's place and failure.
pub(crate) fn wait_for_any(sessions: &[&SessionRef]) -> Result<(), (usize, Failure)> {
    if let [only] = sessions {
        return only.borrow_mut().wait().map_err(|failure| (0, failure));
    }
    let sockets: Vec<_> =
        sessions.iter().map(|it| (it.borrow().socket(), Readiness::Readable)).collect();
    let set = WaitSet::new(&sockets);
    let limit = settings::silence_timeout();
    let since = clock();
    loop {
        match set.wait(limit) {
            Some(at) => {
                return sessions[at].borrow_mut().consume().map_err(|failure| (at, failure));
            }
            None if limit.is_some_and(|limit| clock() - since >= limit) => {
                return alive::check_all(sessions);
            }
            None => {}
        }
    }
}

impl Session {
    fn new(node: &NodeAddress, mut link: Link) -> Self {
        let keeping = moment::keeping(&mut link);
        Self {
            node: node.clone(),
            link,
            lease: None,
            is_private: false,
            is_kept: false,
            depth: 0,
            wrote: false,
            locked: false,
            about: AboutNode::default(),
            wants_evidence: false,
            evidence: None,
            has_answered: false,
            snapshot: None,
            imported: None,
            imported_age: None,
            age: Age::default(),
            gate: gate::Gate::None,
            knows_gate: false,
            is_ending: false,
            lost: None,
            standing: Standing::new(),
            sharers: 1,
            known_sharers: Some(1),
            announces: false,
            statements: Statements::default(),
            portals: Portals::default(),
            expects: VecDeque::new(),
            error: None,
            affected: 0,
            status: TransactionStatus::Idle,
            is_held: false,
            commits_itself: false,
            commit: Commit::NotAsked,
            cancelling: None,
            copying_out: false,
            copies: 0,
            storing: 0,
            stored: Vec::new(),
            keeps: Vec::new(),
            reader: None,
            told: Told::new(node),
            keeping,
            reported: None,
            is_deciding: false,
            times: moment::Times::default(),
        }
    }

    /// The connection is good, as far as can be known without asking.
    pub(crate) fn is_usable(&self) -> bool {
        self.lost.is_none()
    }

    /// Idle, and the server has hung up.
    pub(crate) fn is_stale(&self) -> bool {
        !self.is_busy() && self.depth == 0 && self.link.is_stale()
    }

    /// Nothing is under way, in a transaction or not, and the server has hung up.
    pub(crate) fn has_hung_up(&self) -> bool {
        !self.is_usable() || !self.is_busy() && self.link.is_stale()
    }

    /// The node is in a transaction where we know of none, or in none where we know of one: an answer has been taken for
    /// another's. What is said on such a session means nothing.
    pub(crate) fn is_out_of_step(&self) -> bool {
        let is_in_block = self.status != TransactionStatus::Idle;
        self.is_usable()
            && !self.is_busy()
            && !self.is_held
            && !self.is_ending
            && is_in_block != (self.depth > 0)
    }

    /// The remote transaction has failed: the node will only roll it back.
    pub(crate) fn transaction_failed(&self) -> bool {
        self.status == TransactionStatus::Failed
    }

    /// Gives the session up.
    pub(crate) fn give_up(&mut self, error: PgError) {
        // Whoever asks is told by `poll`.
        let _ = self.lose(error);
    }

    /// A statement or a COPY is under way.
    pub(crate) fn is_busy(&self) -> bool {
        !self.expects.is_empty() && !self.is_ending || self.copying_out || self.storing > 0
    }

    /// Usable, with nothing under way and no remote transaction.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.is_usable()
            && !self.is_busy()
            && self.depth == 0
            && self.reader.is_none()
            && self.keeps.is_empty()
    }

    /// Tells once more that the node has been asked for something.
    pub(crate) fn tell_again(&self) {
        if self.is_busy() {
            self.told.asks();
        }
    }

    /// The connection's socket.
    pub(crate) fn socket(&self) -> i32 {
        self.link.socket()
    }

    fn lose(&mut self, error: PgError) -> Failure {
        self.note_loss();
        self.expects.clear();
        self.depth = 0;
        (self.is_held, self.is_ending, self.commit) = (false, false, Commit::NotAsked);
        (self.gate, self.times.kept) = (gate::Gate::None, None);
        if let Some(snapshot) = self.snapshot.take() {
            snapshot.lose();
        }
        if std::mem::take(&mut self.has_answered) {
            transaction::lose_snapshot(&self.node, &error);
        }
        // Somebody may hold the session for a while. A node that only seemed dead must not keep our locks meanwhile: the
        // statement that is sent again would wait for them, and so for us.
        self.link.hang_up();
        self.retire();
        self.lost.get_or_insert_with(|| error.clone());
        Failure::Lost(error)
    }

    fn broken(&self) -> Option<Failure> {
        self.lost.clone().map(Failure::Lost)
    }

    /// Sends a statement; `level` asks for a remote transaction that deep.
    pub(crate) fn send(
        &mut self,
        request: &Request<'_>,
        level: Option<(u32, Isolation)>,
    ) -> Result<(), Failure> {
        self.queue(request, level)?;
        self.flush()
    }

    /// Queues a statement: [`Self::decide`] sends it.
    pub(crate) fn queue(
        &mut self,
        request: &Request<'_>,
        level: Option<(u32, Isolation)>,
    ) -> Result<(), Failure> {
        self.queue_all(std::slice::from_ref(request), level)
    }

    /// Executes a statement that the node commits by itself, as soon as it has all of it. From then on interrupts are held until
    /// the local transaction has ended, and what the node answers decides.
    pub(crate) fn execute_alone(
        &mut self,
        request: &Request<'_>,
        each: &mut dyn FnMut(Row<'_>) -> Result<(), PgError>,
    ) -> Result<u64, Failure> {
        self.commits_itself = true;
        let sent = self.send(request, None);
        if sent.is_err() {
            self.commits_itself = false;
            sent?;
        }
        pg::server::commit::hold_interrupts_until_end();
        // A row that cannot be kept does not keep the node from committing.
        let mut failed = None;
        let outcome = self.decide(OnInterrupt::Cancel, &mut |row| {
            if failed.is_none() {
                failed = pg::sys::error::catch(|| each(row)).err();
            }
            Ok(())
        });
        self.commits_itself = false;
        match (outcome, failed) {
            (Ok(_), Some(error)) => Err(Failure::Statement(Self::not_returned(&error))),
            (outcome, _) => outcome,
        }
    }

    /// Sends several statements in one flight: the first that fails ends it, and the rows that they changed are added
    /// up. They must be few enough for the socket to take their answers while nobody reads.
    pub(crate) fn send_all(
        &mut self,
        requests: &[Request<'_>],
        level: Option<(u32, Isolation)>,
    ) -> Result<(), Failure> {
        self.queue_all(requests, level)?;
        self.flush()
    }

    fn queue_all(
        &mut self,
        requests: &[Request<'_>],
        level: Option<(u32, Isolation)>,
    ) -> Result<(), Failure> {
        let announces = std::mem::take(&mut self.announces);
        let held = self.portals.take_next();
        let at = self.times.next.take().filter(|_| held.is_none());
        let statements = self.name_statements(requests)?;
        self.open_flight(level);
        self.queue_lending(&statements);
        self.note_reading_at(at);
        for (request, statement) in requests.iter().zip(&statements) {
            if let Some(portal) = held {
                self.queue_holding(request, statement, portal);
                continue;
            }
            self.queue_execution(request, statement, announces, at);
            self.expects.push_back(Expect::Statement);
        }
        self.queue_giving_back();
        self.queue_sync();
        Ok(())
    }

    /// Sends a statement that is a remote transaction of its own, and holds it: it is executed and answered, and committed
    /// by [`Self::send_release`]. That is a transaction without BEGIN and COMMIT, which the node would have to execute too.
    ///
    /// If the session is lost or rolled back before, nothing was done.
    pub(crate) fn send_held(&mut self, request: &Request<'_>) -> Result<(), Failure> {
        debug_assert!(self.depth == 0, "a transaction of its own");
        let statements = self.name_statements(std::slice::from_ref(request))?;
        self.open_flight(None);
        self.queue_lending(&statements);
        for statement in &statements {
            self.queue_execution(request, statement, false, None);
        }
        self.expects.push_back(Expect::Statement);
        self.queue_giving_back();
        self.link.flight().flush();
        // As deep as after BEGIN: whoever ends the local transaction sees that something is open.
        (self.is_held, self.depth) = (true, 1);
        self.flush()
    }

    /// Lets the node commit what it holds, as far as can be said without waiting; [`Self::decide`] says the rest.
    pub(crate) fn send_release(&mut self) -> Result<(), Failure> {
        if let Some(failure) = self.broken() {
            return Err(failure);
        }
        self.is_held = false;
        self.queue_sync();
        self.link.send_some().map(drop).map_err(|error| self.lose_unless_told(error))
    }

    fn queue_sync(&mut self) {
        self.told.asks();
        self.link.flight().sync();
        self.expects.push_back(Expect::Sync);
    }

    /// Queues a command of ours.
    fn queue_command(&mut self, sql: &str) {
        let arguments = Arguments::none();
        self.link.flight().parse(StatementName::Unnamed, sql, &[]);
        self.link.flight().execute(StatementName::Unnamed, &arguments);
        self.expects.push_back(Expect::Preliminary);
    }

    /// Sends several statements without arguments in one flight and reads it to its end.
    pub(crate) fn execute_all(
        &mut self,
        statements: &[String],
        level: Option<(u32, Isolation)>,
    ) -> Result<(), Failure> {
        if let Some(failure) = self.broken() {
            return Err(failure);
        }
        self.error = None;
        self.is_private = true;
        if let Some((level, isolation)) = level {
            self.queue_transaction(level, isolation);
        }
        self.queue_settings();
        self.queue_lending(&[]);
        for sql in statements {
            self.queue_command(sql);
        }
        self.queue_giving_back();
        self.queue_sync();
        self.finish(&mut |_| Ok(())).map(drop)
    }

    /// Sends a command without arguments and reads it to its end.
    pub(crate) fn run(
        &mut self,
        sql: &str,
        level: Option<(u32, Isolation)>,
        each: &mut dyn FnMut(Row<'_>) -> Result<(), PgError>,
    ) -> Result<u64, Failure> {
        let arguments = Arguments::none();
        self.execute(&Request::new(Sql::Once(sql), &[], &arguments), level, each)
    }

    /// The remote transaction has ended.
    pub(crate) fn left_transaction(&mut self) {
        self.depth = 0;
        (self.is_held, self.commit) = (false, Commit::NotAsked);
        (self.wrote, self.locked) = (false, false);
        (self.wants_evidence, self.evidence) = (false, None);
        (self.has_answered, self.gate) = (false, gate::Gate::None);
        (self.snapshot, self.times.kept) = (None, None);
        self.stored.clear();
    }

    /// Rolls the remote transaction back, if there is one.
    pub(crate) fn roll_back(&mut self) {
        if self.depth > 0 {
            self.left_transaction();
            self.run_quietly("ROLLBACK", PATIENCE);
            self.forget_settings();
        }
    }

    /// Has the node drop rows that it keeps for others, if it has nothing else to do; otherwise it does so later.
    pub(crate) fn drop_kept(&mut self, name: &str) {
        if !self.is_busy() && self.end_quietly() && self.run_quietly(&drop_rows(name), PATIENCE) {
            self.keeps.retain(|known| known != name);
        }
    }

    /// Reads the answer to the end of a snapshot without serving interrupts; true if the session is good afterwards.
    fn end_quietly(&mut self) -> bool {
        let was_ending = std::mem::take(&mut self.is_ending);
        !was_ending || self.drain(PATIENCE)
    }

    fn queue_transaction(&mut self, level: u32, isolation: Isolation) {
        if self.depth == 0 && level > 0 {
            let begin = match self.snapshot {
                Some(_) => Command::BeginSnapshot,
                None => Command::Begin(isolation),
            };
            let found = self.statements.find_command(begin);
            let name = StatementName::Numbered(found.number);
            if found.is_new {
                self.link.flight().parse(name, &begin.sql(), &[]);
                self.expects.push_back(Expect::Prepare(begin.key()));
            }
            self.link.flight().execute(name, &Arguments::none());
            self.expects.push_back(Expect::Preliminary);
            self.depth = 1;
            self.queue_gate(isolation);
            self.standing.begin();
            self.age = self.imported_age.take().map_or_else(Age::now, Age::of);
            let at = match &self.snapshot {
                Some(snapshot) => snapshot.at.filter(|_| self.can_read_at()),
                None => self.transaction_time(),
            };
            let imported = self.imported.take();
            if let Some(name) = at.map(|at| at.name()).or(imported) {
                self.queue_command(&format!("SET TRANSACTION SNAPSHOT '{name}'"));
            }
        }
        while self.depth < level {
            self.depth += 1;
            self.queue_command(&format!("SAVEPOINT pg_shard_{}", self.depth));
        }
        self.queue_constraints();
        self.queue_evidence();
    }

    /// What has come; does not wait.
    pub(crate) fn poll(&mut self) -> Result<Event, Failure> {
        let event = self.advance(false)?;
        Ok(event.unwrap_or_else(|| unreachable!("nothing else ends it")))
    }

    /// Waits until the node has taken the snapshot of the statement that was sent last, which announces it.
    pub(crate) fn wait_for_snapshot(&mut self) -> Result<(), Failure> {
        while let Some(Event::Wait) = self.advance(true)? {
            self.wait()?;
        }
        Ok(())
    }

    /// What has come; none as soon as the statement is bound, if that is what is waited for.
    fn advance(&mut self, ends_when_bound: bool) -> Result<Option<Event>, Failure> {
        if let Some(failure) = self.broken() {
            return Err(failure);
        }
        loop {
            if self.expects.is_empty() {
                return self.finished().map(Some);
            }
            let message = match self.link.message() {
                Ok(Some(message)) => message,
                Ok(None) => {
                    self.told.tell_rows();
                    return Ok(Some(Event::Wait));
                }
                Err(error) => return Err(self.lose(error)),
            };
            match message.kind {
                Kind::Row => {
                    if matches!(self.expects.front(), Some(Expect::Statement)) {
                        self.note_answer();
                        self.told.row();
                        return Ok(Some(Event::Row(message)));
                    }
                    if matches!(self.expects.front(), Some(Expect::Evidence)) {
                        let row = self.link.row(&message).first_text();
                        self.note_evidence(&row.unwrap_or_default());
                    }
                }
                Kind::Parsed => {
                    if matches!(self.expects.front(), Some(Expect::Prepare(_))) {
                        self.expects.pop_front();
                    }
                }
                Kind::Bound => {
                    if ends_when_bound && matches!(self.expects.front(), Some(Expect::Statement)) {
                        return Ok(None);
                    }
                }
                Kind::Complete => match self.expects.front() {
                    Some(Expect::Statement) => {
                        self.note_answer();
                        self.affected += self.link.affected(&message);
                        self.expects.pop_front();
                        if let Commit::Asked(command) = self.commit {
                            let ending = self.link.ending(&message, command);
                            self.commit = Commit::Answered(ending);
                            self.check_ending(ending)?;
                        }
                    }
                    Some(Expect::Evidence) => {
                        self.expects.pop_front();
                    }
                    // A text of several commands is complete several times.
                    Some(Expect::Preliminary)
                        if self.expects.len() != 2
                            || !matches!(self.expects.back(), Some(Expect::Sync)) =>
                    {
                        self.expects.pop_front();
                    }
                    _ => {}
                },
                // What we send is never empty. If it is, it must not count as a statement that concerned no row.
                Kind::Empty => {
                    let error = PgError::internal(format!(
                        "node \"{}\" was sent an empty statement",
                        self.node
                    ));
                    return Err(self.lose(error));
                }
                Kind::Ready(status) => {
                    self.note_time();
                    self.told.has_answered();
                    self.status = status;
                    self.forget_unprepared();
                    self.end_pipeline();
                    if self.depth == 0 && !self.is_ending && status == TransactionStatus::InBlock {
                        let error = PgError::internal(format!(
                            "node \"{}\" is in a transaction that was not begun for this statement",
                            self.node
                        ));
                        return Err(self.lose(error));
                    }
                }
                Kind::Error => {
                    let (error, is_fatal) = self.link.error(&message);
                    if self.commit == Commit::Answered(Ending::Committed) {
                        // A cancel has struck the node after its commit, while it wrote a line to its log.
                        if is_fatal {
                            self.give_up(error);
                            return Ok(Some(Event::Done(self.affected)));
                        }
                        continue;
                    }
                    if is_fatal {
                        return Err(self.lose(error));
                    }
                    self.forget_unprepared();
                    self.error.get_or_insert(error);
                    if self.is_held {
                        // The node passes over everything up to a Sync, with which it rolls back what it held.
                        (self.is_held, self.depth) = (false, 0);
                        self.queue_sync();
                        self.flush()?;
                    }
                }
                Kind::Ignored | Kind::CopyIn | Kind::CopyOut | Kind::CopyData | Kind::CopyDone => {}
            }
        }
    }

    fn finished(&mut self) -> Result<Event, Failure> {
        match self.error.take() {
            None => Ok(Event::Done(self.affected)),
            Some(error) => {
                // A failed statement outside a transaction leaves nothing; inside, the local abort rolls back.
                self.forget_settings();
                if is_stale_statement(&error) {
                    self.statements.forget_all();
                }
                if known_secrets::is_not_proven(&error) {
                    known_secrets::forget();
                }
                Err(Failure::Statement(pooler::explain(error, &self.node)))
            }
        }
    }

    /// A row that [`Self::poll`] has announced.
    pub(crate) fn row(&mut self, message: &Message) -> Row<'_> {
        self.link.row(message)
    }

    /// Reads what the socket has.
    pub(crate) fn consume(&mut self) -> Result<(), Failure> {
        match self.link.receive() {
            Ok(_) => Ok(()),
            Err(error) => Err(self.lose_unless_told(error)),
        }
    }

    /// The connection has ended: what the node said before it hung up, its reason above all, counts.
    fn lose_unless_told(&mut self, error: PgError) -> Failure {
        while let Ok(Some(message)) = self.link.message() {
            if message.kind == Kind::Error {
                let (error, _) = self.link.error(&message);
                return self.lose(error);
            }
        }
        self.lose(error)
    }

    /// Reads to the end of the statement; `each` gets its rows.
    pub(crate) fn finish(
        &mut self,
        each: &mut dyn FnMut(Row<'_>) -> Result<(), PgError>,
    ) -> Result<u64, Failure> {
        self.flush()?;
        loop {
            match self.poll()? {
                Event::Row(row) => each(self.link.row(&row)).map_err(Failure::Statement)?,
                Event::Wait => self.wait()?,
                Event::Done(affected) => return Ok(affected),
            }
        }
    }

    /// Sends a statement and reads it to its end.
    pub(crate) fn execute(
        &mut self,
        request: &Request<'_>,
        level: Option<(u32, Isolation)>,
        each: &mut dyn FnMut(Row<'_>) -> Result<(), PgError>,
    ) -> Result<u64, Failure> {
        self.send(request, level)?;
        self.finish(each)
    }

    /// Begins the remote transaction (or savepoints) if need be, and sets what has changed, waiting for it.
    pub(crate) fn begin(&mut self, level: u32, isolation: Isolation) -> Result<(), Failure> {
        if self.depth >= level && self.standing.is_told() {
            return Ok(());
        }
        self.settle_copies();
        let arguments = Arguments::none();
        let nothing = Request::new(Sql::Once("SELECT"), &[], &arguments).plain_if(true);
        self.execute(&nothing, Some((level, isolation)), &mut |_| Ok(())).map(drop)
    }
}
