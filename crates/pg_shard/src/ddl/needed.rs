//! What a table's definition needs besides PostgreSQL's own: schemas, types, functions, extensions.
//!
//! `pg_depend` says what it is; each object becomes a statement that creates it on a node that lacks it. Columns, CHECK constraints,
//! generated columns, defaults, indexes and statistics are looked at, and in turn what their types and functions need. An enumerated
//! type that is there gets the labels that it lacks, a domain the constraints; a function that is there becomes the one of this server.
//! An object is created by a role that may act as its owner here, and belongs to this owner there.
//!
//! Left to the administrator: roles, operators and their classes, text search configurations, and types that are rows
//! of tables. Where one is missing, the node's error says so.

use pgrx::pg_sys::Oid;
use pgrx::spi::{SpiClient, SpiError};

/// The comment by which an object on a node is known to be created by us; the queries below have it too.
pub(super) const MARK: &str = "created by pg_shard for distributed tables";

/// Objects that tables need, `need(root, classid, objid)`, as the beginning of a query with the tables as `$1`.
pub(super) const NEED: &str = r"
WITH RECURSIVE need(root, classid, objid) AS (
    SELECT own.* FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS r(root) CROSS JOIN LATERAL (
        SELECT r.root, 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, r.root
        UNION ALL
        SELECT r.root, 'pg_catalog.pg_attrdef'::pg_catalog.regclass, d.oid FROM pg_catalog.pg_attrdef d WHERE d.adrelid = r.root
        UNION ALL
        SELECT r.root, 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid FROM pg_catalog.pg_constraint k
        WHERE k.conrelid = r.root AND k.contype IN ('c', 'x')
        UNION ALL
        SELECT r.root, 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid FROM pg_catalog.pg_index i WHERE i.indrelid = r.root
        UNION ALL
        SELECT r.root, 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, x.oid FROM pg_catalog.pg_statistic_ext x
        WHERE x.stxrelid = r.root) own
    UNION
    SELECT n.root, x.classid, x.objid
    FROM need n
         CROSS JOIN LATERAL (
             SELECT d.refclassid, d.refobjid
             FROM pg_catalog.pg_depend d
             WHERE d.classid = n.classid AND d.objid = n.objid AND d.deptype IN ('n', 'a', 'i') AND d.refobjid >= 16384
                   AND (d.refclassid IN ('pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass,
                                         'pg_catalog.pg_opclass'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass,
                                         'pg_catalog.pg_collation'::pg_catalog.regclass)
                        OR d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                           AND (SELECT c.relkind FROM pg_catalog.pg_class c WHERE c.oid = d.refobjid) = 'c')
             UNION ALL
             SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, t.typrelid
             FROM pg_catalog.pg_type t JOIN pg_catalog.pg_class c ON c.oid = t.typrelid AND c.relkind = 'c'
             WHERE n.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = n.objid
             UNION ALL
             SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid FROM pg_catalog.pg_constraint k
             WHERE n.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND k.contypid = n.objid) x(classid, objid)
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
                      WHERE e.classid = n.classid AND e.objid = n.objid AND e.deptype = 'e')),
member AS (
    SELECT DISTINCT n.classid, n.objid, e.refobjid AS extension
    FROM need n LEFT JOIN pg_catalog.pg_depend e ON e.classid = n.classid AND e.objid = n.objid AND e.deptype = 'e')
";

/// The schemas of the table, of its statistics, and of what it needs. `CREATE SCHEMA IF NOT EXISTS` asks for the right to
/// create even where there is nothing to do, hence the block; the exceptions are those of two sessions that create it at once.
///
/// Who may use the schema here may use it there, but only if it is we who create it: an existing one is its owner's.
const SCHEMAS: &str = r"
SELECT 'DO ' || pg_catalog.quote_literal(pg_catalog.format(
           'BEGIN IF pg_catalog.to_regnamespace(%1$L) IS NULL THEN CREATE SCHEMA %2$I%3$s; '
           'COMMENT ON SCHEMA %2$I IS ''created by pg_shard for distributed tables''; %4$sEND IF; '
           'EXCEPTION WHEN duplicate_schema OR unique_violation THEN NULL; END',
           pg_catalog.quote_ident(n.nspname),
           n.nspname,
           CASE WHEN pg_catalog.pg_get_userbyid(n.nspowner) <> CURRENT_USER
                     AND pg_catalog.pg_has_role(n.nspowner, 'MEMBER')
                THEN pg_catalog.format(' AUTHORIZATION %I', pg_catalog.pg_get_userbyid(n.nspowner))
           END,
           (SELECT pg_catalog.string_agg(
                       pg_catalog.format('GRANT %s ON SCHEMA %I TO %s; ', g.privileges, n.nspname, g.grantee),
                       '' ORDER BY g.grantee)
            FROM (SELECT coalesce(pg_catalog.quote_ident(r.rolname), 'PUBLIC') AS grantee,
                         pg_catalog.string_agg(DISTINCT a.privilege_type, ', ') AS privileges
                  FROM pg_catalog.aclexplode(n.nspacl) a
                       LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
                  WHERE a.grantee <> n.nspowner AND (a.grantee = 0 OR r.oid IS NOT NULL)
                  GROUP BY 1) g)
       )) AS statement
