//! The record of what built the committed kernel objects. It is written by `build-ebpf` and read
//! by `build-ebpf --check`; nothing else may change it.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::toolchain::Versions;

/// Where it is, from the workspace's root.
pub const FILE: &str = "tcptrace/bpf/provenance.toml";

const HEADER: &str = "\
# What built the kernel objects in this repository. Written by `cargo xtask build-ebpf`, proved by
# `cargo xtask build-ebpf --check`; not to be edited. How `sources` is computed: xtask/lab/src/sources.rs.

";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// SHA-256 of the sources, as [`crate::sources`] defines it.
    pub sources: String,
    /// The tool chain.
    pub toolchain: Versions,
    /// SHA-256 of each object, by its path from the workspace's root.
    pub objects: BTreeMap<String, String>,
}

impl Provenance {
    /// # Errors
    /// If the file cannot be read or is not one.
    pub fn read(workspace: &Path) -> Result<Self> {
        let text = fs::read_to_string(workspace.join(FILE))
            .with_context(|| format!("reading {FILE} (`cargo xtask build-ebpf` writes it)"))?;
        toml::from_str(&text).with_context(|| format!("reading {FILE}"))
    }

    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, workspace: &Path) -> Result<()> {
        let text = format!("{HEADER}{}", toml::to_string(self)?);
        fs::write(workspace.join(FILE), text).with_context(|| format!("writing {FILE}"))
    }
}
