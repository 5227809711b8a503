//! `tcptrace man` and `tcptrace completions`: what packages install, made from the arguments as they
//! are parsed, so that they cannot tell otherwise.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use super::args;

/// One page: the command, then each of its commands with its options.
pub(super) fn man() -> Result<ExitCode> {
    let mut command = args::command();
    command.build();
    let mut page = Vec::new();
    render(&command, &mut page).context("cannot make the manual page")?;
    write(&page)
}

fn render(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let whole = Man::new(command.clone());
    whole.render_title(page)?;
    whole.render_name_section(page)?;
    whole.render_synopsis_section(page)?;
    whole.render_description_section(page)?;
    whole.render_options_section(page)?;
    for one in command.get_subcommands().filter(|one| one.get_name() != "help") {
        let section = Man::new(one.clone());
        writeln!(page, ".SH \"{}\"", one.get_name().to_uppercase())?;
        let mut parts = Vec::new();
        section.render_description_section(&mut parts)?;
        section.render_synopsis_section(&mut parts)?;
        section.render_options_section(&mut parts)?;
        // Its sections are such below the command's.
        for line in String::from_utf8_lossy(&parts).lines() {
            match line.strip_prefix(".SH ") {
                Some(title) => writeln!(page, ".SS {title}")?,
                None => writeln!(page, "{line}")?,
            }
        }
    }
    writeln!(page, ".SH \"EXIT STATUS\"")?;
    let codes = "0; 1 for what the host refuses; 2 for misuse; 130 for an interrupt that left \
                 something unwritten. \\fBdoctor\\fR: see there.";
    writeln!(page, "{codes}")
}

/// What `shell` completes by.
pub(super) fn completions(shell: Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "tcptrace", &mut script);
    write(&script)
}

fn write(text: &[u8]) -> Result<ExitCode> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
