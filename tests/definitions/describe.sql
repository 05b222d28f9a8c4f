-- A table and all that belongs to it, a line each. $1 is replaced by the table's name, $2 by the suffix of the names of a shard.
WITH r AS (SELECT c.* FROM pg_class AS c WHERE c.oid = '$1'::regclass),
described(line) AS (
    SELECT concat_ws(' ', 'table', pg_get_userbyid(relowner), relpersistence, relreplident,
                     (SELECT string_agg(o, ',' ORDER BY o) FROM unnest(reloptions) AS o),
                     (SELECT string_agg(o, ',' ORDER BY o) FROM pg_class AS toast, unnest(toast.reloptions) AS o WHERE toast.oid = r.reltoastrelid),
                     obj_description(oid, 'pg_class'))
    FROM r
    UNION ALL
    SELECT concat_ws(' ', 'column', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod), a.attcollation::regcollation,
                     CASE WHEN a.attnotnull THEN 'not null' END,
                     'default ' || CASE WHEN pg_get_expr(d.adbin, d.adrelid) ~ 'nextval|random' THEN NULL ELSE pg_get_expr(d.adbin, d.adrelid) END,
                     a.attgenerated, a.attstorage, a.attcompression, a.attstattarget, (SELECT string_agg(o, ',' ORDER BY o) FROM unnest(a.attoptions) AS o WHERE o NOT LIKE 'pg_attver=%'), col_description(a.attrelid, a.attnum))
    FROM r JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
         LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    UNION ALL
    SELECT concat_ws(' ', 'constraint', quote_ident(k.conname), pg_get_constraintdef(k.oid), k.convalidated, obj_description(k.oid, 'pg_constraint'))
    FROM r JOIN pg_constraint AS k ON k.conrelid = r.oid
    UNION ALL
    SELECT concat_ws(' ', 'index', pg_get_indexdef(i.indexrelid), i.indisclustered, i.indisreplident, i.indisvalid, obj_description(i.indexrelid, 'pg_class'),
                     (SELECT string_agg(a.attstattarget::text, ',' ORDER BY a.attnum) FROM pg_attribute AS a WHERE a.attrelid = i.indexrelid))
    FROM r JOIN pg_index AS i ON i.indrelid = r.oid
    UNION ALL
    SELECT concat_ws(' ', 'statistics', pg_get_statisticsobjdef(x.oid), x.stxstattarget, obj_description(x.oid, 'pg_statistic_ext'))
    FROM r JOIN pg_statistic_ext AS x ON x.stxrelid = r.oid
    UNION ALL
    SELECT concat_ws(' ', 'right', pg_get_userbyid(g.grantee), g.privilege_type, g.is_grantable)
    FROM r, aclexplode(r.relacl) AS g WHERE g.grantee <> r.relowner
    UNION ALL
    SELECT concat_ws(' ', 'right', pg_get_userbyid(g.grantee), g.privilege_type, a.attname, g.is_grantable)
    -- Shards let those who have rights on columns see where their rows lie.
    FROM r JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0, aclexplode(a.attacl) AS g WHERE g.grantee <> r.relowner)
SELECT replace(line, '$2', '') FROM described ORDER BY 1
