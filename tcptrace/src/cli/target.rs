//! Where a command writes to: stdout, or the file of `--out`.

#[cfg(any(feature = "export", feature = "report"))]
use std::fs::File;
use std::{
    io::{self, IsTerminal as _, Write},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::args::ColorChoice;
use tcptrace_pipeline::output::Output;
use tcptrace_record::{OutError, OutFile, outfile};

/// A place to write to, claimed but not written to.
pub(super) struct Target {
    /// What it is called in messages.
    name: String,
    to: To,
}

enum To {
    Stdout,
    /// The file of `--out`.
    File(OutFile),
    /// A file that is there for this run alone.
    #[cfg(any(feature = "export", feature = "report"))]
    Own(File),
    /// Nothing is written at all.
    Nowhere,
}

/// What stands for stdout where a name of a file is asked for.
pub(super) fn is_stdout(path: &Path) -> bool {
    path == Path::new("-") || path == Path::new("/dev/stdout")
}

impl Target {
    /// Claims it, before anything is attached. What an existing file holds stays until
    /// [`Self::start`]: a run that fails to attach must not cost an earlier capture.
    ///
    /// # Errors
    /// It is there and `force` is not given, or it cannot be written.
    pub(super) fn open(out: Option<&Path>, force: bool) -> Result<Self> {
        match out {
            Some(path) if !is_stdout(path) => {
                let name = path.display().to_string();
                Ok(Self { name, to: To::File(OutFile::claim(path, force)?) })
            }
            _ => Ok(Self::stdout()),
        }
    }

    /// Stdout.
    pub(super) fn stdout() -> Self {
        Self { name: "stdout".to_owned(), to: To::Stdout }
    }

    #[cfg(any(feature = "export", feature = "report"))]
    /// A file that is there for this run alone.
    pub(super) fn file(file: File, name: String) -> Self {
        Self { name, to: To::Own(file) }
    }

    /// Nowhere, for a command that shows nothing.
    pub(super) fn none() -> Self {
        Self { name: "nowhere".to_owned(), to: To::Nowhere }
    }

    /// Whether it is nowhere.
    pub(super) fn is_none(&self) -> bool {
        matches!(self.to, To::Nowhere)
    }

    /// Refuses to write to what is read, which would destroy it, or never end.
    ///
    /// # Errors
    /// It is one of `read`.
    pub(super) fn refuse(&self, read: &[PathBuf]) -> Result<()> {
        let is_read = match &self.to {
            To::File(claimed) => claimed.is_one_of(read),
            To::Stdout => {
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                stdout.is_ok_and(|stdout| outfile::is_one_of(&stdout.into(), read))
            }
            #[cfg(any(feature = "export", feature = "report"))]
            To::Own(_) => false,
            To::Nowhere => false,
        };
        if is_read { Err(OutError::Read(self.name.clone().into()).into()) } else { Ok(()) }
    }

    /// Empties it and starts the writer; gives it back with the target's name.
    pub(super) fn start(self) -> Result<(Output, String)> {
        let to: Box<dyn Write + Send> = match self.to {
            To::Nowhere => Box::new(io::sink()),
            To::Stdout => Box::new(io::stdout()),
            To::File(claimed) => Box::new(claimed.begin()?),
            #[cfg(any(feature = "export", feature = "report"))]
            To::Own(file) => Box::new(file),
        };
        Ok((Output::new(to).context("cannot start the writer")?, self.name))
    }

    /// Whether lines of it appear on the terminal on which stderr may be too.
    pub(super) fn is_terminal(&self) -> bool {
        self.is_stdout() && io::stdout().is_terminal()
    }

    fn is_stdout(&self) -> bool {
        matches!(self.to, To::Stdout)
    }

    /// How many columns the terminal has that it goes to, if it is one.
    pub(super) fn columns(&self) -> Option<u16> {
        let stdout = self.is_stdout().then(io::stdout)?;
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
