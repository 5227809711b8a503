//! What a recording has of a transition beside the fields of the first version of the format.
//!
//! As with tasks: it comes before the transition, with a tag and its length, so that a reader that
//! does not know it passes over it. Once in each block the tag stands alone: from there on what is
//! not written has its usual value, while in a block without it nothing of this is known.

use super::wire::{Cursor, Malformed, put_u64};
use tcptrace_model::{AtClose, SockFacts, Transition};

/// The tag; of those that [`super::rare`] passes over.
pub(super) const FACTS: u8 = 0x51;

const SUBFLOW_KNOWN: u8 = 1 << 0;
const SUBFLOW: u8 = 1 << 1;
const CLOSES: u8 = 1 << 2;
const REPAIR: u8 = 1 << 3;
const HAS_SENT: u8 = 1 << 4;
const QUEUE_EMPTY: u8 = 1 << 5;
/// The two bits of a subflow say something.
const UNUSUAL: u8 = 1 << 6;

/// What was read before a transition.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    /// Whether it is a subflow; `None` where that has its usual value.
    mptcp: Option<Option<bool>>,
    at_close: Option<AtClose>,
}

/// What is not written: the socket is no subflow, where that can be told.
fn usual(event: &Transition) -> Option<bool> {
    SockFacts::mptcp_by(event.old, event.new, false)
}

/// Appends the tag alone.
pub(super) fn put_mark(out: &mut Vec<u8>) {
    out.extend_from_slice(&[FACTS, 0]);
}

/// Appends what is not usual in a transition, if anything.
pub(super) fn put(out: &mut Vec<u8>, event: &Transition) {
    let mptcp = event.sock.as_ref().map(|sock| sock.mptcp).filter(|&it| it != usual(event));
    let at_close = event.totals.as_ref().and_then(|totals| totals.at_close);
    if mptcp.is_none() && at_close.is_none() {
        return;
    }
    let at = out.len();
    out.extend_from_slice(&[FACTS, 0, 0]);
    let bit = |on: bool, bit: u8| if on { bit } else { 0 };
    let mut flags = match mptcp {
        None => 0,
        Some(known) => {
            UNUSUAL | bit(known.is_some(), SUBFLOW_KNOWN) | bit(known == Some(true), SUBFLOW)
        }
    };
    if let Some(AtClose { unsent, err_soft, probes, repair, has_sent, queue_empty }) = at_close {
        flags |=
            CLOSES | bit(repair, REPAIR) | bit(has_sent, HAS_SENT) | bit(queue_empty, QUEUE_EMPTY);
        [unsent, err_soft.into(), probes.into()]
            .into_iter()
            .for_each(|number| put_u64(out, u64::from(number)));
    }
    // Three numbers of 32 bits at most: the length is one byte.
    out[at + 1] = (out.len() - at - 2) as u8;
    out[at + 2] = flags;
}

impl Facts {
    /// Reads what follows the tag; `None` of the tag alone.
    pub(super) fn get(from: &mut Cursor<'_>) -> Result<Option<Self>, Malformed> {
        let mut body = Cursor::new(from.bytes()?);
        if body.is_empty() {
            return Ok(None);
        }
        let flags = body.u8()?;
        let has = |bit: u8| flags & bit != 0;
        let at_close = if has(CLOSES) {
            Some(AtClose {
                unsent: body.u32()?,
                err_soft: body.u16()?,
                probes: body.u16()?.try_into().map_err(|_| Malformed("a number too large"))?,
                repair: has(REPAIR),
                has_sent: has(HAS_SENT),
                queue_empty: has(QUEUE_EMPTY),
            })
        } else {
            None
        };
        let mptcp = has(UNUSUAL).then(|| has(SUBFLOW_KNOWN).then(|| has(SUBFLOW)));
        Ok(Some(Self { mptcp, at_close }))
    }

    /// Completes a transition that was read after it; `marked` is whether the tag stood alone in the
    /// block before.
    pub(super) fn complete(self, event: &mut Transition, marked: bool) {
        let usual = if marked { usual(event) } else { None };
        if let Some(sock) = &mut event.sock {
            sock.mptcp = self.mptcp.unwrap_or(usual);
        }
        if let Some(totals) = &mut event.totals {
            totals.at_close = self.at_close;
        }
    }
}
