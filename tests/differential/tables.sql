-- The same tables stand in two schemas, distributed in one of them; `shared` holds local tables for both.
-- Floating-point numbers are multiples of a quarter, so that sums do not depend on the order of their terms.

CREATE TABLE customers (
    id int PRIMARY KEY,
    name text NOT NULL,
    region text,
    joined date,
    score numeric(8,3),
    tags text[],
    profile jsonb,
    active bool,
    parent int,
    feeling mood,
    home address
);

CREATE TABLE orders (
    customer_id int NOT NULL,
    id bigint NOT NULL,
    total numeric(10,2),
    placed timestamptz,
    note varchar(40),
    items int[],
    weight float8,
    PRIMARY KEY (customer_id, id)
);

CREATE TABLE products (
    sku text PRIMARY KEY,
    price numeric,
    weight float4,
    released timestamp,
    shelf_life interval,
    picture bytea,
    tag uuid,
    opens time,
    network inet,
    valid int4range,
    small smallint,
    letter "char",
    code char(6),
    doc json,
    bits bit varying(8)
);

CREATE TABLE empty_shelf (k int, v text);

INSERT INTO customers
SELECT i,
       'name ' || i % 37,
       CASE i % 7 WHEN 0 THEN NULL WHEN 1 THEN 'north' WHEN 2 THEN 'south' WHEN 3 THEN 'east' WHEN 4 THEN 'west'
            WHEN 5 THEN '' ELSE 'Mid''land "x"' END,
       date '2016-01-01' + i % 90,
       CASE WHEN i % 11 = 0 THEN NULL ELSE (i * 7919 % 1000) / 8.0 END,
       CASE WHEN i % 5 = 0 THEN NULL WHEN i % 5 = 1 THEN '{}' ELSE ARRAY['t' || i % 3, NULL, 'a,b {c}"' || i % 4] END,
       CASE WHEN i % 6 = 0 THEN NULL
            ELSE jsonb_build_object('level', i % 4, 'nick', 'n' || i, 'list', jsonb_build_array(i, NULL, 'x')) END,
       CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN true ELSE false END,
       CASE WHEN i > 3 THEN i / 3 END,
       CASE i % 4 WHEN 0 THEN 'sad' WHEN 1 THEN 'ok' WHEN 2 THEN 'happy' END::mood,
       CASE WHEN i % 8 = 0 THEN NULL ELSE ROW('street ' || i, i % 10)::address END
  FROM generate_series(1, 160) AS i;

INSERT INTO orders
SELECT (i * 31) % 180 + 1, i, (i * 7907 % 100000) / 100.0,
       timestamptz '2016-03-26 22:15:00.123456+00' + i * interval '47 minutes',
       CASE WHEN i % 9 = 0 THEN NULL ELSE 'note ' || chr(97 + i % 26) || E'\t\\' END,
       ARRAY[i % 5, i % 3, i], i % 40 * 0.25
  FROM generate_series(1, 500) AS i;

INSERT INTO products
SELECT 'sku-' || i,
       CASE i % 10 WHEN 0 THEN NULL WHEN 1 THEN 'NaN' ELSE i * 1.10 END::numeric,
       CASE i % 12 WHEN 0 THEN 'Infinity' WHEN 1 THEN '-0' ELSE i * 0.25 END::float4,
       CASE WHEN i = 5 THEN 'infinity' ELSE timestamp '1999-12-31 23:59:59.999' + i * interval '36 days' END::timestamp,
       make_interval(years => i % 3, months => i % 5 - 2, days => i - 20, secs => i * 1.5),
       CASE WHEN i % 7 = 0 THEN NULL ELSE decode(lpad(to_hex(i * 65537), 8, '0'), 'hex') END,
       md5(i::text)::uuid,
       time '00:00:00.5' + i * interval '17 minutes',
       ('10.0.' || i || '.0/24')::inet,
       CASE WHEN i % 6 = 0 THEN 'empty' ELSE int4range(i, i * 2, '[]') END::int4range,
       CASE WHEN i % 2 = 0 THEN -i ELSE i END,
       chr(97 + i % 26)::"char",
       'c' || i,
       json_build_object('b', i, 'a', NULL),
       (i % 256)::bit(8)::bit varying(8)
  FROM generate_series(1, 60) AS i;
