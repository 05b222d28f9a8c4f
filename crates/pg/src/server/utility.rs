//! Utility statements, as far as distributed tables care: COPY, and whatever changes a table's definition.

use crate::sys::node;
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};
use std::ffi::c_char;

/// What the extension did with a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything.
    Done,
    /// Nothing, or it changed the statement: PostgreSQL goes on.
    PassOn,
    /// PostgreSQL goes on, and then the extension is asked once more.
    ThenFinish,
}

/// VACUUM or ANALYZE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vacuum {
    /// The command with its options, up to the names of tables.
    pub command: String,
    /// It collects statistics.
    pub analyzes: bool,
    /// The tables, each with the columns that are named; none for all tables of the database.
    pub tables: Option<Vec<(Oid, Vec<String>)>>,
}

/// What a utility statement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Utility {
    /// COPY table FROM.
    CopyFrom(Oid),
    /// COPY table TO.
    CopyTo(Oid),
    /// TRUNCATE.
    Truncate {
        /// The tables that it names.
        tables: Vec<Oid>,
        /// With CASCADE.
        cascades: bool,
    },
    /// VACUUM or ANALYZE.
    Vacuum(Vacuum),
    /// Something that changes the definition of these tables; with the command as SQL spells it.
    Define(&'static str, Vec<Oid>),
    /// The same for tables that are not named one by one.
    DefineAll(&'static str, TablesOf),
    /// Something that checks stored values of this domain: the command as SQL spells it.
    CheckDomain(&'static str, Oid),
    /// DROP EXTENSION pg_shard.
    DropExtension {
        /// With CASCADE.
        cascade: bool,
    },
    /// COMMIT PREPARED or ROLLBACK PREPARED.
    EndPrepared,
    /// Nothing that concerns us.
    Other,
}

/// Tables that a statement means without naming them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TablesOf {
    /// Those of these schemas.
    Schemas(Vec<Oid>),
    /// Those that these roles own.
    Roles(Vec<Oid>),
    /// Those of the database.
    Database,
}

/// A utility statement that is about to run.
#[derive(Debug)]
pub struct UtilityCall {
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    completion: *mut pg_sys::QueryCompletion,
}

impl UtilityCall {
    /// # Safety
    ///
    /// The arguments are those that PostgreSQL gave the hook.
    pub(crate) unsafe fn new(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        completion: *mut pg_sys::QueryCompletion,
    ) -> Self {
        Self { statement, text, completion }
    }

    pub(crate) fn statement(&self) -> *mut pg_sys::PlannedStmt {
        self.statement
    }

    pub(crate) fn node(&self) -> *mut pg_sys::Node {
        // SAFETY: the hook's live statement.
        unsafe { (*self.statement).utilityStmt }
    }

    pub(crate) fn text(&self) -> *const c_char {
        self.text
    }

    /// It drops types, functions or the like, and what depends on them, but neither tables nor schemas.
    pub fn drops_below_tables(&self) -> bool {
        use pg_sys::ObjectType as Kind;
        // SAFETY: a live utility statement, cast to the struct of its tag.
        unsafe {
            node::cast::<pg_sys::DropStmt, _>(self.node(), NodeTag::T_DropStmt).is_some_and(
                |drop| {
                    (*drop).behavior == pg_sys::DropBehavior::DROP_CASCADE
                        && !matches!(
                            (*drop).removeType,
                            Kind::OBJECT_SCHEMA | Kind::OBJECT_TABLE | Kind::OBJECT_FOREIGN_TABLE
                        )
                },
            )
        }
    }

    /// What the statement is about.
    pub fn read(&self) -> Utility {
        // SAFETY: a live utility statement; each node is cast to the struct of its tag.
        unsafe {
            let n = self.node();
            if is_about_statistics(n) {
                return Utility::DefineAll("ALTER STATISTICS", TablesOf::Database);
            }
            match node::tag(n) {
                NodeTag::T_CopyStmt => {
                    let copy = n.cast::<pg_sys::CopyStmt>();
                    match resolve((*copy).relation) {
                        Some(table) if (*copy).is_from => Utility::CopyFrom(table),
                        Some(table) => Utility::CopyTo(table),
                        None => Utility::Other,
                    }
                }
                NodeTag::T_TransactionStmt => match (*n.cast::<pg_sys::TransactionStmt>()).kind {
                    pg_sys::TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED
                    | pg_sys::TransactionStmtKind::TRANS_STMT_ROLLBACK_PREPARED => {
                        Utility::EndPrepared
                    }
                    _ => Utility::Other,
                },
                NodeTag::T_TruncateStmt => {
                    let truncate = n.cast::<pg_sys::TruncateStmt>();
                    Utility::Truncate {
                        tables: resolve_all((*truncate).relations),
                        cascades: (*truncate).behavior == pg_sys::DropBehavior::DROP_CASCADE,
                    }
                }
                NodeTag::T_VacuumStmt => vacuum(n.cast()),
                NodeTag::T_AlterTableStmt => {
                    let alter = n.cast::<pg_sys::AlterTableStmt>();
                    let mut tables: Vec<Oid> = resolve((*alter).relation).into_iter().collect();
                    for command in node::elements::<pg_sys::AlterTableCmd>((*alter).cmds) {
                        let other = match (*command).subtype {
                            pg_sys::AlterTableType::AT_AddInherit
                            | pg_sys::AlterTableType::AT_DropInherit => {
                                (*command).def.cast::<pg_sys::RangeVar>()
                            }
                            pg_sys::AlterTableType::AT_AttachPartition => {
                                (*(*command).def.cast::<pg_sys::PartitionCmd>()).name
                            }
                            _ => std::ptr::null_mut(),
                        };
                        tables.extend(resolve(other));
                    }
                    Utility::Define("ALTER TABLE", tables)
                }
                NodeTag::T_AlterDomainStmt => check_of_domain(n.cast()),
                NodeTag::T_ReassignOwnedStmt => {
                    let roles = (*n.cast::<pg_sys::ReassignOwnedStmt>()).roles;
                    let roles = node::elements::<pg_sys::RoleSpec>(roles)
                        .into_iter()
                        .map(|role| pg_sys::get_rolespec_oid(role, true))
                        .collect();
                    Utility::DefineAll("REASSIGN OWNED", TablesOf::Roles(roles))
                }
                NodeTag::T_CreatePublicationStmt => {
                    let create = n.cast::<pg_sys::CreatePublicationStmt>();
                    published("CREATE PUBLICATION", (*create).pubobjects, (*create).for_all_tables)
                }
                NodeTag::T_AlterPublicationStmt => {
                    let alter = n.cast::<pg_sys::AlterPublicationStmt>();
                    if (*alter).action == pg_sys::AlterPublicationAction::AP_DropObjects {
                        return Utility::Other;
                    }
                    published("ALTER PUBLICATION", (*alter).pubobjects, (*alter).for_all_tables)
                }
                NodeTag::T_RenameStmt => Utility::Define(
                    "ALTER ... RENAME",
                    list(resolve((*n.cast::<pg_sys::RenameStmt>()).relation)),
                ),
                NodeTag::T_AlterObjectSchemaStmt => Utility::Define(
                    "ALTER TABLE ... SET SCHEMA",
                    list(resolve((*n.cast::<pg_sys::AlterObjectSchemaStmt>()).relation)),
                ),
                NodeTag::T_IndexStmt => Utility::Define(
                    "CREATE INDEX",
                    list(resolve((*n.cast::<pg_sys::IndexStmt>()).relation)),
                ),
                NodeTag::T_CreateTrigStmt => Utility::Define(
                    "CREATE TRIGGER",
                    list(resolve((*n.cast::<pg_sys::CreateTrigStmt>()).relation)),
                ),
                NodeTag::T_RuleStmt => Utility::Define(
                    "CREATE RULE",
                    list(resolve((*n.cast::<pg_sys::RuleStmt>()).relation)),
                ),
                NodeTag::T_CreatePolicyStmt => Utility::Define(
                    "CREATE POLICY",
                    list(resolve((*n.cast::<pg_sys::CreatePolicyStmt>()).table)),
                ),
                NodeTag::T_CreateStatsStmt => Utility::Define(
                    "CREATE STATISTICS",
                    resolve_all((*n.cast::<pg_sys::CreateStatsStmt>()).relations),
                ),
                NodeTag::T_CommentStmt => {
                    let comment = n.cast::<pg_sys::CommentStmt>();
                    Utility::Define("COMMENT", list(commented(comment)))
                }
                NodeTag::T_CreateStmt => {
                    let create = n.cast::<pg_sys::CreateStmt>();
                    let parents = resolve_all((*create).inhRelations);
                    Utility::Define(child_of(create), parents)
                }
                NodeTag::T_GrantStmt => {
                    let grant = n.cast::<pg_sys::GrantStmt>();
                    if (*grant).targtype == pg_sys::GrantTargetType::ACL_TARGET_ALL_IN_SCHEMA
                        && (*grant).objtype == pg_sys::ObjectType::OBJECT_TABLE
                    {
                        let schemas = node::elements::<pg_sys::String>((*grant).objects)
                            .into_iter()
                            .flat_map(|name| schema((*name).sval))
                            .collect();
                        let command = if (*grant).is_grant {
                            "GRANT ... ON ALL TABLES IN SCHEMA"
                        } else {
                            "REVOKE ... ON ALL TABLES IN SCHEMA"
                        };
                        return Utility::DefineAll(command, TablesOf::Schemas(schemas));
                    }
                    if (*grant).targtype == pg_sys::GrantTargetType::ACL_TARGET_OBJECT
                        && (*grant).objtype == pg_sys::ObjectType::OBJECT_TABLE
                    {
                        Utility::Define(
                            if (*grant).is_grant { "GRANT" } else { "REVOKE" },
                            resolve_all((*grant).objects),
                        )
                    } else {
                        Utility::Other
                    }
                }
                NodeTag::T_DropStmt => {
                    let drop = n.cast::<pg_sys::DropStmt>();
                    if (*drop).removeType == pg_sys::ObjectType::OBJECT_INDEX {
                        let tables = node::elements::<pg_sys::List>((*drop).objects)
                            .into_iter()
                            .filter_map(|names| resolve(pg_sys::makeRangeVarFromNameList(names)))
                            .collect();
                        return Utility::Define("DROP INDEX", tables);
                    }
                    if (*drop).removeType != pg_sys::ObjectType::OBJECT_EXTENSION {
                        return Utility::Other;
                    }
                    let ours = node::elements::<pg_sys::String>((*drop).objects)
                        .into_iter()
                        .any(|name| node::text_of((*name).sval) == "pg_shard");
                    if ours {
                        let cascade = (*drop).behavior == pg_sys::DropBehavior::DROP_CASCADE;
                        Utility::DropExtension { cascade }
                    } else {
                        Utility::Other
                    }
                }
                _ => Utility::Other,
            }
        }
    }

    /// Makes `COPY (SELECT columns FROM table) TO` of `COPY table TO`, as PostgreSQL itself does for tables with
    /// row security (`DoCopy`, `src/backend/commands/copy.c`).
    pub fn copy_as_query(&mut self, table: Oid) {
        // SAFETY: the hook's live statement is copied, the copy changed.
        unsafe {
            let own = node::copy(self.statement);
            let copy = (*own).utilityStmt.cast::<pg_sys::CopyStmt>();
            let columns: Vec<String> = if (*copy).attlist.is_null() {
                copied_columns(table).into_iter().map(|(_, name)| name).collect()
            } else {
                node::elements::<pg_sys::String>((*copy).attlist)
                    .into_iter()
                    .map(|name| node::text_of((*name).sval))
                    .collect()
            };
            let targets: Vec<*mut pg_sys::ResTarget> = columns
                .iter()
                .map(|name| {
                    let reference: *mut pg_sys::ColumnRef = node::make(NodeTag::T_ColumnRef);
                    (*reference).fields = node::list_of(&[node::string_node(name)]);
                    (*reference).location = -1;
                    let target: *mut pg_sys::ResTarget = node::make(NodeTag::T_ResTarget);
                    (*target).val = reference.cast();
                    (*target).location = -1;
                    target
                })
                .collect();
            let from = (*copy).relation;
            (*from).inh = false;
            let select: *mut pg_sys::SelectStmt = node::make(NodeTag::T_SelectStmt);
            (*select).targetList = node::list_of(&targets);
            (*select).fromClause = node::list_of(&[from]);
            (*copy).query = select.cast();
            (*copy).relation = std::ptr::null_mut();
            (*copy).attlist = std::ptr::null_mut();
            self.statement = own;
        }
    }

    /// What the client is told: `COPY 42`.
    pub fn complete_copy(&mut self, rows: u64) {
        if !self.completion.is_null() {
            // SAFETY: PostgreSQL's live completion record.
            unsafe {
                (*self.completion).commandTag = pg_sys::CommandTag::CMDTAG_COPY;
                (*self.completion).nprocessed = rows;
            }
        }
    }
}

unsafe fn vacuum(statement: *mut pg_sys::VacuumStmt) -> Utility {
    // SAFETY: the caller passes a live VACUUM or ANALYZE; lists hold what the grammar puts there.
    unsafe {
        let is_vacuum = (*statement).is_vacuumcmd;
        let mut analyzes = !is_vacuum;
        let mut options = Vec::new();
        for option in node::elements::<pg_sys::DefElem>((*statement).options) {
            let name = node::text_of((*option).defname);
            if name == "analyze" {
                analyzes = pg_sys::defGetBoolean(option);
            }
            let value = if (*option).arg.is_null() {
                String::new()
            } else {
                format!(" {}", node::text_of(pg_sys::defGetString(option)))
            };
            options.push(format!("{name}{value}"));
        }
        let command = if is_vacuum { "VACUUM" } else { "ANALYZE" };
        let command = if options.is_empty() {
            command.to_owned()
        } else {
            format!("{command} ({})", options.join(", "))
        };
        let tables = (!(*statement).rels.is_null()).then(|| {
            node::elements::<pg_sys::VacuumRelation>((*statement).rels)
                .into_iter()
                .filter_map(|named| {
                    let columns = node::elements::<pg_sys::String>((*named).va_cols);
                    let columns =
                        columns.into_iter().map(|name| node::text_of((*name).sval)).collect();
                    Some((resolve((*named).relation)?, columns))
                })
                .collect()
        });
        Utility::Vacuum(Vacuum { command, analyzes, tables })
    }
}

/// The columns that COPY moves when none are named: live and not generated.
pub fn copied_columns(table: Oid) -> Vec<(i16, String)> {
    // SAFETY: the table is locked by the statement that is running, or gets a lock here.
    unsafe {
        let relation = pg_sys::relation_open(table, pg_sys::AccessShareLock as i32);
        let descriptor = (*relation).rd_att;
        let columns = (0..(*descriptor).natts as usize)
            .map(|index| version::attribute(descriptor, index))
            .filter(|attribute| !(**attribute).attisdropped && (**attribute).attgenerated == 0)
            .map(|attribute| {
                ((*attribute).attnum, node::text_of((*attribute).attname.data.as_ptr()))
            })
            .collect();
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        columns
    }
}

/// The schema of that name, if there is one.
pub(crate) unsafe fn schema(name: *const c_char) -> Vec<Oid> {
    // SAFETY: the caller passes a name of a live statement.
    let oid = unsafe { pg_sys::get_namespace_oid(name, true) };
    if oid == Oid::INVALID { Vec::new() } else { vec![oid] }
}

/// What a publication gets.
unsafe fn published(command: &'static str, objects: *mut pg_sys::List, all: bool) -> Utility {
    use pg_sys::PublicationObjSpecType as Kind;
    if all {
        return Utility::DefineAll(command, TablesOf::Database);
    }
    let (mut tables, mut schemas) = (Vec::new(), Vec::new());
    // SAFETY: the caller passes the live list of a publication's objects; a table's entry has its name.
    unsafe {
        for object in node::elements::<pg_sys::PublicationObjSpec>(objects) {
            match (*object).pubobjtype {
                Kind::PUBLICATIONOBJ_TABLES_IN_SCHEMA => schemas.extend(schema((*object).name)),
                Kind::PUBLICATIONOBJ_TABLES_IN_CUR_SCHEMA => {
                    let path = pg_sys::fetch_search_path(false);
                    schemas.extend(
                        (0..node::length(path).min(1))
                            .map(|index| (*(*path).elements.add(index)).oid_value),
                    );
                }
                _ if !(*object).pubtable.is_null() => {
                    tables.extend(resolve((*(*object).pubtable).relation));
                }
                _ => {}
            }
        }
    }
    if schemas.is_empty() {
        Utility::Define(command, tables)
    } else {
        Utility::DefineAll(command, TablesOf::Schemas(schemas))
    }
}

/// It changes extended statistics that are there, whose table it does not name.
unsafe fn is_about_statistics(n: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller passes a live utility statement, cast to the struct of its tag.
    unsafe {
        let kind = match node::tag(n) {
            NodeTag::T_AlterStatsStmt => return true,
            NodeTag::T_DropStmt => (*n.cast::<pg_sys::DropStmt>()).removeType,
            NodeTag::T_RenameStmt => (*n.cast::<pg_sys::RenameStmt>()).renameType,
            NodeTag::T_AlterOwnerStmt => (*n.cast::<pg_sys::AlterOwnerStmt>()).objectType,
            NodeTag::T_AlterObjectSchemaStmt => {
                (*n.cast::<pg_sys::AlterObjectSchemaStmt>()).objectType
            }
            NodeTag::T_CommentStmt => (*n.cast::<pg_sys::CommentStmt>()).objtype,
            _ => return false,
        };
        kind == pg_sys::ObjectType::OBJECT_STATISTIC_EXT
    }
}

/// The table that a comment is about, or the one that what it is about belongs to.
unsafe fn commented(statement: *mut pg_sys::CommentStmt) -> Option<Oid> {
    use pg_sys::ObjectType as Kind;
    // SAFETY: the caller passes a live COMMENT; these objects are lists of names (gram.y), the last of which is the column's or
    // constraint's own.
    unsafe {
        let own = match (*statement).objtype {
            Kind::OBJECT_TABLE | Kind::OBJECT_INDEX => 0,
            Kind::OBJECT_COLUMN | Kind::OBJECT_TABCONSTRAINT => 1,
            _ => return None,
        };
        let names = pg_sys::list_copy((*statement).object.cast());
        let table = pg_sys::list_truncate(names, node::length(names) as i32 - own);
        if node::length(table) == 0 {
            return None;
        }
        resolve(pg_sys::makeRangeVarFromNameList(table))
    }
}

/// The command that makes a table with parents.
unsafe fn child_of(create: *mut pg_sys::CreateStmt) -> &'static str {
    // SAFETY: the caller passes a live statement.
    if unsafe { (*create).partbound.is_null() } {
        "CREATE TABLE ... INHERITS"
    } else {
        "CREATE TABLE ... PARTITION OF"
    }
}

