//! How a run of a fuzz target ended, as libFuzzer says it.

use std::{fmt, path::PathBuf};

/// Lines of what a target that fails says that are shown.
const SHOWN: usize = 60;

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it was to.
    Clean,
    /// On an input, or for another reason.
    Failed {
        /// The last lines that it printed.
        said: String,
        /// Where libFuzzer put the input.
        input: Option<PathBuf>,
    },
}

/// A run that has ended.
#[derive(Debug)]
pub struct Ended {
    pub target: String,
    pub outcome: Outcome,
    /// Inputs that were run.
    pub inputs: Option<u64>,
    /// The most memory that it had.
    pub peak_mib: Option<u64>,
    pub seconds: u64,
}

impl Ended {
    /// Reads what libFuzzer printed with `-print_final_stats=1`.
    pub fn new(target: &str, success: bool, said: &str, seconds: u64) -> Self {
        let stat = |name: &str| {
            let mut lines = said.lines().filter_map(|line| line.strip_prefix("stat::"));
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
        };
        // `artifact_prefix='…'; Test unit written to …`
        let input = said.lines().find_map(|line| Some(line.split_once("Test unit written to ")?.1));
        let outcome = if success {
            Outcome::Clean
        } else {
            let lines: Vec<_> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(SHOWN)..];
            Outcome::Failed { said: last.join("\n"), input: input.map(PathBuf::from) }
        };
        Self {
            target: target.to_owned(),
            outcome,
            inputs: stat("number_of_executed_units"),
            peak_mib: stat("peak_rss_mb"),
            seconds,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inputs = self.inputs.unwrap_or(0);
        match &self.outcome {
            Outcome::Clean => write!(f, "{}: {inputs} inputs without a failure", self.target),
            Outcome::Failed { .. } => write!(f, "{}: FAILED after {inputs} inputs", self.target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libfuzzers_words_are_understood() {
        let said = "INFO: Seed: 1\n#2\tINITED\nDone 9000 runs in 2 second(s)\n\
                    stat::number_of_executed_units: 9000\nstat::peak_rss_mb:              47\n";
        let clean = Ended::new("btf", true, said, 2);
        assert_eq!((clean.inputs, clean.peak_mib), (Some(9000), Some(47)));
        assert_eq!(clean.outcome, Outcome::Clean);
        let said = "thread panicked at x.rs:1\nSUMMARY: libFuzzer: deadly signal\n\
                    artifact_prefix='a/'; Test unit written to a/crash-0123\nBase64: aGk=\n";
        let failed = Ended::new("btf", false, said, 1);
        let Outcome::Failed { said, input } = failed.outcome else { panic!() };
        assert_eq!(input.unwrap(), PathBuf::from("a/crash-0123"));
        assert!(said.starts_with("thread panicked"), "{said}");
        assert_eq!(failed.inputs, None);
    }
}
