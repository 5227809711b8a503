//! `--otlp` and what belongs to it.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};

use super::rights::give_up;
use crate::cli::{args::OtlpArgs, log::say, usage::Usage};
use tcptrace_host::confine;
use tcptrace_serve::{
    Shelf,
    otlp::{Headers, Push, Pusher},
    tls_to,
};

/// The shortest interval: figures come each second.
const SHORTEST: Duration = Duration::from_secs(1);

/// What the arguments ask for, if they do.
pub(super) fn push(args: &OtlpArgs) -> Result<Option<Push>> {
    let Some(endpoint) = &args.otlp else { return Ok(None) };
    if args.otlp_interval < SHORTEST {
        return Err(Usage("--otlp-interval: at least 1s".to_owned()).into());
    }
    if args.otlp_ca.is_some() && !endpoint.is_https() {
        return Err(Usage("--otlp-ca: is for an endpoint with https".to_owned()).into());
    }
    let headers = match &args.otlp_headers_file {
        Some(path) => Headers::read(path)
            .with_context(|| format!("--otlp-headers-file {}", path.display()))?,
        None => Headers::default(),
    };
    let tls = endpoint.is_https().then(|| tls_to(args.otlp_ca.as_deref())).transpose();
    let (endpoint, interval) = (endpoint.clone(), args.otlp_interval);
    Ok(Some(Push { endpoint, interval, headers, tls: tls.context("--otlp")? }))
}

/// Pushes what is on `shelf`. The thread has no capabilities, but may open connections and what it
/// takes to find out addresses.
pub(super) fn start(push: Push, shelf: &Arc<Shelf>, sandbox: bool) -> Result<Pusher> {
    let prepare = move || {
        if sandbox {
            give_up(confine::only_push);
        }
    };
    Pusher::start(push, Arc::clone(shelf), prepare, say).context("cannot start the OTLP thread")
}
