//! `tcptrace top -r -`: a recording that comes through a pipe, as it comes.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::listen::Front;
use crate::cli::{listen, log::say, signals::Signals, target::Target};
use tcptrace_model::Accounts;
use tcptrace_pipeline::{Analysis, Followed};
use tcptrace_source::recording::Recording;
use tcptrace_top::{Flow, Top};
use tcptrace_track::Tracker;

/// A writer closes a block about each second: when nothing has come for longer, that is said.
const SILENT: Duration = Duration::from_secs(3);

pub(super) async fn run(
    mut recording: Recording,
    signals: &mut Signals,
    mut top: Top,
) -> Result<ExitCode> {
    let (output, name) = Target::none().start()?;
    listen::announce_recording(recording.header());
    top.describe(recording.header());
    top.set_flow(Flow::Live);
    let mut analysis = Analysis::new(Tracker::default(), top);
    let mut front = Front::new()?;
    front.enter()?;
    let mut moved_at = None;
    let mut said = Vec::new();
    let mut ended = false;
    let accounts = tcptrace_pipeline::follow(
        &mut recording,
        &mut analysis,
        signals.any(),
        |Followed { recording, analysis, moved, accounts }| {
            let (top, tracker) = analysis.parts();
            // The writer may have the same terminal, and says on it what it begins and ends with.
            if (moved && moved_at.is_none()) || (accounts.is_some() && !ended) {
                top.redraw();
            }
            if moved {
                moved_at = Some(Instant::now());
            }
            ended = accounts.is_some();
            top.set_flow(flow(accounts, moved_at.get_or_insert_with(Instant::now).elapsed()));
            for remark in recording.take_remarks() {
                top.remark(&remark);
                said.push(remark);
            }
            front.turn(top, tracker) && !top.is_quitting()
        },
    )
    .await;
    front.leave();
    said.extend(recording.take_remarks());
    said.iter().for_each(|remark| say(remark));
    listen::summary(&accounts, analysis.tracker().counts(), listen::LOST_THEN);
    let ended = recording.take_failure().map_or(Ok(()), |failure| Err(failure.into()));
    listen::finish(analysis, output, &name, signals, ended).await
}

fn flow(accounts: Option<Accounts>, since: Duration) -> Flow {
    match accounts {
        Some(accounts) if accounts.gaps.partial => Flow::CutOff,
        Some(_) => Flow::Ended,
        None if since > SILENT => Flow::Silent(since.as_secs()),
        None => Flow::Live,
    }
}
