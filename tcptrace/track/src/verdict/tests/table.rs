//! Every combination of evidence that the rules tell apart, those included that no kernel brings
//! about: no verdict without what it claims, and with less evidence the same verdict or none.
//!
//! What each verdict needs is written down here once more, apart from the rules: a rule that is
//! changed by mistake meets this table.

use std::collections::HashSet;

use super::super::{
    Ending,
    evidence::{Close, Resets, Sent},
    judgement::Judgement,
};
use tcptrace_model::{
    Age, AtClose, DropWhy, How, Initiator, Linger, Opened, RstReason, RstWhy, SockFacts, TcpState,
    Timeout, Totals, UnknownBecause, Verdict,
};

const STATES: [TcpState; 8] = [
    TcpState::SynSent,
    TcpState::SynRecv,
    TcpState::Established,
    TcpState::FinWait1,
    TcpState::FinWait2,
    TcpState::CloseWait,
    TcpState::Closing,
    TcpState::LastAck,
];

const ETIMEDOUT: u16 = 110;
const ECONNABORTED: u16 = 103;
const ECONNRESET: u16 = 104;
const EPIPE: u16 = 32;
const ECONNREFUSED: u16 = 111;
const EHOSTUNREACH: u16 = 113;
/// kTLS leaves it.
const EBADMSG: u16 = 74;

/// What came before a →CLOSE, and what the socket had at it.
#[derive(Clone, Copy, Debug)]
struct Case {
    old: TcpState,
    in_old: Age,
    opened: Option<Opened>,
    sock: Option<SockFacts>,
    totals: Option<Totals>,
    unbound: bool,
    minisocks_told: bool,
    resets_told: bool,
    resets_lost: bool,
    resets: Resets,
}

/// What came after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// A RST, with this reason.
    Rst(Option<RstReason>),
    Nothing,
    /// Nothing, but records were lost.
    Lost,
    NotAsked,
}

const AFTER: [After; 7] = [
    After::Rst(None),
    After::Rst(Some(RstReason::AbortOnMemory)),
    After::Rst(Some(RstReason::AbortOnLinger)),
    After::Rst(Some(RstReason::AbortOnClose)),
    After::Nothing,
    After::Lost,
    After::NotAsked,
];

const SOCK: SockFacts = SockFacts {
    cookie: None,
    netns: 1,
    cgroup: None,
    err: 0,
    shutdown: 0,
    dead: false,
    unaccepted: false,
    peer_fin: false,
    own_ports: false,
    linger: Linger::Off,
    mptcp: Some(false),
};

impl Case {
    fn new(old: TcpState, resets: Resets) -> Self {
        Self {
            old,
            in_old: Age::Exactly(1_000_000_000),
            opened: Some(Opened::Connect),
            sock: None,
            totals: None,
            unbound: false,
            minisocks_told: true,
            resets_told: true,
            resets_lost: false,
            resets,
        }
    }

    /// The verdicts, by what comes after.
    fn judged(&self) -> Vec<(Option<After>, Verdict)> {
        let mut ending = Ending::default();
        ending.set_resets(self.resets);
        let judgement = ending.closed(&Close {
            old: self.old,
            in_old: self.in_old,
            opened: self.opened,
            sock: self.sock.as_ref(),
            totals: self.totals.as_ref(),
            unbound: self.unbound,
            minisocks_told: self.minisocks_told,
            resets_told: self.resets_told,
            resets_lost: self.resets_lost,
        });
        match judgement {
            Judgement::Settled(verdict) => vec![(None, verdict)],
            Judgement::Open(question) => {
                let verdict = |after| match after {
                    After::Rst(reason) => question.answered(reason),
                    After::Nothing => question.unanswered(false),
                    After::Lost => question.unanswered(true),
                    After::NotAsked => question.not_asked(),
                };
                AFTER.map(|after| (Some(after), verdict(after))).to_vec()
            }
        }
    }

    fn sent(&self, reason: RstReason) -> bool {
        self.resets.sent == Some(Sent::For(reason))
    }

    fn at_close(&self) -> Option<AtClose> {
        self.totals.and_then(|totals| totals.at_close)
    }

    fn is_icmp(&self) -> bool {
        self.sock.is_some_and(|sock| sock.err == EHOSTUNREACH)
    }