fn list(table: Option<Oid>) -> Vec<Oid> {
    table.into_iter().collect()
}

/// The relation that a name means, if there is one; of an index the table it belongs to.
pub(crate) unsafe fn resolve(name: *mut pg_sys::RangeVar) -> Option<Oid> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller passes a live RangeVar; a missing relation is PostgreSQL's affair.
    unsafe {
        let oid = pg_sys::RangeVarGetRelidExtended(
            name,
            pg_sys::NoLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        );
        if oid == Oid::INVALID {
            return None;
        }
        let kind = pg_sys::get_rel_relkind(oid) as u8;
        if kind == pg_sys::RELKIND_INDEX {
            return Some(pg_sys::IndexGetRelation(oid, true));
        }
        Some(oid)
    }
}

unsafe fn resolve_all(names: *mut pg_sys::List) -> Vec<Oid> {
    // SAFETY: the caller passes a live list of RangeVars (other members are not RangeVars and are left out).
    unsafe {
        node::elements::<pg_sys::Node>(names)
            .into_iter()
            .filter_map(|name| node::cast::<pg_sys::RangeVar, _>(name, NodeTag::T_RangeVar))
            .filter_map(|name| resolve(name))
            .collect()
    }
}

/// ALTER DOMAIN, if it has PostgreSQL look at stored values (`AlterDomainNotNull`, `AlterDomainAddConstraint`,
/// `AlterDomainValidateConstraint`, `src/backend/commands/typecmds.c`) and the user may alter the domain.
unsafe fn check_of_domain(alter: *mut pg_sys::AlterDomainStmt) -> Utility {
    // SAFETY: the caller passes a live statement; the constraint is cast to the struct of its tag.
    unsafe {
        let command = match (*alter).subtype as u8 {
            b'O' => "ALTER DOMAIN ... SET NOT NULL",
            b'V' => "ALTER DOMAIN ... VALIDATE CONSTRAINT",
            b'C' => {
                let constraint =
                    node::cast::<pg_sys::Constraint, _>((*alter).def, NodeTag::T_Constraint);
                if constraint.is_none_or(|constraint| (*constraint).skip_validation) {
                    return Utility::Other;
                }
                "ALTER DOMAIN ... ADD CONSTRAINT"
            }
            _ => return Utility::Other,
        };
        let name = pg_sys::makeTypeNameFromNameList((*alter).typeName);
        let domain = pg_sys::LookupTypeNameOid(std::ptr::null_mut(), name, true);
        let is_owner = domain != Oid::INVALID && version::owns_type(domain, pg_sys::GetUserId());
        if is_owner { Utility::CheckDomain(command, domain) } else { Utility::Other }
    }
}
