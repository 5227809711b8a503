//! What the documents tell people to type is valid, and where they lead to exists.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{parsed, words};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// What people read: the Markdown files at the root and everything in `docs`, by their paths from the root.
fn documents() -> Vec<(PathBuf, String)> {
    fn add(folder: &Path, deep: bool, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(workspace().join(folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                if deep {
                    add(&path, deep, found);
                }
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(workspace().join(&path)).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    add(Path::new(""), false, &mut found);
    add(Path::new("docs"), true, &mut found);
    found.sort();
    found
}

/// The lines of the shell that `document` tells people to type, continued lines joined: all of a block
/// that is `sh`, and what is behind the prompt in one that is `console`.
fn typed(document: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (language, prompt) in [("sh", ""), ("console", "$ ")] {
        for block in document.split(&format!("```{language}\n")).skip(1) {
            let block = block.split("```").next().unwrap_or_default().replace("\\\n", " ");
            let lines_of_it = block.lines().filter_map(|line| line.trim().strip_prefix(prompt));
            lines.extend(lines_of_it.map(str::to_owned));
        }
    }
    lines
}

#[cfg(all(feature = "export", feature = "report", feature = "serve", feature = "top"))]
#[test]
fn every_command_in_the_documentation_is_valid() {
    let mut count = 0;
    for (path, document) in documents() {
        let name = path.display();
        for line in typed(&document) {
            // What a shell makes of variables is not known here.
            let through_xtask =
                line.replace("cargo xtask run", "tcptrace").replace(" --release", "");
            if line.contains('$') || words(&through_xtask).first().is_none_or(|w| w != "tcptrace") {
                continue;
            }
            parsed(&through_xtask).unwrap_or_else(|error| panic!("{name}: {line}: {error}"));
            count += 1;
        }
    }
    assert!(count > 20, "only {count} commands were found");
}

/// Where the links, pictures and sources of a document lead.
fn links(document: &str) -> impl Iterator<Item = &str> {
    let after = |before: &'static str, end: &'static [char]| {
        document.split(before).skip(1).map(move |link| link.split(end).next().unwrap_or_default())
    };
    after("](", &[')', '#', ' '])
        .chain(after("src=\"", &['"']))
        .chain(after("srcset=\"", &['"']))
        .filter(|link| !link.is_empty() && !link.contains("://"))
}

#[test]
fn every_link_in_the_documentation_leads_to_a_file() {
    let mut count = 0;
    for (name, document) in documents() {
        let directory = workspace().join(&name).parent().unwrap().to_owned();
        for link in links(&document) {
            assert!(directory.join(link).exists(), "{}: {link}", name.display());
            count += 1;
        }
    }
    assert!(count > 20, "only {count} links were found");
}

#[test]
fn the_book_has_every_page() {
    let summary = fs::read_to_string(workspace().join("docs/SUMMARY.md")).unwrap();
    let pages: Vec<&str> = links(&summary).collect();
    for (name, _) in documents() {
        let Ok(page) = name.strip_prefix("docs") else { continue };
        let page = page.to_str().unwrap();
        let times = pages.iter().filter(|it| **it == page).count();
        let expected = usize::from(page != "SUMMARY.md");
        assert_eq!(times, expected, "docs/SUMMARY.md: {page}");
    }
}

#[test]
fn every_link_to_a_heading_leads_to_one() {
    // As GitHub and mdbook make anchors of headings.
    let anchor = |heading: &str| -> String {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    let mut count = 0;
    for (name, document) in documents() {
        for link in document.split("](").skip(1) {
            let link = link.split([')', ' ']).next().unwrap_or_default();
            let Some((file, to)) = link.split_once('#') else { continue };
            if file.contains("://") {
                continue;
            }
            let path = match file {
                "" => workspace().join(&name),
                file => workspace().join(&name).parent().unwrap().join(file),
            };
            let text = fs::read_to_string(path).unwrap();
            let there = text.lines().any(|line| line.starts_with('#') && anchor(line) == to);
            assert!(there, "{}: {link}", name.display());
            count += 1;
        }
    }
    assert!(count > 10, "only {count} links were found");
}

/// Words that docs/STYLE.md replaces: nobody who knows ss or the kernel would search for them.
const REPLACED: [&str; 16] = [
    "anew",
    "births",
    "doubt",
    "drift",
    "drifted",
    "for ever",
    "knob",
    "knobs",
    "lingered",
    "looked at",
    "patience",
    "shelf",
    "stand-in",
    "to be had",
    "told",
    "untold",
];

/// The words of a text, with what is code (and so has the names of today) left out.
fn prose(document: &str) -> String {
    let blocks = document.split("```").step_by(2);
    let text: String = blocks.flat_map(|block| block.split('`').step_by(2)).collect();
    let words =
        text.split(|c: char| !c.is_alphanumeric() && c != '-').filter(|word| !word.is_empty());
    format!(" {} ", words.collect::<Vec<_>>().join(" ").to_lowercase())
}

#[test]
fn the_documentation_speaks_as_docs_style_says() {
    assert!(prose("They are `told`. It was told\n anew").contains(" it was told anew "));
    for (name, document) in documents() {
        // The standard itself lists them; tests write results between markers; history stays.
        let exempt = ["docs/STYLE.md", "docs/KERNELS.md", "ARCHITECTURE.md", "CHANGELOG.md"];
        if exempt.iter().any(|exempt| name == Path::new(exempt)) {
            continue;
        }
        let text = prose(&document);
        for word in REPLACED {
            assert!(!text.contains(&format!(" {word} ")), "{}: {word:?}", name.display());
        }
    }
}

#[test]
fn every_command_is_in_the_documentation() {
    let usage = fs::read_to_string(workspace().join("docs/USAGE.md")).unwrap();
    for command in crate::cli::args::command().get_subcommands().map(clap::Command::get_name) {
        let is_there = usage.contains(&format!("`tcptrace {command}"))
            || usage.lines().any(|line| line.starts_with("## ") && line.contains(command));
        assert!(is_there, "docs/USAGE.md has nothing about `tcptrace {command}`");
    }
}

/// Files that name a package or an image of this version.
const VERSIONED: [(&str, &str, &str); 6] = [
    ("README.md", include_str!("../../../../../README.md"), "tcptrace-"),
    ("README.md", include_str!("../../../../../README.md"), "tcptrace-ebpf-"),
    ("README.md", include_str!("../../../../../README.md"), "tcptrace-ebpf_"),
    ("docs/SERVE.md", include_str!("../../../../../docs/SERVE.md"), "tcptrace:"),
    ("Dockerfile", include_str!("../../../../../deploy/docker/Dockerfile"), "tcptrace:"),
    (
        "daemonset.yaml",
        include_str!("../../../../../deploy/kubernetes/daemonset.yaml"),
        "tcptrace:",
    ),
];

#[test]
fn packages_and_images_are_of_this_version() {
    for (name, text, before) in VERSIONED {
        let mut count = 0;
        for found in text.split(before).skip(1) {
            let version = found.split(|c: char| !c.is_ascii_digit() && c != '.').next();
            let version = version.unwrap_or_default().trim_end_matches('.');
            if version.matches('.').count() == 2 {
                assert_eq!(version, env!("CARGO_PKG_VERSION"), "{name}");
                count += 1;
            }
        }
        assert!(count > 0, "{name} names no version");
    }
}
