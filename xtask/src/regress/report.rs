//! What a run has found: a line for each file, and a file with all differences.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::compare::Verdict;
use super::script::Unit;
use super::terminal::Answer;

/// A file that has been played on both sides.
pub(crate) struct Played {
    /// Its name.
    pub(crate) name: String,
    /// Its units, each with the answers of local and distributed tables.
    pub(crate) units: Vec<(Unit, Answer, Answer, Verdict)>,
    /// The tables that have stayed local at the end, each with the reason.
    pub(crate) left_local: Vec<(String, String)>,
}

impl Played {
    /// How many units have a verdict.
    pub(crate) fn count(&self, is: impl Fn(&Verdict) -> bool) -> usize {
        self.units.iter().filter(|(_, _, _, verdict)| is(verdict)).count()
    }

    /// The row of the table that sums up.
    pub(crate) fn summary(&self) -> Vec<String> {
        let counts = [
            self.units.len(),
            self.count(|verdict| *verdict == Verdict::Equal),
            self.count(|verdict| *verdict == Verdict::Order),
            self.count(|verdict| *verdict == Verdict::Plan),
            self.count(|verdict| matches!(verdict, Verdict::Differs(_))),
            self.count(|verdict| matches!(verdict, Verdict::Refused(_))),
        ];
        std::iter::once(self.name.clone()).chain(counts.iter().map(usize::to_string)).collect()
    }

    /// The reasons of differences and refusals, the most frequent first.
    pub(crate) fn reasons(&self) -> Vec<(usize, String)> {
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for (_, _, _, verdict) in &self.units {
            if let Verdict::Differs(reason) | Verdict::Refused(reason) = verdict {
                *reasons.entry(reason.clone()).or_default() += 1;
            }
        }
        let mut reasons: Vec<(usize, String)> =
            reasons.into_iter().map(|(reason, count)| (count, reason)).collect();
        reasons.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        reasons
    }

    /// All differences, with both answers.
    pub(crate) fn details(&self) -> String {
        let mut text = String::new();
        for (table, reason) in &self.left_local {
            writeln!(text, "#### {}: table {table} has stayed local: {reason}", self.name)
                .expect("a string takes everything");
        }
        for (unit, local, distributed, verdict) in &self.units {
            let reason = match verdict {
                Verdict::Equal | Verdict::Plan => continue,
                Verdict::Order => "other order",
                Verdict::Refused(reason) | Verdict::Differs(reason) => reason,
            };
            write!(
                text,
                "==== {}:{} {reason}\n{}---- local\n{}---- distributed\n{}",
                self.name,
                unit.line,
                unit.text,
                shown(local),
                shown(distributed)
            )
            .expect("a string takes everything");
        }
        text
    }
}

/// An answer as lines.
fn shown(answer: &Answer) -> String {
    let lines = answer.output.iter().chain(&answer.messages);
    lines.map(|line| format!("{line}\n")).collect()
}
