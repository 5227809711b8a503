//! Manual pages and completions, as packages install them.

use std::{fs, process::Command};

use crate::run::{run, tcptrace};

#[test]
fn every_command_has_a_manual_page_that_its_readers_find_no_fault_with() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("man1");
    let ended = run(tcptrace(&["man", "--out", out.to_str().unwrap()]));
    assert_eq!((ended.code, ended.text()), (Some(0), ""));
    let mut pages: Vec<_> =
        fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    assert!(pages.len() >= 18, "{pages:?}");
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let name = page.file_stem().unwrap().to_str().unwrap();
        for part in [&format!(".TH {}", name.to_uppercase()), "EXIT STATUS", "EXAMPLES", "SEE ALSO"]
        {
            assert!(text.contains(part), "{name}: no {part} in\n{text}");
        }
        // The same page by name.
        if let Some(command) = name.strip_prefix("tcptrace-") {
            assert_eq!(run(tcptrace(&["man", command])).text(), text);
        }
        // What the readers of manual pages say of it, where they are installed.
        let file = page.to_str().unwrap();
        for reader in [
            &["groff", "-Kutf8", "-man", "-Tutf8", "-ww", "-z", file][..],
            &["mandoc", "-T", "lint", "-W", "error", file],
        ] {
            if let Ok(said) = Command::new(reader[0]).args(&reader[1..]).output() {
                let all = [said.stdout, said.stderr].concat();
                assert!(all.is_empty(), "{}", String::from_utf8_lossy(&all));
            }
        }
    }
    let ended = run(tcptrace(&["man", "nonsense"]));
    assert!(ended.refusal(2).contains("no page for 'nonsense': live, "), "{ended:?}");
}

#[test]
fn every_shell_gets_a_script_that_completes_commands() {
    for (shell, part) in
        [("bash", "complete -F"), ("zsh", "#compdef tcptrace"), ("fish", "complete -c tcptrace")]
    {
        let script = run(tcptrace(&["completions", shell]));
        assert!(script.code == Some(0) && script.text().contains(part), "{shell}");
        if shell == "bash" {
            // bash itself reads it, and offers the commands.
            let ask = format!(
                "{}\nCOMP_WORDS=(tcptrace st) COMP_CWORD=1\n_tcptrace tcptrace st tcptrace\necho \"${{COMPREPLY[*]}}\"",
                script.text()
            );
            let said = Command::new("bash").args(["-c", &ask]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "states stuck");
        }
    }
}
