-- Statements on table c of two schemas, distributed by k in one of them. What stands in braces is replaced by constants of
-- that kind, each time by others; the answers have to be the same in both schemas.

SELECT i2, i4, i8, n FROM c WHERE k = {key}
SELECT * FROM c WHERE k = {key} ORDER BY 1
SELECT t, vc, ch FROM c WHERE k = {key} AND i4 > {int}
SELECT t AS this, vc AS that FROM c WHERE k = {key} AND i4 > {int}
SELECT {int} AS x, {text} AS y, k FROM c WHERE k = {key}
SELECT count(*), {num} FROM c WHERE k = {key}
SELECT k FROM c WHERE k = {bigkey}
SELECT k FROM c WHERE k = {smallkey}
SELECT k FROM c WHERE {key} = k AND i8 = {big}
SELECT k FROM c WHERE k = {key} AND i8 > {int} AND i2 < {big}
SELECT k FROM c WHERE k = {key} AND n >= {num}
SELECT k FROM c WHERE k = {key} AND (f8 > {num} OR f4 < {num} OR n = {int})
SELECT k, t FROM c WHERE k = {key} AND t = {text}
SELECT k, vc FROM c WHERE k = {key} AND vc = {text}
SELECT k, ch FROM c WHERE k = {key} AND ch = {text}
SELECT k, t FROM c WHERE k = {key} AND t LIKE {pattern}
SELECT k, t FROM c WHERE k = {key} AND t NOT ILIKE {pattern} AND vc ~~ {pattern}
SELECT k FROM c WHERE k = {key} AND i4 IN ({int}, {int}, {int})
SELECT k FROM c WHERE k = {key} AND t IN ({text}, {text})
SELECT k FROM c WHERE k IN ({key}, {key}) AND i4 = {int}
SELECT k FROM c WHERE k = {key} AND i4 BETWEEN {int} AND {int}
SELECT k FROM c WHERE k = {key} AND d BETWEEN {date} AND {date}
SELECT k FROM c WHERE k = {key} AND ts > {timestamptz}
SELECT k FROM c WHERE k = {key} AND tn <= {timestamp} AND iv < {interval}
SELECT k, ts AT TIME ZONE {zone}, tn AT TIME ZONE {zone} FROM c WHERE k = {key}
SELECT k, (ts AT TIME ZONE {zone}) > {timestamp} FROM c WHERE k = {key}
SELECT k FROM c WHERE k = {key} AND ts + {interval} > {timestamptz}
SELECT k FROM c WHERE k = {key} AND date_trunc({unit}, ts) > {timestamptz}
SELECT k, extract(year FROM d), to_char(d, {format}) FROM c WHERE k = {key} AND to_char(d, {format}) <> {text}
SELECT k FROM c WHERE k = {key} AND u = {uuid}
SELECT k FROM c WHERE k = {key} AND by = {bytea}
SELECT k FROM c WHERE k = {key} AND b = {bool}
SELECT k FROM c WHERE k = {key} AND b IS NOT DISTINCT FROM {bool} AND i4 IS DISTINCT FROM {int}
SELECT k, j->{textkey}, j->>{textkey} FROM c WHERE k = {key} AND j @> {jsonb}
SELECT k FROM c WHERE k = {key} AND j->{textkey} = {jsonb}
SELECT k FROM c WHERE k = {key} AND j ? {textkey}
SELECT k FROM c WHERE k = {key} AND a = {ints}
SELECT k FROM c WHERE k = {key} AND a && {ints} AND {int} = ANY (a)
SELECT k FROM c WHERE k = {key} AND i4 = ANY ({ints})
SELECT k FROM c WHERE k = {key} AND ta @> {texts}
SELECT k FROM c WHERE k = {key} AND e = {mood}
SELECT k FROM c WHERE k = {key} AND e > {mood} AND e IN ({mood}, {mood})
SELECT k FROM c WHERE k = {key} AND dm = {int}
SELECT k FROM c WHERE k = {key} AND t = {text}::varchar(2)
SELECT k FROM c WHERE k = {key} AND t < {text}::varchar(3)
SELECT k FROM c WHERE k = {key} AND ch = {text}::char(3)
SELECT k FROM c WHERE k = {key} AND n > {num}::numeric(3,2)
SELECT k FROM c WHERE k = {key} AND n > {num}::numeric(6,3)
SELECT k FROM c WHERE k = {key} AND i4 > {num}::int
SELECT k FROM c WHERE k = {key} AND i4 > {numtext}::int
SELECT k FROM c WHERE k = {key} AND iv > {interval}::interval hour
SELECT k FROM c WHERE k = {key} AND tn > {timestamp}::timestamp(0)
SELECT k, CASE WHEN i4 > {int} THEN {text} WHEN i4 IS NULL THEN {text} ELSE t END FROM c WHERE k = {key}
SELECT k FROM c WHERE k = {key} AND CASE WHEN i4 > {int} THEN t = {text} ELSE b = {bool} END
SELECT k, coalesce(i4, {int}), nullif(t, {text}), greatest(i4, {int}, i2) FROM c WHERE k = {key}
SELECT k FROM c WHERE k = {key} AND coalesce(i4, {int}) = greatest(i2, {int})
SELECT k FROM c WHERE k = {key} AND i4 / {int} > {int}
SELECT k FROM c WHERE k = {key} AND i4 * {int} > {big}
SELECT k FROM c WHERE k = {key} AND substr(t, {int}) = {text} || vc
SELECT k FROM c WHERE k = {key} AND t || {text} > vc
SELECT k FROM c WHERE k = {key} AND t ~ {text}
SELECT k FROM c WHERE k = {key} AND t COLLATE "C" > {text}
SELECT k FROM c WHERE k = {key} AND (i4, t) > ({int}, {text})
SELECT k FROM c WHERE k = {key} AND (i4, i2) IN (({int}, {int}), ({int}, {int}))
SELECT k FROM c WHERE k = {key} AND row(i4, t) IS NOT NULL AND t IS NOT NULL
SELECT k, i4 FROM c WHERE k = {key} ORDER BY i4 LIMIT {count}
SELECT k, i4 FROM c WHERE k = {key} ORDER BY i4 LIMIT {count} OFFSET {count}
SELECT i4 + {int} AS s, count(*) FROM c WHERE k = {key} GROUP BY i4 + {int} ORDER BY 1
SELECT max(i4) FROM c WHERE k = {key} HAVING max(i4) > {int}
SELECT (SELECT count(*) FROM c x WHERE x.k = {key} AND x.i4 > {int}) FROM c WHERE k = {key}
SELECT k FROM c WHERE k = {key} AND EXISTS (SELECT 1 FROM c x WHERE x.k = c.k AND x.i4 >= {int})
WITH x AS (SELECT * FROM c WHERE k = {key} AND t <> {text}) SELECT k, t FROM x WHERE i4 > {int}
SELECT x.k, y.i4 FROM c x JOIN c y ON x.k = y.k AND y.i4 > {int} WHERE x.k = {key}
SELECT k FROM c WHERE k = {key} UNION ALL SELECT i4 FROM c WHERE k = {key} AND i4 > {int} ORDER BY 1
SELECT k, row_number() OVER (ORDER BY i4) + {int} FROM c WHERE k = {key}
SELECT k FROM c WHERE k = {key} AND plus_one({int}) < i4
SELECT k, plus_one(i4) FROM c WHERE k = {key} AND plus_one(i4) > {int}
SELECT k FROM c WHERE k = {key} AND i4 > {int} FOR UPDATE
SELECT k FROM c WHERE k = {key} AND i4 = {int} AND k = {key}
SELECT k FROM c WHERE k = {key} OR k = {key}
SELECT k FROM c WHERE k = {key} + {count}
SELECT k FROM c WHERE k = abs({key})
SELECT k FROM c WHERE NOT k <> {key}
UPDATE c SET i4 = {int} WHERE k = {key} RETURNING i4
UPDATE c SET i2 = {int}, i8 = {big} WHERE k = {key} RETURNING i2, i8
UPDATE c SET i4 = i4 + {int} WHERE k = {key} AND i4 IS NOT NULL RETURNING i4
UPDATE c SET i8 = i4 * {big} WHERE k = {key} RETURNING i8
UPDATE c SET n = {num} WHERE k = {key} RETURNING n
UPDATE c SET n = n * {num}, f8 = {num}, f4 = {num} WHERE k = {key} RETURNING n, f8, f4
UPDATE c SET t = {text} WHERE k = {key} RETURNING t, length(t)
UPDATE c SET vc = {text} WHERE k = {key} RETURNING vc
UPDATE c SET vc = {text}::varchar(2), t = {text}::char(4) WHERE k = {key} RETURNING vc, t
UPDATE c SET ch = {text} WHERE k = {key} RETURNING ch, length(ch)
UPDATE c SET vc = vc || {text} WHERE k = {key} RETURNING vc
UPDATE c SET b = {bool} WHERE k = {key} RETURNING b
UPDATE c SET d = {date}, ts = {timestamptz}, tn = {timestamp} WHERE k = {key} RETURNING d, ts, tn
UPDATE c SET d = d + {int} WHERE k = {key} RETURNING d
UPDATE c SET iv = {interval} WHERE k = {key} RETURNING iv, iv * {num}
UPDATE c SET u = {uuid}, by = {bytea} WHERE k = {key} RETURNING u, by
UPDATE c SET j = {jsonb} WHERE k = {key} RETURNING j
UPDATE c SET j[{textkey}] = {jsonb} WHERE k = {key} AND jsonb_typeof(j) = 'object' RETURNING j
UPDATE c SET a = {ints}, ta = {texts} WHERE k = {key} RETURNING a, ta
UPDATE c SET a[{count}] = {int} WHERE k = {key} RETURNING a
UPDATE c SET a[2:3] = {ints} WHERE k = {key} AND a IS NOT NULL RETURNING a
UPDATE c SET e = {mood} WHERE k = {key} RETURNING e
UPDATE c SET dm = {int} WHERE k = {key} RETURNING dm
UPDATE c SET t = CASE WHEN i4 > {int} THEN {text} ELSE t END WHERE k = {key} RETURNING t, {int}, {text}
UPDATE c SET (i4, t) = ({int}, {text}) WHERE k = {key} RETURNING i4, t
UPDATE c SET (i4, t) = (SELECT max(i4) + {int}, {text} FROM c x WHERE x.k = {key} AND x.k = c.k) WHERE k = {key} RETURNING i4, t
UPDATE c SET i4 = DEFAULT, t = {text} WHERE k = {key} RETURNING i4, t
UPDATE c SET i4 = plus_one({int}) WHERE k = {key} RETURNING i4
UPDATE c SET i4 = {int} WHERE k = {key} AND t LIKE {pattern} RETURNING k
UPDATE c SET t = {text} WHERE k = {key} AND d < {date} RETURNING k, t
UPDATE c SET i2 = {smallint} WHERE k = {bigkey} RETURNING k, i2
DELETE FROM c WHERE k = {key} AND i4 = {int} AND t = {text}
DELETE FROM c WHERE k = {key} AND n < {num} AND i2 > {int} RETURNING k, {text}
INSERT INTO c (k, i4, t) VALUES ({newkey}, {int}, {text}) RETURNING k, i4, t
INSERT INTO c (k, n, vc, ch) VALUES ({newkey}, {num}, {text}, {text}) RETURNING *
INSERT INTO c (k, d, ts, tn, iv, u, by, b) VALUES ({newkey}, {date}, {timestamptz}, {timestamp}, {interval}, {uuid}, {bytea}, {bool}) RETURNING d, ts, tn, iv, u, by, b
INSERT INTO c (k, j, a, ta, e, dm) VALUES ({newkey}, {jsonb}, {ints}, {texts}, {mood}, {int}) RETURNING j, a, ta, e, dm
INSERT INTO c (t, k) VALUES ({text}, {key})
INSERT INTO c (k, t) VALUES ({key}, {text}) ON CONFLICT (k) DO NOTHING
INSERT INTO c (k, t) VALUES ({key}, {text}) ON CONFLICT (k) DO UPDATE SET t = {text} RETURNING t
INSERT INTO c (k, i4) VALUES ({key}, {int}) ON CONFLICT (k) DO UPDATE SET i4 = excluded.i4 + {int} WHERE c.i4 < {int} RETURNING i4, {text}
INSERT INTO c (k, t) VALUES ({key}, {text}) ON CONFLICT ON CONSTRAINT c_pkey DO UPDATE SET vc = left({text}, {count}), i2 = {count} RETURNING vc, i2
INSERT INTO p (k, code, n) VALUES ({smallkey}, {textkey}, {count}) ON CONFLICT (k, code) WHERE n > 0 DO UPDATE SET n = p.n + {count}, note = {text} RETURNING n, note
INSERT INTO p (k, code, n) VALUES ({smallkey}, {textkey}, {count}) ON CONFLICT (k, code) WHERE n > 1 DO UPDATE SET n = p.n + {count} RETURNING n
INSERT INTO p (k, code, n) VALUES ({key}, {textkey}, {count}) ON CONFLICT (k, code) WHERE n > 0 DO NOTHING RETURNING n, {text}
INSERT INTO p (k, code, n) VALUES ({key}, {textkey}, {int})
SELECT k, code, n, note FROM p WHERE k = {key} AND code = {textkey} AND n > {int} ORDER BY 1, 2, 3, 4
DELETE FROM p WHERE k = {key} AND code = {textkey} AND n = {count}
INSERT INTO c (k, t) SELECT {newkey}, t || {text} FROM c WHERE k = {key} RETURNING t
INSERT INTO c (k, i4) SELECT {newkey}, {int} RETURNING k, i4
