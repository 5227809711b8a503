//! Every example is a command line that the program takes, and every command has a page.

mod documents;

use std::collections::BTreeSet;

use clap::Parser as _;

use super::*;
use crate::cli::args::Cli;

/// What a shell would hand to tcptrace: the words of `line` after `sudo` and before a pipe or a
/// redirection.
fn words(line: &str) -> Vec<String> {
    let words = shlex::split(line).unwrap_or_else(|| panic!("not a shell's words: {line}"));
    let end = |word: &String| ["|", ">", ">>", "&&", ";"].contains(&word.as_str());
    words.into_iter().skip_while(|word| word == "sudo").take_while(|word| !end(word)).collect()
}

/// Parses `line`, and returns its command.
fn parsed(line: &str) -> Result<String, String> {
    let words = words(line);
    Cli::try_parse_from(&words).map_err(|error| error.to_string())?;
    Ok(words.into_iter().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default())
}

#[test]
fn every_example_is_a_valid_command_line_of_its_command() {
    for page in built() {
        for Example { line, .. } in page.examples {
            let command = parsed(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(command, page.command, "{line}");
        }
    }
    for Example { line, .. } in pages::MAIN.examples {
        assert!(words(line).first().is_some_and(|word| word == "tcptrace"), "{line}");
        if built().any(|page| line.contains(&format!("tcptrace {} ", page.command))) {
            parsed(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
    assert!(parsed("sudo tcptrace live --no-such-option").is_err(), "this test can fail");
}

#[test]
fn every_command_has_a_page_and_every_reference_leads_to_one() {
    let command = with_examples(args::command());
    let commands: BTreeSet<_> =
        command.get_subcommands().map(Command::get_name).filter(|name| *name != "help").collect();
    let pages: BTreeSet<_> = pages::COMMANDS.iter().map(|page| page.command).collect();
    assert_eq!(commands, pages);
    for page in std::iter::once(&pages::MAIN).chain(pages::COMMANDS) {
        assert!(!page.examples.is_empty() && !page.see_also.is_empty(), "{}", page.name());
        for (name, _) in page.see_also {
            assert_ne!(*name, page.name());
            if let Some(command) = name.strip_prefix("tcptrace-") {
                assert!(pages.contains(command), "{}: {name}", page.name());
            }
        }
    }
}

#[test]
fn pages_have_the_sections_of_man_pages_in_their_order() {
    for page in std::iter::once(&pages::MAIN).chain(built()) {
        let text = String::from_utf8(rendered(args::command(), page).unwrap()).unwrap();
        let mut from = 0;
        for section in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "EXIT STATUS",
            "ENVIRONMENT",
            "EXAMPLES",
            "SEE ALSO",
        ] {
            let at = text[from..]
                .find(&format!(".SH \"{section}\""))
                .or_else(|| text[from..].find(&format!(".SH {section}\n")));
            from += at.unwrap_or_else(|| panic!("{}: no {section} in\n{text}", page.name()));
        }
        assert!(
            text.starts_with(".ie")
                || text.contains(&format!(".TH {}", page.name().to_uppercase()))
        );
    }
}

#[test]
fn help_has_the_examples() {
    for page in built() {
        let mut command = with_examples(args::command());
        command.build();
        let help = command.find_subcommand_mut(page.command).unwrap().render_help().to_string();
        for Example { line, .. } in page.examples {
            assert!(help.contains(line), "{}: {help}", page.command);
        }
    }
}
