//! When the kernel gives a connection up: its own rule, played forward from the last scan.
//!
//! `tcp_write_timeout()` asks `retransmits_timed_out()` at each timeout whether the time since the
//! first retransmission has reached a limit: `TCP_USER_TIMEOUT`, or what `tcp_model_timeout()` makes of
//! `tcp_retries2`, which for the default of 15 is 924.6 s. So a connection ends at the first timeout
//! after that limit. `tcp_probe_timer()` counts probes that were not answered. For orphans
//! `tcp_orphan_retries()` stands in the place of `tcp_retries2`.
//!
//! A timer runs late by what the timer wheel rounds up (`calc_wheel_index()`): half of that is
//! reckoned with. It is an estimate, and there is none where a number of it is not known. A socket's
//! own `TCP_USER_TIMEOUT` is in no scan. Only its last timeout shows it, which
//! `tcp_clamp_rto_to_user_timeout()` cuts short so that it ends when that time is over; before, the
//! estimate is wrong where one is set, and views say so.

use tcptrace_model::{SnapInfo, Sysctls, TcpState, Timer};

/// `TCP_RTO_MIN`: what `retransmits_timed_out()` reckons with, whatever the round trip is. Milliseconds.
const RTO_MIN_MS: u64 = 200;
/// `TCP_TIMEOUT_INIT`: the same for a SYN.
const SYN_RTO_MS: u64 = 1_000;
/// `TCP_RTO_MAX`, where there is no `tcp_rto_max_ms`.
const RTO_MAX_MS: u64 = 120_000;
/// `tcp_orphan_retries()` for 0, while the timeout is not at its limit yet.
const ORPHAN_RETRIES: u64 = 8;
/// `ilog2(TCP_RTO_MAX / TCP_RTO_MIN) + 1`: doublings of the time between probes
/// (`tcp_probe0_when()`).
const PROBE_DOUBLINGS: u32 = 10;
/// More timeouts than any setting allows.
const MOST: u32 = 1_000;

/// What decides when a connection is given up, of a network namespace. `None`: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    retries2: Option<u64>,
    orphan_retries: Option<u64>,
    syn_retries: Option<u64>,
    /// 0 where the kernel has none.
    syn_linear: u64,
    rto_max_ms: u64,
    /// Timer ticks a second; 0: not known.
    hz: u64,
}

impl Limits {
    /// By the sysctls of a namespace, on a host with `hz` timer ticks a second.
    pub fn new(sysctls: &Sysctls, hz: u32) -> Self {
        // A recording may say anything; the kernel takes no more than this (a u8).
        let known = |value: Option<&i64>| {
            value.and_then(|&value| u64::try_from(value).ok()).map(|value| value.min(255))
        };
        let rto_max_ms = sysctls.tcp_rto_max_ms.value().and_then(|&ms| u64::try_from(ms).ok());
        Self {
            retries2: known(sysctls.tcp_retries2.value()),
            orphan_retries: known(sysctls.tcp_orphan_retries.value()),
            syn_retries: known(sysctls.tcp_syn_retries.value()),
            syn_linear: known(sysctls.tcp_syn_linear_timeouts.value()).unwrap_or(0),
            rto_max_ms: rto_max_ms.unwrap_or(RTO_MAX_MS).clamp(SYN_RTO_MS, RTO_MAX_MS),
            hz: u64::from(hz),
        }
    }

    /// How late a timer of `ms` runs on average: half of the granularity of its level of the timer
    /// wheel, whose levels are 8 times as coarse each (`LVL_CLK_SHIFT`, `LVL_START()`).
    fn late_ms(&self, ms: u64) -> u64 {
        if self.hz == 0 {
            return 0;
        }
        let jiffies = ms.saturating_mul(self.hz) / 1000;
        let level = (1..9).take_while(|&level| jiffies >= 63 << (3 * (level - 1))).count();
        let coarse = 1_u64 << (3 * level);
        coarse * 1000 / self.hz / 2
    }

    /// `tcp_model_timeout()`.
    fn model_ms(&self, retries: u64, base_ms: u64) -> u64 {
        let linear = u64::from((self.rto_max_ms / base_ms).max(1).ilog2());
        let doubled = (2_u64 << retries.min(linear)) - 1;
        doubled * base_ms + retries.saturating_sub(linear).saturating_mul(self.rto_max_ms)
    }
}

