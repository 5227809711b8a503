//! The command as people meet it: arguments, exit codes, what is on stdout and what on stderr.
//! Real connections on loopback, in the namespace of the test.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has to panic")]

mod check;
mod ending;
mod host;
mod misuse;
mod output;
mod peer;
mod run;