FROM pg_catalog.pg_namespace n
WHERE n.nspname <> 'public' AND n.nspname NOT LIKE 'pg\_%'
      AND n.oid IN (SELECT c.relnamespace FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1)
                    UNION ALL
                    SELECT x.stxnamespace FROM pg_catalog.pg_statistic_ext x WHERE x.stxrelid = ANY ($1)
                    UNION ALL
                    SELECT t.typnamespace FROM pg_catalog.pg_type t JOIN member m ON m.objid = t.oid
                    WHERE m.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND m.extension IS NULL
                    UNION ALL
                    SELECT p.pronamespace FROM pg_catalog.pg_proc p JOIN member m ON m.objid = p.oid
                    WHERE m.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND m.extension IS NULL
                    UNION ALL
                    SELECT l.collnamespace FROM pg_catalog.pg_collation l JOIN member m ON m.objid = l.oid
                    WHERE m.classid = 'pg_catalog.pg_collation'::pg_catalog.regclass AND m.extension IS NULL
                    UNION ALL
                    SELECT x.extnamespace FROM pg_catalog.pg_extension x JOIN member m ON m.extension = x.oid
                    WHERE NOT x.extrelocatable OR x.extnamespace >= 16384)
ORDER BY n.nspname";

/// Extensions of which the table needs a member.
const EXTENSIONS: &str = r"
SELECT DISTINCT 'DO ' || pg_catalog.quote_literal(pg_catalog.format(
           'BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = %L) THEN CREATE EXTENSION %I SCHEMA %I CASCADE; END IF; '
           'EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END',
           x.extname, x.extname, n.nspname)) AS statement
FROM member m
     JOIN pg_catalog.pg_extension x ON x.oid = m.extension
     JOIN pg_catalog.pg_namespace n ON n.oid = x.extnamespace
WHERE x.extname <> 'pg_shard'
ORDER BY 1";

