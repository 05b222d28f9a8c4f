//! `cargo xtask bench tpch`: the 22 queries of TPC-H on one PostgreSQL and on the cluster.
//!
//! The answers are compared, and each query's time is printed beside one PostgreSQL's with its default parallelism, and
//! beside the plan that fetches all rows (`pg_shard.enable_pushdown = off`), if there is such a setting.

use std::path::PathBuf;

use anyhow::{Result, bail};
use tpch::{TABLES, VIEW, query_text};

use crate::bench::both::{Both, Run, Side, is_same_answer, median, shown};
use crate::render;

/// How many shards each table has.
const SHARDS: u32 = 16;

/// The setting that makes all rows travel.
const PUSHDOWN: &str = "pg_shard.enable_pushdown";

/// How many times as long as on one PostgreSQL a query may take.
const WORST: f64 = 2.5;

/// The same for the geometric mean of all.
const MEAN: f64 = 1.25;

/// What is to be measured, and how.
#[derive(Debug)]
pub(crate) struct Options {
    /// 1 is a gigabyte.
    pub(crate) scale: f64,
    /// How many runs each query gets on each side.
    pub(crate) rounds: u32,
    /// Only these queries; all if empty.
    pub(crate) only: Vec<usize>,
    /// A running cluster that is used and stays, tables and all.
    pub(crate) dir: Option<PathBuf>,
    /// Whether the plan without pushdown is measured too.
    pub(crate) without_pushdown: bool,
}

/// The times of a query.
struct Times {
    number: usize,
    plain: Option<f64>,
    distributed: Option<f64>,
    /// Without pushdown, if there is that setting.
    pulled: Option<Option<f64>>,
    is_same: bool,
    rows: usize,
}

/// Loads, compares, measures.
pub(crate) fn run(options: &Options) -> Result<()> {
    let both = Both::new(options.dir.as_deref())?;
    load(&both, options.scale)?;
    let (mut plain, mut distributed) = both.sides()?;
    let has_setting = distributed.setting(PUSHDOWN)?.is_some() && options.without_pushdown;
    let numbers: Vec<usize> =
        (1..=22).filter(|at| options.only.is_empty() || options.only.contains(at)).collect();
    let mut times = Vec::new();
    for number in numbers {
        let query = query_text(number, options.scale);
        let one = render::while_busy(&format!("Query {number}"), || {
            measure(&query, number, options.rounds, has_setting, &mut plain, &mut distributed)
        })?;
        render::say(&format!(
            "query {number}: {} ms on one PostgreSQL, {} ms distributed{}",
            shown(one.plain),
            shown(one.distributed),
            if one.is_same { "" } else { "; THE ANSWERS DIFFER" }
        ));
        times.push(one);
    }
    report(options, &times)
}

/// Tables and rows of both sides.
fn load(both: &Both, scale: f64) -> Result<()> {
    if both.has_both("lineitem")? {
        render::say("The tables are there already.");
        return Ok(());
    }
    let (plain, distributed) = (both.plain(), both.distributed());
    let has_reference_tables = distributed
        .value("SELECT count(*) FROM pg_proc WHERE proname = 'create_reference_table'")?
        != "0";
    for table in TABLES {
        let name = table.name;
        let create = format!("CREATE TABLE {name} ({})", table.definition);
        plain.run(&[&create])?;
        distributed.run(&[&create])?;
        let indexes: Vec<String> = table
            .indexes
            .iter()
            .map(|columns| format!("CREATE INDEX ON {name} ({columns})"))
            .collect();
        let indexes: Vec<&str> = indexes.iter().map(String::as_str).collect();
        // Definitions cannot be changed once there are shards.
        distributed.run(&indexes)?;
        match table.key {
            Some(key) => distributed.run(&[
                &format!("SELECT master_create_distributed_table('{name}', '{key}')"),
                &format!("SELECT master_create_worker_shards('{name}', {SHARDS}, 1)"),
            ])?,
            None if has_reference_tables => {
                distributed.run(&[&format!("SELECT create_reference_table('{name}')")])?;
            }
            None => {}
        }
        for side in [&plain, &distributed] {
            render::while_busy(&format!("Filling {name} on {}", side.node()), || {
                side.copy(name, table.rows(scale), |_| {})
            })?;
        }
        plain.run(&indexes)?;
    }
    for side in [&plain, &distributed] {
        side.run(&[VIEW])?;
    }
    render::while_busy("Collecting statistics", || both.analyze())
}