/// Which limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// `tcp_retries2`.
    Retries2,
    /// `tcp_orphan_retries`: no process holds it.
    OrphanRetries,
    /// `tcp_syn_retries`.
    SynRetries,
    /// The socket's own `TCP_USER_TIMEOUT`.
    UserTimeout,
    /// None: the peer's host answers, and the kernel waits for as long as it does.
    Never,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Retries2, Self::OrphanRetries, Self::SynRetries, Self::UserTimeout, Self::Never];

    /// The word for outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retries2 => "tcp_retries2",
            Self::OrphanRetries => "tcp_orphan_retries",
            Self::SynRetries => "tcp_syn_retries",
            Self::UserTimeout => "TCP_USER_TIMEOUT",
            Self::Never => "never",
        }
    }
}

/// That the kernel gives a connection up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GiveUp {
    /// By which limit.
    pub by: Limit,
    /// In how many milliseconds from the scan on, about; `None` for never.
    pub in_ms: Option<u64>,
}

/// When the socket of `info` is given up, if that can be told. `held`: a process has it open.
pub fn give_up(info: &SnapInfo, held: bool, limits: &Limits) -> Option<GiveUp> {
    match info.timer {
        Timer::Retransmit if info.tcp.retransmits > 0 => retransmitted(info, held, limits),
        Timer::Retransmit | Timer::Probe if info.wait().is_some() => probed(info, held, limits),
        _ => None,
    }
}

/// `tcp_retransmit_timer()`.
fn retransmitted(info: &SnapInfo, held: bool, limits: &Limits) -> Option<GiveUp> {
    let tcp = &info.tcp;
    let syn = info.state == TcpState::SynSent;
    match cut(info) {
        Cut::No => {}
        Cut::ByUserTimeout => {
            let in_ms = Some(u64::from(info.expires_ms));
            return Some(GiveUp { by: Limit::UserTimeout, in_ms });
        }
        Cut::Unknown => return None,
    }
    let by = match (syn, held) {
        (true, _) => Limit::SynRetries,
        (false, true) => Limit::Retries2,
        (false, false) => Limit::OrphanRetries,
    };
    let mut rto_ms = u64::from(tcp.rto_us) / 1000;
    let mut elapsed_ms = since_first_ms(info, limits)? + u64::from(info.expires_ms);
    if syn {
        // tcp_connect() takes the time of the first SYN, not of the second.
        elapsed_ms += SYN_RTO_MS;
    }
    let mut in_ms = u64::from(info.expires_ms);
    for timeout in 0..MOST {
        let late_ms = limits.late_ms(rto_ms);
        (elapsed_ms, in_ms) = (elapsed_ms + late_ms, in_ms + late_ms);
        let over = match by {
            Limit::SynRetries => {
                let retries = limits.syn_retries?;
                let sent = u64::from(tcp.retransmits) + u64::from(timeout);
                sent >= retries + limits.syn_linear
                    || elapsed_ms >= limits.model_ms(retries, SYN_RTO_MS)
            }
            Limit::OrphanRetries => {
                let retries = match limits.orphan_retries? {
                    0 if rto_ms < limits.rto_max_ms => ORPHAN_RETRIES,
                    retries => retries,
                };
                elapsed_ms >= limits.model_ms(retries, RTO_MIN_MS)
            }
            _ => elapsed_ms >= limits.model_ms(limits.retries2?, RTO_MIN_MS),
        };
        if over {
            return Some(GiveUp { by, in_ms: Some(in_ms) });
        }
        let total = u64::from(tcp.retransmits) + u64::from(timeout);
        if !syn || total >= limits.syn_linear {
            rto_ms = (rto_ms * 2).min(limits.rto_max_ms);
        }
        (elapsed_ms, in_ms) = (elapsed_ms + rto_ms, in_ms + rto_ms);
    }
    None
}

/// Whether the timer that runs is shorter than the timeout.
enum Cut {
    /// No, as far as that shows.
    No,
    /// By `tcp_clamp_rto_to_user_timeout()`.
    ByUserTimeout,
    /// By that, or because the host itself could not send (`TCP_RESOURCE_PROBE_INTERVAL`).
    Unknown,
}

