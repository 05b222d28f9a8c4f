//! Figures of all rounds, and what they come to.

use std::time::Duration;

use serde::Serialize;

use crate::bench::case::{Case, Goal};
use crate::bench::options::Options;
use crate::bench::pgbench::CLIENTS;

/// The columns of the table.
pub(crate) const HEADER: [&str; 11] = [
    "case",
    "direct\ntps",
    "forwarder\ntps",
    "sharded\ntps",
    "ratio",
    "of the\nforwarder",
    "floor",
    "aim",
    "CPU µs\ndirect",
    "CPU µs\ncoordinator",
    "CPU µs\nworkers",
];

/// One run of one side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) tps: f64,
    pub(crate) statements: u64,
    pub(crate) coordinator_cpu: Duration,
    pub(crate) worker_cpu: Duration,
}

/// All runs of one case.
#[derive(Debug)]
pub(crate) struct Measurement {
    pub(crate) case: Case,
    pub(crate) direct: Vec<Round>,
    /// None where the forwarder is not measured.
    pub(crate) forwarded: Vec<Round>,
    pub(crate) distributed: Vec<Round>,
}

/// All cases.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    seconds: u32,
    rounds: u32,
    clients: u32,
    synchronous_commit: bool,
    cases: Vec<Summary>,
}

/// What the rounds of one case come to: medians, and CPU time in microseconds per statement.
#[derive(Debug, Serialize)]
struct Summary {
    name: String,
    direct_tps: f64,
    forwarder_tps: Option<f64>,
    sharded_tps: f64,
    ratio: f64,
    goal: Option<Goal>,
    direct_cpu_us: f64,
    coordinator_cpu_us: f64,
    worker_cpu_us: f64,
    direct_tps_of_rounds: Vec<f64>,
    forwarder_tps_of_rounds: Vec<f64>,
    sharded_tps_of_rounds: Vec<f64>,
}

impl Measurement {
    /// No round yet.
    pub(crate) fn new(case: Case) -> Self {
        Self { case, direct: Vec::new(), forwarded: Vec::new(), distributed: Vec::new() }
    }

    /// The case in one line.
    pub(crate) fn line(&self) -> String {
        let Summary { name, direct_tps, sharded_tps, ratio, .. } = self.summary();
        format!("{name}: {direct_tps:.0} tps direct, {sharded_tps:.0} sharded, ratio {ratio:.2}")
    }

    fn summary(&self) -> Summary {
        let median_of = |rounds: &[Round], figure: fn(&Round) -> f64| {
            median(rounds.iter().map(figure).collect())
        };
        let tps = |rounds: &[Round]| rounds.iter().map(|round| round.tps).collect::<Vec<_>>();
        let direct_tps = median_of(&self.direct, |round| round.tps);
        let sharded_tps = median_of(&self.distributed, |round| round.tps);
        Summary {
            name: self.case.to_string(),
            direct_tps,
            forwarder_tps: (!self.forwarded.is_empty())
                .then(|| median_of(&self.forwarded, |round| round.tps)),
            sharded_tps,
            ratio: sharded_tps / direct_tps,
            goal: self.case.goal,
            direct_cpu_us: median_of(&self.direct, |round| round.per_statement(round.worker_cpu)),
            coordinator_cpu_us: median_of(&self.distributed, |round| {
                round.per_statement(round.coordinator_cpu)
            }),
            worker_cpu_us: median_of(&self.distributed, |round| {
                round.per_statement(round.worker_cpu)
            }),
            direct_tps_of_rounds: tps(&self.direct),
            forwarder_tps_of_rounds: tps(&self.forwarded),
            sharded_tps_of_rounds: tps(&self.distributed),
        }
    }
}

impl Round {
    /// Microseconds of `time` for each statement.
    #[expect(clippy::cast_precision_loss, reason = "no run has 2^52 statements")]
    fn per_statement(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.statements as f64
    }
}

impl Report {
    /// What `measurements`, taken as `options` say, come to.
    pub(crate) fn new(options: &Options, measurements: Vec<Measurement>) -> Self {
        Self {
            seconds: options.seconds,
            rounds: options.rounds,
            clients: CLIENTS,
            synchronous_commit: options.synchronous_commit,
            cases: measurements.iter().map(Measurement::summary).collect(),
        }
    }

    /// What the table shows.
    pub(crate) fn title(&self) -> String {
        format!(
            "{} clients, median of {} rounds of {} s, synchronous_commit {}; CPU per statement, of client backends",
            self.clients,
            self.rounds,
            self.seconds,
            if self.synchronous_commit { "on" } else { "off" }
        )
    }

    /// The table's rows.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        self.cases.iter().map(Summary::row).collect()
    }
}

impl Summary {
    fn row(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            format!("{:.0}", self.direct_tps),
            self.forwarder_tps.map_or_else(String::new, |tps| format!("{tps:.0}")),
            format!("{:.0}", self.sharded_tps),
            format!("{:.2} {}", self.ratio, self.verdict()).trim_end().to_owned(),
            self.forwarder_tps
                .map_or_else(String::new, |tps| format!("{:.2}", self.sharded_tps / tps)),
            self.goal.map_or_else(String::new, |goal| format!("{:.2}", goal.floor)),
            self.goal.map_or_else(String::new, |goal| format!("{:.2}", goal.aim)),
            format!("{:.0}", self.direct_cpu_us),
            format!("{:.0}", self.coordinator_cpu_us),
            format!("{:.0}", self.worker_cpu_us),
        ]
    }

    fn verdict(&self) -> &'static str {
        match self.goal {
            None => "",
            Some(goal) if self.ratio >= goal.aim => "(aim reached)",
            Some(goal) if self.ratio >= goal.floor => "(above floor)",
            Some(_) => "(below floor)",
        }
    }
}

/// The middle one of `values`, or the mean of the two in the middle; zero of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len() % 2, values.get(middle)) {
        (_, None) => 0.0,
        (1, Some(value)) => *value,
        (_, Some(value)) => f64::midpoint(values[middle - 1], *value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::case::CASES;

    fn round(tps: f64, coordinator_ms: u64, worker_ms: u64) -> Round {
        Round {
            tps,
            statements: 1000,
            coordinator_cpu: Duration::from_millis(coordinator_ms),
            worker_cpu: Duration::from_millis(worker_ms),
        }
    }

    #[test]
    fn a_median_is_not_moved_by_one_bad_round() {
        assert_eq!(median(vec![100.0, 1.0, 101.0]), 100.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }

    #[test]
    fn the_ratio_is_that_of_the_medians_and_cpu_is_per_statement() {
        let measurement = Measurement {
            case: CASES[0],
            direct: vec![round(1000.0, 0, 78), round(10.0, 0, 78), round(1200.0, 0, 78)],
            forwarded: vec![round(750.0, 0, 80)],
            distributed: vec![round(600.0, 66, 90), round(500.0, 66, 90), round(700.0, 66, 90)],
        };
        assert_eq!(
            measurement.summary().row(),
            [
                "select-simple",
                "1000",
                "750",
                "600",
                "0.60 (above floor)",
                "0.80",
                "0.55",
                "0.65",
                "78",
                "66",
                "90"
            ]
        );
        assert_eq!(measurement.line(), "select-simple: 1000 tps direct, 600 sharded, ratio 0.60");
    }
}
