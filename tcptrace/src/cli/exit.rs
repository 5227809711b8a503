//! The exit codes of the command, but for those of `doctor`, which are its findings.

/// What the host refuses.
pub(super) const EXIT_HOST: u8 = 1;
/// What the user mistyped.
pub(super) const EXIT_USAGE: u8 = 2;
/// What `doctor` exits with instead of either: 1 and 2 are its findings.
pub(super) const EXIT_DOCTOR: u8 = 3;
/// A second Ctrl-C while the output is not taken, or one before a file was whole: 128 and SIGINT's
/// number, as shells have it.
pub(super) const EXIT_INTERRUPTED: u8 = 130;
