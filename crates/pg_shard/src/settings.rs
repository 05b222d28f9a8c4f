//! The settings `pg_shard.*`.

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use std::ffi::CString;

static ALL_MODIFICATIONS_COMMUTATIVE: GucSetting<bool> = GucSetting::<bool>::new(false);
static USE_CITUSDB_SELECT_LOGIC: GucSetting<bool> = GucSetting::<bool>::new(false);
static ENABLE_PUSHDOWN: GucSetting<bool> = GucSetting::<bool>::new(true);
static LOG_DISTRIBUTED_STATEMENTS: GucSetting<bool> = GucSetting::<bool>::new(false);
static FAULT_POINT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static NODE_CONNINFO: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"sslmode=prefer"));
static CONNECT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5000);
static SHARED_SESSIONS: GucSetting<bool> = GucSetting::<bool>::new(false);
static MAX_SESSIONS_PER_NODE: GucSetting<i32> = GucSetting::<i32>::new(64);
static SESSION_WAIT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(30_000);
static IDLE_SESSION_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_PREPARED_STATEMENTS: GucSetting<i32> = GucSetting::<i32>::new(1000);
static SILENCE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static DEADLOCK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(-1);
/// What a read over several nodes sees of transactions over several nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub(crate) enum ReadConsistency {
    /// What was committed at one time.
    #[name = c"snapshot"]
    Snapshot,
    /// On each node what was committed when the statement reached it.
    #[name = c"local"]
    Local,
}

static READ_CONSISTENCY: GucSetting<ReadConsistency> =
    GucSetting::<ReadConsistency>::new(ReadConsistency::Snapshot);
static PROPAGATE_ROLES: GucSetting<bool> = GucSetting::<bool>::new(true);
static VERIFY_SQL: GucSetting<bool> = GucSetting::<bool>::new(false);
static REPAIR_NAPTIME: GucSetting<i32> = GucSetting::<i32>::new(2);
static HEALTH_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(1000);
static REPLACE_AFTER: GucSetting<i32> = GucSetting::<i32>::new(1800);
static AUTOANALYZE_NAPTIME: GucSetting<i32> = GucSetting::<i32>::new(60);

