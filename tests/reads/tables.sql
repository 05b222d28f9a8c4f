-- The same tables stand in two schemas; in one of them all but `places` are distributed.
-- Floating-point numbers are multiples of a quarter, and intervals are shorter than a day beside their days, so that
-- sums do not depend on the order of their terms and equal values look alike.

CREATE TABLE customers (
    id int PRIMARY KEY, grp int2, name text, code varchar(8), fixed char(4), score numeric(8,2), weight float8,
    ok bool, born date, seen timestamptz, span interval, tag uuid, doc jsonb, nums int[], feel mood, raw bytea, big int8
);
CREATE TABLE orders (
    customer int NOT NULL, id int8 NOT NULL, total numeric(10,2), placed timestamptz, note text, qty int2, feel mood,
    doc jsonb, paid bool, due date, load float8, PRIMARY KEY (customer, id)
);
CREATE TABLE lines (
    customer int NOT NULL, order_id int8 NOT NULL, no int2 NOT NULL, price numeric(10,2), item text, flag bool,
    sku text, day date, nums int[], PRIMARY KEY (customer, order_id, no)
);
CREATE TABLE products (sku text PRIMARY KEY, label varchar(20), price numeric(8,2), weight float4, born date, kind char(4), size int, tag uuid);
CREATE TABLE stock (sku text NOT NULL, place int2 NOT NULL, amount int, span interval, note text, PRIMARY KEY (sku, place));
CREATE TABLE "Odd Names" ("Key" int8 PRIMARY KEY, "select" text, "a ""b"" c" int, "Größe" numeric(6,1), "when" date);
CREATE TABLE links ("Key" int8 NOT NULL, "to" int8 NOT NULL, weight int, feel mood, PRIMARY KEY ("Key", "to"));
CREATE TABLE single (id int PRIMARY KEY, word text, n int, d date, f float8);
CREATE TABLE empty_shelf (k int PRIMARY KEY, v text, n numeric(8,2), d date, b bool);
CREATE TABLE places (id int2 PRIMARY KEY, name text, size int, since date);

INSERT INTO customers
SELECT i, CASE WHEN i % 13 = 0 THEN NULL ELSE i % 6 END, CASE WHEN i % 11 = 0 THEN NULL ELSE 'name ' || i % 17 END,
       CASE i % 5 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'C' || i % 9 END, CASE WHEN i % 7 = 0 THEN NULL ELSE 'f' || i % 4 END,
       CASE WHEN i % 9 = 0 THEN NULL ELSE (i * 7919 % 5000) / 100.0 END, CASE WHEN i % 8 = 0 THEN NULL ELSE (i % 40) * 0.25 END,
       CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN true ELSE false END, date '2016-01-01' + i % 50,
       timestamptz '2016-03-26 22:15:00+00' + i * interval '7 hours',
       CASE WHEN i % 6 = 0 THEN NULL ELSE make_interval(days => i % 9, hours => i % 5) END,
       CASE WHEN i % 10 = 0 THEN NULL ELSE md5((i % 30)::text)::uuid END,
       CASE WHEN i % 4 = 0 THEN NULL ELSE jsonb_build_object('n', i % 12, 'k', 'v' || i % 5, 'l', jsonb_build_array(i % 3, NULL, 'x')) END,
       CASE WHEN i % 5 = 0 THEN NULL WHEN i % 5 = 1 THEN '{}' ELSE ARRAY[i % 4, i % 6, NULL] END,
       CASE i % 4 WHEN 0 THEN 'sad' WHEN 1 THEN 'ok' WHEN 2 THEN 'happy' END::mood,
       CASE WHEN i % 7 = 0 THEN NULL ELSE decode(lpad(to_hex(i % 20), 4, '0'), 'hex') END, i::int8 * 3000000000
  FROM generate_series(1, 90) AS i;
INSERT INTO orders
SELECT (i * 31) % 100 + 1, i % 40, (i * 7907 % 90000) / 100.0, timestamptz '2016-03-26 20:00:00+00' + i * interval '47 minutes',
       CASE WHEN i % 9 = 0 THEN NULL ELSE 'note ' || chr(97 + i % 8) END, i % 7, CASE i % 4 WHEN 0 THEN 'ok' WHEN 1 THEN 'happy' END::mood,
       CASE WHEN i % 3 = 0 THEN NULL ELSE jsonb_build_object('n', i % 6, 'k', 'v' || i % 4) END,
       CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN true ELSE false END, date '2016-01-10' + i % 40, (i % 30) * 0.25
  FROM generate_series(1, 160) AS i ON CONFLICT DO NOTHING;
INSERT INTO lines
SELECT (i * 31) % 100 + 1, i % 40, n, (i * 13 + n * 7 % 900) / 10.0, CASE WHEN i % 8 = 0 THEN NULL ELSE 'item ' || (i + n) % 9 END,
       CASE (i + n) % 3 WHEN 0 THEN NULL WHEN 1 THEN true ELSE false END, 'sku-' || (i * n) % 35, date '2016-01-15' + (i + n) % 20,
       CASE WHEN i % 4 = 0 THEN NULL ELSE ARRAY[i % 5, n] END
  FROM generate_series(1, 110) AS i, generate_series(1, 2) AS n ON CONFLICT DO NOTHING;
INSERT INTO products
SELECT 'sku-' || i, CASE WHEN i % 6 = 0 THEN NULL ELSE 'label ' || i % 11 END, CASE WHEN i % 10 = 0 THEN NULL ELSE i * 1.10 END,
       CASE WHEN i % 7 = 0 THEN NULL ELSE i * 0.25 END, date '2016-01-01' + i % 30, 'k' || i % 3, i % 12, md5((i % 30)::text)::uuid
  FROM generate_series(1, 40) AS i;
INSERT INTO stock
SELECT 'sku-' || (i * 7) % 45, i % 5, i % 50 - 5, CASE WHEN i % 4 = 0 THEN NULL ELSE make_interval(days => i % 5) END,
       CASE WHEN i % 5 = 0 THEN NULL ELSE 'shelf ' || i % 6 END
  FROM generate_series(1, 80) AS i ON CONFLICT DO NOTHING;
INSERT INTO "Odd Names"
SELECT i * 1000, CASE WHEN i % 5 = 0 THEN NULL ELSE 'word ' || i % 7 END, CASE WHEN i % 4 = 0 THEN NULL ELSE i % 10 END, i * 0.5, date '2016-02-01' + i % 15
  FROM generate_series(-10, 40) AS i;
INSERT INTO links
SELECT (i * 3 % 45) * 1000, (i * 7 % 50) * 1000, i % 11, CASE i % 3 WHEN 0 THEN 'sad' WHEN 1 THEN 'happy' END::mood
  FROM generate_series(1, 100) AS i ON CONFLICT DO NOTHING;
INSERT INTO single SELECT i, CASE WHEN i % 4 = 0 THEN NULL ELSE 'word ' || i % 7 END, i % 9, date '2016-01-05' + i, i * 0.25 FROM generate_series(1, 30) AS i;
INSERT INTO places SELECT i, CASE WHEN i = 3 THEN NULL ELSE 'place ' || i END, i * 10, date '2016-01-01' + i * 7 FROM generate_series(0, 7) AS i;
