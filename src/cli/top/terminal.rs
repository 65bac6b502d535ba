//! The terminal, taken and given back, and what the program waits for.
//!
//! Promises: the terminal is as it was after every end: return, error, panic, TERM, HUP.

use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::backend::CrosstermBackend;
use ratatui::{Frame, Terminal};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::time::{ClockId, clock_gettime};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::low_level::pipe;
use std::io::{self, Read, Stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Gives the terminal back if it was taken; for the panic hook too.
pub fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // There is nobody left to tell.
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// Milliseconds of the monotonic clock: for intervals alone.
#[must_use]
pub fn monotonic_ms() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

fn wait_for(fds: &mut [PollFd<'_>], ms: i64) -> io::Result<()> {
    let ms = ms.max(0);
    let limit = Timespec {
        tv_sec: ms / 1000,
        tv_nsec: ms % 1000 * 1_000_000,
    };
    match poll(fds, Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Wakes another thread out of its waiting.
pub struct Bell(OwnedFd);

impl Bell {
    /// A silent one.
    ///
    /// # Errors
    /// There is no descriptor to be had.
    pub fn new() -> io::Result<Bell> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Bell(eventfd(0, flags)?))
    }

    /// Rings, once or more.
    pub fn ring(&self) {
        // Full is as good as rung.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    fn hush(&self) {
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }

    /// Waits for the bell, for `other`, or for so long; true if `other` can be read.
    pub fn wait(&self, other: Option<BorrowedFd<'_>>, ms: i64) -> bool {
        let mut fds = vec![PollFd::new(&self.0, PollFlags::IN)];
        if let Some(other) = other {
            fds.push(PollFd::from_borrowed_fd(other, PollFlags::IN));
        }
        if wait_for(&mut fds, ms).is_err() {
            return false;
        }
        let readable = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        self.hush();
        readable
    }
}

/// What the waiting ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Something is to be looked at, or the time is over.
    Look,
    /// The whole screen has to be drawn anew.
    Anew,
    /// The program is to end.
    End,
}

/// The terminal, while it is ours.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    end: UnixStream,
    anew: UnixStream,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It is none, or the system refuses.
    pub fn take() -> io::Result<Screen> {
        let end = signals(&[SIGTERM, SIGHUP, SIGINT, SIGQUIT])?;
        let anew = signals(&[SIGWINCH, SIGCONT])?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        let mut screen = Screen {
            terminal,
            end,
            anew,
        };
        TAKEN.store(true, Ordering::SeqCst);
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        screen.terminal.clear()?;
        Ok(screen)
    }

    /// Draws; only what changed goes out.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(|_| ())
    }

    /// Forgets what the terminal shows.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn clear(&mut self) -> io::Result<()> {
        // A stop (STOP, CONT) may have left it to somebody who set it otherwise.
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        self.terminal.clear()
    }

    /// Waits for keys, signals, the bell, or for so long.
    ///
    /// # Errors
    /// The system refuses.
    pub fn wait(&mut self, bell: Option<&Bell>, ms: i64) -> io::Result<Woken> {
        let stdin = io::stdin();
        let mut fds = vec![
            PollFd::new(&self.end, PollFlags::IN),
            PollFd::new(&self.anew, PollFlags::IN),
            PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN),
        ];
        if let Some(bell) = bell {
            fds.push(PollFd::new(&bell.0, PollFlags::IN));
        }
        wait_for(&mut fds, ms)?;
        let told = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let gone = |at: usize| {
            let bad = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
            fds.get(at).is_some_and(|fd| fd.revents().intersects(bad))
        };
        let (end, anew) = (told(0) || gone(2), told(1));
        if let Some(bell) = bell {
            bell.hush();
        }
        if end {
            return Ok(Woken::End);
        }
        if anew {
            let mut all = [0; 64];
            let _ = (&self.anew).read(&mut all);
            return Ok(Woken::Anew);
        }
        Ok(Woken::Look)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn signals(which: &[i32]) -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    for signal in which {
        pipe::register(*signal, write.try_clone()?)?;
    }
    Ok(read)
}
