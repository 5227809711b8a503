//! Laws that hold of every run, on any inputs: scripts of hosts made up at random, the recordings in the
//! tree, and both of them damaged. Fast, and without a kernel.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has to panic")]

mod consistency;
mod damage;
mod findings;
mod growth;
mod host;
mod recordings;
mod schema;
mod validator;
mod views;