/// Types and functions in the order in which they were made, so that each comes after what it needs.
///
/// Operators of a domain's checks are looked for where they are: SQL has no place to name all of them.
///
/// What is there already is changed afterwards: it may need what is younger.
///
/// The block of an enumerated type adds labels that are missing, or gives one another name if only that one differs.
const OBJECTS: &str = r"
, made(id, name, probe, command, create_sql, owner, update_sql) AS (
    SELECT t.oid, pg_catalog.format_type(t.oid, NULL), 'pg_catalog.to_regtype', 'TYPE',
           pg_catalog.format('CREATE TYPE %s AS ENUM (%s)', pg_catalog.format_type(t.oid, NULL),
                             (SELECT pg_catalog.string_agg(pg_catalog.quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
                              FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid)),
           t.typowner,
           (SELECT pg_catalog.format(
                       'DECLARE wanted text[] := %1$L; have text[]; at int; BEGIN '
                       'SELECT pg_catalog.array_agg(e.enumlabel::text ORDER BY e.enumsortorder) INTO have FROM pg_catalog.pg_enum e '
                       'WHERE e.enumtypid = pg_catalog.to_regtype(%2$L); '
                       'FOR at IN 1 .. pg_catalog.cardinality(wanted) LOOP '
                       'IF wanted[at] = ANY (have) THEN CONTINUE; END IF; '
                       'IF pg_catalog.cardinality(have) = pg_catalog.cardinality(wanted) AND NOT have[at] = ANY (wanted) THEN '
                       'EXECUTE pg_catalog.format(''ALTER TYPE %%s RENAME VALUE %%L TO %%L'', %2$L, have[at], wanted[at]); '
                       'ELSIF at = 1 THEN EXECUTE pg_catalog.format(''ALTER TYPE %%s ADD VALUE %%L BEFORE %%L'', %2$L, wanted[at], have[1]); '
                       'ELSE EXECUTE pg_catalog.format(''ALTER TYPE %%s ADD VALUE %%L AFTER %%L'', %2$L, wanted[at], wanted[at - 1]); END IF; '
                       'END LOOP; END;',
                       pg_catalog.array_agg(e.enumlabel::text ORDER BY e.enumsortorder), pg_catalog.format_type(t.oid, NULL))
            FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid)
    FROM pg_catalog.pg_type t WHERE t.typtype = 'e'
    UNION ALL
    SELECT t.oid, pg_catalog.format_type(t.oid, NULL), 'pg_catalog.to_regtype', 'DOMAIN',
           pg_catalog.concat(
               (SELECT pg_catalog.format('SET LOCAL search_path = pg_catalog, %s, pg_temp; ',
                                         pg_catalog.string_agg(DISTINCT pg_catalog.quote_ident(n.nspname), ', '))
                FROM pg_catalog.pg_constraint k
                     JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = k.oid
                          AND d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass
                     JOIN pg_catalog.pg_operator o ON o.oid = d.refobjid
                     JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace AND n.nspname <> 'pg_catalog'
                WHERE k.contypid = t.oid HAVING pg_catalog.count(*) > 0),
               pg_catalog.format('CREATE DOMAIN %s AS %s', pg_catalog.format_type(t.oid, NULL),
                                 pg_catalog.format_type(t.typbasetype, t.typtypmod)),
               CASE WHEN t.typcollation <> b.typcollation
                    THEN (SELECT pg_catalog.format(' COLLATE %I.%I', n.nspname, l.collname)
                          FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
                          WHERE l.oid = t.typcollation) END,
               ' DEFAULT ' || pg_catalog.pg_get_expr(t.typdefaultbin, 0),
               CASE WHEN t.typnotnull THEN ' NOT NULL' END,
               (SELECT pg_catalog.string_agg(pg_catalog.format(' CONSTRAINT %I %s', k.conname, pg_catalog.pg_get_constraintdef(k.oid)),
                                             '' ORDER BY k.conname)
                FROM pg_catalog.pg_constraint k WHERE k.contypid = t.oid AND k.convalidated),
               (SELECT pg_catalog.string_agg(pg_catalog.format('; ALTER DOMAIN %s ADD CONSTRAINT %I %s', pg_catalog.format_type(t.oid, NULL),
                                                               k.conname, pg_catalog.pg_get_constraintdef(k.oid)),
                                             '' ORDER BY k.conname)
                FROM pg_catalog.pg_constraint k WHERE k.contypid = t.oid AND NOT k.convalidated),
               (SELECT '; SET LOCAL search_path = pg_catalog, pg_temp'
                FROM pg_catalog.pg_constraint k
                     JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = k.oid
                          AND d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass
                     JOIN pg_catalog.pg_operator o ON o.oid = d.refobjid
                     JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace AND n.nspname <> 'pg_catalog'
                WHERE k.contypid = t.oid HAVING pg_catalog.count(*) > 0)),
           t.typowner,
           pg_catalog.concat(
               pg_catalog.format('IF (SELECT pg_catalog.pg_get_expr(y.typdefaultbin, 0) FROM pg_catalog.pg_type y '
                                 'WHERE y.oid = pg_catalog.to_regtype(%L)) IS DISTINCT FROM %L THEN ALTER DOMAIN %s %s; END IF; ',
                                 pg_catalog.format_type(t.oid, NULL), pg_catalog.pg_get_expr(t.typdefaultbin, 0), pg_catalog.format_type(t.oid, NULL),
                                 coalesce('SET DEFAULT ' || pg_catalog.pg_get_expr(t.typdefaultbin, 0), 'DROP DEFAULT')),
               pg_catalog.format('IF (SELECT y.typnotnull FROM pg_catalog.pg_type y WHERE y.oid = pg_catalog.to_regtype(%L)) <> %L '
                                 'THEN ALTER DOMAIN %s %s NOT NULL; END IF; ',
                                 pg_catalog.format_type(t.oid, NULL), t.typnotnull, pg_catalog.format_type(t.oid, NULL),
                                 CASE WHEN t.typnotnull THEN 'SET' ELSE 'DROP' END),
               (SELECT pg_catalog.string_agg(
                           pg_catalog.format('IF NOT EXISTS (SELECT FROM pg_catalog.pg_constraint y '
                                             'WHERE y.contypid = pg_catalog.to_regtype(%L) AND y.conname = %L) '
                                             'THEN %sALTER DOMAIN %s ADD CONSTRAINT %I %s; %sEND IF; ',
                                             pg_catalog.format_type(t.oid, NULL), k.conname,
                                             'SET LOCAL search_path = pg_catalog, ' || o.schemas || ', pg_temp; ',
                                             pg_catalog.format_type(t.oid, NULL), k.conname,
                                             pg_catalog.pg_get_constraintdef(k.oid),
                                             'SET LOCAL search_path = pg_catalog, pg_temp; ' || pg_catalog.left(o.schemas, 0)),
                           '' ORDER BY k.conname)
                FROM pg_catalog.pg_constraint k
                     CROSS JOIN LATERAL (
                         SELECT pg_catalog.string_agg(DISTINCT pg_catalog.quote_ident(n.nspname), ', ') AS schemas
                         FROM pg_catalog.pg_depend d
                              JOIN pg_catalog.pg_operator o ON o.oid = d.refobjid
                              JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace AND n.nspname <> 'pg_catalog'
                         WHERE d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = k.oid
                               AND d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass) o
                WHERE k.contypid = t.oid AND k.contype = 'c'))
    FROM pg_catalog.pg_type t JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype WHERE t.typtype = 'd'
    UNION ALL
    SELECT t.oid, pg_catalog.format_type(t.oid, NULL), 'pg_catalog.to_regtype', 'TYPE',
           pg_catalog.format('CREATE TYPE %s AS (%s)', pg_catalog.format_type(t.oid, NULL),
                             (SELECT pg_catalog.string_agg(pg_catalog.concat(
                                         pg_catalog.format('%I %s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)),
                                         CASE WHEN a.attcollation <> y.typcollation
                                              THEN (SELECT pg_catalog.format(' COLLATE %I.%I', n.nspname, l.collname)
                                                    FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
                                                    WHERE l.oid = a.attcollation) END), ', ' ORDER BY a.attnum)
                              FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
                              WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)),
           t.typowner, NULL
    FROM pg_catalog.pg_type t JOIN pg_catalog.pg_class c ON c.oid = t.typrelid AND c.relkind = 'c' WHERE t.typtype = 'c'
    UNION ALL
    SELECT t.oid, pg_catalog.format_type(t.oid, NULL), 'pg_catalog.to_regtype', 'TYPE',
           pg_catalog.concat(
               pg_catalog.format('CREATE TYPE %s AS RANGE (SUBTYPE = %s, SUBTYPE_OPCLASS = %I.%I, MULTIRANGE_TYPE_NAME = %s',
                                 pg_catalog.format_type(t.oid, NULL), pg_catalog.format_type(r.rngsubtype, NULL), n.nspname, o.opcname,
                                 pg_catalog.format_type(r.rngmultitypid, NULL)),
               (SELECT pg_catalog.format(', COLLATION = %I.%I', cn.nspname, l.collname)
                FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace cn ON cn.oid = l.collnamespace WHERE l.oid = r.rngcollation),
               ', SUBTYPE_DIFF = ' || nullif(r.rngsubdiff::pg_catalog.regproc::pg_catalog.text, '-'), ')'),
           t.typowner, NULL
    FROM pg_catalog.pg_type t
         JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid
         JOIN pg_catalog.pg_opclass o ON o.oid = r.rngsubopc
         JOIN pg_catalog.pg_namespace n ON n.oid = o.opcnamespace
    WHERE t.typtype = 'r' AND r.rngcanonical = 0
    UNION ALL
    SELECT l.oid, pg_catalog.format('%I.%I', n.nspname, l.collname), 'pg_catalog.to_regcollation', 'COLLATION',
           pg_catalog.format('CREATE COLLATION %I.%I (%s)', n.nspname, l.collname, pg_catalog.concat_ws(', ',
               'PROVIDER = ' || CASE l.collprovider WHEN 'i' THEN 'icu' WHEN 'c' THEN 'libc' WHEN 'b' THEN 'builtin' END,
               'LOCALE = ' || pg_catalog.quote_literal(coalesce(x.of_collation ->> 'colllocale', x.of_collation ->> 'colliculocale')),
               'LC_COLLATE = ' || pg_catalog.quote_literal(CASE WHEN l.collprovider = 'c' THEN l.collcollate END),
               'LC_CTYPE = ' || pg_catalog.quote_literal(CASE WHEN l.collprovider = 'c' THEN l.collctype END),
               'RULES = ' || pg_catalog.quote_literal(x.of_collation ->> 'collicurules'),
               CASE WHEN NOT l.collisdeterministic THEN 'DETERMINISTIC = false' END)),
           l.collowner, NULL
    FROM pg_catalog.pg_collation l
         JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
         CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(l)) AS x(of_collation)
    UNION ALL
    SELECT p.oid, pg_catalog.format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.oidvectortypes(p.proargtypes)),
           'pg_catalog.to_regprocedure', 'FUNCTION',
           pg_catalog.concat(pg_catalog.pg_get_functiondef(p.oid),
               CASE WHEN p.proacl IS NOT NULL
                    THEN pg_catalog.format('; REVOKE ALL ON FUNCTION %1$I.%2$I(%3$s) FROM PUBLIC', n.nspname, p.proname,
                                           pg_catalog.oidvectortypes(p.proargtypes)) END,
               (SELECT pg_catalog.string_agg(pg_catalog.format('; GRANT EXECUTE ON FUNCTION %I.%I(%s) TO %s', n.nspname, p.proname,
                           pg_catalog.oidvectortypes(p.proargtypes), coalesce(pg_catalog.quote_ident(r.rolname), 'PUBLIC')), '')
                FROM pg_catalog.aclexplode(p.proacl) a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
                WHERE a.grantee <> p.proowner AND (a.grantee = 0 OR r.oid IS NOT NULL))),
           p.proowner,
           pg_catalog.format('IF pg_catalog.pg_get_functiondef(pg_catalog.to_regprocedure(%1$L)) <> %2$L '
                             'THEN %2$s; ALTER FUNCTION %1$s OWNER TO %3$I; END IF; ',
                             pg_catalog.format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.oidvectortypes(p.proargtypes)),
                             pg_catalog.pg_get_functiondef(p.oid), pg_catalog.pg_get_userbyid(p.proowner))
    FROM pg_catalog.pg_proc p
         JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
         JOIN pg_catalog.pg_language l ON l.oid = p.prolang AND l.lanname IN ('sql', 'plpgsql')
    WHERE p.prokind = 'f')
