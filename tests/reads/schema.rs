//! What the generator knows of the tables of `tables.sql`.

/// The types of columns and expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Int2,
    Int4,
    Int8,
    Numeric,
    Float,
    Text,
    Varchar,
    Char,
    Bytea,
    Bool,
    Date,
    Timestamptz,
    Interval,
    Uuid,
    Jsonb,
    Ints,
    Mood,
}

impl Type {
    pub(crate) const ALL: [Type; 17] = [
        Type::Int2,
        Type::Int4,
        Type::Int8,
        Type::Numeric,
        Type::Float,
        Type::Text,
        Type::Varchar,
        Type::Char,
        Type::Bytea,
        Type::Bool,
        Type::Date,
        Type::Timestamptz,
        Type::Interval,
        Type::Uuid,
        Type::Jsonb,
        Type::Ints,
        Type::Mood,
    ];

    /// Its name in SQL.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Type::Int2 => "int2",
            Type::Int4 => "int4",
            Type::Int8 => "int8",
            Type::Numeric => "numeric",
            Type::Float => "float8",
            Type::Text => "text",
            Type::Varchar => "varchar",
            Type::Char => "bpchar",
            Type::Bytea => "bytea",
            Type::Bool => "bool",
            Type::Date => "date",
            Type::Timestamptz => "timestamptz",
            Type::Interval => "interval",
            Type::Uuid => "uuid",
            Type::Jsonb => "jsonb",
            Type::Ints => "int4[]",
            Type::Mood => "mood",
        }
    }

    /// Whether max() and min() take it.
    pub(crate) fn has_extremes(self) -> bool {
        !matches!(self, Type::Bytea | Type::Bool | Type::Uuid | Type::Jsonb)
    }

    /// Whether it is one of the whole numbers.
    pub(crate) fn is_whole(self) -> bool {
        matches!(self, Type::Int2 | Type::Int4 | Type::Int8)
    }

    /// Whether it is text of some kind.
    pub(crate) fn is_text(self) -> bool {
        matches!(self, Type::Text | Type::Varchar | Type::Char)
    }

    /// Values that occur in the tables, or nearly.
    pub(crate) fn constants(self) -> &'static [&'static str] {
        match self {
            Type::Int2 | Type::Int4 => {
                &["0", "1", "2", "3", "5", "7", "12", "31", "32", "63", "100", "-1"]
            }
            Type::Int8 => &["0", "1", "5", "17", "3000", "12000", "-4000", "30000000000", "39"],
            Type::Numeric => &["0", "1.5", "11.00", "23.45", "49.99", "300", "-2.5", "79.07"],
            Type::Float => &["0", "0.25", "1.5", "7.75", "-3", "2"],
            Type::Text | Type::Varchar => &[
                "'name 3'",
                "'note b'",
                "'sku-7'",
                "'sku-14'",
                "'word 2'",
                "'item 4'",
                "''",
                "'C3'",
                "'it''s'",
                "'label 5'",
                "'Zoë'",
                "'shelf 2'",
                "'v1'",
            ],
            Type::Char => &["'f1'", "'f2'", "'k1'", "'k'", "''"],
            Type::Bytea => &["'\\x0005'", "'\\x'", "'\\x000a'"],
            Type::Bool => &["true", "false"],
            Type::Date => {
                &["'2016-01-01'", "'2016-01-17'", "'2016-01-20'", "'2016-02-05'", "'2015-12-31'"]
            }
            Type::Timestamptz => &[
                "'2016-03-28 03:00:00+00'",
                "'2016-04-05 11:15:00+02'",
                "'2016-03-26 22:15:00+00'",
            ],
            Type::Interval => &["'1 day'", "'3 days 2 hours'", "'4 hours'", "'0'"],
            Type::Uuid => &[
                "'c4ca4238-a0b9-2382-0dcc-509a6f75849b'",
                "'00000000-0000-0000-0000-000000000000'",
            ],
            Type::Jsonb => &["'{\"k\": \"v1\", \"n\": 1}'", "'{}'", "'[1, null]'", "'3'"],
            Type::Ints => &["'{1,2}'", "'{}'", "'{1,NULL}'", "'{2,4,NULL}'"],
            Type::Mood => &["'sad'", "'ok'", "'happy'"],
        }
    }
}

