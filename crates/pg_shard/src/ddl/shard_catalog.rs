//! What the catalogs say about a table, copied out as SQL fragments.
//!
//! Each struct is one row of one query. The server prints and quotes everything here (`format`, `pg_get_expr` and their
//! kin), so that no rule of its grammar is repeated in Rust; `shard_definition.rs` puts the fragments together. A field is
//! ready SQL unless it is called a name: those are bare, since the shard's id has yet to be added to them.
//!
//! The queries rely on the settings of `pg::catalog::privileged`, and on a lock on the table, held by the caller: they
//! run one after the other, and a table changed in between would be described half old, half new.

use pgrx::pg_sys::Oid;
use pgrx::spi::{SpiClient, SpiHeapTupleData};
use pgrx::{FromDatum, IntoDatum};

use super::needed;
use super::shard_definition::DefinitionError;
use shardmap::definition::{
    Check, Column, ForeignKey, Grant, Index, Parameter, Statistics, SystemTrigger, Table,
};

/// The catalogs, as seen from one table.
pub(super) struct ShardCatalog<'a, 'conn> {
    client: &'a SpiClient<'conn>,
    relation: Oid,
}

impl<'a, 'conn> ShardCatalog<'a, 'conn> {
    pub(super) fn new(client: &'a SpiClient<'conn>, relation: Oid) -> Self {
        Self { client, relation }
    }

    /// The table, if there is one and it is of a kind that can be distributed.
    pub(super) fn table(&self) -> Result<Table, DefinitionError> {
        let operator_schemas = self.operator_schemas()?;
        let found = self.rows(TABLE, |row| {
            if row.flag("is_table")? {
                return Ok(Table {
                    schema: row.text("schema")?,
                    name: row.text("name")?,
                    is_foreign: row.flag("is_foreign")?,
                    is_unlogged: row.flag("is_unlogged")?,
                    partition_key: row.get("partition_key")?,
                    storage: row.text("storage")?,
                    parameters: row.parameters("parameters")?,
                    replica_identity: row.get("replica_identity")?,
                    owner: row.text("owner")?,
                    is_own: row.flag("is_own")?,
                    comment: row.get("comment")?,
                    operator_schemas: operator_schemas.clone(),
                });
            }
            Err(DefinitionError::NotATable { name: row.text("qualified_name")? })
        })?;
        found.into_iter().next().ok_or(DefinitionError::Vanished(self.relation))
    }

    /// Statements that create what the shard needs where a node lacks it.
    pub(super) fn prerequisites(&self) -> Result<Vec<String>, DefinitionError> {
        Ok(needed::statements(self.client, &[self.relation])?)
    }

    /// The columns in their order.
    pub(super) fn columns(&self) -> Result<Vec<Column>, DefinitionError> {
        self.rows(COLUMNS, |row| {
            Ok(Column {
                number: row.get("number")?.unwrap_or_default(),
                quoted_name: row.text("quoted_name")?,
                type_name: row.text("type_name")?,
                options: row.text("options")?,
                default: row.get("default")?,
                has_computed_default: row.flag("has_computed_default")?,
                missing: row.get("missing")?,
                generated: row.get("generated")?,
                is_not_null: row.flag("is_not_null")?,
                storage: row.text("storage")?,
                is_default_storage: row.flag("is_default_storage")?,
                compression: row.get("compression")?,
                statistics: row.get("statistics")?.unwrap_or(-1),
                parameters: row.parameters("parameters")?,
                comment: row.get("comment")?,
            })
        })
    }

    /// The CHECK constraints by name.
    pub(super) fn checks(&self) -> Result<Vec<Check>, DefinitionError> {
        self.rows(CHECKS, |row| {
            Ok(Check {
                id: row.id()?,
                quoted_name: row.text("quoted_name")?,
                body: row.text("body")?,
                is_validated: row.flag("is_validated")?,
                comment: row.get("comment")?,
            })
        })
    }

