//! `tcptrace top` of this host.

use std::{
    io,
    process::ExitCode,
    task::{Context, Waker},
};

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    cli::{
        header::header,
        listen::{self, Beside, Run, Snapshots},
        origin::Host,
        signals::Signals,
        target::Target,
    },
    terminal::{self, Screen},
};
use tcptrace_model::filter::Filter;
use tcptrace_pipeline::Analysis;
use tcptrace_probe::Probe;
use tcptrace_top::Top;
use tcptrace_track::Tracker;

pub(super) async fn run(host: Host, signals: &mut Signals, top: Top) -> Result<ExitCode> {
    let snapshots = Snapshots { every: Snapshots::OFTEN, owners: true };
    let run = Run { snapshots, duration: None };
    let mut front = Front::new()?;
    listen::listen(host, run, signals, Target::none(), top, &mut front, |_| {}).await
}

/// The screen, and the signals that stop and continue.
pub(super) struct Front {
    screen: Option<Screen>,
    stop: Signal,
    cont: Signal,
}

impl Front {
    pub(super) fn new() -> Result<Self> {
        let catch = |kind| signal(kind).context("cannot catch signals");
        Ok(Self {
            screen: None,
            stop: catch(SignalKind::from_raw(libc::SIGTSTP))?,
            cont: catch(SignalKind::from_raw(libc::SIGCONT))?,
        })
    }

    pub(super) fn enter(&mut self) -> Result<()> {
        self.screen = Some(Screen::enter().context("cannot take the terminal")?);
        Ok(())
    }

    pub(super) fn leave(&mut self) {
        self.screen = None;
    }

    /// Takes in what was typed, and draws a frame if there is something new. False: the terminal
    /// is gone.
    pub(super) fn turn(&mut self, top: &mut Top, tracker: &Tracker) -> bool {
        match self.try_turn(top, tracker) {
            Ok(()) => self.screen.as_ref().is_none_or(|screen| !screen.is_gone()),
            Err(_) => false,
        }
    }

    fn try_turn(&mut self, top: &mut Top, tracker: &Tracker) -> io::Result<()> {
        let Some(screen) = &mut self.screen else { return Ok(()) };
        if has_come(&mut self.stop) {
            screen.stop()?;
            // That it was continued is known.
            has_come(&mut self.cont);
        }
        if has_come(&mut self.cont) {
            screen.again()?;
        }
        for event in screen.events()? {
            top.event(&event);
        }
        if top.take_suspend() {
            terminal::suspend_group()?;
        }
        if top.take_redraw() {
            screen.blank()?;
        }
        top.resize(screen.size()?);
        if screen.is_ready() && (top.has_news(tracker) || screen.is_blank()) {
            screen.draw(|frame| top.draw(frame))?;
        }
        Ok(())
    }
}

/// Whether a signal has come since the last call.
fn has_come(signal: &mut Signal) -> bool {
    let mut nobody = Context::from_waker(Waker::noop());
    let mut came = false;
    while signal.poll_recv(&mut nobody).is_ready() {
        came = true;
    }
    came
}

impl Beside<Top> for Front {
    fn begin(&mut self, probe: &Probe, kept: &Filter, analysis: &mut Analysis<Top>) -> Result<()> {
        analysis.parts().0.describe(&header(probe, kept)?);
        self.enter()
    }

    fn drained(&mut self, analysis: &mut Analysis<Top>) {
        let (top, tracker) = analysis.parts();
        if !self.turn(top, tracker) {
            top.quit();
        }
    }

    fn remark(&mut self, text: &str, analysis: &mut Analysis<Top>) {
        analysis.parts().0.remark(text);
    }

    fn end(&mut self) {
        self.leave();
    }
}
