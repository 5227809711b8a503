//! The recordings that are in the tree.

use std::{fs, path::Path};

use tcptrace::{
    model::{Input, filter::Filter},
    source::recording::{Cue, Recording, Stretch},
};

/// Each by its name.
pub fn all() -> Vec<(String, Vec<Input>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: &std::path::PathBuf| path.extension().is_some_and(|it| it == "tcptrace");
    let all: Vec<_> = paths
        .filter(of)
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let mut recording =
                Recording::open(&[path], Filter::default(), Stretch::default()).unwrap();
            let mut inputs = Vec::new();
            while recording.feed(1024, &mut |cue| match cue {
                Cue::Input(Input::End(_)) => {}
                Cue::Early(input) | Cue::Input(input) => inputs.push(input),
            }) {}
            assert!(!inputs.is_empty(), "{name}");
            (name, inputs)
        })
        .collect();
    assert!(!all.is_empty(), "no recording");
    all
}