    /// The foreign keys by name.
    pub(super) fn foreign_keys(&self) -> Result<Vec<ForeignKey>, DefinitionError> {
        self.rows(FOREIGN_KEYS, |row| {
            Ok(ForeignKey {
                id: row.id()?,
                quoted_name: row.text("quoted_name")?,
                referenced: row.get::<Oid>("referenced")?.map_or(0, Oid::to_u32),
                referenced_schema: row.text("referenced_schema")?,
                referenced_name: row.text("referenced_name")?,
                head: row.text("head")?,
                tail: row.text("tail")?,
                timing: row.text("timing")?,
                is_validated: row.flag("is_validated")?,
                comment: row.get("comment")?,
            })
        })
    }

    /// The triggers by which constraints are enforced.
    pub(super) fn system_triggers(&self) -> Result<Vec<SystemTrigger>, DefinitionError> {
        self.rows(SYSTEM_TRIGGERS, |row| {
            let mode = row.text("mode")?;
            Ok(SystemTrigger { id: row.id()?, mode: mode.bytes().next().unwrap_or(b'O') })
        })
    }

    /// The indexes, in the order in which they were made.
    pub(super) fn indexes(&self) -> Result<Vec<Index>, DefinitionError> {
        self.rows(INDEXES, |row| {
            Ok(Index {
                id: row.id()?,
                name: row.text("name")?,
                is_valid: row.flag("is_valid")?,
                is_constraint: row.flag("is_constraint")?,
                create: row.text("create")?,
                body: row.text("body")?,
                parameters: row.parameters("parameters")?,
                settings: row.list("settings")?,
                is_clustered: row.flag("is_clustered")?,
                is_replica_identity: row.flag("is_replica_identity")?,
                comment: row.get("comment")?,
                constraint_comment: row.get("constraint_comment")?,
            })
        })
    }

    /// The extended statistics, in the order in which they were made.
    pub(super) fn statistics(&self) -> Result<Vec<Statistics>, DefinitionError> {
        self.rows(STATISTICS, |row| {
            Ok(Statistics {
                id: row.id()?,
                schema: row.text("schema")?,
                name: row.text("name")?,
                body: row.text("body")?,
                target: row.get("target")?,
                owner: row.text("owner")?,
                is_own: row.flag("is_own")?,
                comment: row.get("comment")?,
            })
        })
    }

    /// The schemas of operators that the definition uses.
    fn operator_schemas(&self) -> Result<Vec<String>, DefinitionError> {
        self.rows(OPERATOR_SCHEMAS, |row| row.text("schema"))
    }

    /// Everyone's rights but the owner's.
    pub(super) fn grants(&self) -> Result<Vec<Grant>, DefinitionError> {
        self.rows(GRANTS, |row| {
            Ok(Grant {
                privileges: row.text("privileges")?,
                grantee: row.text("grantee")?,
                is_grantable: row.flag("is_grantable")?,
            })
        })
    }

    fn rows<T>(
        &self,
        query: &str,
        read: impl Fn(&Row<'_>) -> Result<T, DefinitionError>,
    ) -> Result<Vec<T>, DefinitionError> {
        let rows = self.client.select(query, None, &[self.relation.into()])?;
        rows.map(|tuple| read(&Row(tuple))).collect()
    }
}

/// A row of one of the queries below.
struct Row<'conn>(SpiHeapTupleData<'conn>);

