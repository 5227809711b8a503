//! Which `--by` suits which command: not all keys are known of all connections.

use super::usage::Usage;
use tcptrace_stats::group::By;

/// Refuses what no open connection has.
///
/// # Errors
/// The key is of connections that have ended.
pub(super) fn open(by: By) -> Result<(), Usage> {
    if by == By::Reason {
        return Err(Usage(
            "--by reason: an open connection has no end reason; use owner, holder, port, peer, \
             netns or unit"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Refuses what no connection that has ended has.
///
/// # Errors
/// The key is of open connections.
pub(super) fn ended(by: Option<By>) -> Result<(), Usage> {
    if by == Some(By::Holder) {
        return Err(Usage(
            "--by holder: no process has a closed connection open; use closer or owner, or \
             `tcptrace stuck --by holder`"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Whether the processes that hold sockets are needed.
pub(super) fn needs_holders(by: Option<By>) -> bool {
    matches!(by, Some(By::Owner | By::Holder))
}