    /// The kernel set the error as it gave up: ETIMEDOUT, or what an ICMP error had left.
    fn timed_out(&self) -> bool {
        let soft = self.at_close().map(|at_close| at_close.err_soft);
        self.sock
            .is_some_and(|sock| sock.err == ETIMEDOUT || sock.err != 0 && soft == Some(sock.err))
    }

    /// Nothing ended it from outside: no error, or one that is known to end nothing.
    fn no_error(&self) -> bool {
        let Some(sock) = self.sock else { return false };
        let ends = [ETIMEDOUT, ECONNABORTED].contains(&sock.err)
            || sock.err == ECONNRESET
            || sock.err == EPIPE && self.old == TcpState::CloseWait && self.resets.received;
        sock.err == 0 || !ends && self.at_close().is_some_and(|it| it.err_soft != sock.err)
    }

    /// Held by a program (or by MPTCP), which ended it.
    fn by_program(&self) -> bool {
        self.no_error()
            && self.totals.is_some()
            && self.sock.is_some_and(|sock| !sock.dead)
            && !self.at_close().is_some_and(|it| it.repair)
    }

    fn has_unread(&self) -> bool {
        let (Some(sock), Some(totals)) = (self.sock, self.totals) else { return false };
        totals.unread > u32::from(sock.peer_fin)
    }

    fn unacked(&self) -> Option<u32> {
        self.totals.map(|totals| totals.unacked)
    }

    fn is_shut(&self) -> bool {
        self.sock.is_some_and(|sock| sock.shutdown == 3)
    }