impl Row<'_> {
    fn get<T: IntoDatum + FromDatum>(&self, column: &str) -> Result<Option<T>, DefinitionError> {
        Ok(self.0.get_by_name(column)?)
    }

    /// A text the query yields for every object, unless the server prints it in a form unknown to us.
    fn text(&self, column: &str) -> Result<String, DefinitionError> {
        self.get(column)?.ok_or_else(|| DefinitionError::Unreadable { part: column.to_owned() })
    }

    fn flag(&self, column: &str) -> Result<bool, DefinitionError> {
        Ok(self.get(column)?.unwrap_or(false))
    }

    fn list(&self, column: &str) -> Result<Vec<String>, DefinitionError> {
        Ok(self.get(column)?.unwrap_or_default())
    }

    /// An object's OID.
    fn id(&self) -> Result<u32, DefinitionError> {
        Ok(self.get::<Oid>("id")?.map_or(0, Oid::to_u32))
    }

    /// Names and values in turn.
    fn parameters(&self, column: &str) -> Result<Vec<Parameter>, DefinitionError> {
        let list = self.list(column)?;
        let pairs = list.chunks_exact(2);
        Ok(pairs.map(|pair| Parameter { name: pair[0].clone(), value: pair[1].clone() }).collect())
    }
}

/// The table's own row. Storage parameters of the TOAST table are those of the table with `toast.` before them.
const TABLE: &str = r"
SELECT c.relkind IN ('r', 'f', 'p') AS is_table,
       c.relkind = 'f' AS is_foreign,
       c.relkind = 'r' AND c.relpersistence = 'u' AS is_unlogged,
       CASE WHEN c.relkind = 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END AS partition_key,
       pg_catalog.quote_ident(n.nspname) AS schema,
       c.relname::text AS name,
       pg_catalog.format('%I.%I', n.nspname, c.relname) AS qualified_name,
       pg_catalog.concat(
           CASE WHEN am.amname NOT IN ('heap', 'pg_shard') THEN pg_catalog.format(' USING %I', am.amname) END,
           ' SERVER ' || pg_catalog.quote_ident(s.srvname) || pg_catalog.concat(
               (SELECT pg_catalog.format(' OPTIONS (%s)', pg_catalog.string_agg(
                           pg_catalog.format('%I %L', o.option_name, o.option_value), ', '))
                FROM pg_catalog.pg_options_to_table(f.ftoptions) o
                HAVING pg_catalog.count(*) > 0))
       ) AS storage,
       ARRAY(SELECT p.part
             FROM (SELECT '' AS namespace, * FROM pg_catalog.pg_options_to_table(c.reloptions)
                   UNION ALL
                   SELECT 'toast.', * FROM pg_catalog.pg_options_to_table(toast.reloptions)) o
                  CROSS JOIN LATERAL (VALUES (1, o.namespace || pg_catalog.quote_ident(o.option_name)),
                                             (2, pg_catalog.quote_literal(o.option_value))) AS p(place, part)
             ORDER BY o.namespace, o.option_name, p.place) AS parameters,
       CASE WHEN c.relkind <> 'r' THEN NULL
            WHEN c.relreplident = 'd' THEN 'DEFAULT'
            WHEN c.relreplident = 'f' THEN 'FULL'
            WHEN c.relreplident = 'n' THEN 'NOTHING'
       END AS replica_identity,
       pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner)) AS owner,
       pg_catalog.pg_get_userbyid(c.relowner) = CURRENT_USER AS is_own,
       pg_catalog.quote_literal(pg_catalog.obj_description(c.oid, 'pg_class')) AS comment
FROM pg_catalog.pg_class c
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN pg_catalog.pg_class toast ON toast.oid = c.reltoastrelid
     LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
     LEFT JOIN pg_catalog.pg_foreign_table f ON f.ftrelid = c.oid
     LEFT JOIN pg_catalog.pg_foreign_server s ON s.oid = f.ftserver
WHERE c.oid = $1";

