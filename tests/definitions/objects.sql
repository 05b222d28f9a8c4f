-- What stands in the schemas of the test besides tables.
SELECT string_agg(line, E'\n' ORDER BY line COLLATE "C") FROM (
    SELECT format('%s owner %s %s', pg_get_functiondef(p.oid), p.proowner::regrole,
                  (SELECT array_agg(a ORDER BY a::text) FROM unnest(coalesce(p.proacl, acldefault('f', p.proowner))) AS a)) AS line
    FROM pg_proc AS p
    WHERE p.prokind = 'f' AND p.pronamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('app', 'App2', 'other'))
          AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype IN ('i', 'e'))
    UNION ALL
    SELECT format('%s %s owner %s %s base %s not null %s default %s labels %s attributes %s', t.oid::regtype, t.typtype, t.typowner::regrole,
                  (SELECT array_agg(a ORDER BY a::text) FROM unnest(coalesce(t.typacl, acldefault('T', t.typowner))) AS a),
                  format_type(t.typbasetype, t.typtypmod), t.typnotnull, pg_get_expr(t.typdefaultbin, 0),
                  (SELECT array_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum AS e WHERE e.enumtypid = t.oid),
                  (SELECT array_agg(format('%s %s %s', a.attname, a.atttypid::regtype, a.attcollation::regcollation) ORDER BY a.attnum)
                   FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped))
    FROM pg_type AS t LEFT JOIN pg_class AS c ON c.oid = t.typrelid
    WHERE t.typnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('app', 'App2', 'other'))
          AND t.typtype IN ('e', 'd', 'r', 'c') AND (c.oid IS NULL OR c.relkind = 'c')
    UNION ALL
    SELECT format('%s %s %s', k.contypid::regtype, k.conname, pg_get_constraintdef(k.oid)) FROM pg_constraint AS k
    WHERE k.contypid >= 16384 AND k.contype = 'c'
    UNION ALL
    SELECT format('collation %s', l.oid::regcollation) FROM pg_collation AS l WHERE l.oid >= 16384
    UNION ALL
    SELECT format('extension %s %s', x.extname, x.extnamespace::regnamespace) FROM pg_extension AS x WHERE x.extname = 'hstore'
    UNION ALL
    SELECT format('schema %s owner %s %s', n.nspname, n.nspowner::regrole,
                  (SELECT array_agg(a ORDER BY a::text) FROM unnest(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS a))
    FROM pg_namespace AS n WHERE n.nspname IN ('app', 'App2')) AS lines
