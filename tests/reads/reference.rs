//! Reference tables: whole on every worker, where distributed tables join with them.

use testkit::{NodeName, TestCluster};

fn cluster_with_products() -> TestCluster {
    let cluster = TestCluster::up_with(3, &[("autovacuum", "off")]);
    cluster.create_distributed(
        "CREATE TABLE sales (customer int NOT NULL, product int, amount numeric)",
        "sales",
        "customer",
        8,
        2,
    );
    cluster.sql(
        "INSERT INTO sales SELECT i, i % 6, i / 4.0 FROM generate_series(1, 600) AS i; \
         CREATE TABLE products (id int PRIMARY KEY, name text); \
         INSERT INTO products SELECT i, 'product ' || i FROM generate_series(1, 5) AS i; \
         SELECT create_reference_table('products'); \
         CREATE SCHEMA plain; CREATE TABLE plain.sales AS SELECT * FROM sales; \
         CREATE TABLE plain.products AS SELECT * FROM products",
    );
    cluster
}

fn compare(cluster: &TestCluster) {
    let joins = [
        "SELECT name, count(*), sum(amount) FROM sales JOIN products ON id = product GROUP BY name",
        "SELECT customer, name FROM sales LEFT JOIN products ON id = product WHERE customer < 50",
        "SELECT name, count(customer) FROM products LEFT JOIN sales ON id = product GROUP BY name",
        "SELECT count(*) FROM sales FULL JOIN products ON id = product",
        "SELECT count(*) FROM sales WHERE product NOT IN (SELECT id FROM products)",
        "SELECT count(*) FROM sales s WHERE EXISTS (SELECT FROM products WHERE id = s.product)",
        "SELECT count(*), max(name) FROM products",
        "SELECT a.name, b.name FROM products a JOIN products b ON a.id = b.id + 1",
    ];
    for join in joins {
        let rows = |schema: &str| {
            cluster.text(&format!(
                "SET search_path = {schema}; SELECT string_agg(r::text, E'\\n' ORDER BY r::text COLLATE \"C\") FROM ({join}) r"
            ))
        };
        assert_eq!(rows("public"), rows("plain, public"), "{join}");
    }
}

#[test]
fn a_reference_table_is_joined_on_the_workers_and_goes_on_when_one_is_dead() {
    let cluster = cluster_with_products();
    compare(&cluster);
    let plan = cluster.text(
        "SET search_path = public; EXPLAIN SELECT name, count(*) FROM sales JOIN products ON id = product GROUP BY name",
    );
    assert!(plan.contains("products_") && !plan.contains("unnest"), "joined in place: {plan}");

    for change in [
        "UPDATE products SET name = upper(name) WHERE id > 2",
        "INSERT INTO products VALUES (0, 'nothing')",
        "DELETE FROM products WHERE id = 4",
        "UPDATE products SET id = 40 WHERE id = 5",
    ] {
        cluster
            .sql(&format!("SET search_path = public; {change}; SET search_path = plain; {change}"));
        compare(&cluster);
    }
    cluster.kill(NodeName::Worker(2)).expect("worker 2 is up");
    compare(&cluster);
}

#[test]
fn a_table_without_a_column_that_every_row_has_cannot_be_a_reference_table() {
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE TABLE loose (a int, b text)");
    let error = cluster.error("SELECT create_reference_table('loose')");
    assert_eq!(error.sqlstate, "42P16");
    assert!(error.message.contains("\"loose\": no column is NOT NULL"), "{error:?}");
}