/// The columns.
///
/// The coordinator evaluates every default and sends the value, so a shard's own defaults are for the reader's eyes. They
/// are left out where they could not work on a node or would give another answer there: those that call a volatile
/// function, `nextval` among them, and those that name a relation, a sequence say, which pg_depend knows. An identity
/// column has no default expression at all. Functions are found in the stored node tree, where white space inside a name
/// is escaped and a literal is a list of byte values, so neither can look like the field. The input and output functions
/// behind a cast are not looked at: a default too many is sent, which nobody uses.
///
/// `pg_attver` among a column's options is not the user's: late minor releases of PostgreSQL 15 keep the attribute's version
/// there (`ATTRIBUTE_VERSION_ATTOPTION`, `src/include/catalog/pg_attribute.h`). Such a server stamps its own columns and
/// ignores a value that is given; an earlier one would refuse the name. pg_dump leaves it out in the same way.
const COLUMNS: &str = r"
SELECT a.attnum AS number,
       pg_catalog.quote_ident(a.attname) AS quoted_name,
       pg_catalog.concat(
           pg_catalog.format_type(a.atttypid, a.atttypmod),
           CASE WHEN a.attcollation <> t.typcollation
                THEN pg_catalog.format(' COLLATE %I.%I', ln.nspname, l.collname)
           END
       ) AS type_name,
       coalesce((SELECT pg_catalog.format(' OPTIONS (%s)', pg_catalog.string_agg(
                            pg_catalog.format('%I %L', o.option_name, o.option_value), ', '))
                 FROM pg_catalog.pg_options_to_table(a.attfdwoptions) o
                 HAVING pg_catalog.count(*) > 0), '') AS options,
       CASE WHEN a.attgenerated = '' AND NOT c.is_computed
            THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid)
       END AS default,
       a.attgenerated = '' AND (c.is_computed OR a.attidentity <> '') AS has_computed_default,
       CASE WHEN a.atthasmissing
            THEN pg_catalog.quote_literal((a.attmissingval::text::text[])[1])
       END AS missing,
       CASE WHEN a.attgenerated <> ''
            THEN pg_catalog.format('(%s) %s', pg_catalog.pg_get_expr(d.adbin, d.adrelid),
                                   CASE a.attgenerated WHEN 's' THEN 'STORED' ELSE 'VIRTUAL' END)
       END AS generated,
       a.attnotnull AS is_not_null,
       CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL'
                         WHEN 'm' THEN 'MAIN' WHEN 'x' THEN 'EXTENDED' END AS storage,
       a.attstorage = t.typstorage AS is_default_storage,
       CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END AS compression,
       coalesce(a.attstattarget, -1)::pg_catalog.int4 AS statistics,
       ARRAY(SELECT p.part
             FROM pg_catalog.pg_options_to_table(a.attoptions) o
                  CROSS JOIN LATERAL (VALUES (1, pg_catalog.quote_ident(o.option_name)),
                                             (2, pg_catalog.quote_literal(o.option_value))) AS p(place, part)
             WHERE o.option_name <> 'pg_attver'
             ORDER BY o.option_name, p.place) AS parameters,
       pg_catalog.quote_literal(pg_catalog.col_description(a.attrelid, a.attnum)) AS comment
FROM pg_catalog.pg_attribute a
     JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
     LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
     LEFT JOIN pg_catalog.pg_namespace ln ON ln.oid = l.collnamespace
     LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     CROSS JOIN LATERAL (
         SELECT EXISTS (
                    SELECT FROM pg_catalog.regexp_matches(d.adbin::text, ':[a-z]*funcid ([0-9]+)', 'g') AS call
                                JOIN pg_catalog.pg_proc p ON p.oid = call[1]::pg_catalog.oid
                    WHERE p.provolatile = 'v')
                OR EXISTS (
                    SELECT FROM pg_catalog.pg_depend x
                    WHERE x.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND x.objid = d.oid
                          AND x.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND x.deptype = 'n')
                AS is_computed) c
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum";

/// The CHECK constraints, inherited ones too: the shard has no parent to give them.
const CHECKS: &str = r"
SELECT k.oid AS id,
       pg_catalog.quote_ident(k.conname) AS quoted_name,
       pg_catalog.pg_get_constraintdef(k.oid) AS body,
       k.convalidated AS is_validated,
       pg_catalog.quote_literal(pg_catalog.obj_description(k.oid, 'pg_constraint')) AS comment