/// A table that both schemas have.
pub(crate) struct Table {
    /// Quoted if it needs it.
    pub(crate) name: &'static str,
    /// Names, quoted if they need it, and types.
    pub(crate) columns: &'static [(&'static str, Type)],
    /// How many of the first columns are the primary key.
    pub(crate) key: usize,
    /// Shards and placements; none of a table that is local in both schemas. The first column distributes.
    pub(crate) shards: Option<(u32, u32)>,
}

use Type::{
    Bool, Bytea, Char, Date, Float, Int2, Int4, Int8, Interval, Ints, Jsonb, Mood, Numeric, Text,
    Timestamptz, Uuid, Varchar,
};

/// All tables. Those with the same number of shards and the same key are cut alike.
pub(crate) const TABLES: [Table; 10] = [
    Table {
        name: "customers",
        columns: &[
            ("id", Int4),
            ("grp", Int2),
            ("name", Text),
            ("code", Varchar),
            ("fixed", Char),
            ("score", Numeric),
            ("weight", Float),
            ("ok", Bool),
            ("born", Date),
            ("seen", Timestamptz),
            ("span", Interval),
            ("tag", Uuid),
            ("doc", Jsonb),
            ("nums", Ints),
            ("feel", Mood),
            ("raw", Bytea),
            ("big", Int8),
        ],
        key: 1,
        shards: Some((16, 2)),
    },
    Table {
        name: "orders",
        columns: &[
            ("customer", Int4),
            ("id", Int8),
            ("total", Numeric),
            ("placed", Timestamptz),
            ("note", Text),
            ("qty", Int2),
            ("feel", Mood),
            ("doc", Jsonb),
            ("paid", Bool),
            ("due", Date),
            ("load", Float),
        ],
        key: 2,
        shards: Some((16, 2)),
    },
    Table {
        name: "lines",
        columns: &[
            ("customer", Int4),
            ("order_id", Int8),
            ("no", Int2),
            ("price", Numeric),
            ("item", Text),
            ("flag", Bool),
            ("sku", Text),
            ("day", Date),
            ("nums", Ints),
        ],
        key: 3,
        shards: Some((16, 1)),
    },
    Table {
        name: "products",
        columns: &[
            ("sku", Text),
            ("label", Varchar),
            ("price", Numeric),
            ("weight", Float),
            ("born", Date),
            ("kind", Char),
            ("size", Int4),
            ("tag", Uuid),
        ],
        key: 1,
        shards: Some((4, 1)),
    },
    Table {
        name: "stock",
        columns: &[
            ("sku", Text),
            ("place", Int2),
            ("amount", Int4),
            ("span", Interval),
            ("note", Text),
        ],
        key: 2,
        shards: Some((4, 1)),
    },
    Table {
        name: "\"Odd Names\"",
        columns: &[
            ("\"Key\"", Int8),
            ("\"select\"", Text),
            ("\"a \"\"b\"\" c\"", Int4),
            ("\"Größe\"", Numeric),
            ("\"when\"", Date),
        ],
        key: 1,
        shards: Some((64, 1)),
    },
    Table {
        name: "links",
        columns: &[("\"Key\"", Int8), ("\"to\"", Int8), ("weight", Int4), ("feel", Mood)],
        key: 2,
        shards: Some((64, 1)),
    },
    Table {
        name: "single",
        columns: &[("id", Int4), ("word", Text), ("n", Int4), ("d", Date), ("f", Float)],
        key: 1,
        shards: Some((1, 2)),
    },
    Table {
        name: "empty_shelf",
        columns: &[("k", Int4), ("v", Text), ("n", Numeric), ("d", Date), ("b", Bool)],
        key: 1,
        shards: Some((5, 1)),
    },
    Table {
        name: "places",
        columns: &[("id", Int2), ("name", Text), ("size", Int4), ("since", Date)],
        key: 1,
        shards: None,
    },
];

