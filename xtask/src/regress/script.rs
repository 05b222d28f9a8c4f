//! A file of PostgreSQL's tests, cut into units: the lines at whose end psql waits for nothing more.
//!
//! A unit is one statement, or several that stand on one line, or a command of psql. The rules are those of psql's own
//! scanner (`psqlscan.l`) as far as ends of statements depend on them: quotes, dollar quotes, nested comments,
//! parentheses, bodies from BEGIN ATOMIC to END, and the data that follow COPY FROM STDIN.

/// Some lines of a file that psql takes in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// The number of the first line.
    pub(crate) line: usize,
    /// The lines, with the data of COPY.
    pub(crate) text: String,
    /// The statements without their comments; none for a command of psql.
    pub(crate) statements: Vec<String>,
}

/// Cuts a file.
pub(crate) fn units(script: &str) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut scanner = Scanner::default();
    let mut unit = Unit { line: 1, text: String::new(), statements: Vec::new() };
    let mut has_content = false;
    let mut lines = script.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        unit.text.push_str(line);
        unit.text.push('\n');
        has_content |= !line.trim().is_empty() && !line.trim_start().starts_with("--");
        scanner.read(line, &mut unit.statements);
        for _ in 0..std::mem::take(&mut scanner.copies) {
            for (_, data) in lines.by_ref() {
                unit.text.push_str(data);
                unit.text.push('\n');
                if data == "\\." {
                    break;
                }
            }
        }
        if has_content && scanner.is_neutral() {
            let next = Unit { line: number + 2, text: String::new(), statements: Vec::new() };
            units.push(std::mem::replace(&mut unit, next));
            has_content = false;
        }
    }
    if has_content {
        units.push(unit);
    }
    units
}

/// What the scanner is inside of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Inside {
    #[default]
    Nothing,
    Text {
        escapes: bool,
    },
    Name,
    Dollar(String),
    Comment(u32),
}

/// Where the scanner is.
#[derive(Debug, Default)]
struct Scanner {
    inside: Inside,
    parentheses: u32,
    /// How many BEGIN and CASE of a routine's body are open.
    blocks: u32,
    statement: String,
    words: Vec<String>,
    /// How many statements of the line are followed by data.
    copies: usize,
}

impl Scanner {
    /// Whether a new statement may begin.
    fn is_neutral(&self) -> bool {
        self.inside == Inside::Nothing && self.statement.trim().is_empty()
    }

    /// Reads a line, and adds the statements that end in it.
    fn read(&mut self, line: &str, statements: &mut Vec<String>) {
        let mut rest = line;
        while let Some(next) = rest.chars().next() {
            let taken = match self.inside.clone() {
                Inside::Nothing => match self.outside(rest, statements) {
                    Some(taken) => taken,
                    None => return,
                },
                Inside::Text { escapes } => {
                    let taken = if escapes && next == '\\' {
                        (1 + rest[1..].chars().next().map_or(0, char::len_utf8)).min(rest.len())
                    } else {
                        next.len_utf8()
                    };
                    if next == '\'' {
                        self.inside = Inside::Nothing;
                    }
                    self.keep(&rest[..taken])
                }
                Inside::Name => {
                    if next == '"' {
                        self.inside = Inside::Nothing;
                    }
                    self.keep(&rest[..next.len_utf8()])
                }
                Inside::Dollar(tag) => {
                    if rest.starts_with(&tag) {
                        self.inside = Inside::Nothing;
                        self.keep(&tag)
                    } else {
                        self.keep(&rest[..next.len_utf8()])
                    }
                }
                Inside::Comment(depth) => match &rest[..rest.len().min(next.len_utf8() + 1)] {
                    "*/" if depth == 1 => {
                        self.inside = Inside::Nothing;
                        2
                    }
                    "*/" => {
                        self.inside = Inside::Comment(depth - 1);
                        2
                    }
                    "/*" => {
                        self.inside = Inside::Comment(depth + 1);
                        2
                    }
                    _ => next.len_utf8(),
                },
            };
            rest = &rest[taken..];
        }
        if !self.statement.is_empty() {
            self.statement.push('\n');
        }
    }

    /// Takes what stands outside of quotes and comments; nothing if the rest of the line is of no further interest.
    fn outside(&mut self, rest: &str, statements: &mut Vec<String>) -> Option<usize> {
        let next = rest.chars().next()?;
        if rest.starts_with("--") {
            return None;
        }
        if rest.starts_with("/*") {
            self.inside = Inside::Comment(1);
            return Some(2);
        }
        if next == '\\' {
            return self.command(rest, statements);
        }
        if next.is_alphabetic() || next == '_' {
            return Some(self.word(rest));
        }
        match next {
            '\'' => self.inside = Inside::Text { escapes: false },
            '"' => self.inside = Inside::Name,
            '$' => {
                if let Some(tag) = dollar_tag(rest) {
                    self.inside = Inside::Dollar(tag.to_owned());
                    return Some(self.keep(tag));
                }
            }
            '(' => self.parentheses += 1,
            ')' => self.parentheses = self.parentheses.saturating_sub(1),
            ';' if self.parentheses == 0 && self.blocks == 0 => {
                self.end(statements);
                return Some(1);
            }
            _ => {}
        }
        Some(self.keep(&rest[..next.len_utf8()]))
    }

