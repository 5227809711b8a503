//! The terminal as a screen: raw mode, the alternate screen and the mouse, and all of it undone
//! whichever way one leaves: at the end, by a panic, to be stopped for a while.
//!
//! Frames are written by a thread, so that a terminal that does not take them stalls nobody: there
//! is no new frame before the last one is on its way. Must not know what is drawn.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, IsTerminal as _, Write},
    os::fd::{AsFd as _, OwnedFd},
    panic,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, raise, sigaction},
    unistd::Pid,
};
use ratatui::{
    Frame, Terminal, TerminalOptions, Viewport,
    backend::CrosstermBackend,
    crossterm::{
        cursor::{Hide, Show},
        event::{self, DisableMouseCapture, EnableMouseCapture, Event},
        execute, queue,
        style::ResetColor,
        terminal::{
            Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
            enable_raw_mode, size,
        },
    },
    layout::Rect,
};
use tokio::sync::mpsc::error::TrySendError;

use tcptrace_pipeline::output::Output;

/// The least time between two frames: ten a second.
const BETWEEN_FRAMES: Duration = Duration::from_millis(100);

/// How long a frame that is being written is waited for, on the way out.
const LAST_FRAME: Duration = Duration::from_millis(500);

/// Events that are taken at a time.
const EVENTS: usize = 256;

/// Whether there is somebody to look at a screen, and to type.
pub fn is_there() -> bool {
    io::stdout().is_terminal() && keyboard().is_ok()
}

/// What keys are read from: stdin, or the terminal that controls this process where stdin is something
/// else, such as a recording. crossterm chooses by the same rule.
fn keyboard() -> io::Result<OwnedFd> {
    let stdin = io::stdin();
    match stdin.is_terminal() {
        true => stdin.as_fd().try_clone_to_owned(),
        false => Ok(File::options().read(true).write(true).open("/dev/tty")?.into()),
    }
}

/// Whether the terminal is ours. Who writes to it holds the lock.
#[derive(Clone, Default)]
struct Gate {
    writing: Arc<Mutex<()>>,
    ours: Arc<AtomicBool>,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes it ours.
    fn enter(&self) -> io::Result<()> {
        let _writing = self.lock();
        enable_raw_mode()?;
        self.ours.store(true, Ordering::SeqCst);
        execute!(
            io::stdout(),
            EnterAlternateScreen,
            EnableMouseCapture,
            Hide,
            Clear(ClearType::All)
        )
    }

    /// Gives it back as it was. Nothing is written to it after that, not even what is on its way.
    fn leave(&self) {
        if !self.ours.swap(false, Ordering::SeqCst) {
            return;
        }
        // A terminal that takes nothing any more must not keep anybody from leaving.
        let deadline = Instant::now() + LAST_FRAME;
        let _writing = loop {
            match self.writing.try_lock() {
                Ok(guard) => break Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => break Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => break None,
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(5)),
            }
        };
        // There is nobody to tell of an error: what can be undone is.
        let _ = disable_raw_mode();
        if _writing.is_some() {
            let _ =
                execute!(io::stdout(), DisableMouseCapture, ResetColor, Show, LeaveAlternateScreen);
        }
    }
}

/// Where the writer thread writes to: stdout, as long as the terminal is ours.
struct Gated(Gate);

