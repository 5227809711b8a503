//! What a kernel does not have, told apart from what went wrong.

use std::io;

/// This kernel (or its configuration) lacks what a scenario needs: the test is skipped, and says so.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub String);

/// Turns the errors numbered in `refusals` into [`Unsupported`]; any other stays what it is.
///
/// # Errors
/// Both, as an `anyhow::Error` that says what was tried.
pub fn supported<T>(tried: &str, refusals: &[i32], result: io::Result<T>) -> anyhow::Result<T> {
    result.map_err(|error| match error.raw_os_error() {
        Some(errno) if refusals.contains(&errno) => Unsupported(format!("{tried}: {error}")).into(),
        _ => anyhow::Error::new(error).context(tried.to_owned()),
    })
}
