//! What the documents tell people to type is valid, and where they lead to exists.

use std::path::Path;

use super::{parsed, words};

/// What people read.
const DOCUMENTS: [(&str, &str); 9] = [
    ("ARCHITECTURE.md", include_str!("../../../../../ARCHITECTURE.md")),
    ("CONTRIBUTING.md", include_str!("../../../../../CONTRIBUTING.md")),
    ("README.md", include_str!("../../../../../README.md")),
    ("docs/COST.md", include_str!("../../../../../docs/COST.md")),
    ("docs/OUTPUT.md", include_str!("../../../../../docs/OUTPUT.md")),
    ("docs/RECIPES.md", include_str!("../../../../../docs/RECIPES.md")),
    ("docs/RECORDING.md", include_str!("../../../../../docs/RECORDING.md")),
    ("docs/SERVE.md", include_str!("../../../../../docs/SERVE.md")),
    ("docs/USAGE.md", include_str!("../../../../../docs/USAGE.md")),
];

/// The lines of the shell that `document` tells people to type, continued lines joined.
fn typed(document: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for block in document.split("```sh\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        lines.extend(block.replace("\\\n", " ").lines().map(|line| line.trim().to_owned()));
    }
    lines
}

#[cfg(all(feature = "export", feature = "report", feature = "serve", feature = "top"))]
#[test]
fn every_command_in_the_documentation_is_valid() {
    let mut count = 0;
    for (name, document) in DOCUMENTS {
        for line in typed(document) {
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

#[test]
fn every_link_in_the_documentation_leads_to_a_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut count = 0;
    for (name, document) in DOCUMENTS {
        let directory = root.join(name).parent().unwrap().to_owned();
        for link in document.split("](").skip(1) {
            let link = link.split([')', '#', ' ']).next().unwrap_or_default();
            if link.is_empty() || link.contains("://") {
                continue;
            }
            assert!(directory.join(link).exists(), "{name}: {link}");
            count += 1;
        }
    }
    assert!(count > 20, "only {count} links were found");
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
