//! Where a command writes to: stdout, or the file of `--out`.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal as _, Write},
    path::Path,
};

use anyhow::{Context as _, Result};

use super::args::ColorChoice;
use tcptrace_pipeline::output::Output;

/// A place to write to, opened but not written to.
pub(super) struct Target {
    /// What it is called in messages.
    name: String,
    file: Option<File>,
    /// Nothing is written at all.
    none: bool,
}

impl Target {
    /// Opens it, before anything is attached. What an existing file holds stays until
    /// [`Self::start`]: a run that fails to attach must not cost an earlier capture.
    pub(super) fn open(out: Option<&Path>) -> Result<Self> {
        let Some(path) = out else {
            return Ok(Self { name: "stdout".to_owned(), file: None, none: false });
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(|| format!("cannot write to {}", path.display()))?;
        Ok(Self { name: path.display().to_string(), file: Some(file), none: false })
    }

    #[cfg(any(feature = "export", feature = "report"))]
    /// A file that is there for this run alone.
    pub(super) fn file(file: File, name: String) -> Self {
        Self { name, file: Some(file), none: false }
    }

    /// Nowhere, for a command that shows nothing.
    pub(super) fn none() -> Self {
        Self { name: "nowhere".to_owned(), file: None, none: true }
    }

    /// Whether it is nowhere.
    pub(super) fn is_none(&self) -> bool {
        self.none
    }

    /// Empties it and starts the writer; gives it back with the target's name.
    pub(super) fn start(self) -> Result<(Output, String)> {
        let to: Box<dyn Write + Send> = match self.file {
            _ if self.none => Box::new(io::sink()),
            Some(file) => {
                // A device or a FIFO has no length to cut.
                if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
                    file.set_len(0).with_context(|| format!("cannot empty {}", self.name))?;
                }
                Box::new(file)
            }
            None => Box::new(io::stdout()),
        };
        Ok((Output::new(to).context("cannot start the writer")?, self.name))
    }

    /// Whether lines of it appear on the terminal on which stderr may be too.
    pub(super) fn is_terminal(&self) -> bool {
        self.file.is_none() && !self.none && io::stdout().is_terminal()
    }

    /// How many columns the terminal has that it goes to, if it is one.
    pub(super) fn columns(&self) -> Option<u16> {
        let stdout = self.file.is_none().then(io::stdout)?;
        terminal_size::terminal_size_of(stdout).map(|(width, _)| width.0)
    }

    /// Whether to colour what goes there.
    pub(super) fn colored(&self, choice: ColorChoice) -> bool {
        match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                // https://no-color.org: set and not empty.
                let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
                // What a terminal of this kind shows of an escape sequence is the sequence.
                let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
                !no_color && !dumb && self.is_terminal()
            }
        }
    }
}
