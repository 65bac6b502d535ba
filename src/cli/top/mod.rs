//! `lair top`: all modules on one screen, and what can be done to them.
//!
//! Owns: the terminal while it runs. Promises: a client of the bridge and no more; the terminal is given back whatever
//! happens; only what is seen is put into words. Never: is used by the runtime.

mod details;
mod draw;
mod feed;
mod keys;
mod logs;
mod model;
mod state;
pub(super) mod terminal;

use super::args::Global;
use super::error::CliError;
use super::exit::{self, Code};
use super::find;
use super::style::Style;
use super::time::now_ms;
use crossterm::event::{self, Event};
use draw::Theme;
use feed::{Feed, Order};
use state::{State, Want};
use std::io::{self, IsTerminal};
use std::sync::mpsc::TryRecvError;
use std::time::Duration;
use terminal::{Screen, Woken, monotonic_ms};

pub use terminal::give_back as give_terminal_back;

/// Ages and countdowns move this often, ms.
const TICK: i64 = 1000;
/// Time between two pictures at least, ms.
const FRAME: i64 = 40;

/// `lair top`
///
/// # Errors
/// There is no terminal.
pub fn top(global: &Global) -> Result<Code, CliError> {
    let dumb = std::env::var_os("TERM").is_none_or(|t| t.is_empty() || t == "dumb");
    if dumb || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let error = CliError::new(
            "usage",
            "`lair top` draws on a terminal, and there is none here",
        );
        return Err(error.with_help(
            "`lair ps` prints the modules once, `lair status -o json` for programs, `lair events -f` what happens",
        ));
    }
    let socket = find::socket(global)?;
    let colour = Style::choose(global.color, &io::stdout()).is_on();
    let theme = Theme::new(colour, speaks_utf8());
    // What was decided here holds: the library would look at NO_COLOR again.
    crossterm::style::force_color_output(colour);
    let failed = |e: io::Error| CliError::new("terminal", format!("the terminal failed: {e}"));
    let feed = Feed::start(socket).map_err(failed)?;
    let mut screen = Screen::take().map_err(failed)?;
    let ended = watch(&feed, &mut screen, &theme);
    drop(screen);
    ended.map_err(failed)?;
    Ok(exit::DONE)
}

fn watch(feed: &Feed, screen: &mut Screen, theme: &Theme) -> io::Result<()> {
    let (mut state, mut asked) = (State::default(), Want::default());
    loop {
        hear(feed, &mut state)?;
        while event::poll(Duration::ZERO)? {
            if let Event::Key(key) = event::read()?
                && let Some((verb, name)) = state.key(key)
            {
                feed.order(Order::Act(verb, name));
            }
        }
        if state.over {
            return Ok(());
        }
        let want = state.want();
        if want != asked {
            asked = want.clone();
            feed.order(Order::Want(want));
        }
        state.now_ms = now_ms();
        screen.draw(|frame| draw::draw(frame, &mut state, theme))?;
        let drawn = monotonic_ms();
        let mut woken = screen.wait(Some(&feed.bell), TICK)?;
        // A storm of news is drawn in pictures; a key is never kept waiting for longer than one.
        let rest = drawn + FRAME - monotonic_ms();
        if woken == Woken::Look && rest > 0 {
            woken = screen.wait(None, rest)?;
        }
        match woken {
            Woken::Look => {}
            Woken::Anew => screen.clear()?,
            Woken::End => return Ok(()),
        }
    }
}

fn hear(feed: &Feed, state: &mut State) -> io::Result<()> {
    loop {
        match feed.news.try_recv() {
            Ok(news) => state.take(news),
            Err(TryRecvError::Empty) => return Ok(()),
            Err(TryRecvError::Disconnected) => {
                return Err(io::Error::other("the thread that talks to lair has ended"));
            }
        }
    }
}

/// Do the locale's words say that more than ASCII can be shown?
pub(super) fn speaks_utf8() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    set.is_some_and(|v| {
        let v = v.to_ascii_lowercase();
        v.contains("utf-8") || v.contains("utf8")
    })
}

#[cfg(test)]
mod test;