FROM pg_catalog.pg_constraint k
WHERE k.conrelid = $1 AND k.contype = 'c'
ORDER BY k.conname";

/// The foreign keys. `pg_get_constraintdef` prints `head`, the other table, `tail`, `timing` and NOT VALID; where it prints anything
/// else, `tail` is null, which `Row::text` reports.
const FOREIGN_KEYS: &str = r"
SELECT x.*,
       CASE WHEN pg_catalog.starts_with(x.definition, x.head || x.other)
                 AND pg_catalog.right(x.definition, pg_catalog.length(x.ending)) = x.ending
            THEN pg_catalog.substr(x.definition, pg_catalog.length(x.head || x.other) + 1,
                                   pg_catalog.length(x.definition) - pg_catalog.length(x.head || x.other || x.ending))
       END AS tail
FROM (SELECT k.oid AS id,
             pg_catalog.quote_ident(k.conname) AS quoted_name,
             k.confrelid AS referenced,
             pg_catalog.quote_ident(n.nspname) AS referenced_schema,
             r.relname::text AS referenced_name,
             pg_catalog.pg_get_constraintdef(k.oid) AS definition,
             pg_catalog.format('%I.%I', n.nspname, r.relname) AS other,
             pg_catalog.format('FOREIGN KEY (%s) REFERENCES ',
                 (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY c.place)
                  FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS c(number, place)
                       JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.number)) AS head,
             t.timing,
             t.timing || CASE WHEN k.convalidated THEN '' ELSE ' NOT VALID' END AS ending,
             k.convalidated AS is_validated,
             pg_catalog.quote_literal(pg_catalog.obj_description(k.oid, 'pg_constraint')) AS comment
      FROM pg_catalog.pg_constraint k
           JOIN pg_catalog.pg_class r ON r.oid = k.confrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
           CROSS JOIN LATERAL (SELECT pg_catalog.concat(CASE WHEN k.condeferrable THEN ' DEFERRABLE' END,
                                                        CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' END)) AS t(timing)
      WHERE k.conrelid = $1 AND k.contype = 'f') x
ORDER BY x.quoted_name";

/// The triggers of constraints.
const SYSTEM_TRIGGERS: &str = r"
SELECT t.oid AS id, t.tgenabled::text AS mode
FROM pg_catalog.pg_trigger t
WHERE t.tgrelid = $1 AND t.tgisinternal AND t.tgconstraint <> 0
ORDER BY t.oid";

/// The indexes, and the constraints that own one.
///
/// The one-argument `pg_get_indexdef` begins with exactly `prefix`: it qualifies the table whatever the search path
/// (`pg_get_indexdef_worker`, `src/backend/utils/adt/ruleutils.c`). `pg_get_constraintdef` of a primary key or unique
/// constraint leaves the storage parameters out; they belong before `deferral`, with which it ends. That of an exclusion
/// constraint has them. Where the server prints anything else, `body` is null, which `Row::text` reports.
const INDEXES: &str = r"
SELECT x.oid AS id,
       x.name,
       x.is_valid,
       x.is_constraint,
       x.create,
       CASE WHEN NOT x.is_constraint AND pg_catalog.starts_with(x.index_definition, x.prefix)
                THEN pg_catalog.substr(x.index_definition, pg_catalog.length(x.prefix) + 1)
            WHEN x.contype = 'x'
                THEN x.constraint_definition
            WHEN pg_catalog.right(x.constraint_definition, pg_catalog.length(x.deferral)) = x.deferral
                THEN pg_catalog.left(x.constraint_definition,
                                     pg_catalog.length(x.constraint_definition) - pg_catalog.length(x.deferral))
                     || x.parameters || x.deferral
       END AS body,
       x.split AS parameters,
       x.settings,
       x.is_clustered,
       x.is_replica_identity,
       x.comment,
       x.constraint_comment
FROM (SELECT c.relname::text AS name,
             i.indisvalid AND i.indisready AND i.indislive AS is_valid,
             k.oid IS NOT NULL AS is_constraint,
             k.contype,
             pg_catalog.pg_get_indexdef(i.indexrelid) AS index_definition,
             pg_catalog.pg_get_constraintdef(k.oid) AS constraint_definition,
             o.create,
             pg_catalog.format(CASE WHEN c.relkind = 'I' THEN '%s %I ON ONLY %I.%I ' ELSE '%s %I ON %I.%I ' END,
                               o.create, c.relname, n.nspname, t.relname) AS prefix,
             pg_catalog.concat(CASE WHEN k.condeferrable THEN ' DEFERRABLE' END,
                               CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' END) AS deferral,
             coalesce((SELECT pg_catalog.format(' WITH (%s)', pg_catalog.string_agg(
                                  pg_catalog.format('%I=%L', p.option_name, p.option_value), ', '))
                       FROM pg_catalog.pg_options_to_table(c.reloptions) p
                       HAVING pg_catalog.count(*) > 0), '') AS parameters,
             ARRAY(SELECT v.part
                   FROM pg_catalog.pg_options_to_table(c.reloptions) p
                        CROSS JOIN LATERAL (VALUES (1, pg_catalog.quote_ident(p.option_name)),
                                                   (2, pg_catalog.quote_literal(p.option_value))) AS v(place, part)
                   ORDER BY p.option_name, v.place) AS split,
             ARRAY(SELECT pg_catalog.format('ALTER COLUMN %s SET STATISTICS %s', a.attnum, a.attstattarget)
                   FROM pg_catalog.pg_attribute a
                   WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0 AND NOT a.attisdropped
                   ORDER BY a.attnum) AS settings,
             i.indisclustered AS is_clustered,
             i.indisreplident AND t.relreplident = 'i' AS is_replica_identity,
             pg_catalog.quote_literal(pg_catalog.obj_description(c.oid, 'pg_class')) AS comment,
             pg_catalog.quote_literal(pg_catalog.obj_description(k.oid, 'pg_constraint')) AS constraint_comment,
             c.oid
      FROM pg_catalog.pg_index i
           JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
           JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
           LEFT JOIN pg_catalog.pg_constraint k ON k.conrelid = i.indrelid AND k.conindid = i.indexrelid
                                                   AND k.contype IN ('p', 'u', 'x')
           CROSS JOIN LATERAL (SELECT CASE WHEN k.oid IS NOT NULL THEN ''
                                           WHEN i.indisunique THEN 'CREATE UNIQUE INDEX'
                                           ELSE 'CREATE INDEX' END AS create) o
      WHERE i.indrelid = $1) x
ORDER BY x.oid";

/// The extended statistics. Their kinds are always spelt out: what a bare list of columns means depends on the version.
/// Statistics of a single expression have no kinds to choose from.
const STATISTICS: &str = r"
SELECT x.oid AS id,
       pg_catalog.quote_ident(n.nspname) AS schema,
       x.stxname::text AS name,
       pg_catalog.concat(
           (SELECT pg_catalog.format(' (%s)', pg_catalog.string_agg(k.kind, ', ' ORDER BY k.place))
            FROM (VALUES (1, 'd', 'ndistinct'), (2, 'f', 'dependencies'), (3, 'm', 'mcv')) AS k(place, letter, kind)
            WHERE k.letter::pg_catalog.char = ANY (x.stxkind)
            HAVING pg_catalog.count(*) > 0),
           ' ON ', pg_catalog.pg_get_statisticsobjdef_columns(x.oid)
       ) AS body,
       CASE WHEN x.stxstattarget >= 0 THEN x.stxstattarget::pg_catalog.int4 END AS target,
       pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.stxowner)) AS owner,
       pg_catalog.pg_get_userbyid(x.stxowner) = CURRENT_USER AS is_own,
       pg_catalog.quote_literal(pg_catalog.obj_description(x.oid, 'pg_statistic_ext')) AS comment
