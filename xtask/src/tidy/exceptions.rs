//! What is over a limit today, with its figure and a reason: the file `xtask/tidy.txt`.
//!
//! One line each: rule, place, figure, reason. A figure may shrink and not grow, and what is not in the file may not
//! be over the limit. `cargo xtask tidy --tighten` writes down the figures that have become smaller and drops lines
//! that are no longer needed; it never adds one and never raises a figure.

use std::collections::BTreeMap;

use super::finding::{Finding, Rule};

/// The exceptions, by rule and place.
#[derive(Debug, Default)]
pub(super) struct Exceptions {
    entries: BTreeMap<(Rule, String), Exception>,
    header: String,
}

#[derive(Debug, Clone)]
struct Exception {
    figure: usize,
    reason: String,
}

impl Exceptions {
    /// Reads the file's text; lines that begin with `#` are its header.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut exceptions = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            if line.starts_with('#') || line.trim().is_empty() {
                exceptions.header.push_str(line);
                exceptions.header.push('\n');
                continue;
            }
            let (key, exception) = parse_line(line)
                .ok_or_else(|| format!("line {number} is not RULE PLACE FIGURE REASON"))?;
            if exceptions.entries.insert(key, exception).is_some() {
                return Err(format!("line {number} repeats an exception"));
            }
        }
        Ok(exceptions)
    }

    /// What is neither excepted nor within its figure.
    pub(super) fn violations<'a>(
        &self,
        findings: &'a [Finding],
    ) -> Vec<(&'a Finding, Option<usize>)> {
        let allowed = |finding: &Finding| {
            self.entries.get(&(finding.rule, finding.place.clone())).map(|it| it.figure)
        };
        findings
            .iter()
            .map(|finding| (finding, allowed(finding)))
            .filter(|(finding, allowed)| allowed.is_none_or(|figure| finding.figure > figure))
            .collect()
    }

    /// How many lines could be dropped or tightened.
    pub(super) fn loose(&self, findings: &[Finding]) -> usize {
        let figures = figures_of(findings);
        self.entries
            .iter()
            .filter(|(key, it)| figures.get(*key).is_none_or(|now| *now < it.figure))
            .count()
    }

    /// The file's text with today's figures where they are smaller.
    pub(super) fn tightened(&self, findings: &[Finding]) -> String {
        let figures = figures_of(findings);
        let mut text = self.header.clone();
        for (key, it) in &self.entries {
            if let Some(now) = figures.get(key) {
                let figure = it.figure.min(*now);
                text.push_str(&format!("{} {} {figure} {}\n", key.0.name(), key.1, it.reason));
            }
        }
        text
    }
}

fn parse_line(line: &str) -> Option<((Rule, String), Exception)> {
    let mut fields = line.splitn(4, ' ');
    let rule = Rule::named(fields.next()?)?;
    let place = fields.next()?.to_owned();
    let figure = fields.next()?.parse().ok()?;
    let reason = fields.next()?.trim().to_owned();
    (!reason.is_empty()).then_some(((rule, place), Exception { figure, reason }))
}

fn figures_of(findings: &[Finding]) -> BTreeMap<(Rule, String), usize> {
    findings.iter().map(|it| ((it.rule, it.place.clone()), it.figure)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# header\nfile-length a.rs 900 one table\n";

    fn long_file(place: &str, figure: usize) -> Finding {
        Finding { rule: Rule::FileLength, place: place.to_owned(), figure, what: String::new() }
    }

    fn violations(figure: usize) -> usize {
        let exceptions = Exceptions::parse(TEXT).unwrap();
        exceptions.violations(&[long_file("a.rs", figure)]).len()
    }

    #[test]
    fn a_figure_may_shrink_and_not_grow() {
        assert_eq!(violations(900), 0);
        assert_eq!(violations(850), 0);
        assert_eq!(violations(901), 1);
    }

    #[test]
    fn what_is_not_listed_is_a_violation() {
        assert_eq!(Exceptions::parse(TEXT).unwrap().violations(&[long_file("b.rs", 801)]).len(), 1);
    }

    #[test]
    fn tightening_lowers_figures_and_drops_what_is_not_needed() {
        let exceptions = Exceptions::parse(TEXT).unwrap();
        assert_eq!(exceptions.loose(&[long_file("a.rs", 850)]), 1);
        assert_eq!(
            exceptions.tightened(&[long_file("a.rs", 850)]),
            "# header\nfile-length a.rs 850 one table\n"
        );
        assert_eq!(exceptions.tightened(&[long_file("a.rs", 950)]), TEXT);
        assert_eq!(exceptions.tightened(&[]), "# header\n");
    }

    #[test]
    fn an_exception_needs_a_reason() {
        assert!(Exceptions::parse("file-length a.rs 900\n").is_err());
        assert!(Exceptions::parse("no-such-rule a.rs 900 because\n").is_err());
    }
}
