//! What an analysed query is and what it says: the types that planning thinks in, and simple questions to a
//! statement.
//!
//! [`crate::print::prepare`] makes the private copy that everything is read from, [`crate::read::facts`] reads it. The
//! result, [`Facts`], holds no pointers.

use crate::catalog::table;
use crate::read::lent;
use crate::sys::node::{self, Visit};
use crate::sys::plan::{Command, Key};
use pgrx::pg_sys::{self, NodeTag, Oid};
use shardmap::prune::Prune;
use shardmap::route::Equalities;

/// How a distributed table is cut, as far as reading filters needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DistributionKey {
    /// The distribution column's number.
    pub column: i16,
    /// The hash operator family of its type.
    pub family: Oid,
    /// The type whose hash function places rows (the column's, or its base type).
    pub type_oid: Oid,
    /// The collation to hash under.
    pub collation: Oid,
}

/// A column of a range table entry of some query level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    pub(crate) level: usize,
    pub(crate) relation: u32,
    pub(crate) number: i16,
}

/// A distributed table in a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DistributedRelation {
    /// The table.
    pub table: Oid,
    /// Its distribution column.
    pub column: Column,
    /// The role whose rights count: a view's owner, or (zero) the current user.
    pub user: Oid,
}

/// A distributed table that a statement writes, at whatever level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The table.
    pub table: Oid,
    /// How it is written.
    pub command: Command,
    /// Its distribution column.
    pub column: Column,
    /// In a WITH clause.
    pub is_nested: bool,
    /// An INSERT of VALUES: it brings a row whatever the shards hold.
    pub brings_row: bool,
}

/// Why a statement cannot go to a worker as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unshippable {
    /// It reads or writes a table that is here only.
    LocalTable(Oid),
    /// A volatile function of columns, or one per row.
    VolatileFunction(Oid),
    /// A user's function: the workers need not have it.
    UserFunction(Oid),
    /// Something that only this server knows (its catalogs, its settings).
    LocalState,
    /// An operator of users where SQL has no place for its schema.
    UnnamedOperator,
    /// A row of a table as a value inside an expression.
    WholeRow,
    /// Row security applies.
    RowSecurity,
    /// It writes a distributed table in a WITH clause: PostgreSQL's planner would write the empty local table.
    NestedWrite,
    /// It writes through a view that checks rows: WITH CHECK OPTION, security_barrier, ON CONFLICT DO UPDATE.
    CheckedView,
    /// The statement changes the distribution column.
    KeyChange,
    /// What it writes depends on where rows lie: system columns, LIMIT, DISTINCT ON, window functions.
    PlacementDependent,
    /// A `ctid` of a table with several shards goes to the client, or comes from it: a node's own would be wrong.
    ShownTid,
    /// The only such `ctid`s are those that RETURNING lists.
    ReturnedTid,
    /// Triggers of the written table fire, here.
    Triggers,
}

/// What a statement touches and says.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its kind.
    pub command: Command,
    /// The distributed table it writes, if any.
    pub target: Option<Oid>,
    /// All distributed tables that it writes.
    pub writes: Vec<Write>,
    /// All distributed tables, each as often as it stands there.
    pub relations: Vec<DistributedRelation>,
    /// What stands in the way of routing.
    pub unshippable: Vec<Unshippable>,
    /// Equalities between columns and keys.
    pub equalities: Equalities<Column, Key>,
    /// What the top query's filter says of the only distributed table; `All` if there are several.
    pub prune: Prune<Key>,
    /// The INSERT's rows come from VALUES with several rows, or a sub-query.
    pub insert_source: InsertSource,
    /// Each row that an INSERT's query yields has the key of a stored row that it is made of.
    pub keeps_key: bool,
    /// The distributed tables whose `ctid` it mentions.
    pub ctids: Vec<Oid>,
    /// One of them may go to the client, or come from it.
    pub shows_ctid: bool,
    /// Which columns of RETURNING are `ctid`s of the table that it writes, if no other `ctid` is shown.
    pub returned_tids: Vec<usize>,
    /// It has a RETURNING clause.
    pub has_returning: bool,
    /// It has an ON CONFLICT clause.
    pub has_on_conflict: bool,
    /// The distribution column of an INSERT gets no value, or a literal NULL.
    pub null_key: bool,
    /// If it uses rights of a view's owner, or sessions are shared: types of users of which it makes values.
    pub made_types: Vec<Oid>,
    /// The same: it may call functions of users, with or without naming them.
    pub calls_users: bool,
}

impl Facts {
    /// The role whose rights on a table that is written count.
    pub fn writer(&self, write: &Write) -> Oid {
        self.relations
            .iter()
            .find(|relation| relation.column == write.column)
            .map_or(Oid::INVALID, |relation| relation.user)
    }