impl Write for Gated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _writing = self.0.lock();
        if !self.0.ours.load(Ordering::SeqCst) {
            return Ok(bytes.len());
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a frame changes, as bytes.
#[derive(Clone, Default)]
struct Bytes(Rc<RefCell<Vec<u8>>>);

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The screen. Given back when it is dropped, and in a panic of any thread before its message.
pub struct Screen {
    gate: Gate,
    keyboard: OwnedFd,
    output: Option<Output>,
    bytes: Bytes,
    terminal: Terminal<CrosstermBackend<Bytes>>,
    size: (u16, u16),
    /// What the writer has not taken yet.
    pending: BytesMut,
    drawn: Option<Instant>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It cannot be put into raw mode, or not be written to.
    pub fn enter() -> io::Result<Self> {
        let gate = Gate::default();
        let keyboard = keyboard()?;
        let output = Output::new(Gated(gate.clone()))?;
        let bytes = Bytes::default();
        let size = size()?;
        let terminal = blank(&bytes, size)?;
        let before = panic::take_hook();
        let in_panic = gate.clone();
        panic::set_hook(Box::new(move |about| {
            in_panic.leave();
            before(about);
        }));
        gate.enter()?;
        let output = Some(output);
        Ok(Self {
            gate,
            keyboard,
            output,
            bytes,
            terminal,
            size,
            pending: BytesMut::new(),
            drawn: None,
        })
    }

    /// Columns and lines, as they are now.
    ///
    /// # Errors
    /// The terminal does not say.
    pub fn size(&mut self) -> io::Result<(u16, u16)> {
        let now = size()?;
        if now != self.size {
            self.size = now;
            self.blank()?;
        }
        Ok(now)
    }

    /// Has all of it drawn anew.
    ///
    /// # Errors
    /// None that a terminal has: it is written later.
    pub fn blank(&mut self) -> io::Result<()> {
        self.terminal = blank(&self.bytes, self.size)?;
        queue!(self.bytes, ResetColor, Clear(ClearType::All))?;
        self.drawn = None;
        Ok(())
    }

    /// Whether a frame can be drawn: the last one has been taken, a while ago.
    pub fn is_ready(&mut self) -> bool {
        self.send();
        self.pending.is_empty() && self.drawn.is_none_or(|at| at.elapsed() >= BETWEEN_FRAMES)
    }

    /// Whether nothing was drawn since it was ours, or since it was blanked.
    pub fn is_blank(&self) -> bool {
        self.drawn.is_none()
    }

    /// Draws a frame, and has written what it changes.
    ///
    /// # Errors
    /// None that a terminal has: it is written later.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw)?;
        self.drawn = Some(Instant::now());
        self.pending.extend_from_slice(&std::mem::take(&mut *self.bytes.0.borrow_mut()));
        self.send();
        Ok(())
    }

    fn send(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let Some(output) = &self.output else { return };
        if let Err(TrySendError::Full(back)) = output.try_send(self.pending.split()) {
            self.pending = back;
        }
    }

    /// Whether nothing can be written any more.
    pub fn is_gone(&self) -> bool {
        self.output.as_ref().is_none_or(Output::is_closed)
    }

    /// What was typed, and what the mouse did, since the last call; some at a time.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn events(&mut self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        while events.len() < EVENTS {
            // crossterm reads from a terminal that has hung up for ever, and never returns.
            if self.has_hung_up()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !event::poll(Duration::ZERO)? {
                break;
            }
            events.push(event::read()?);
        }
        Ok(events)
    }

    /// Whether nobody will type any more: the window was closed, the connection broke.
    fn has_hung_up(&self) -> io::Result<bool> {
        let mut asked = [PollFd::new(self.keyboard.as_fd(), PollFlags::POLLIN)];
        poll(&mut asked, PollTimeout::ZERO)?;
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        Ok(asked[0].revents().is_some_and(|reported| reported.intersects(gone)))
    }

    /// Gives the terminal back, stops as a SIGTSTP does, and takes the terminal again when it is
    /// continued. Where nobody could continue it (an orphaned process group), it is not stopped.
    ///
    /// # Errors
    /// The terminal cannot be taken again.
    pub fn stop(&mut self) -> io::Result<()> {
        self.gate.leave();
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: no handler is installed, only the default action; the one before comes back below.
        let before = unsafe { sigaction(Signal::SIGTSTP, &default) };
        // Returns when it is continued.
        let stopped = raise(Signal::SIGTSTP);
        if let Ok(before) = before {
            // SAFETY: what was installed before this call, which is as good as it was then.
            let _ = unsafe { sigaction(Signal::SIGTSTP, &before) };
        }
        stopped?;
        self.again()
    }

    /// Takes the terminal again, whatever somebody else made of it meanwhile.
    ///
    /// # Errors
    /// It cannot be taken.
    pub fn again(&mut self) -> io::Result<()> {
        self.gate.leave();
        self.gate.enter()?;
        self.size = size()?;
        self.blank()
    }

    /// Gives the terminal back.
    pub fn leave(&mut self) {
        self.gate.leave();
        self.output = None;
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Has this process and those that it was started with (`sudo`, a pipeline) stopped, as Ctrl-Z does.
///
/// # Errors
/// What the kernel answered.
pub fn suspend_group() -> io::Result<()> {
    // 0 is our own process group.
    Ok(kill(Pid::from_raw(0), Signal::SIGTSTP)?)
}

/// A screen with nothing on it. Of a fixed size, since else ratatui would ask the terminal where the
/// cursor is, and wait for the answer.
fn blank(bytes: &Bytes, size: (u16, u16)) -> io::Result<Terminal<CrosstermBackend<Bytes>>> {
    let viewport = Viewport::Fixed(Rect::new(0, 0, size.0, size.1));
    Terminal::with_options(CrosstermBackend::new(bytes.clone()), TerminalOptions { viewport })
}
