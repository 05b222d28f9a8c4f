//! What every benchmark stands on: a cluster of this build that is taken down when it goes out of scope, and the database
//! of the plain tables on worker 1.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

use anyhow::{Context, Result, bail};
use cluster::{Cluster, ClusterSpec, DownOnDrop, NodeName, free_ports};
use serde::Serialize;

use crate::workspace::Workspace;
use crate::{extension, render, setup};

/// How many workers there are.
const WORKERS: u16 = 4;

/// The node that has the plain tables.
pub(crate) const DIRECT_NODE: NodeName = NodeName::Worker(1);

/// The database of the plain tables.
pub(crate) const DIRECT_DATABASE: &str = "direct";

/// Where this run's cluster is.
pub(crate) fn dir() -> PathBuf {
    env::temp_dir().join(format!("pg_shard-bench-{}", process::id()))
}

/// Builds the extension and brings up a cluster with these settings. Autovacuum is off, so that it does not fall into one
/// side's run.
pub(crate) fn bring_up(settings: &[(&str, &str)]) -> Result<DownOnDrop> {
    let postgres = setup::ensure()?;
    let workspace = Workspace::find()?;
    let files = extension::build(&workspace, &postgres, extension::Profile::Dist)?;
    let dir = dir();
    let spec = ClusterSpec::new(&dir, WORKERS, free_ports(WORKERS)?).set("autovacuum", "off");
    let spec = settings.iter().fold(spec, |spec, (name, value)| spec.set(*name, *value));
    render::say(&format!(
        "Measuring on a cluster in {}; if this is interrupted, take it down with: {} down --dir {0}",
        dir.display(),
        extension::Profile::Dist.dir(&workspace, &postgres).join("pgshard").display(),
    ));
    let cluster = render::while_busy("Starting a coordinator and four workers", || {
        Cluster::up_from(&spec, &files.artifacts())
    })?;
    Ok(cluster.down_on_drop())
}

/// The cases with `only` in their names; an error that lists all names if there is none.
pub(crate) fn chosen<T: Clone>(
    cases: &[T],
    only: Option<&str>,
    name: impl Fn(&T) -> String,
) -> Result<Vec<T>> {
    let only = only.unwrap_or_default();
    let chosen: Vec<T> = cases.iter().filter(|case| name(case).contains(only)).cloned().collect();
    if chosen.is_empty() {
        let names: Vec<String> = cases.iter().map(name).collect();
        bail!("no case has \"{only}\" in its name; the cases are {}", names.join(", "));
    }
    Ok(chosen)
}

/// Writes the figures for programs to read.
pub(crate) fn write_json(file: Option<&Path>, figures: &impl Serialize) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let text = serde_json::to_string_pretty(figures)?;
    fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
}