/// Views of both schemas, as the generator sees them; `VIEWS` makes them.
pub(crate) const VIEW_TABLES: [Table; 2] = [
    Table {
        name: "regional",
        columns: &[("grp", Int2), ("many", Int8), ("best", Numeric), ("first_born", Date)],
        key: 0,
        shards: None,
    },
    Table {
        name: "of_customer",
        columns: &[
            ("id", Int4),
            ("name", Text),
            ("total", Numeric),
            ("order_id", Int8),
            ("feel", Mood),
        ],
        key: 0,
        shards: None,
    },
];

/// Views over the tables of the schema that stands first in the search path.
pub(crate) const VIEWS: &str = "
    CREATE VIEW regional AS SELECT grp, count(*) AS many, max(score) AS best, min(born) AS first_born FROM customers GROUP BY grp;
    CREATE VIEW of_customer AS SELECT c.id, c.name, o.total, o.id AS order_id, o.feel
        FROM customers c LEFT JOIN orders o ON o.customer = c.id;
";

/// What all nodes have.
pub(crate) const TYPES: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
    CREATE SCHEMA sharded;
    CREATE ROLE reader LOGIN;
    GRANT USAGE ON SCHEMA sharded TO reader;
    CREATE FUNCTION add_or_zero(int8, int4) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($1, 0) + coalesce($2, 0)';
    CREATE FUNCTION add_both(int8, int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($1 + $2, $1, $2)';
    CREATE AGGREGATE total_of(int4) (sfunc = add_or_zero, stype = int8, combinefunc = add_both, parallel = safe);
    CREATE FUNCTION weighed(int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 3 % 1009';
    CREATE FUNCTION score(s int8, a int4, b int4) RETURNS int8 LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN RETURN s + public.weighed(coalesce(a, 7)::int8) - coalesce(b % 100, 0); END $$;
    CREATE AGGREGATE score_of(int4, int4) (sfunc = score, stype = int8, combinefunc = int8pl, initcond = '0');
    CREATE FUNCTION one_more(int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($1, 0) + 1';
    CREATE AGGREGATE rows_of(*) (sfunc = one_more, stype = int8, combinefunc = add_both);
    CREATE AGGREGATE mean_of(numeric) (sfunc = numeric_avg_accum, stype = internal, combinefunc = numeric_avg_combine,
        serialfunc = numeric_avg_serialize, deserialfunc = numeric_avg_deserialize, finalfunc = numeric_avg);
    CREATE FUNCTION larger_of(anyelement, anyelement) RETURNS anyelement LANGUAGE sql IMMUTABLE STRICT AS
        'SELECT CASE WHEN $2 > $1 THEN $2 ELSE $1 END';
    CREATE AGGREGATE largest_of(anyelement) (sfunc = larger_of, stype = anyelement, combinefunc = larger_of);
    CREATE AGGREGATE sum_without_combine(int4) (sfunc = add_or_zero, stype = int8);
    CREATE FUNCTION twice(int4) RETURNS int4 LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
";

/// What only the coordinator has.
pub(crate) const LOCAL: &str = "
    CREATE SCHEMA plain;
    GRANT USAGE ON SCHEMA plain TO reader;
    CREATE FUNCTION fives(int4) RETURNS SETOF int4 LANGUAGE sql IMMUTABLE AS 'SELECT n * 5 FROM generate_series(1, $1) AS n';
    SET check_function_bodies = off;
    CREATE FUNCTION orders_of(int4) RETURNS int8 LANGUAGE plpgsql STABLE AS
        $$ DECLARE many int8; BEGIN SELECT count(*) INTO many FROM orders WHERE customer = $1; RETURN many; END $$;
    CREATE FUNCTION named_alike(text) RETURNS SETOF int4 LANGUAGE sql STABLE AS
        'SELECT id FROM customers WHERE name = $1';
";