    /// Whether the evidence has all that `how` claims.
    fn carries(&self, how: How, after: Option<After>) -> bool {
        use TcpState::*;
        let rst_after = matches!(after, Some(After::Rst(_)));
        let rst_for = |reason| after == Some(After::Rst(Some(reason)));
        let sock = self.sock.unwrap_or(SOCK);
        let classic = self.sock.is_none();
        let late = matches!(self.old, LastAck | Closing);
        match how {
            How::Fin if classic => {
                late && self.in_old == Age::Exactly(199_000_000)
                    && self.resets == Resets::default()
                    && self.resets_told
                    && !self.resets_lost
            }
            How::Fin => {
                self.no_error()
                    && (late && self.unacked() == Some(0) || self.old == FinWait2 && sock.peer_fin)
            }
            How::RstLinger0 => {
                self.by_program()
                    && self.is_shut()
                    && sock.linger == Linger::Jiffies(0)
                    && sock.mptcp != Some(true)
                    && (!late || self.at_close().is_some_and(|it| it.unsent > 0))
            }
            How::RstUnreadData => {
                rst_for(RstReason::AbortOnClose)
                    || self.by_program() && self.is_shut() && self.has_unread()
            }
            How::RstReceived if classic => self.resets.received,
            How::RstReceived => match sock.err {
                ECONNRESET => !matches!(self.old, SynSent | CloseWait) && !rst_after,
                EPIPE => self.old == CloseWait && self.resets.received,
                _ => false,
            },
            How::RstSent(RstWhy::DataAfterClose) => {
                rst_after
                    && matches!(self.old, FinWait1 | FinWait2)
                    && (classic || sock.shutdown & 1 != 0 || sock.dead)
            }
            How::RstSent(RstWhy::Disconnect) => {
                self.by_program()
                    && !sock.unaccepted
                    && (sock.err == 0 || rst_after)
                    && (!late || self.at_close().is_some_and(|it| it.unsent > 0))
            }
            How::RstSent(RstWhy::ListenerClosed) => {
                self.no_error()
                    && sock.unaccepted
                    && sock.mptcp == Some(false)
                    && !matches!(self.opened, Some(Opened::Connect | Opened::Listen))
            }
            How::RstSent(RstWhy::Linger2) => {
                rst_for(RstReason::AbortOnLinger)
                    || rst_after
                        && sock.dead
                        && self.totals.is_some_and(|totals| totals.linger2 < 0)
            }
            How::RstSent(RstWhy::Mptcp) => {
                sock.mptcp == Some(true) && (rst_after || self.resets.sent.is_some())
            }
            // Of a minisock, and of nothing.
            How::RstSent(RstWhy::DataForMinisock | RstWhy::Other) | How::NetnsExit => false,
            How::Refused => {
                self.old == SynSent
                    && if classic { self.resets.received } else { sock.err == ECONNREFUSED }
            }
            How::Unreachable => match self.old {
                SynSent => self.is_icmp() || self.timed_out(),
                SynRecv => {
                    (self.is_icmp() || sock.err == ECONNREFUSED)
                        && self.at_close().is_some_and(|it| it.err_soft != sock.err)
                }
                _ => false,
            },
            How::Timeout(Timeout::Syn) => self.old == SynSent && sock.err == ETIMEDOUT,
            How::Timeout(Timeout::SynAck) => self.old == SynRecv && self.timed_out(),
            How::Timeout(Timeout::Keepalive) if classic => self.sent(RstReason::KeepaliveTimeout),
            How::Timeout(Timeout::Keepalive) => {
                self.timed_out()
                    && !sock.dead
                    && (self.sent(RstReason::KeepaliveTimeout) || self.unacked() == Some(0))
            }
            How::Timeout(why @ (Timeout::Retransmit | Timeout::User)) => {
                let by_user = self.totals.is_some_and(|totals| totals.user_timeout_ms != 0);
                self.timed_out()
                    && !sock.dead
                    && self.unacked().is_some_and(|unacked| unacked > 0)
                    && !self.sent(RstReason::KeepaliveTimeout)
                    && by_user == (why == Timeout::User)
                    // A probed window is given up by either limit.
                    && (!by_user || self.at_close().zip(self.unacked()).is_some_and(|(it, n)| it.unsent < n))
            }
            How::OrphanGaveUp => {
                sock.dead
                    && match self.old {
                        FinWait1 | Closing | LastAck => self.timed_out(),
                        FinWait2 => self.resets.sent.is_some(),
                        _ => false,
                    }
            }
            How::OrphanLimit => {
                (classic || sock.dead || rst_for(RstReason::AbortOnMemory))
                    && (self.resets.sent.is_some() || rst_after)
            }
            How::SockDestroy => sock.err == ECONNABORTED,
            How::ConnectAbandoned => {
                let is_out = self.at_close().is_some_and(|it| {
                    it.has_sent && self.unacked().is_some_and(|unacked| unacked > it.unsent)
                });
                self.old == SynSent
                    && self.no_error()
                    && !self.unbound
                    && (self.is_shut() || is_out)
            }
            How::NoLocalPort => self.old == SynSent && self.unbound,
            How::Dropped(DropWhy::Repair) => self.at_close().is_some_and(|it| it.repair),
            How::Dropped(DropWhy::Disconnect) => {
                self.by_program() && late && self.at_close().is_some_and(|it| it.unsent == 0)
            }
            How::Unknown => true,
        }
    }

    /// Whether it is true that the evidence lacks this.
    fn lacks(&self, because: UnknownBecause, after: Option<After>) -> bool {
        match because {
            UnknownBecause::ClassicHook => self.sock.is_none(),
            UnknownBecause::NoResetHook => !self.resets_told,
            UnknownBecause::NoMinisockHook => {
                !self.minisocks_told && self.old == TcpState::FinWait2
            }
            UnknownBecause::MinisockEnd => false,
            UnknownBecause::EventsLost => self.resets_lost || after == Some(After::Lost),
            UnknownBecause::Overload => after == Some(After::NotAsked),
            UnknownBecause::FieldsMissing => {
                self.at_close().is_none() || self.sock.is_some_and(|sock| sock.mptcp.is_none())
            }
            UnknownBecause::ConnectFailed => self.old == TcpState::SynSent,
            UnknownBecause::PendingError => self.sock.is_some_and(|sock| sock.err != 0),
            UnknownBecause::NoRst => {
                after == Some(After::Nothing) && self.sock.is_some_and(|sock| sock.dead)
            }
            UnknownBecause::SeveralCauses | UnknownBecause::Contradiction => true,
        }
    }

