//! Commands that this build leaves out: they take any arguments, and name the feature that brings them.

/// The arguments of a command that this build leaves out: any.
#[cfg(not(all(feature = "export", feature = "report", feature = "serve", feature = "top")))]
#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    override_help = "This command is not in this build of tcptrace: build it with the cargo feature of its \
                     name (the default features include it), or use `cargo xtask run`.\n"
)]
pub struct NotBuilt {
    /// Whatever is given
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub arguments: Vec<std::ffi::OsString>,
}

#[cfg(not(feature = "export"))]
pub use NotBuilt as ExportArgs;
#[cfg(not(feature = "report"))]
pub use NotBuilt as ReportArgs;
#[cfg(not(feature = "serve"))]
pub use NotBuilt as ServeArgs;
#[cfg(not(feature = "top"))]
pub use NotBuilt as TopArgs;

/// Says that a command is not in this build, and what brings it.
pub(in crate::cli) fn not_built(command: &str) -> anyhow::Error {
    crate::cli::usage::Usage(format!(
        "this build of tcptrace has no `{command}`: build it with `--features {command}` (the \
         default features include it), or use `cargo xtask run {command}`"
    ))
    .into()
}
