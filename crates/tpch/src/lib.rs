//! TPC-H: its eight tables, their rows, and its 22 queries as PostgreSQL takes them.
//!
//! Rows and the queries' texts come from the crate `tpchgen`; the values put into the queries are those that the
//! specification names for checking answers (2.4, "validation values"). How the tables are cut is what a user would do:
//! lineitem and orders together by the order's key, part and partsupp by the part's, customer by its own. Supplier, nation and region are
//! small; they are whole
//! on every worker where that exists.

use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator,
    PartSuppGenerator, RegionGenerator, SupplierGenerator,
};
use tpchgen::q_and_a::queries::query;

/// A table.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Columns and primary key, as in CREATE TABLE.
    pub definition: &'static str,
    /// The distribution column; none of those that are whole everywhere.
    pub key: Option<&'static str>,
    /// The columns that have an index beside the primary key.
    pub indexes: &'static [&'static str],
}

/// The tables.
pub const TABLES: [Table; 8] = [
    Table {
        name: "region",
        definition: "r_regionkey int PRIMARY KEY, r_name char(25) NOT NULL, r_comment varchar(152)",
        key: None,
        indexes: &[],
    },
    Table {
        name: "nation",
        definition: "n_nationkey int PRIMARY KEY, n_name char(25) NOT NULL, n_regionkey int NOT NULL, \
                     n_comment varchar(152)",
        key: None,
        indexes: &[],
    },
    Table {
        name: "supplier",
        definition: "s_suppkey int PRIMARY KEY, s_name char(25) NOT NULL, s_address varchar(40) NOT NULL, \
                     s_nationkey int NOT NULL, s_phone char(15) NOT NULL, s_acctbal numeric(15,2) NOT NULL, \
                     s_comment varchar(101) NOT NULL",
        key: None,
        indexes: &["s_nationkey"],
    },
    Table {
        name: "part",
        definition: "p_partkey int PRIMARY KEY, p_name varchar(55) NOT NULL, p_mfgr char(25) NOT NULL, \
                     p_brand char(10) NOT NULL, p_type varchar(25) NOT NULL, p_size int NOT NULL, \
                     p_container char(10) NOT NULL, p_retailprice numeric(15,2) NOT NULL, \
                     p_comment varchar(23) NOT NULL",
        key: Some("p_partkey"),
        indexes: &[],
    },
    Table {
        name: "partsupp",
        definition: "ps_partkey int NOT NULL, ps_suppkey int NOT NULL, ps_availqty int NOT NULL, \
                     ps_supplycost numeric(15,2) NOT NULL, ps_comment varchar(199) NOT NULL, \
                     PRIMARY KEY (ps_partkey, ps_suppkey)",
        key: Some("ps_partkey"),
        indexes: &["ps_suppkey"],
    },
    Table {
        name: "customer",
        definition: "c_custkey int PRIMARY KEY, c_name varchar(25) NOT NULL, c_address varchar(40) NOT NULL, \
                     c_nationkey int NOT NULL, c_phone char(15) NOT NULL, c_acctbal numeric(15,2) NOT NULL, \
                     c_mktsegment char(10) NOT NULL, c_comment varchar(117) NOT NULL",
        key: Some("c_custkey"),
        indexes: &["c_nationkey"],
    },
    Table {
        name: "orders",
        definition: "o_orderkey bigint PRIMARY KEY, o_custkey int NOT NULL, o_orderstatus char(1) NOT NULL, \
                     o_totalprice numeric(15,2) NOT NULL, o_orderdate date NOT NULL, \
                     o_orderpriority char(15) NOT NULL, o_clerk char(15) NOT NULL, o_shippriority int NOT NULL, \
                     o_comment varchar(79) NOT NULL",
        key: Some("o_orderkey"),
        indexes: &["o_custkey", "o_orderdate"],
    },
    Table {
        name: "lineitem",
        definition: "l_orderkey bigint NOT NULL, l_partkey int NOT NULL, l_suppkey int NOT NULL, \
                     l_linenumber int NOT NULL, l_quantity numeric(15,2) NOT NULL, \
                     l_extendedprice numeric(15,2) NOT NULL, l_discount numeric(15,2) NOT NULL, \
                     l_tax numeric(15,2) NOT NULL, l_returnflag char(1) NOT NULL, l_linestatus char(1) NOT NULL, \
                     l_shipdate date NOT NULL, l_commitdate date NOT NULL, l_receiptdate date NOT NULL, \
                     l_shipinstruct char(25) NOT NULL, l_shipmode char(10) NOT NULL, l_comment varchar(44) NOT NULL, \
                     PRIMARY KEY (l_orderkey, l_linenumber)",
        key: Some("l_orderkey"),
        indexes: &["l_partkey, l_suppkey", "l_suppkey", "l_shipdate"],
    },
];