/// Of a segment with data that was sent again: since then no other can have been sent, for
/// `tcp_enter_loss()` leaves room for one. Of a SYN or a FIN alone it does not show when it was sent.
fn cut(info: &SnapInfo) -> Cut {
    /// `TCP_RESOURCE_PROBE_INTERVAL`, milliseconds.
    const RESOURCE_PROBE_MS: u64 = 500;
    /// What two counts of jiffies may differ by, at 100 of them a second.
    const SLACK_MS: u64 = 25;
    let (Some(sent_ms), 1..) = (info.tcp.last_data_sent_ms, info.expires_ms) else {
        return Cut::No;
    };
    let whole_ms = u64::from(sent_ms) + u64::from(info.expires_ms);
    if info.state == TcpState::SynSent || whole_ms + SLACK_MS >= u64::from(info.tcp.rto_us) / 1000 {
        return Cut::No;
    }
    match whole_ms.abs_diff(RESOURCE_PROBE_MS) {
        0..=SLACK_MS => Cut::Unknown,
        _ => Cut::ByUserTimeout,
    }
}

/// Since the first retransmission (`retrans_stamp`): as the kernel says, or what doubled timeouts come
/// to.
fn since_first_ms(info: &SnapInfo, limits: &Limits) -> Option<u64> {
    let tcp = &info.tcp;
    if let Some(ms) = tcp.retransmitting_ms {
        return Some(u64::from(ms));
    }
    let doubled = u32::from(tcp.retransmits.min(tcp.backoff));
    // Some were short, or one is at its limit, and with it maybe some before.
    let short = info.state != TcpState::SynSent && tcp.retransmits > tcp.backoff;
    if short || u64::from(tcp.rto_us) >= limits.rto_max_ms * 1000 {
        return None;
    }
    let first_us = u64::from(tcp.rto_us).checked_shr(doubled)?;
    // All timeouts but the first, the present one among them, which is not over.
    let all_us = info.unanswered_us() + u64::from(tcp.rto_us);
    let ms = (all_us - first_us.min(all_us)) / 1000;
    Some(ms.saturating_sub(u64::from(info.expires_ms)))
}