    /// The same with less evidence.
    fn weakened(self) -> impl Iterator<Item = Self> {
        // Versions that did not read these fields knew nothing of repair mode, and took it for
        // granted that close() had emptied the queue.
        let is_usual = self.at_close().is_some_and(|it| !it.repair && it.queue_empty);
        let totals = self.totals.map(|totals| Totals { at_close: None, ..totals });
        let without_at_close = is_usual.then_some(Self { totals, ..self });
        // No kernel sends a RST of one that is through, so what that comes to says nothing here.
        let is_over = self.unacked() == Some(0) && self.resets.sent.is_some();
        let without_totals = (!is_over).then_some(Self { totals: None, ..self });
        [Self { resets_told: false, ..self }]
            .into_iter()
            .chain(without_totals)
            .chain(without_at_close)
    }
}

/// What was found, so that no walk is over nothing.
#[derive(Default)]
struct Found {
    hows: HashSet<How>,
    causes: HashSet<UnknownBecause>,
}

impl Found {
    /// Judges a case, and checks all that it comes to.
    fn take(&mut self, case: &Case) {
        let judged = case.judged();
        let is_open = judged.iter().any(|(after, _)| after.is_some());
        assert!(case.resets_told || !is_open, "a RST that nobody reports is waited for: {case:?}");
        for &(after, verdict) in &judged {
            let how = verdict.how.expect("a close has a verdict");
            assert!(case.carries(how, after), "{verdict:?} of {case:?}, then {after:?}");
            assert_eq!(how == How::Unknown, verdict.unknown_because.is_some(), "{case:?}");
            if let Some(because) = verdict.unknown_because {
                assert!(case.lacks(because, after), "{because:?} of {case:?}, then {after:?}");
                self.causes.insert(because);
            }
            let first = match case.old {
                TcpState::FinWait1 | TcpState::FinWait2 => Some(Initiator::Local),
                TcpState::CloseWait | TcpState::LastAck => Some(Initiator::Remote),
                TcpState::Closing => Some(Initiator::Both),
                _ => None,
            };
            assert!(first.is_none() || verdict.initiator == first, "{verdict:?} of {case:?}");
            self.hows.insert(how);
        }
        for weaker in case.weakened() {
            for (after, verdict) in weaker.judged() {
                let same = |&&(of, _): &&(Option<After>, Verdict)| {
                    of == after || of.is_none() || after.is_none()
                };
                let known = verdict.how != Some(How::Unknown);
                let fits = judged.iter().filter(same).any(|(_, of)| of.how == verdict.how);
                assert!(
                    !known || fits,
                    "with less evidence ({weaker:?}, then {after:?}) {verdict:?}, not {judged:?}"
                );
            }
        }
    }
}

fn resets() -> impl Iterator<Item = Resets> {
    let sent = [
        None,
        Some(Sent::ForNoReasonGiven),
        Some(Sent::For(RstReason::KeepaliveTimeout)),
        Some(Sent::For(RstReason::AbortOnMemory)),
        Some(Sent::For(RstReason::TcpState)),
    ];
    sent.into_iter().flat_map(|sent| [false, true].map(|received| Resets { received, sent }))
}

/// What is told of RSTs and minisocks in the run.
fn runs(case: Case) -> [Case; 4] {
    [
        case,
        Case { resets_told: false, ..case },
        Case { resets_lost: true, ..case },
        Case { minisocks_told: false, ..case },
    ]
}

/// Who holds the socket: a program, nobody any more, nobody yet.
fn holders(sock: SockFacts) -> [SockFacts; 3] {
    [sock, SockFacts { dead: true, ..sock }, SockFacts { unaccepted: true, ..sock }]
}

/// What [`Totals`] can say where there is no error.
fn totals_without_error() -> Vec<Option<Totals>> {
    let mut all = vec![None];
    for (unread, unacked) in [(0, 0), (1, 0), (5, 0), (0, 9), (1, 9), (5, 9)] {
        for linger2 in [0, -1] {
            let totals = Totals { unread, unacked, linger2, ..Totals::default() };
            all.push(Some(totals));
            for bits in 0..16 {
                let at_close = AtClose {
                    unsent: u32::from(bits & 1 != 0) * unacked,
                    err_soft: 0,
                    probes: 0,
                    repair: bits & 2 != 0,
                    has_sent: bits & 4 != 0,
                    queue_empty: bits & 8 != 0,
                };
                all.push(Some(Totals { at_close: Some(at_close), ..totals }));
            }
        }
    }
    all
}

