//! Ends that the next moment settles.
//!
//! Where the kernel moves a socket to CLOSE before it sends the RST that says why, the end waits
//! here for that RST, or until all of its time has been told. Must not hold anything for longer:
//! a `Tick` later than [`PATIENCE_NS`] lets it go.

use super::verdict::Question;
use tcptrace_model::{Change, Found, Moved, RstReason, Verdict};

/// The RST is sent by the function that moved the socket, or by its caller; a virtual CPU may
/// lose the CPU between the two.
pub(super) const PATIENCE_NS: u64 = 50_000_000;

/// Ends that wait, the oldest first. Few: an end of this kind is rare, and waits for
/// milliseconds.
#[derive(Default)]
pub(super) struct Held(Vec<(Moved, Question)>);

impl Held {
    pub(super) fn add(&mut self, moved: Moved, question: Question) {
        self.0.push((moved, question));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Moved> {
        self.0.iter().map(|(moved, _)| moved)
    }

    /// One of them as what it was until its end is told.
    pub(super) fn found(moved: &Moved) -> Found {
        Found {
            id: moved.id,
            mono_ns: 0,
            state: moved.old,
            tuple: moved.tuple,
            netns: moved.netns,
            birth: moved.birth,
            owner: moved.owner,
            cookie: moved.sock.and_then(|sock| sock.cookie),
            cgroup: moved.sock.and_then(|sock| sock.cgroup),
            timestamps: None,
            queues: None,
        }
    }

    /// A RST was sent from the socket at this address, which is in CLOSE.
    pub(super) fn reset(
        &mut self,
        skaddr: u64,
        reason: Option<RstReason>,
        out: &mut impl FnMut(Change),
    ) {
        self.settle(skaddr, |question| question.answered(reason), out);
    }

    /// The socket at this address does something else: no RST followed.
    pub(super) fn moves_on(&mut self, skaddr: u64, out: &mut impl FnMut(Change)) {
        if !self.0.is_empty() {
            self.settle(skaddr, Question::unanswered, out);
        }
    }

    fn settle(
        &mut self,
        skaddr: u64,
        answer: impl FnOnce(Question) -> Verdict,
        out: &mut impl FnMut(Change),
    ) {
        if let Some(at) = self.0.iter().position(|(moved, _)| moved.skaddr == skaddr) {
            let (mut moved, question) = self.0.remove(at);
            moved.verdict = answer(question);
            out(Change::Moved(moved));
        }
    }

    /// All that happened before `now` has been told.
    pub(super) fn tick(&mut self, now: u64, out: &mut impl FnMut(Change)) {
        self.let_go(|moved| moved.mono_ns.saturating_add(PATIENCE_NS) <= now, out);
    }

    /// Nothing more will be told.
    pub(super) fn end(&mut self, out: &mut impl FnMut(Change)) {
        self.let_go(|_| true, out);
    }

    fn let_go(&mut self, mut goes: impl FnMut(&Moved) -> bool, out: &mut impl FnMut(Change)) {
        self.0.retain_mut(|(moved, question)| {
            let goes = goes(moved);
            if goes {
                moved.verdict = question.unanswered();
                out(Change::Moved(*moved));
            }
            !goes
        });
    }
}