/// Defines them; once, when the library is loaded.
pub(crate) fn define() {
    GucRegistry::define_bool_guc(
        c"pg_shard.all_modifications_commutative",
        c"Bypasses commutativity checks when enabled",
        c"Writers of one shard with several placements then do not exclude each other: the application promises that their order does not matter.",
        &ALL_MODIFICATIONS_COMMUTATIVE,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"pg_shard.use_citusdb_select_logic",
        c"Informs pg_shard to use CitusDB's select logic",
        c"Spooled for pg_shard 1.2; has no effect.",
        &USE_CITUSDB_SELECT_LOGIC,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"pg_shard.enable_pushdown",
        c"Lets workers join, group, sort and limit in queries over several shards.",
        c"Off, they scan and filter only. To compare plans, like PostgreSQL's own enable_... settings.",
        &ENABLE_PUSHDOWN,
        GucContext::Userset,
        GucFlags::EXPLAIN,
    );
    GucRegistry::define_bool_guc(
        c"pg_shard.log_distributed_statements",
        c"Logs each statement used in a distributed plan",
        c"One LOG line for each statement that is sent to a worker.",
        &LOG_DISTRIBUTED_STATEMENTS,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"pg_shard.read_consistency",
        c"What a read over several nodes sees of transactions over several nodes.",
        c"With snapshot all nodes are read as they were at one time, and each transaction is seen whole or not at all; with local each node is read as it is when the statement reaches it.",
        &READ_CONSISTENCY,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"pg_shard.node_conninfo",
        c"libpq options for connections to workers, such as sslmode.",
        c"Host, port, database and user are pg_shard's own affair and may not be set here.",
        &NODE_CONNINFO,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"pg_shard.fault_point",
        c"Has this session die or stop at a point of a commit over several nodes; for tests of recovery.",
        c"\"point:kill\" ends the process as a crash does, and with it all sessions of the server; \"point:pause\" stops it for a while.",
        &FAULT_POINT,
        GucContext::Suset,
        GucFlags::NO_SHOW_ALL,
    );
    GucRegistry::define_int_guc(
        c"pg_shard.connect_timeout",
        c"Time to wait for a worker to accept a connection.",
        c"A worker that does not answer in time counts as unreachable.",
        &CONNECT_TIMEOUT,
        100,
        600_000,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_shard.idle_session_timeout",
        c"Time after which a worker closes a session that was not used.",
        c"The next statement opens another. Zero keeps sessions as long as the client's own. Holds for sessions opened from now on.",
        &IDLE_SESSION_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_shard.max_prepared_statements_per_session",
        c"Statements that a session keeps prepared on its worker.",
        c"The least recently used one is closed beyond that. Each takes memory on the worker.",
        &MAX_PREPARED_STATEMENTS,
        10,
        100_000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_shard.deadlock_timeout",
        c"Time to wait for a worker before looking for a deadlock over several servers.",
        c"-1 is deadlock_timeout. Zero looks for none.",
        &DEADLOCK_TIMEOUT,
        -1,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_shard.silence_timeout",
        c"Time without a word from a worker after which it is asked whether it is alive.",
        c"A worker that executes a long statement accepts a new connection meanwhile; one that does not is treated as unreachable. Zero waits for ever.",
        &SILENCE_TIMEOUT,
        0,
        3_600_000,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    define_for_superusers();
    define_naptimes();
}

/// What superusers may switch on and off.
fn define_for_superusers() {
    GucRegistry::define_bool_guc(
        c"pg_shard.verify_sql",
        c"Parses each statement for the workers once more and compares it with what was meant.",
        c"For tests of pg_shard itself: an error where the two differ.",
        &VERIFY_SQL,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"pg_shard.propagate_roles",
        c"Repeats changes of roles, memberships, and settings of roles and databases on the nodes.",
        c"Off, roles are the administrator's affair on each node.",
        &PROPAGATE_ROLES,
        GucContext::Suset,
        GucFlags::default(),
    );
}

/// Defines those of sessions that all backends use; once, when the library is loaded.
pub(crate) fn define_sharing() {
    // PostgreSQL takes no new setting of its start later. Without preloading there is no shared memory, and so nothing is shared.
    let context =
        if pg::catalog::mark::is_preloaded() { GucContext::Postmaster } else { GucContext::Sighup };
    GucRegistry::define_bool_guc(
        c"pg_shard.shared_sessions",
        c"Backends share sessions to workers.",
        c"A session that a transaction does not need any more serves the next client of the same role. Off, each backend has its own.",
        &SHARED_SESSIONS,
        context,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_shard.max_sessions_per_node",
        c"Shared sessions that a worker may have from this server.",
        c"Beyond that clients wait in order. A quarter is kept for transactions that hold a session to another worker already.",
        &MAX_SESSIONS_PER_NODE,
        1,
        512,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_shard.session_wait_timeout",
        c"Time to wait for a shared session.",
        c"Zero waits for ever.",
        &SESSION_WAIT_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
}

/// Backends share sessions.
pub(crate) fn shared_sessions() -> bool {
    SHARED_SESSIONS.get()
}

/// How many of them a node may have.
pub(crate) fn max_sessions_per_node() -> u32 {
    MAX_SESSIONS_PER_NODE.get().cast_unsigned()
}

/// How long to wait for one; none for ever.
pub(crate) fn session_wait_timeout() -> Option<std::time::Duration> {
    let milliseconds = u64::try_from(SESSION_WAIT_TIMEOUT.get()).ok().filter(|ms| *ms > 0)?;
    Some(std::time::Duration::from_millis(milliseconds))
}

/// Everything in the settings by which sessions are opened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConnectionSettings {
    options: Option<CString>,
    idle_session_timeout: i32,
}

/// As they are now.
pub(crate) fn connection_settings() -> ConnectionSettings {
    ConnectionSettings {
        options: NODE_CONNINFO.get(),
        idle_session_timeout: IDLE_SESSION_TIMEOUT.get(),
    }
}

impl ConnectionSettings {
    /// All of it.
    pub(crate) fn to_text(&self) -> String {
        let options = self.options.as_ref();
        let options = options.map_or(std::borrow::Cow::default(), |it| it.to_string_lossy());
        format!("{} {options}", self.idle_session_timeout)
    }
}

/// The name that sessions have on nodes, before what identifies the backend.
pub(crate) fn application_name() -> String {
    let options = node_options();
    let name = options.into_iter().find(|(keyword, _)| keyword == "application_name");
    name.map_or_else(|| "pg_shard".to_owned(), |(_, name)| name)
}

/// How often background workers look.
fn define_naptimes() {
    GucRegistry::define_int_guc(
        c"pg_shard.autoanalyze_naptime",
        c"Time between looks at how much the shards have changed since their statistics were brought.",
        c"Where it is more than autovacuum's settings let pass, they are brought again. Zero, or autovacuum = off, for never.",
        &AUTOANALYZE_NAPTIME,
        0,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"pg_shard.repair_naptime",
        c"Time between looks whether inactive placements can be repaired.",
        c"They are repaired as soon as their nodes are back. Zero leaves repairs to master_copy_shard_placement.",
        &REPAIR_NAPTIME,
        0,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"pg_shard.health_interval",
        c"Time between questions to the nodes whether they answer.",
        c"A node that does not answer three times in a row is down: reads use other placements, if there are any. Zero asks nobody.",
        &HEALTH_INTERVAL,
        0,
        3_600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_shard.replace_after",
        c"Time after which the placements of a node that is down are made anew on other nodes.",
        c"Only shards that have a healthy placement left, and a node without one, can be replaced. Zero leaves it to replace_node and drain_node.",
        &REPLACE_AFTER,
        0,
        i32::MAX / 1000,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
}

/// After how long a wait for workers is looked into for deadlocks; none for never.
pub(crate) fn deadlock_timeout() -> Option<std::time::Duration> {
    let own = DEADLOCK_TIMEOUT.get();
    let milliseconds = if own < 0 { pg::server::waits::deadlock_timeout() } else { own };
    u64::try_from(milliseconds).ok().filter(|ms| *ms > 0).map(std::time::Duration::from_millis)
}

/// Nodes follow changes of roles.
pub(crate) fn propagates_roles() -> bool {
    PROPAGATE_ROLES.get()
}

/// What to do at which point of a commit.
pub(crate) fn fault_point() -> Option<String> {
    FAULT_POINT.get().map(|text| text.to_string_lossy().into_owned())
}

/// Writers promise that their order does not matter.
pub(crate) fn all_modifications_commutative() -> bool {
    ALL_MODIFICATIONS_COMMUTATIVE.get()
}

/// What a read over several nodes sees of transactions over several nodes.
pub(crate) fn read_consistency() -> ReadConsistency {
    READ_CONSISTENCY.get()
}

/// Compare what is sent to workers with what was meant.
pub(crate) fn verify_sql() -> bool {
    VERIFY_SQL.get()
}

/// Log what is sent to workers.
pub(crate) fn log_distributed_statements() -> bool {
    LOG_DISTRIBUTED_STATEMENTS.get()
}

/// How long to wait for a connection.
pub(crate) fn connect_timeout() -> std::time::Duration {
    std::time::Duration::from_millis(u64::try_from(CONNECT_TIMEOUT.get()).unwrap_or(5000))
}

/// Milliseconds after which a worker closes an unused session; 0 for never.
pub(crate) fn idle_session_timeout() -> i32 {
    IDLE_SESSION_TIMEOUT.get()
}

/// How long to rest between looks at the statistics; none for no looks.
pub(crate) fn autoanalyze_naptime() -> Option<std::time::Duration> {
    let seconds = u64::try_from(AUTOANALYZE_NAPTIME.get()).ok().filter(|seconds| *seconds > 0)?;
    let is_on = pg::catalog::table::setting(c"autovacuum") == "on";
    is_on.then(|| std::time::Duration::from_secs(seconds))
}

/// Between two looks whether placements can be repaired; none if nobody but the user repairs.
pub(crate) fn repair_naptime() -> Option<std::time::Duration> {
    let seconds = u64::try_from(REPAIR_NAPTIME.get()).ok().filter(|seconds| *seconds > 0)?;
    Some(std::time::Duration::from_secs(seconds))
}

/// How long a node is down until its placements are made anew elsewhere; none for never. Nobody knows how long if nobody asks.
pub(crate) fn replace_after() -> Option<std::time::Duration> {
    health_interval()?;
    let seconds = u64::try_from(REPLACE_AFTER.get()).ok().filter(|seconds| *seconds > 0)?;
    Some(std::time::Duration::from_secs(seconds))
}

/// Between two questions to the nodes whether they answer; none if nobody asks.
pub(crate) fn health_interval() -> Option<std::time::Duration> {
    let milliseconds = u64::try_from(HEALTH_INTERVAL.get()).ok().filter(|ms| *ms > 0)?;
    Some(std::time::Duration::from_millis(milliseconds))
}

/// How many statements a session keeps prepared on its worker.
pub(crate) fn max_prepared_statements() -> usize {
    usize::try_from(MAX_PREPARED_STATEMENTS.get()).unwrap_or(1000)
}

/// How long a worker may say nothing before it is asked whether it is alive; none for ever.
pub(crate) fn silence_timeout() -> Option<std::time::Duration> {
    u64::try_from(SILENCE_TIMEOUT.get())
        .ok()
        .filter(|ms| *ms > 0)
        .map(std::time::Duration::from_millis)
}

/// Keywords and values of `pg_shard.node_conninfo`.
///
/// The simple form `keyword=value keyword='value'` of libpq's connection strings.
pub(crate) fn node_options() -> Vec<(String, String)> {
    let text =
        NODE_CONNINFO.get().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
    let mut options = Vec::new();
    let mut rest = text.trim_start();
    while let Some((keyword, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let mut value = String::new();
        let mut letters = after.char_indices();
        let quoted = after.starts_with('\'');
        if quoted {
            letters.next();
        }
        let mut end = after.len();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
                '\'' if quoted => {
                    end = at + 1;
                    break;
                }
                letter if !quoted && letter.is_whitespace() => {
                    end = at;
                    break;
                }
                letter => value.push(letter),
            }
        }
        options.push((keyword.trim().to_owned(), value));
        rest = after[end..].trim_start();
    }
    options
}

/// `pg_shard.enable_pushdown`.
pub(crate) fn enable_pushdown() -> bool {
    ENABLE_PUSHDOWN.get()
}