fn walk_without_error(found: &mut Found) {
    let totals = totals_without_error();
    for old in STATES {
        for resets in resets() {
            for shutdown in [0, 2, 3] {
                for mptcp in [None, Some(false), Some(true)] {
                    for linger in [Linger::Off, Linger::Jiffies(0)] {
                        for peer_fin in [false, true] {
                            let sock = SockFacts { shutdown, mptcp, linger, peer_fin, ..SOCK };
                            for sock in holders(sock) {
                                for &totals in &totals {
                                    let case = Case {
                                        sock: Some(sock),
                                        totals,
                                        opened: Some(Opened::Accept),
                                        ..Case::new(old, resets)
                                    };
                                    found.take(&case);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What tells apart where most else does not: how it began, the run, whether it has a port.
fn walk_surroundings(found: &mut Found) {
    let totals = totals_without_error();
    for old in STATES {
        for resets in resets() {
            for sock in holders(SockFacts { shutdown: 3, ..SOCK }) {
                for &totals in &totals {
                    for opened in [None, Some(Opened::Connect), Some(Opened::Accept)] {
                        for unbound in [false, true] {
                            let case = Case {
                                sock: Some(sock),
                                totals,
                                opened,
                                unbound,
                                ..Case::new(old, resets)
                            };
                            for case in runs(case) {
                                found.take(&case);
                            }
                        }
                    }
                }
            }
        }
    }
}

fn walk_errors(found: &mut Found) {
    let errors = [ETIMEDOUT, ECONNABORTED, ECONNRESET, EPIPE, ECONNREFUSED, EHOSTUNREACH, EBADMSG];
    for (old, err) in STATES.into_iter().flat_map(|old| errors.map(|err| (old, err))) {
        let mut totals = vec![None];
        for (unacked, user_timeout_ms) in [(0, 0), (0, 500), (9, 0), (9, 500)] {
            let some = Totals { unacked, user_timeout_ms, ..Totals::default() };
            totals.push(Some(some));
            for err_soft in [0, err, 999] {
                // Data: elsewhere it is said what of a FIN is.
                let all = (err == ETIMEDOUT && user_timeout_ms != 0).then_some(unacked);
                for unsent in [0].into_iter().chain(all) {
                    let has_sent = true;
                    let at_close = AtClose { err_soft, has_sent, unsent, ..AtClose::default() };
                    totals.push(Some(Totals { at_close: Some(at_close), ..some }));
                }
            }
        }
        for resets in resets() {
            for shutdown in [0, 2, 3] {
                for linger in [Linger::Off, Linger::Jiffies(0)] {
                    for mptcp in [Some(false), Some(true)] {
                        let sock = SockFacts { err, shutdown, linger, mptcp, ..SOCK };
                        for sock in holders(sock) {
                            for &totals in &totals {
                                let case = Case {
                                    sock: Some(sock),
                                    totals,
                                    opened: Some(Opened::Accept),
                                    ..Case::new(old, resets)
                                };
                                for case in runs(case) {
                                    found.take(&case);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn walk_classic(found: &mut Found) {
    let ages = [
        Age::Unknown,
        Age::AtLeast(1),
        Age::Exactly(199_000_000),
        Age::Exactly(200_000_000),
        Age::About { ns: 199_000_000, within_ns: 4_000_000 },
    ];
    for old in STATES {
        for resets in resets() {
            for in_old in ages {
                for unbound in [false, true] {
                    for case in runs(Case { in_old, unbound, ..Case::new(old, resets) }) {
                        found.take(&case);
                    }
                }
            }
        }
    }
}

#[test]
fn no_verdict_without_its_evidence() {
    let mut found = Found::default();
    walk_without_error(&mut found);
    walk_surroundings(&mut found);
    walk_errors(&mut found);
    walk_classic(&mut found);
    let of_minisocks =
        [How::RstSent(RstWhy::DataForMinisock), How::RstSent(RstWhy::Other), How::NetnsExit];
    for how in How::ALL {
        let is_expected = !of_minisocks.contains(&how);
        assert_eq!(found.hows.contains(&how), is_expected, "{}", how.name());
    }
    for because in UnknownBecause::ALL {
        let is_expected = because != UnknownBecause::MinisockEnd;
        assert_eq!(found.causes.contains(&because), is_expected, "{}", because.name());
    }
}