SELECT 'DO ' || pg_catalog.quote_literal(pg_catalog.concat(
           'BEGIN PERFORM pg_catalog.set_config(''check_function_bodies'', ''off'', true); ', s.body,
           ' EXCEPTION WHEN duplicate_object OR duplicate_function OR unique_violation THEN NULL; END')) AS statement
FROM made d
     JOIN member m ON m.objid = d.id AND m.extension IS NULL
                      AND m.classid IN ('pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass,
                                        'pg_catalog.pg_collation'::pg_catalog.regclass)
     CROSS JOIN LATERAL (
         VALUES (1, pg_catalog.concat(
                        pg_catalog.format('IF %s(%L) IS NULL THEN %s; COMMENT ON %s %s IS %L; ', d.probe, d.name, d.create_sql,
                                          d.command, d.name, 'created by pg_shard for distributed tables'),
                        CASE WHEN pg_catalog.pg_get_userbyid(d.owner) <> CURRENT_USER
                             THEN pg_catalog.format('ALTER %s %s OWNER TO %I; ', d.command, d.name,
                                                    pg_catalog.pg_get_userbyid(d.owner)) END,
                        'END IF;')),
                (2, d.update_sql)) AS s(pass, body)
WHERE pg_catalog.pg_has_role(d.owner, 'MEMBER') AND s.body IS NOT NULL
ORDER BY s.pass, s.pass = 2 AND d.command = 'DOMAIN', d.id";

/// Statements that create what the tables need where a node lacks it, in their order.
pub(super) fn statements(client: &SpiClient<'_>, tables: &[Oid]) -> Result<Vec<String>, SpiError> {
    let mut statements = Vec::new();
    for query in [SCHEMAS, EXTENSIONS, OBJECTS] {
        let rows = client.select(&format!("{NEED}{query}"), None, &[tables.to_vec().into()])?;
        for row in rows {
            statements.extend(row.get_by_name::<String, _>("statement")?);
        }
    }
    Ok(statements)
}