fn measure(
    query: &str,
    number: usize,
    rounds: u32,
    has_setting: bool,
    plain: &mut Side,
    distributed: &mut Side,
) -> Result<Times> {
    // The first run warms caches and is compared.
    let expected = plain.run(query)?;
    let found = distributed.run(query)?;
    let is_same = is_same_answer(&expected, &found);
    let rows = if let Run::Done(rows, _) = &expected { rows.len() } else { 0 };
    let (mut on_plain, mut on_distributed, mut on_pulled) = (Vec::new(), Vec::new(), Vec::new());
    let mut is_pulled_same = true;
    for _ in 0..rounds {
        on_plain.push(plain.run(query)?);
        on_distributed.push(match &found {
            Run::Endless => Run::Endless,
            Run::Done(..) => distributed.run(query)?,
        });
    }
    if has_setting {
        distributed.run(&format!("SET {PUSHDOWN} = off"))?;
        let pulled = distributed.run(query)?;
        is_pulled_same = is_same_answer(&expected, &pulled);
        on_pulled.push(pulled);
        distributed.run(&format!("RESET {PUSHDOWN}"))?;
    }
    Ok(Times {
        number,
        plain: median(&on_plain),
        distributed: median(&on_distributed),
        pulled: has_setting.then(|| median(&on_pulled)),
        is_same: is_same && is_pulled_same,
        rows,
    })
}

fn report(options: &Options, times: &[Times]) -> Result<()> {
    let ratio = |one: &Times| Some(one.distributed? / one.plain?);
    let rows = times
        .iter()
        .map(|one| {
            let ratio = ratio(one);
            vec![
                one.number.to_string(),
                one.rows.to_string(),
                shown(one.plain),
                shown(one.distributed),
                ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
                one.pulled.map_or_else(String::new, shown),
                match ratio {
                    _ if !one.is_same => "other answer".to_owned(),
                    Some(ratio) if ratio <= WORST => String::new(),
                    _ => format!("over {WORST}"),
                },
            ]
        })
        .collect();
    render::say(&format!(
        "\nTPC-H, scale factor {}, {SHARDS} shards on 4 workers, medians of {} runs, milliseconds",
        options.scale, options.rounds
    ));
    render::table(
        &["query", "rows", "one\nPostgreSQL", "distributed", "ratio", "without\npushdown", ""],
        rows,
    );
    let ratios: Vec<f64> = times.iter().filter_map(ratio).collect();
    #[expect(clippy::cast_precision_loss, reason = "there are 22 queries")]
    let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
    let worst = times
        .iter()
        .filter_map(|one| ratio(one).map(|ratio| (ratio, one.number)))
        .max_by(|left, right| left.0.total_cmp(&right.0));
    if let Some((ratio, number)) = worst {
        let endless = times.len() - ratios.len();
        render::say(&format!(
            "Geometric mean of the ratios {mean:.2} (limit {MEAN}); the worst is query {number} with {ratio:.2} (limit {WORST}); \
             {endless} without an end."
        ));
    }
    let wrong: Vec<String> =
        times.iter().filter(|one| !one.is_same).map(|one| one.number.to_string()).collect();
    if !wrong.is_empty() {
        bail!("other answers than one PostgreSQL's: queries {}", wrong.join(", "));
    }
    Ok(())
}
