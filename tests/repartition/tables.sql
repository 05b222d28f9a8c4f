CREATE TABLE a (id int NOT NULL, t text, u uuid, n numeric, b bigint, x int, v varchar(20), f float8, d date);
CREATE TABLE c (id text NOT NULL, i int, u uuid, n numeric, b bigint, y int, v varchar(20), f float4, d date);
CREATE TABLE e (id int NOT NULL, note text, tags int[]);
CREATE TABLE r (id int NOT NULL, name text);
INSERT INTO a SELECT i, CASE WHEN i % 7 > 0 THEN 'k' || i % 90 END, CASE WHEN i % 5 > 0 THEN md5((i % 60)::text)::uuid END,
        CASE WHEN i % 11 > 0 THEN (i % 40) / 4.0 END, CASE WHEN i % 6 > 0 THEN i % 70 END, CASE WHEN i % 13 > 0 THEN i % 50 END,
        'v' || i % 30, CASE i % 9 WHEN 0 THEN NULL WHEN 1 THEN '-0' WHEN 2 THEN 'NaN' ELSE (i % 20)::float8 END, '2020-01-01'::date + i % 33
    FROM generate_series(1, 600) AS i;
INSERT INTO c SELECT 'k' || i % 120, CASE WHEN i % 8 > 0 THEN i % 80 END, CASE WHEN i % 9 > 0 THEN md5((i % 75)::text)::uuid END,
        CASE WHEN i % 10 > 0 THEN (i % 50) / 4.00 END, CASE WHEN i % 4 > 0 THEN i % 90 END, i % 45, 'v' || i % 40,
        CASE i % 8 WHEN 0 THEN NULL WHEN 1 THEN 0 WHEN 2 THEN 'NaN' ELSE (i % 25)::float4 END, '2020-01-05'::date + i % 40
    FROM generate_series(1, 400) AS i;
INSERT INTO e SELECT i * 3 % 700, repeat('n', i % 5), ARRAY[i % 4, NULL, i % 3] FROM generate_series(1, 300) AS i;
INSERT INTO r SELECT i, 'r' || i % 4 FROM generate_series(1, 30) AS i;
