//! Everything that is printed. Results go to standard output, what is wrong to standard error.

use std::path::Path;
use std::time::Duration;

use cluster::NodeName;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

use crate::psql::Answer;

/// How wide running text gets.
const WIDTH: usize = 100;

/// What the machine lacks.
pub(crate) fn missing(needs: &[String]) {
    println!("Missing on this machine: {}.", needs.join(", "));
}

/// Something that went wrong without stopping us.
pub(crate) fn warn(text: &str) {
    eprintln!("warning: {text}");
}

/// Why we stop.
pub(crate) fn error(error: &anyhow::Error) {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Some errors repeat their cause, for readers who see nothing else.
        if !text.contains(&cause) && cause != "db error" {
            text = format!("{text}: {cause}");
        }
    }
    eprintln!("error: {text}");
}

/// A sentence.
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// The heading of a step: what runs, and how long the last one took.
pub(crate) fn step(number: usize, of: usize, what: &str, last_took: Option<Duration>) {
    match last_took {
        Some(time) => {
            println!("\n==> {number}/{of} {what}   (the last step took {})", rounded(time))
        }
        None => println!("==> {number}/{of} {what}"),
    }
}

/// The heading of a part of the story.
pub(crate) fn chapter(title: &str) {
    println!("{title}\n{}\n", "=".repeat(title.len()));
}

/// A paragraph of the story.
pub(crate) fn tell(text: &str) {
    println!("{}\n", wrapped(text, WIDTH));
}

/// Something that happens to a node.
pub(crate) fn event(text: &str) {
    println!("*** {text}\n");
}

/// A statement, as one would have typed it into psql.
pub(crate) fn statement(node: NodeName, statement: &str) {
    let mut prompt = '=';
    for line in format!("{statement};").lines() {
        println!("{node}{prompt}# {line}");
        prompt = '-';
    }
}

/// What psql printed.
pub(crate) fn answer(answer: &Answer) {
    for text in [&answer.messages, &answer.text] {
        if !text.is_empty() {
            println!("{text}");
        }
    }
    println!();
}

/// How loading went.
pub(crate) fn loaded(rows: u64, took: Duration) {
    println!("COPY {rows}\nTime: {:.3} ms\n", took.as_secs_f64() * 1000.0);
}

/// A table, with numbers to the right.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) {
    println!("{}\n", drawn(header, rows));
}

/// How to go on when the story is over.
pub(crate) fn demo_is_over(psql_line: &str, pgshard: &Path, dir: &Path, is_default_dir: bool) {
    let dir_option =
        if is_default_dir { String::new() } else { format!(" --dir {}", dir.display()) };
    chapter("The cluster is yours");
    println!("SQL:           {psql_line}");
    println!("Its nodes:     {} status --dir {}", pgshard.display(), dir.display());
    println!("Take it down:  cargo xtask demo --down{dir_option}");
}

/// Does `work` behind a spinner, if there is a terminal.
pub(crate) fn while_busy<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(100));
    let result = work();
    spinner.finish_and_clear();
    result
}

/// A bar that fills while rows are sent, if there is a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// An empty bar for `rows` rows.
    pub(crate) fn new(rows: u64) -> Self {
        let bar = ProgressBar::new(rows);
        if let Ok(style) =
            ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} rows, {per_sec}")
        {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// This many have gone.
    pub(crate) fn reached(&self, rows: u64) {
        self.bar.set_position(rows);
    }

    /// Removes the bar.
    pub(crate) fn done(&self) {
        self.bar.finish_and_clear();
    }
}

/// A table as text; columns of numbers are aligned to the right.
fn drawn(header: &[&str], rows: Vec<Vec<String>>) -> Table {
    let is_number = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || "-.,".contains(c))
    };
    let numbers: Vec<bool> = (0..header.len())
        .map(|column| rows.iter().all(|row| row.get(column).is_some_and(|it| is_number(it))))
        .collect();
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(header).add_rows(rows);
    for (column, _) in table.column_iter_mut().zip(numbers).filter(|(_, is_number)| *is_number) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Running text in lines of at most `width` characters.
fn wrapped(text: &str, width: usize) -> String {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// A time as one says it: `0.4 s`, `12 s`, `3 min 05 s`.
pub(crate) fn rounded(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        _ => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrapped("one two  three", 7), "one two\nthree");
        assert_eq!(
            wrapped("a-word-longer-than-the-line and", 10),
            "a-word-longer-than-the-line\nand"
        );
    }

    #[test]
    fn columns_of_numbers_are_aligned_to_the_right() {
        let rows = [["worker1", "5"], ["worker2", "12"]].map(|row| row.map(str::to_owned).to_vec());
        let text = drawn(&["node", "rows"], rows.to_vec()).to_string();
        assert!(text.contains("│ worker1 ┆    5 │"), "{text}");
    }

    #[test]
    fn times_are_as_exact_as_they_matter() {
        assert_eq!(rounded(Duration::from_millis(432)), "0.4 s");
        assert_eq!(rounded(Duration::from_millis(12_900)), "12 s");
        assert_eq!(rounded(Duration::from_secs(185)), "3 min 05 s");
    }
}