    /// It computes nothing but what can be computed with rights that `owner` lends: of users' types only harmless ones, and
    /// those of the columns that it writes.
    pub fn can_be_lent_by(&self, owner: Oid) -> bool {
        let is_written = |type_oid: Oid| {
            self.writes.iter().any(|write| table::has_column_of_type(write.table, type_oid))
        };
        !self.calls_users
            && self
                .made_types
                .iter()
                .all(|type_oid| lent::is_harmless(*type_oid, owner) || is_written(*type_oid))
    }

    /// A column of what is written equals a value that is known before any row is read.
    pub fn fixes(&self, write: &Write, column: i16) -> bool {
        !self.equalities.keys_of(Column { number: column, ..write.column }).is_empty()
    }

    /// It changes rows, at the top or in a WITH clause.
    pub fn is_write(&self) -> bool {
        self.command.is_write() || !self.writes.is_empty()
    }
}

/// Where an INSERT's rows come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InsertSource {
    /// Not an INSERT, or one row of expressions.
    OneRow,
    /// VALUES with several rows; the key of each, if each is an expression without columns.
    Values(Vec<Key>),
    /// A query.
    Query,
}

/// A statement that is being planned: PostgreSQL's `Query`, not to be changed.
#[derive(Clone, Copy, Debug)]
pub struct Statement {
    pub(crate) parse: *mut pg_sys::Query,
}

/// A private copy of a statement whose coordinator-side expressions are parameters now.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(crate) query: *mut pg_sys::Query,
    /// Expressions to compute at execution: first those sent as parameters, then keys.
    pub(crate) expressions: Vec<*mut pg_sys::Node>,
    /// How many of them are sent.
    pub sent: usize,
    /// Parameters in the query are ours already.
    pub(crate) folded: bool,
}

/// An INSERT of one row whose columns are parameters.
#[derive(Clone, Debug)]
pub struct RowInsert {
    /// The statement; its expressions are numbered after the columns.
    pub prepared: Prepared,
    /// The columns, in the order of their parameters.
    pub columns: Vec<ColumnName>,
    /// RETURNING or ON CONFLICT has a sub-query.
    pub reads_more: bool,
}

/// A column that an INSERT names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnName {
    /// Its number in the table.
    pub number: i16,
    /// Its name, not quoted.
    pub name: String,
}

/// Tells how a table is distributed, if it is.
pub(crate) type Lookup<'a> = dyn Fn(Oid) -> Option<DistributionKey> + 'a;

impl Statement {
    /// The tables that the statement names anywhere, each once.
    pub fn tables(&self) -> Vec<Oid> {
        let mut tables = Vec::new();
        // SAFETY: the Query is live during planning; only range tables are read.
        unsafe {
            node::walk(self.parse, &mut |n| {
                if node::tag(n) == NodeTag::T_Query {
                    for rte in
                        node::elements::<pg_sys::RangeTblEntry>((*n.cast::<pg_sys::Query>()).rtable)
                    {
                        if (*rte).rtekind == pg_sys::RTEKind::RTE_RELATION
                            && !tables.contains(&(*rte).relid)
                        {
                            tables.push((*rte).relid);
                        }
                    }
                }
                Visit::Into
            });
        }
        tables
    }

    /// A local table that a WITH clause updates, deletes from or merges into while it reads a distributed one.
    pub fn nested_local_write(&self, is_distributed: &dyn Fn(Oid) -> bool) -> Option<Oid> {
        let mut found = None;
        // SAFETY: as in `tables`; a Query that writes has its target in its range table.
        unsafe {
            node::walk(self.parse, &mut |n| {
                if node::tag(n) != NodeTag::T_Query || n == self.parse.cast() {
                    return Visit::Into;
                }
                let query = n.cast::<pg_sys::Query>();
                let updates = matches!(
                    (*query).commandType,
                    pg_sys::CmdType::CMD_UPDATE
                        | pg_sys::CmdType::CMD_DELETE
                        | pg_sys::CmdType::CMD_MERGE
                );
                if updates && (Self { parse: query }).tables().into_iter().any(is_distributed) {
                    let target: *mut pg_sys::RangeTblEntry =
                        node::nth((*query).rtable, (*query).resultRelation as usize - 1);
                    found = Some((*target).relid);
                    return Visit::Stop;
                }
                Visit::Into
            });
        }
        found
    }