/// The view that query 15 reads.
pub const VIEW: &str = "
    CREATE VIEW revenue0 (supplier_no, total_revenue) AS
        SELECT l_suppkey, sum(l_extendedprice * (1 - l_discount)) FROM lineitem
         WHERE l_shipdate >= date '1996-01-01' AND l_shipdate < date '1996-01-01' + interval '3' month
         GROUP BY l_suppkey";

impl Table {
    /// Its rows at a scale factor, as lines of COPY's text format.
    pub fn rows(&self, scale: f64) -> Box<dyn Iterator<Item = String>> {
        match self.name {
            "region" => Box::new(RegionGenerator::new(scale, 1, 1).iter().map(line)),
            "nation" => Box::new(NationGenerator::new(scale, 1, 1).iter().map(line)),
            "supplier" => Box::new(SupplierGenerator::new(scale, 1, 1).iter().map(line)),
            "part" => Box::new(PartGenerator::new(scale, 1, 1).iter().map(line)),
            "partsupp" => Box::new(PartSuppGenerator::new(scale, 1, 1).iter().map(line)),
            "customer" => Box::new(CustomerGenerator::new(scale, 1, 1).iter().map(line)),
            "orders" => Box::new(OrderGenerator::new(scale, 1, 1).iter().map(line)),
            _ => Box::new(LineItemGenerator::new(scale, 1, 1).iter().map(line)),
        }
    }
}

/// The generator's `a|b|` as `a<TAB>b`: no value has either sign in it.
fn line(row: impl std::fmt::Display) -> String {
    row.to_string().trim_end_matches('|').replace('|', "\t")
}

/// Values for the places `:1`, `:2` ... of each query, and how many rows it shows.
const VALUES: [(&[&str], Option<u32>); 22] = [
    (&["90"], None),
    (&["15", "BRASS", "EUROPE"], Some(100)),
    (&["BUILDING", "1995-03-15"], Some(10)),
    (&["1993-07-01"], None),
    (&["ASIA", "1994-01-01"], None),
    (&["1994-01-01", "0.06", "24"], None),
    (&["FRANCE", "GERMANY"], None),
    (&["BRAZIL", "AMERICA", "ECONOMY ANODIZED STEEL"], None),
    (&["green"], None),
    (&["1993-10-01"], Some(20)),
    (&["GERMANY", "0.0001"], None),
    (&["MAIL", "SHIP", "1994-01-01"], None),
    (&["special", "requests"], None),
    (&["1995-09-01"], None),
    (&["1996-01-01"], None),
    (&["Brand#45", "MEDIUM POLISHED", "49", "14", "23", "45", "19", "3", "36", "9"], None),
    (&["Brand#23", "MED BOX"], None),
    (&["300"], Some(100)),
    (&["Brand#12", "Brand#23", "Brand#34", "1", "10", "20"], None),
    (&["forest", "1994-01-01", "CANADA"], None),
    (&["SAUDI ARABIA"], Some(100)),
    (&["13", "31", "23", "29", "30", "18", "17"], None),
];

/// Query 1 to 22 for a scale factor. Query 15 reads [`VIEW`].
pub fn query_text(number: usize, scale: f64) -> String {
    let template = i32::try_from(number).ok().and_then(query).expect("there are 22 queries");
    let (values, limit) = VALUES[number - 1];
    let mut text = template.replace(":s", "0");
    if number == 11 {
        text = text.replace(":2", &format!("{:.10}", 0.0001 / scale));
    }
    for (at, value) in values.iter().enumerate().rev() {
        text = text.replace(&format!(":{}", at + 1), value);
    }
    // `interval '90' day (3)` is not PostgreSQL's.
    text = text.replace(" day (3)", " day");
    let statements: Vec<&str> =
        text.split(';').map(str::trim).filter(|part| !part.is_empty()).collect();
    let select = statements.iter().find(|part| part.starts_with("select"));
    let select = select.expect("each query has a SELECT");
    match limit {
        Some(rows) => format!("{select} limit {rows}"),
        None => (*select).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_query_has_a_place_without_a_value() {
        for number in 1..=22 {
            let text = query_text(number, 1.0);
            let left = (0..10).any(|place| text.contains(&format!(":{place}")));
            assert!(!left && text.starts_with("select"), "{text}");
        }
    }

    #[test]
    fn rows_have_as_many_fields_as_their_tables_have_columns() {
        for table in TABLES {
            let row = table.rows(0.01).next().expect("no table is empty");
            let keys = usize::from(table.definition.contains("PRIMARY KEY ("));
            let columns = table.definition.replace("15,2", "").replace("PRIMARY KEY (", "");
            let columns = columns.split(", ").count() - 2 * keys;
            assert_eq!(row.split('\t').count(), columns, "{}: {row}", table.name);
        }
    }
}
