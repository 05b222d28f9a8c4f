//! Other programs: run to their end, with a sentence when they fail.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail};

/// Runs `command` on our terminal; an error if it does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", line_of(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", line_of(command));
    }
    Ok(())
}

/// What `command` prints; an error, with what it said, if it does not succeed.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", line_of(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}):\n{}", line_of(command), output.status, said.trim());
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} did not print text", line_of(command)))
}

/// Where `program` is in `PATH`, if it is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| fs::metadata(file).is_ok_and(|it| it.is_file()))
}

/// `command` as one would type it: the program's own name and its arguments.
pub(crate) fn line_of(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|word| {
            let word = word.to_string_lossy();
            if word.is_empty() || word.contains(char::is_whitespace) {
                format!("'{word}'")
            } else {
                word.into_owned()
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_reads_as_one_would_type_it() {
        let mut command = Command::new("/usr/bin/psql");
        command.args(["-c", "SELECT 1", "--quiet"]);
        assert_eq!(line_of(&command), "psql -c 'SELECT 1' --quiet");
    }

    #[test]
    fn a_failure_repeats_what_the_program_said() {
        let error = output_of(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"]))
            .unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("no such thing") && message.contains("exit status: 3"),
            "{message}"
        );
    }
}