FROM pg_catalog.pg_statistic_ext x
     JOIN pg_catalog.pg_namespace n ON n.oid = x.stxnamespace
WHERE x.stxrelid = $1
ORDER BY x.oid";

/// Where the operators of users are on which constraints, defaults, generated columns and indexes depend.
const OPERATOR_SCHEMAS: &str = r"
SELECT pg_catalog.quote_ident(n.nspname) AS schema
FROM (SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass AS class, k.oid AS object FROM pg_catalog.pg_constraint k WHERE k.conrelid = $1
      UNION ALL
      SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, d.oid FROM pg_catalog.pg_attrdef d WHERE d.adrelid = $1
      UNION ALL
      SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid FROM pg_catalog.pg_index i WHERE i.indrelid = $1) AS part
     JOIN pg_catalog.pg_depend d ON d.classid = part.class AND d.objid = part.object
          AND d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass
     JOIN pg_catalog.pg_operator o ON o.oid = d.refobjid
     JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
WHERE n.nspname <> 'pg_catalog'
GROUP BY n.nspname
ORDER BY n.nspname";

/// Rights on the table and its columns. On a shard they are all the owner's gift, whoever gave them here: a grantor can
/// only be the one who executes the statement. Entries of roles that are gone are skipped. Whoever has rights on some columns may
/// see where a shard's rows lie: the coordinator finds them again by that, and asks for the right on `ctid` itself where a
/// statement names it.
const GRANTS: &str = r"
WITH given AS (
    SELECT a.grantee, a.privilege_type AS privilege, pg_catalog.bool_or(a.is_grantable) AS is_grantable
    FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
    WHERE c.oid = $1 AND a.grantee <> c.relowner
    GROUP BY a.grantee, a.privilege_type
    UNION ALL
    SELECT p.grantee,
           pg_catalog.format('%s (%s)', p.privilege_type,
                             pg_catalog.string_agg(pg_catalog.quote_ident(p.attname), ', ' ORDER BY p.attnum)),
           p.is_grantable
    FROM (SELECT a.grantee, a.privilege_type, b.attname, b.attnum, pg_catalog.bool_or(a.is_grantable) AS is_grantable
          FROM pg_catalog.pg_class c
               JOIN pg_catalog.pg_attribute b ON b.attrelid = c.oid AND b.attnum > 0 AND NOT b.attisdropped,
               pg_catalog.aclexplode(b.attacl) a
          WHERE c.oid = $1 AND a.grantee <> c.relowner
          GROUP BY a.grantee, a.privilege_type, b.attname, b.attnum) p
    GROUP BY p.grantee, p.privilege_type, p.is_grantable
    UNION ALL
    SELECT DISTINCT a.grantee, 'SELECT (ctid, xmin)', false
    FROM pg_catalog.pg_class c
         JOIN pg_catalog.pg_attribute b ON b.attrelid = c.oid AND b.attnum > 0 AND NOT b.attisdropped,
         pg_catalog.aclexplode(b.attacl) a
    WHERE c.oid = $1 AND a.grantee <> c.relowner AND a.privilege_type IN ('SELECT', 'UPDATE'))
SELECT pg_catalog.string_agg(g.privilege, ', ' ORDER BY g.privilege) AS privileges,
       coalesce(pg_catalog.quote_ident(r.rolname), 'PUBLIC') AS grantee,
       g.is_grantable
FROM given g
     LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.grantee
WHERE g.grantee = 0 OR r.oid IS NOT NULL
GROUP BY r.rolname, g.is_grantable
ORDER BY 2, 3";