    /// A command of psql: `\;` separates statements, `\gset` and its kin send one, others stand beside it.
    fn command(&mut self, rest: &str, statements: &mut Vec<String>) -> Option<usize> {
        if rest.starts_with("\\;") {
            self.end(statements);
            return Some(2);
        }
        let name = rest[1..].split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        let sends = ["g", "gx", "gset", "gexec", "gdesc", "crosstabview", "watch", "r"];
        if sends.contains(&name) {
            self.end(statements);
        }
        if name == "copy" && rest.to_lowercase().contains("from stdin") {
            self.copies += 1;
        }
        None
    }

    /// A word, or a text with a prefix.
    fn word(&mut self, rest: &str) -> usize {
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
        let end = rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
        let word = rest[..end].to_lowercase();
        if word == "e" && rest[end..].starts_with('\'') {
            self.inside = Inside::Text { escapes: true };
            return self.keep(&rest[..=end]);
        }
        if self.words.len() < 4 {
            self.words.push(word.clone());
        }
        if self.is_routine() && self.parentheses == 0 {
            match word.as_str() {
                "begin" => self.blocks += 1,
                "case" if self.blocks > 0 => self.blocks += 1,
                "end" => self.blocks = self.blocks.saturating_sub(1),
                _ => {}
            }
        }
        self.keep(&rest[..end])
    }

    /// Whether the statement creates a function or a procedure.
    fn is_routine(&self) -> bool {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        matches!(
            words.as_slice(),
            ["create", "function" | "procedure", ..]
                | ["create", "or", "replace", "function" | "procedure"]
        )
    }

    /// Adds to the statement; blanks before it are left out.
    fn keep(&mut self, text: &str) -> usize {
        if !self.statement.is_empty() || !text.trim().is_empty() {
            self.statement.push_str(text);
        }
        text.len()
    }

    /// Ends the statement.
    fn end(&mut self, statements: &mut Vec<String>) {
        let statement = std::mem::take(&mut self.statement).trim().to_owned();
        let is_copy = self.words.first().is_some_and(|word| word == "copy");
        self.words.clear();
        (self.parentheses, self.blocks) = (0, 0);
        if is_copy {
            let words: Vec<String> = statement.split_whitespace().map(str::to_lowercase).collect();
            self.copies += usize::from(words.join(" ").contains("from stdin"));
        }
        if !statement.is_empty() {
            statements.push(statement);
        }
    }
}

/// `$$` or `$tag$`, if the text begins with one.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text[1..].find('$')? + 1;
    let tag = &text[1..end];
    let is_tag = !tag.starts_with(|c: char| c.is_ascii_digit())
        && tag.chars().all(|c| c.is_alphanumeric() || c == '_');
    is_tag.then(|| &text[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(script: &str) -> Vec<Vec<String>> {
        units(script).into_iter().map(|unit| unit.statements).collect()
    }

    #[test]
    fn a_statement_may_take_many_lines_and_a_line_many_statements() {
        let script = "-- first\nSELECT 1,\n  2;\nBEGIN; COMMIT;\n\\d t\n";
        let found = units(script);
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].line, found[0].statements[0].as_str()), (1, "SELECT 1,\n  2"));
        assert_eq!(found[1].statements, ["BEGIN", "COMMIT"]);
        assert_eq!((found[2].line, found[2].statements.len()), (5, 0));
    }

    #[test]
    fn quotes_comments_and_parentheses_hide_semicolons() {
        for script in [
            "SELECT ';\n' || E'\\';';",
            "SELECT \"a;\nb\";",
            "DO $x$ BEGIN;\nEND; $x$;",
            "/* ; /* ; */\n; */ SELECT 1;",
            "CREATE RULE r AS ON INSERT TO t DO (SELECT 1;\nSELECT 2);",
        ] {
            assert_eq!(units(script).len(), 1, "{script}");
            assert_eq!(units(script)[0].statements.len(), 1, "{script}");
        }
    }

    #[test]
    fn a_body_from_begin_atomic_is_one_statement() {
        let script = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC\nSELECT CASE WHEN true THEN 1 END;\nSELECT 2;\nEND;\nSELECT 3;";
        assert_eq!(statements(script).len(), 2);
    }

    #[test]
    fn the_data_of_copy_belong_to_it() {
        let found = units("COPY t FROM STDIN;\n1;'\n\\.\nSELECT 1;");
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].text, "COPY t FROM STDIN;\n1;'\n\\.\n");
    }

    #[test]
    fn commands_that_send_a_statement_end_it() {
        assert_eq!(statements("SELECT 1 AS a \\gset\nSELECT 2;").len(), 2);
    }
}
