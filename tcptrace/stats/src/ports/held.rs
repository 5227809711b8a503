//! For how long a TIME_WAIT keeps its port from connect(). Must not know whose it is, nor to whom.

/// `TCP_TIMEWAIT_LEN`, seconds.
const TIMEWAIT_LEN_S: f64 = 60.0;

/// The TIME_WAITs that keep their ports from connect().
pub(super) struct Held {
    /// In how many seconds each gives its port back, in order.
    pub(super) due_s: Vec<f64>,
    /// How long one that begins now will keep it, seconds.
    pub(super) next_s: f64,
}

/// Which of these TIME_WAITs connect() may not take, where `tcp_tw_reuse` lets it take one that is
/// `after_ns` old: only where the peer has sent timestamps (`tcp_twsk_unique()`). With `hoping` those
/// of which that is not known have.
pub(super) fn held(
    time_waits: &[(u64, Option<bool>)],
    now_ns: u64,
    hz: u32,
    after_ns: Option<u64>,
    hoping: bool,
) -> Held {
    let whole_s = TIMEWAIT_LEN_S + late_s(hz);
    // Of an age that is not known better: since then at the latest.
    let mut due_s: Vec<f64> = Vec::with_capacity(time_waits.len());
    for &(since_ns, timestamps) in time_waits {
        let age_s = now_ns.saturating_sub(since_ns) as f64 / 1e9;
        match after_ns.filter(|_| timestamps.unwrap_or(hoping)) {
            Some(after_ns) => {
                let left_s = after_ns as f64 / 1e9 - age_s;
                due_s.extend((left_s > 0.0).then_some(left_s));
            }
            None => due_s.push(whole_s - age_s),
        }
    }
    due_s.sort_by(f64::total_cmp);
    // The peer is the same one for all: as those before, so the next.
    let may_take = time_waits.iter().all(|(_, timestamps)| timestamps.unwrap_or(hoping));
    let next_s = after_ns.filter(|_| may_take).map_or(whole_s, |ns| ns as f64 / 1e9);
    Held { due_s, next_s }
}

/// How much later than its 60 s a TIME_WAIT ends on average, in seconds: half of a slot of the
/// timer wheel, which are 8 times as wide each 63 slots (`LVL_START()`, `calc_index()`).
pub(super) fn late_s(hz: u32) -> f64 {
    if hz == 0 {
        return 0.0;
    }
    let mut slot = 1.0;
    while TIMEWAIT_LEN_S * f64::from(hz) >= 63.0 * slot {
        slot *= 8.0;
    }
    slot / 2.0 / f64::from(hz)
}
