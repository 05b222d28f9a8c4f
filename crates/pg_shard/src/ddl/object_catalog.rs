//! What the catalogs say about objects that distributed tables need, so that a change of theirs can be repeated on the nodes.
//!
//! Members of extensions are left out, as are functions in languages other than SQL and PL/pgSQL: they are their administrator's.

use super::needed::NEED;
use pg::PgError;
use pg::catalog::privileged;
use pgrx::pg_sys::Oid;
use pgrx::spi::{SpiClient, SpiError, SpiHeapTupleData};
use shardmap::definition::objects::{Kind, Object, Part, Right};

/// An object, and the tables that need it.
#[derive(Clone, Debug)]
pub(super) struct NeededObject {
    pub(super) object: Object,
    pub(super) tables: Vec<Oid>,
}

/// Which objects the tables need, with their schemas.
const ROOTS: &str = r"
SELECT o.classid, o.objid, pg_catalog.array_agg(DISTINCT o.root) AS tables
FROM (SELECT n.root, coalesce(e.refclassid, n.classid) AS classid, coalesce(e.refobjid, n.objid) AS objid
      FROM need n LEFT JOIN pg_catalog.pg_depend e ON e.classid = n.classid AND e.objid = n.objid AND e.deptype = 'e'
      UNION ALL
      SELECT n.root, 'pg_catalog.pg_namespace'::pg_catalog.regclass,
             coalesce(c.relnamespace, t.typnamespace, p.pronamespace, x.stxnamespace, l.collnamespace)
      FROM need n
           LEFT JOIN pg_catalog.pg_class c ON n.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = n.objid
           LEFT JOIN pg_catalog.pg_type t ON n.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = n.objid
           LEFT JOIN pg_catalog.pg_proc p ON n.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = n.objid
           LEFT JOIN pg_catalog.pg_statistic_ext x
                     ON n.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass AND x.oid = n.objid
           LEFT JOIN pg_catalog.pg_collation l ON n.classid = 'pg_catalog.pg_collation'::pg_catalog.regclass AND l.oid = n.objid) o
WHERE o.classid IN ('pg_catalog.pg_namespace'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass,
                    'pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_collation'::pg_catalog.regclass,
                    'pg_catalog.pg_extension'::pg_catalog.regclass)
      AND (o.objid >= 16384 OR o.objid = 'public'::pg_catalog.regnamespace)
GROUP BY 1, 2";

/// Objects by their ids in `$1`: schemas, types, functions, collations and extensions.
const OBJECTS: &str = r"
SELECT o.*, pg_catalog.quote_ident(o.own_name) AS name,
       pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(o.owner_id)) AS owner,
       coalesce(pg_catalog.quote_ident(n.nspname), '') AS schema_name
FROM (SELECT 'schema' AS kind, s.oid AS id, s.nspname::text AS own_name, 0::pg_catalog.oid AS schema, '' AS arguments,
             s.nspowner AS owner_id, '' AS body, NULL AS default_value, false AS is_not_null
      FROM pg_catalog.pg_namespace s
      UNION ALL
      SELECT CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' WHEN 'c' THEN 'composite' ELSE 'range' END,
             t.oid, t.typname, t.typnamespace, '', t.typowner, '',
             pg_catalog.pg_get_expr(t.typdefaultbin, 0), t.typnotnull
      FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
      WHERE t.typtype IN ('e', 'd', 'r') OR t.typtype = 'c' AND c.relkind = 'c'
      UNION ALL
      SELECT 'collation', l.oid, l.collname, l.collnamespace, '', l.collowner, '', NULL, false FROM pg_catalog.pg_collation l
      UNION ALL
      SELECT 'function', p.oid, p.proname, p.pronamespace,
             pg_catalog.format('(%s)', pg_catalog.oidvectortypes(p.proargtypes)), p.proowner,
             pg_catalog.pg_get_functiondef(p.oid), NULL, false
      FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language g ON g.oid = p.prolang AND g.lanname IN ('sql', 'plpgsql')
      WHERE p.prokind = 'f' AND p.oid = ANY ($1)
      UNION ALL
      SELECT 'extension', x.oid, x.extname, x.extnamespace, '', x.extowner, x.extversion, NULL, false
      FROM pg_catalog.pg_extension x WHERE x.extname <> 'pg_shard') o
     LEFT JOIN pg_catalog.pg_namespace n ON n.oid = o.schema