/// `tcp_probe_timer()`, and the same of a window that was taken back.
fn probed(info: &SnapInfo, held: bool, limits: &Limits) -> Option<GiveUp> {
    let tcp = &info.tcp;
    let answered = tcp.probes < 2;
    if held && answered {
        return Some(GiveUp { by: Limit::Never, in_ms: None });
    }
    if info.timer != Timer::Probe {
        return None;
    }
    let base_ms = (u64::from(tcp.rto_us) / 1000).max(RTO_MIN_MS);
    let retries2 = limits.retries2?;
    let (mut backoff, mut probes) = (u32::from(tcp.backoff), u64::from(tcp.probes));
    let mut in_ms = u64::from(info.expires_ms);
    for _ in 0..MOST {
        let interval_ms = (base_ms << backoff.min(PROBE_DOUBLINGS)).min(limits.rto_max_ms);
        in_ms += limits.late_ms(interval_ms);
        let most = if held {
            retries2
        } else {
            // inet_csk_rto_backoff() of the timeout itself, not of what probes have as their base.
            let rto_ms = u64::from(tcp.rto_us) / 1000;
            let alive = backoff < 32 && rto_ms << backoff < limits.rto_max_ms;
            let retries = match limits.orphan_retries? {
                0 if alive => ORPHAN_RETRIES,
                retries => retries,
            };
            if !alive && u64::from(backoff) >= retries {
                return Some(GiveUp { by: Limit::OrphanRetries, in_ms: Some(in_ms) });
            }
            retries
        };
        if probes >= most {
            let by = if held { Limit::Retries2 } else { Limit::OrphanRetries };
            return Some(GiveUp { by, in_ms: Some(in_ms) });
        }
        // A peer that answers goes on to.
        probes = if answered { 0 } else { probes + 1 };
        backoff += u32::from(u64::from(backoff) < retries2);
        in_ms += (base_ms << backoff.min(PROBE_DOUBLINGS)).min(limits.rto_max_ms);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::{Sysctl, TcpInfo, script::fresh_sysctls};

    fn limits(change: impl FnOnce(&mut Sysctls)) -> Limits {
        let mut sysctls = fresh_sysctls();
        change(&mut sysctls);
        Limits::new(&sysctls, 250)
    }

    fn info(timer: Timer, retransmits: u8, backoff: u8, rto_ms: u32, expires_ms: u32) -> SnapInfo {
        SnapInfo {
            cookie: 1,
            state: TcpState::Established,
            timer,
            expires_ms,
            unacked: 1000,
            mptcp: false,
            tcp: TcpInfo {
                retransmits,
                backoff,
                rto_us: rto_ms * 1000,
                last_data_sent_ms: Some(rto_ms.saturating_sub(expires_ms)),
                segs_out: 9,
                ..TcpInfo::default()
            },
        }
    }

    #[test]
    fn the_limit_is_that_of_the_kernels_model() {
        let fresh = limits(|_| {});
        // Documentation/networking/ip-sysctl.rst says the same: 15 is 924.6 s, and 8 over 100 s.
        for (retries, ms) in [(0, 200), (3, 3_000), (8, 102_200), (9, 204_600), (15, 924_600)] {
            assert_eq!(fresh.model_ms(retries, RTO_MIN_MS), ms, "{retries}");
        }
        assert_eq!(fresh.model_ms(6, SYN_RTO_MS), 127_000);
        let short = limits(|sysctls| sysctls.tcp_rto_max_ms = Sysctl::Is(1_000));
        assert_eq!(short.model_ms(15, RTO_MIN_MS), 1_400 + 13 * 1_000);
    }

    #[test]
    fn a_timer_is_late_by_half_of_what_its_level_of_the_wheel_rounds_up() {
        let fresh = limits(|_| {});
        let late = [(0, 2), (251, 2), (252, 16), (2_015, 16), (2_016, 128), (16_128, 1_024)];
        for (ms, late) in late {
            assert_eq!(fresh.late_ms(ms), late, "{ms}");
        }
        assert_eq!(Limits { hz: 0, ..fresh }.late_ms(120_000), 0);
        assert_eq!(Limits { hz: 1000, ..fresh }.late_ms(120_000), 2_048);
    }

    #[test]
    fn retransmissions_end_at_the_first_timeout_after_the_limit() {
        let three = limits(|sysctls| sysctls.tcp_retries2 = Sysctl::Is(3));
        // As `ss` showed it 3.0 s after it was sent, of a connection that ended after 6.0 to 7.6 s:
        // 2.856 s after the first retransmission there is a timeout, and 3.264 s later one more.
        let at_3 = info(Timer::Retransmit, 3, 3, 1_632, 292);
        let given = give_up(&at_3, true, &three).unwrap();
        assert_eq!(given, GiveUp { by: Limit::Retries2, in_ms: Some(292 + 16 + 3_264 + 128) });
        // One more is over the limit.
        let at_last = info(Timer::Retransmit, 4, 4, 3_264, 500);
        assert_eq!(give_up(&at_last, true, &three).unwrap().in_ms, Some(500 + 128));
        // By default: ten doubled timeouts and six of 120 s.
        let fresh = limits(|_| {});
        let first = info(Timer::Retransmit, 1, 1, 408, 408);
        let in_s = give_up(&first, true, &fresh).unwrap().in_ms.unwrap() / 1000;
        assert!((924..=940).contains(&in_s), "{in_s}");
    }

    #[test]
    fn a_timeout_that_is_cut_short_is_the_last_one_by_the_sockets_own_limit() {
        let fresh = limits(|_| {});
        let cut = |sent_ms, expires_ms| {
            let mut cut = info(Timer::Retransmit, 3, 3, 1_632, expires_ms);
            cut.tcp.last_data_sent_ms = Some(sent_ms);
            give_up(&cut, true, &fresh)
        };
        let by = |given: Option<GiveUp>| given.map(|given| given.by);
        assert_eq!(by(cut(1_000, 632)), Some(Limit::Retries2));
        assert_eq!(by(cut(1_000, 610)), Some(Limit::Retries2), "a few jiffies");
        let user = GiveUp { by: Limit::UserTimeout, in_ms: Some(168) };
        assert_eq!(cut(1_000, 168), Some(user));
        // A host that could not send tries again after as much.
        assert_eq!(cut(300, 200), None);
        // Overdue, and so without a time to go.
        assert_eq!(by(cut(1_000, 0)), Some(Limit::Retries2));
    }

    #[test]
    fn an_orphan_has_a_limit_of_its_own() {
        let fresh = limits(|_| {});
        let one = info(Timer::Retransmit, 3, 3, 1_632, 0);
        let given = give_up(&one, false, &fresh).unwrap();
        assert_eq!(given.by, Limit::OrphanRetries);
        // 102.2 s after the first retransmission: 2.9 s are over, and 104.4 s is a timeout.
        assert!((100_000..105_000).contains(&given.in_ms.unwrap()), "{given:?}");
        let two = limits(|sysctls| sysctls.tcp_orphan_retries = Sysctl::Is(2));
        assert_eq!(give_up(&one, false, &two).unwrap().in_ms, Some(16), "1.4 s are over");
    }

    #[test]
    fn a_syn_is_counted() {
        let syn = |retransmits, backoff, rto| SnapInfo {
            state: TcpState::SynSent,
            ..info(Timer::Retransmit, retransmits, backoff, rto, rto)
        };
        let fresh = limits(|_| {});
        // Five of 1 s, then 2, 4, 8, 16, 32 and 64 s: 131 s.
        let in_s = give_up(&syn(1, 0, 1_000), true, &fresh).unwrap().in_ms.unwrap() / 1000;
        assert!((129..=133).contains(&in_s), "{in_s}");
        let old = limits(|sysctls| sysctls.tcp_syn_linear_timeouts = Sysctl::Absent);
        let in_s = give_up(&syn(1, 1, 2_000), true, &old).unwrap().in_ms.unwrap() / 1000;
        assert!((126..=129).contains(&in_s), "{in_s}");
        let few = limits(|sysctls| {
            sysctls.tcp_syn_retries = Sysctl::Is(2);
            sysctls.tcp_syn_linear_timeouts = Sysctl::Is(0);
        });
        let given = give_up(&syn(2, 2, 4_000), true, &few).unwrap();
        assert_eq!(given, GiveUp { by: Limit::SynRetries, in_ms: Some(4_000 + 128) });
    }

    #[test]
    fn a_peer_that_answers_probes_is_waited_for_unless_nobody_holds_the_socket() {
        let fresh = limits(|_| {});
        let mut closed = info(Timer::Probe, 0, 5, 208, 1_000);
        assert_eq!(give_up(&closed, true, &fresh), Some(GiveUp { by: Limit::Never, in_ms: None }));
        // Until the time between probes is at its limit: 13.3 + 26.6 + 53.2 + 106.5 s.
        let orphan = give_up(&closed, false, &fresh).unwrap();
        assert_eq!(orphan.by, Limit::OrphanRetries);
        let in_s = orphan.in_ms.unwrap() / 1000;
        assert!((315..=330).contains(&in_s), "{in_s}");
        // Nobody answers any more: 15 probes, of which 2 were sent.
        closed.tcp.probes = 2;
        let given = give_up(&closed, true, &fresh).unwrap();
        assert_eq!(given.by, Limit::Retries2);
        let in_s = given.in_ms.unwrap() / 1000;
        assert!((199 + 9 * 120..=230 + 9 * 120).contains(&in_s), "{in_s}");
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let fresh = limits(|_| {});
        let one = info(Timer::Retransmit, 3, 3, 1_632, 292);
        assert_eq!(give_up(&one, true, &Limits::new(&Sysctls::default(), 250)), None);
        // Short timeouts, and those at their limit, say nothing of how long it has been.
        let short = info(Timer::Retransmit, 4, 3, 1_632, 292);
        let longest = info(Timer::Retransmit, 14, 14, 120_000, 292);
        for unknown in [short, longest] {
            assert_eq!(give_up(&unknown, true, &fresh), None);
            let mut known = unknown;
            known.tcp.retransmitting_ms = Some(800_000);
            let given = give_up(&known, true, &fresh).unwrap();
            assert_eq!(given.by, Limit::Retries2);
        }
        for idle in [info(Timer::None, 0, 0, 204, 0), info(Timer::KeepAlive, 0, 0, 204, 9)] {
            assert_eq!(give_up(&idle, true, &fresh), None);
        }
    }

    #[test]
    fn no_numbers_make_it_panic_or_run_for_long() {
        for value in [i64::MIN, -1, 0, 1, 255, i64::MAX] {
            let limits = limits(|sysctls| {
                sysctls.tcp_retries2 = Sysctl::Is(value);
                sysctls.tcp_orphan_retries = Sysctl::Is(value);
                sysctls.tcp_syn_retries = Sysctl::Is(value);
                sysctls.tcp_syn_linear_timeouts = Sysctl::Is(value);
                sysctls.tcp_rto_max_ms = Sysctl::Is(value);
            });
            for n in [0, 1, 31, 32, 63, 64, 255] {
                for timer in [Timer::Retransmit, Timer::Probe] {
                    for rto_ms in [0, 1, 4_000_000] {
                        let mut one = info(timer, n, n, rto_ms, u32::MAX);
                        one.tcp.probes = n;
                        for state in [TcpState::SynSent, TcpState::Established] {
                            one.state = state;
                            for held in [false, true] {
                                let _ = give_up(&one, held, &limits);
                            }
                        }
                    }
                }
            }
        }
    }
}
