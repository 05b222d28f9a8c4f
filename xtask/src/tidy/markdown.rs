//! What the checks need of a Markdown file: its headings' anchors, its links, and the code spans in its text.
//!
//! Our documents are plain: headings with `#`, fenced code, inline links `[text](target)`. Reference links and HTML
//! are not used, and not understood.

/// A document as the checks see it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Document {
    /// The names that links may have behind `#`, as mdBook and GitHub make them.
    pub(super) anchors: Vec<String>,
    /// Link targets with their line numbers.
    pub(super) links: Vec<(usize, String)>,
    /// Code spans outside of fenced code, with their line numbers.
    pub(super) spans: Vec<(usize, String)>,
    /// How many lines it has.
    pub(super) lines: usize,
}

impl Document {
    /// Reads `text`.
    pub(super) fn read(text: &str) -> Self {
        let mut document = Self { lines: text.lines().count(), ..Self::default() };
        let mut is_in_fence = false;
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim_start().starts_with("```") {
                is_in_fence = !is_in_fence;
            } else if !is_in_fence {
                document.read_line(number, line);
            }
        }
        document
    }

    fn read_line(&mut self, number: usize, line: &str) {
        let (prose, spans) = without_spans(line);
        self.spans.extend(spans.into_iter().map(|span| (number, span)));
        self.links.extend(targets(&prose).into_iter().map(|target| (number, target)));
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        if (1..=6).contains(&level)
            && let Some(heading) = line[level..].strip_prefix(' ')
        {
            self.add_anchor(&anchor(heading.trim()));
        }
    }

    fn add_anchor(&mut self, base: &str) {
        let candidates =
            (0..).map(|n| if n == 0 { base.to_owned() } else { format!("{base}-{n}") });
        let mut free = candidates.filter(|it| !self.anchors.contains(it));
        let name = free.next().unwrap_or_default();
        self.anchors.push(name);
    }
}

/// A heading's anchor: letters in lower case, digits, `_` and `-`; blanks become `-`.
fn anchor(heading: &str) -> String {
    heading
        .chars()
        .filter_map(|letter| match letter {
            ' ' => Some('-'),
            '-' | '_' => Some(letter),
            _ => letter.is_alphanumeric().then(|| letter.to_ascii_lowercase()),
        })
        .collect()
}

/// A line with its code spans taken out, and the spans.
fn without_spans(line: &str) -> (String, Vec<String>) {
    let mut prose = String::new();
    let mut spans = Vec::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('`') {
        prose.push_str(before);
        let Some((span, behind)) = after.split_once('`') else { break };
        spans.push(span.to_owned());
        rest = behind;
    }
    if !rest.contains('`') {
        prose.push_str(rest);
    }
    (prose, spans)
}

/// The targets of the inline links of a line.
fn targets(prose: &str) -> Vec<String> {
    prose
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_those_of_mdbook() {
        let document =
            Document::read("# Class 08: connections\n## `create_x`\n## A's, \"b\"\n## A's b\n");
        assert_eq!(document.anchors, ["class-08-connections", "create_x", "as-b", "as-b-1"]);
    }

    #[test]
    fn links_are_found_outside_of_code() {
        let text = "See [a](x.md#y), [`b`](z.md).\n```\n[no](no.md)\n# no\n```\n`[no](no.md)`\n";
        let document = Document::read(text);
        assert_eq!(document.links, [(1, "x.md#y".to_owned()), (1, "z.md".to_owned())]);
        assert_eq!(document.spans, [(1, "b".to_owned()), (6, "[no](no.md)".to_owned())]);
        assert_eq!(document.anchors, [""; 0]);
    }
}