WHERE o.id = ANY ($1)
ORDER BY o.id";

/// The rights of others than the owner.
const RIGHTS: &str = r"
SELECT o.id, coalesce(pg_catalog.quote_ident(r.rolname), 'PUBLIC') AS grantee, a.privilege_type AS privilege,
       pg_catalog.bool_or(a.is_grantable) AS is_grantable
FROM (SELECT s.oid AS id, s.nspowner AS owner, coalesce(s.nspacl, pg_catalog.acldefault('n', s.nspowner)) AS acl
      FROM pg_catalog.pg_namespace s
      UNION ALL
      SELECT t.oid, t.typowner, coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner)) FROM pg_catalog.pg_type t
      UNION ALL
      SELECT p.oid, p.proowner, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)) FROM pg_catalog.pg_proc p) o
     CROSS JOIN LATERAL pg_catalog.aclexplode(o.acl) a
     LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
WHERE o.id = ANY ($1) AND a.grantee <> o.owner AND (a.grantee = 0 OR r.oid IS NOT NULL)
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3";

/// Labels, attributes, and constraints of domains.
const PARTS: &str = r"
SELECT * FROM (
    SELECT e.enumtypid AS id, e.oid AS part, pg_catalog.quote_literal(e.enumlabel) AS name, '' AS text, true AS is_validated,
           e.enumsortorder::pg_catalog.float8 AS place, NULL AS operator_schemas, '' AS identity
    FROM pg_catalog.pg_enum e
    UNION ALL
    SELECT k.contypid, k.oid, pg_catalog.quote_ident(k.conname),
           pg_catalog.regexp_replace(pg_catalog.pg_get_constraintdef(k.oid), ' NOT VALID$', ''), k.convalidated,
           k.oid::pg_catalog.int8::pg_catalog.float8,
           (SELECT pg_catalog.string_agg(DISTINCT pg_catalog.quote_ident(n.nspname), ', ')
            FROM pg_catalog.pg_depend d
                 JOIN pg_catalog.pg_operator o ON o.oid = d.refobjid
                 JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace AND n.nspname <> 'pg_catalog'
            WHERE d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = k.oid
                  AND d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass),
           ''
    FROM pg_catalog.pg_constraint k WHERE k.contype = 'c' AND k.contypid <> 0
    UNION ALL
    SELECT t.oid, a.attnum::int4::pg_catalog.oid, pg_catalog.quote_ident(a.attname),
           pg_catalog.concat(pg_catalog.format_type(a.atttypid, a.atttypmod),
               CASE WHEN a.attcollation <> y.typcollation
                    THEN (SELECT pg_catalog.format(' COLLATE %I.%I', n.nspname, l.collname)
                          FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
                          WHERE l.oid = a.attcollation) END),
           true, a.attnum, NULL,
           pg_catalog.concat_ws(' ', a.atttypid::pg_catalog.oid, a.atttypmod, a.attcollation::pg_catalog.oid)
    FROM pg_catalog.pg_type t
         JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
         JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
    WHERE t.typtype = 'c') p
WHERE p.id = ANY ($1)
ORDER BY p.id, p.place";

