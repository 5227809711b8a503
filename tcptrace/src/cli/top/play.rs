//! `tcptrace top -r FILE`: a recording, with a cursor of time.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::listen::Front;
use crate::cli::{
    args::{FilterArgs, ReadArgs},
    listen, origin,
    signals::Signals,
    target::Target,
};
use tcptrace_model::moment::Moment;
use tcptrace_pipeline::{Analysis, At, Turn};
use tcptrace_source::recording::{Extent, Recording, Stretch};
use tcptrace_top::{Order, Player, Top};
use tcptrace_track::Tracker;

/// While nothing moves, and while it plays: how often keys are looked for.
const TICK: Duration = Duration::from_millis(20);

/// Inputs that are taken in between two looks at the keys.
const MOST: usize = 20_000;

/// What is shown of before the moment that one goes back to, at the most: what the last minutes were
/// like.
const BEFORE_NS: u64 = 300_000_000_000;

pub(super) async fn run(
    mut recording: Recording,
    args: &ReadArgs,
    filter: &FilterArgs,
    signals: &mut Signals,
    mut top: Top,
) -> Result<ExitCode> {
    let (output, name) = Target::none().start()?;
    listen::announce_recording(recording.header());
    top.describe(recording.header());
    let extent = recording.extent()?;
    top.set_player(Player::new(extent.ends_ns().unwrap_or_default()));
    let mut analysis = Analysis::new(Tracker::default(), top);
    let mut front = Front::new()?;
    front.enter()?;
    let mut deck = Deck::new(args, filter, extent);
    let stop = signals.any();
    let played = tcptrace_pipeline::play(&mut recording, &mut analysis, stop, |at| {
        deck.turn(at, &mut front)
    });
    let accounts = played.await;
    front.leave();
    recording.take_remarks().iter().for_each(|remark| crate::cli::log::say(remark));
    let ended = accounts.map(|accounts| {
        if let Some(accounts) = accounts {
            listen::summary(&accounts, analysis.tracker().counts(), listen::LOST_THEN);
        }
    });
    let ended = match recording.take_failure() {
        Some(failure) => ended.and(Err(failure.into())),
        None => ended,
    };
    listen::finish(analysis, output, &name, signals, ended).await
}

/// What turns the wishes of the user into turns of the recording.
struct Deck<'a> {
    args: &'a ReadArgs,
    filter: &'a FilterArgs,
    extent: Extent,
    /// Since when it plays: then, and where it was then.
    since: Option<(Instant, u64)>,
    speed: f64,
    /// On its way to there.
    to_ns: Option<u64>,
}

impl<'a> Deck<'a> {
    fn new(args: &'a ReadArgs, filter: &'a FilterArgs, extent: Extent) -> Self {
        Self { args, filter, extent, since: None, speed: 1.0, to_ns: None }
    }

    fn turn(&mut self, at: At<'_, Top>, front: &mut Front) -> Result<Turn> {
        let (top, tracker) = at.analysis.parts();
        let (first_ns, last_ns) = self.extent.ends_ns().unwrap_or_default();
        let now_ns = at.at_ns.unwrap_or(first_ns);
        if let Some(player) = top.player() {
            player.reached(now_ns, at.next_ns.is_none());
        }
        at.recording.take_remarks().iter().for_each(|remark| top.remark(remark));
        if !front.turn(top, tracker) || top.is_quitting() {
            return Ok(Turn::Enough);
        }
        let Some(player) = top.player() else { return Ok(Turn::Enough) };
        if let Some(order) = player.take_order() {
            self.since = None;
            let to_ns = match order {
                Order::Step if at.next_ns.is_none() => return Ok(Turn::Wait(TICK)),
                Order::Step => return Ok(Turn::Step),
                Order::By(seconds) => {
                    let by = Duration::from_secs(seconds.unsigned_abs()).as_nanos() as u64;
                    if seconds < 0 { now_ns.saturating_sub(by) } else { now_ns.saturating_add(by) }
                }
                Order::To(moment) => self.extent.mono_ns(moment).unwrap_or(now_ns),
            };
            let to_ns = to_ns.clamp(first_ns, last_ns);
            self.to_ns = Some(to_ns);
            player.heads_for(self.to_ns);
            if to_ns < now_ns {
                let recording = self.reopen(to_ns.saturating_sub(BEFORE_NS).max(first_ns))?;
                top.rewind();
                return Ok(Turn::From(Box::new(recording)));
            }
        }
        if let Some(until_ns) = self.to_ns {
            if at.next_ns.is_some_and(|next_ns| next_ns <= until_ns) {
                return Ok(Turn::On { until_ns, most: MOST });
            }
            self.to_ns = None;
            player.heads_for(None);
        }
        if !player.is_playing() {
            self.since = None;
            return Ok(Turn::Wait(TICK));
        }
        if self.speed != player.speed() {
            (self.speed, self.since) = (player.speed(), None);
        }
        let (then, from_ns) = *self.since.get_or_insert((Instant::now(), now_ns));
        let passed = then.elapsed().as_nanos() as f64 * self.speed;
        let until_ns = from_ns.saturating_add(passed as u64);
        Ok(match at.next_ns {
            Some(next_ns) if next_ns <= until_ns => Turn::On { until_ns, most: MOST },
            _ => Turn::Wait(TICK),
        })
    }

    /// The same recording from a moment on.
    fn reopen(&self, since_ns: u64) -> Result<Recording> {
        let first_ns = self.extent.ends_ns().map_or(0, |(first, _)| first);
        let after = Duration::from_nanos(since_ns.saturating_sub(first_ns));
        let stretch = Stretch { since: Some(Moment::After(after)), until: self.args.until };
        let kept = origin::filter(self.filter, self.args)?;
        Ok(Recording::open(&self.args.read, kept, stretch)?)
    }
}
