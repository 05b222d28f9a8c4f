//! The database in which a file runs, made anew for each run: on the coordinator alone, or on all nodes with the
//! extension.

use anyhow::{Context, Result};
use cluster::postgres::{Client, Config, NoTls};
use cluster::{Cluster, NodeName};

/// The name of the database, as PostgreSQL's own runner has it.
pub(crate) const DATABASE: &str = "regression";

/// What the runner needs on the coordinator.
const HELPERS: &str = include_str!("helpers.sql");

/// Which tables a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tables {
    /// Local ones, as PostgreSQL has them.
    Local,
    /// Distributed ones.
    Distributed,
}

/// Makes the database, and on the coordinator the helpers. Roles that earlier files have left are dropped.
pub(crate) fn prepare(cluster: &Cluster, tables: Tables) -> Result<()> {
    for node in cluster.nodes() {
        let mut client = cluster.connect(node)?;
        client.simple_query(&format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"))?;
        for row in client
            .query("SELECT quote_ident(rolname) FROM pg_roles WHERE rolname ~ '^regress'", &[])?
        {
            // A role that something in another database depends on stays.
            let _ = client.simple_query(&format!("DROP ROLE {}", row.get::<_, String>(0)));
        }
        if tables == Tables::Local && node != NodeName::Coordinator {
            continue;
        }
        client.simple_query(&format!(
            "CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
        ))?;
        for setting in ["lc_messages", "lc_monetary", "lc_numeric", "lc_time"] {
            client.simple_query(&format!("ALTER DATABASE {DATABASE} SET {setting} TO 'C'"))?;
        }
        connect(cluster, node)?.simple_query("GRANT ALL ON SCHEMA public TO public")?;
    }
    let mut coordinator = connect(cluster, NodeName::Coordinator)?;
    if tables == Tables::Distributed {
        coordinator.simple_query("CREATE EXTENSION pg_shard")?;
    }
    coordinator.simple_query(HELPERS).context("cannot create the runner's helpers").map(drop)
}

/// A session in the database.
pub(crate) fn connect(cluster: &Cluster, node: NodeName) -> Result<Client> {
    let mut config = Config::new();
    config.host("127.0.0.1").port(cluster.port(node)).user("postgres").dbname(DATABASE);
    // What a worker cannot have at once, because the file's own transaction holds it, it need not have.
    config.options("-c lock_timeout=2s -c check_function_bodies=off");
    config.connect(NoTls).with_context(|| format!("cannot connect with {node}"))
}

/// Cancels whatever runs in the database.
pub(crate) fn cancel_all(cluster: &Cluster) -> Result<()> {
    let sql = format!(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = '{DATABASE}' AND pid <> pg_backend_pid()"
    );
    cluster.connect(NodeName::Coordinator)?.simple_query(&sql)?;
    Ok(())
}
