//! `tcptrace man` and `tcptrace completions`: the files that packages install, generated from the
//! arguments that are parsed, so that they cannot disagree with the program.
//!
//! What the arguments do not say (examples, files, exit codes) is in [`pages`].

mod pages;
#[cfg(test)]
mod tests;

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, bold, italic, roman},
};

use self::pages::{ENVIRONMENT, Example, Page};
use super::{
    Usage,
    args::{self, ManArgs},
};

/// Adds the examples to the help of each command.
pub(super) fn with_examples(command: Command) -> Command {
    let mut command = attach(command, &pages::MAIN);
    for page in pages::COMMANDS {
        command = command.mut_subcommand(page.command, |one| attach(one, page));
    }
    command
}

/// Adds the examples of `page` below the help of `command`.
fn attach(command: Command, page: &Page) -> Command {
    let mut text = command.get_after_help().map_or_else(String::new, |text| format!("{text}\n\n"));
    text.push_str("Examples:");
    for Example { does, line } in page.examples {
        text.extend(["\n  ", line, "\n      ", does]);
    }
    command.after_help(text)
}

/// The page of one command, or all pages as files in a directory.
pub(super) fn man(args: &ManArgs) -> Result<ExitCode> {
    let command = args::command();
    if let Some(directory) = &args.out {
        return write_all(command, directory);
    }
    let page = match &args.command {
        None => &pages::MAIN,
        Some(name) => built().find(|page| page.command == name).ok_or_else(|| {
            if pages::COMMANDS.iter().any(|page| page.command == name) {
                return args::not_built(name);
            }
            let names: Vec<_> = built().map(|page| page.command).collect();
            Usage(format!("no page for '{name}': {}", names.join(", "))).into()
        })?,
    };
    write(&rendered(command, page).context("cannot generate the manual page")?)
}

/// Pages of the commands that are in this build.
fn built() -> impl Iterator<Item = &'static Page> {
    const FEATURES: [(&str, bool); 4] = [
        ("export", cfg!(feature = "export")),
        ("report", cfg!(feature = "report")),
        ("serve", cfg!(feature = "serve")),
        ("top", cfg!(feature = "top")),
    ];
    let left_out = |command| FEATURES.iter().any(|(name, built)| *name == command && !built);
    pages::COMMANDS.iter().filter(move |page| !left_out(page.command))
}

fn write_all(command: Command, directory: &Path) -> Result<ExitCode> {
    let failed = || format!("cannot write the manual pages to {}", directory.display());
    fs::create_dir_all(directory).with_context(failed)?;
    for page in std::iter::once(&pages::MAIN).chain(built()) {
        let text = rendered(command.clone(), page).with_context(failed)?;
        fs::write(directory.join(format!("{}.1", page.name())), text).with_context(failed)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One page in roff, with the sections in the order of man-pages(7).
fn rendered(mut command: Command, page: &Page) -> io::Result<Vec<u8>> {
    command.build();
    let version = command.get_version().unwrap_or_default().to_owned();
    let is_main = page.command.is_empty();
    let command = if is_main {
        // The options of the default command are on the page of `live`.
        command.override_usage("tcptrace [OPTIONS]\ntcptrace COMMAND [OPTIONS]")
    } else {
        let one = command.find_subcommand_mut(page.command).ok_or(io::ErrorKind::NotFound)?;
        let usage = one.render_usage().to_string();
        one.clone().override_usage(usage.trim_start_matches("Usage:").trim().to_owned())
    };
    let man = Man::new(command.clone())
        .title(page.name().to_uppercase())
        .source(format!("tcptrace {version}"))
        .manual("User Commands");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    let mut roff = Roff::new();
    if is_main {
        commands(&mut roff, &command);
    } else {
        man.render_options_section(&mut out)?;
    }
    exit_status(&mut roff, page);
    described(&mut roff, "ENVIRONMENT", ENVIRONMENT);
    described(&mut roff, "FILES", page.files);
    examples(&mut roff, page);
    see_also(&mut roff, page);
    roff.to_writer(&mut out)?;
    Ok(out)
}

fn commands(roff: &mut Roff, command: &Command) {
    roff.control("SH", ["COMMANDS"]);
    for page in built() {
        let one = command.find_subcommand(page.command);
        let about = one.and_then(Command::get_about).map(ToString::to_string).unwrap_or_default();
        roff.control("TP", []);
        roff.text([bold(page.name()), roman("(1)")]);
        roff.text([roman(about)]);
    }
    roff.control("PP", []);
    roff.text([
        roman("Without a command, "),
        bold("tcptrace"),
        roman(" runs "),
        bold("tcptrace live"),
        roman(" and takes its options, see "),
        bold("tcptrace-live"),
        roman("(1)."),
    ]);
}

fn exit_status(roff: &mut Roff, page: &Page) {
    roff.control("SH", ["EXIT STATUS"]);
    for (code, means) in page.exit_status() {
        roff.control("TP", []);
        roff.text([bold(code.to_string())]);
        roff.text([roman(*means)]);
    }
}

/// A section of names, each with what it is; none if there are none.
fn described(roff: &mut Roff, section: &str, rows: &[(&str, &str)]) {
    if rows.is_empty() {
        return;
    }
    roff.control("SH", [section]);
    for (name, is) in rows {
        roff.control("TP", []);
        roff.text([italic(*name)]);
        roff.text([roman(*is)]);
    }
}

fn examples(roff: &mut Roff, page: &Page) {
    roff.control("SH", ["EXAMPLES"]);
    for Example { does, line } in page.examples {
        roff.control("PP", []);
        roff.text([roman(format!("{does}:"))]);
        roff.control("RS", ["4"]);
        roff.control("nf", []);
        roff.text([bold(*line)]);
        roff.control("fi", []);
        roff.control("RE", []);
    }
}

fn see_also(roff: &mut Roff, page: &Page) {
    roff.control("SH", ["SEE ALSO"]);
    let mut line = Vec::new();
    for (at, (name, section)) in page.see_also.iter().enumerate() {
        if at > 0 {
            line.push(roman(", "));
        }
        line.extend([bold(*name), roman(format!("({section})"))]);
    }
    roff.text(line);
}

/// The script that completes the command line in `shell`.
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