/// What the tables need, as it is.
pub(super) fn needed_by(tables: &[Oid]) -> Result<Vec<NeededObject>, PgError> {
    read(|client| {
        let mut roots: Vec<(Oid, Vec<Oid>)> = Vec::new();
        for row in client.select(&format!("{NEED}{ROOTS}"), None, &[tables.to_vec().into()])? {
            let id = row.get_by_name::<Oid, _>("objid")?;
            let tables = row.get_by_name::<Vec<Oid>, _>("tables")?;
            roots.extend(id.zip(tables));
        }
        let ids: Vec<Oid> = roots.iter().map(|(id, _)| *id).collect();
        let needed = objects(client, &ids)?.into_iter().filter_map(|object| {
            let (_, tables) = roots.iter().find(|(id, _)| id.to_u32() == object.id)?;
            Some(NeededObject { object, tables: tables.clone() })
        });
        Ok(needed.collect())
    })
}

/// These objects as they are by now; without those that are gone.
pub(super) fn by_id(ids: &[Oid]) -> Result<Vec<Object>, PgError> {
    read(|client| objects(client, ids))
}

/// Statements that create what the tables need where a node lacks it.
pub(super) fn prerequisites(tables: &[Oid]) -> Result<Vec<String>, PgError> {
    read(|client| super::needed::statements(client, tables))
}

fn read<T>(body: impl FnOnce(&SpiClient<'_>) -> Result<T, SpiError>) -> Result<T, PgError> {
    privileged::read_catalogs(body).map_err(|error| PgError::internal(error.to_string()))
}

fn objects(client: &SpiClient<'_>, ids: &[Oid]) -> Result<Vec<Object>, SpiError> {
    let mut objects = Vec::new();
    for row in client.select(OBJECTS, None, &[ids.to_vec().into()])? {
        objects.extend(object(&row)?);
    }
    for row in client.select(RIGHTS, None, &[ids.to_vec().into()])? {
        let right = Right {
            grantee: text(&row, "grantee")?,
            privilege: text(&row, "privilege")?,
            is_grantable: flag(&row, "is_grantable")?,
        };
        let id = id(&row, "id")?;
        objects
            .iter_mut()
            .filter(|one| one.id == id)
            .for_each(|one| one.rights.push(right.clone()));
    }
    for row in client.select(PARTS, None, &[ids.to_vec().into()])? {
        let part = Part {
            id: id(&row, "part")?,
            name: text(&row, "name")?,
            text: text(&row, "text")?,
            is_validated: flag(&row, "is_validated")?,
            operator_schemas: row.get_by_name("operator_schemas")?,
            identity: text(&row, "identity")?,
        };
        let id = id(&row, "id")?;
        objects.iter_mut().filter(|one| one.id == id).for_each(|one| one.parts.push(part.clone()));
    }
    Ok(objects)
}

fn object(row: &SpiHeapTupleData<'_>) -> Result<Option<Object>, SpiError> {
    let kind = match text(row, "kind")?.as_str() {
        "schema" => Kind::Schema,
        "enum" => Kind::Enum,
        "domain" => Kind::Domain,
        "composite" => Kind::Composite,
        "range" => Kind::Range,
        "collation" => Kind::Collation,
        "function" => Kind::Function,
        "extension" => Kind::Extension,
        _ => return Ok(None),
    };
    Ok(Some(Object {
        kind,
        id: id(row, "id")?,
        name: text(row, "name")?,
        schema: id(row, "schema")?,
        schema_name: text(row, "schema_name")?,
        arguments: text(row, "arguments")?,
        owner: text(row, "owner")?,
        rights: Vec::new(),
        body: text(row, "body")?,
        default: row.get_by_name("default_value")?,
        is_not_null: flag(row, "is_not_null")?,
        parts: Vec::new(),
    }))
}

fn text(row: &SpiHeapTupleData<'_>, column: &str) -> Result<String, SpiError> {
    Ok(row.get_by_name(column)?.unwrap_or_default())
}

fn flag(row: &SpiHeapTupleData<'_>, column: &str) -> Result<bool, SpiError> {
    Ok(row.get_by_name(column)?.unwrap_or(false))
}

fn id(row: &SpiHeapTupleData<'_>, column: &str) -> Result<u32, SpiError> {
    Ok(row.get_by_name::<Oid, _>(column)?.map_or(0, Oid::to_u32))
}
