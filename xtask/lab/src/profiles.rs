//! Holds the build profiles to what the code relies on.

use std::{fs, path::Path};

/// A panic while a request is answered, or on a thread beside the one that traces, is to be the end of
/// that request or thread only. With `panic = "abort"` it would end the whole process, and no test
/// would show it, since tests are always built to unwind.
#[test]
fn panics_unwind_in_every_profile_of_the_agent() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let manifest: toml::Table =
        fs::read_to_string(root.join("Cargo.toml")).unwrap().parse().unwrap();
    let profiles = manifest["profile"].as_table().unwrap();
    assert!(profiles.contains_key("release") && profiles.contains_key("dev"));
    // The kernel object's: nothing unwinds there.
    for (name, profile) in profiles.iter().filter(|(name, _)| *name != "bpf") {
        let panic = profile.get("panic").and_then(toml::Value::as_str);
        assert!(panic.is_none_or(|panic| panic == "unwind"), "{name}: {panic:?}");
        let base = profile.get("inherits").and_then(toml::Value::as_str);
        assert_ne!(base, Some("bpf"), "{name}");
    }
    let configuration = fs::read_to_string(root.join(".cargo/config.toml")).unwrap_or_default();
    assert!(!configuration.contains("panic"), "{configuration}");
}