    /// The tables that a FOR UPDATE or FOR SHARE of some level locks.
    pub fn locked_tables(&self) -> Vec<Oid> {
        let mut tables = Vec::new();
        // SAFETY: as in `tables`; a row mark's index is into its own query's range table.
        unsafe {
            node::walk(self.parse, &mut |n| {
                if node::tag(n) == NodeTag::T_Query {
                    let query = n.cast::<pg_sys::Query>();
                    for mark in node::elements::<pg_sys::RowMarkClause>((*query).rowMarks) {
                        let rte: *mut pg_sys::RangeTblEntry =
                            node::nth((*query).rtable, (*mark).rti as usize - 1);
                        if (*rte).rtekind == pg_sys::RTEKind::RTE_RELATION {
                            tables.push((*rte).relid);
                        }
                    }
                }
                Visit::Into
            });
        }
        tables
    }

    /// The statement without its FOR UPDATE and FOR SHARE on distributed tables: their scans lock the rows on
    /// the workers instead, before filters that run here, so that more rows may be locked than are returned.
    pub fn with_locks_on_workers(&self, is_distributed: &dyn Fn(Oid) -> bool) -> Statement {
        // SAFETY: a live Query of the planner hook; the copy is private. `enrname` names a tuplestore and is read
        // for RTE_NAMEDTUPLESTORE only, so for a relation it is ours; copyObject keeps it.
        unsafe {
            let query = node::copy(self.parse);
            node::walk(query, &mut |n| {
                if node::tag(n) == NodeTag::T_Query {
                    let query = n.cast::<pg_sys::Query>();
                    let mut kept = Vec::new();
                    for mark in node::elements::<pg_sys::RowMarkClause>((*query).rowMarks) {
                        let rte: *mut pg_sys::RangeTblEntry =
                            node::nth((*query).rtable, (*mark).rti as usize - 1);
                        if (*rte).rtekind == pg_sys::RTEKind::RTE_RELATION
                            && is_distributed((*rte).relid)
                        {
                            (*rte).enrname = node::c_text(&lock_clause(mark));
                        } else if (*rte).rtekind != pg_sys::RTEKind::RTE_SUBQUERY {
                            kept.push(mark);
                        }
                    }
                    (*query).rowMarks = node::list_of(&kept);
                }
                Visit::Into
            });
            Statement { parse: query }
        }
    }

    /// The statement's kind.
    pub fn command(&self) -> Command {
        // SAFETY: the Query is live during planning.
        match unsafe { write_of(self.parse) } {
            Some(command) => command,
            None if self.locked_tables().is_empty() => Command::Select,
            None => Command::SelectForUpdate,
        }
    }
}

/// How one Query writes, if it does.
pub(crate) unsafe fn write_of(query: *mut pg_sys::Query) -> Option<Command> {
    // SAFETY: the caller passes a live Query; onConflict is null or live.
    unsafe {
        match (*query).commandType {
            pg_sys::CmdType::CMD_INSERT => {
                let conflict = (*query).onConflict;
                let upsert = !conflict.is_null()
                    && (*conflict).action == pg_sys::OnConflictAction::ONCONFLICT_UPDATE;
                Some(if upsert { Command::Upsert } else { Command::Insert })
            }
            pg_sys::CmdType::CMD_UPDATE => Some(Command::Update),
            pg_sys::CmdType::CMD_DELETE => Some(Command::Delete),
            pg_sys::CmdType::CMD_MERGE => Some(Command::Merge),
            _ => None,
        }
    }
}

/// The queries of a statement that write: itself and those of its WITH clauses.
pub(crate) unsafe fn writing_queries(query: *mut pg_sys::Query) -> Vec<*mut pg_sys::Query> {
    let mut found = Vec::new();
    // SAFETY: the caller passes a live Query.
    unsafe {
        node::walk(query, &mut |n| {
            if node::tag(n) == NodeTag::T_Query && write_of(n.cast()).is_some() {
                found.push(n.cast());
            }
            Visit::Into
        });
    }
    found
}

/// A row mark as SQL.
unsafe fn lock_clause(mark: *mut pg_sys::RowMarkClause) -> String {
    // SAFETY: the caller passes a live row mark.
    let (strength, policy) = unsafe { ((*mark).strength, (*mark).waitPolicy) };
    let strength = match strength {
        pg_sys::LockClauseStrength::LCS_FORKEYSHARE => "FOR KEY SHARE",
        pg_sys::LockClauseStrength::LCS_FORSHARE => "FOR SHARE",
        pg_sys::LockClauseStrength::LCS_FORNOKEYUPDATE => "FOR NO KEY UPDATE",
        _ => "FOR UPDATE",
    };
    let policy = match policy {
        pg_sys::LockWaitPolicy::LockWaitSkip => " SKIP LOCKED",
        pg_sys::LockWaitPolicy::LockWaitError => " NOWAIT",
        _ => "",
    };
    format!("{strength}{policy}")
}
