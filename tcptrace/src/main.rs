//! The `tcptrace` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tcptrace::cli::main()
}
