CREATE TABLE t (a int, c bigint, k int PRIMARY KEY, s text DEFAULT 'd', arr int[], v pair, w deep, j jsonb, q ints,
    g int GENERATED ALWAYS AS (a * 2) STORED, two int[][], n numeric DEFAULT 1);
CREATE TABLE u (k int, x int, y text);
CREATE TABLE e (k int, span int4range, note text, CONSTRAINT e_apart EXCLUDE USING gist (k WITH =, span WITH &&));
CREATE TABLE o (k int PRIMARY KEY, up int);
CREATE TABLE c (k int PRIMARY KEY, s citext, d citext, n varchar(3));
