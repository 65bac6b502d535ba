//! What each key does. The keys are those of k9s, process-compose and htop where these agree.

use super::state::{Link, Pane, Sort, State, Typing, Verb};
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// The page of help: keys and what they do.
pub const HELP: &[(&str, &str)] = &[
    ("up down k j", "choose a module; in a pane: scroll"),
    ("PgUp PgDn", "a page up or down"),
    ("Home End g G", "first or last"),
    ("Enter d", "details: explanation, limits, probes, processes"),
    ("l", "logs of the module"),
    ("e", "events; again: of this module only"),
    ("u", "GPUs and every process on them"),
    ("Tab", "between table and pane"),
    ("z", "the pane over the whole screen"),
    ("Esc", "one step back"),
    ("s  F7", "start"),
    ("x  F9", "stop (asks)"),
    ("r  ^R", "restart (asks)"),
    ("K  ^K", "kill the whole tree (asks)"),
    ("/", "filter by name, state, health; in logs: search"),
    ("o O", "sort by the next column; the other way round"),
    ("f t p", "logs: follow, next stream, previous run"),
    ("n N", "logs: next hit up, down"),
    ("q  ^C  F10", "end"),
];

/// A request that a key makes.
pub type Act = Option<(Verb, String)>;

impl State {
    /// Does what the key means; the request that follows, if one does.
    pub fn key(&mut self, key: KeyEvent) -> Act {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            self.over = true;
            return None;
        }
        if self.asked.is_some() {
            return self.answer(key.code);
        }
        if self.typing != Typing::No {
            self.typed(key.code, control);
            return None;
        }
        if self.help {
            self.help = false;
            return None;
        }
        self.said = None;
        match (key.code, control) {
            (KeyCode::Char('r'), true) => self.ask(Verb::Restart),
            (KeyCode::Char('k'), true) => self.ask(Verb::Kill),
            (KeyCode::Char('f'), true) => self.go(KeyCode::PageDown),
            (KeyCode::Char('b'), true) => self.go(KeyCode::PageUp),
            (_, true) => {}
            (KeyCode::Char('s') | KeyCode::F(7), _) => return self.start(),
            (KeyCode::Char('x') | KeyCode::F(9), _) => self.ask(Verb::Stop),
            (KeyCode::Char('r'), _) => self.ask(Verb::Restart),
            (KeyCode::Char('K'), _) => self.ask(Verb::Kill),
            (code, _) if self.pane == Some(Pane::Logs) && self.log_key(code) => {}
            (code, _) => self.look(code),
        }
        None
    }

    fn look(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char('q') | KeyCode::F(10) => self.over = true,
            KeyCode::Char('?') | KeyCode::F(1) => self.help = true,
            KeyCode::Char('/') => self.typing = Typing::Filter,
            KeyCode::Enter | KeyCode::Char('d') => self.open(Pane::Details),
            KeyCode::Char('l') => self.open(Pane::Logs),
            KeyCode::Char('e') => self.open(Pane::Events),
            KeyCode::Char('u') => self.open(Pane::Gpus),
            KeyCode::Tab => self.in_pane = self.pane.is_some() && !self.in_pane,
            KeyCode::Char('z') if self.pane.is_some() => {
                self.zoom = !self.zoom;
                self.in_pane = self.zoom;
            }
            KeyCode::Esc => self.back(),
            KeyCode::Char('o') => {
                let at = Sort::ALL.iter().position(|s| *s == self.sort).unwrap_or(0);
                self.sort = Sort::ALL[(at + 1) % Sort::ALL.len()];
                self.arrange();
            }
            KeyCode::Char('O') => {
                self.reverse = !self.reverse;
                self.arrange();
            }
            KeyCode::Char('j') => self.go(KeyCode::Down),
            KeyCode::Char('k') => self.go(KeyCode::Up),
            KeyCode::Char('g') => self.go(KeyCode::Home),
            KeyCode::Char('G') => self.go(KeyCode::End),
            code => self.go(code),
        }
    }

    /// Opens a pane; the same key again closes it, events first narrow to one module.
    fn open(&mut self, pane: Pane) {
        self.scroll = 0;
        if self.pane != Some(pane) {
            self.pane = Some(pane);
            self.events_of_one = false;
        } else if pane == Pane::Events && !self.events_of_one {
            self.events_of_one = true;
        } else {
            self.close();
        }
    }

    fn close(&mut self) {
        self.pane = None;
        self.in_pane = false;
        self.zoom = false;
        self.scroll = 0;
    }

    fn back(&mut self) {
        if self.pane == Some(Pane::Logs) && !self.logs.search.is_empty() {
            self.logs.search.clear();
        } else if self.zoom {
            self.zoom = false;
            self.in_pane = false;
        } else if self.pane.is_some() {
            self.close();
        } else if !self.filter.is_empty() {
            self.filter.clear();
            self.arrange();
        }
    }

    fn go(&mut self, code: KeyCode) {
        if self.in_pane {
            return self.go_in_pane(code);
        }
        let last = self.order.len().saturating_sub(1);
        let (at, page) = (self.cursor(), self.page.max(1));
        let to = match code {
            KeyCode::Up => at.saturating_sub(1),
            KeyCode::Down => at + 1,
            KeyCode::PageUp => at.saturating_sub(page),
            KeyCode::PageDown => at + page,
            KeyCode::Home => 0,
            KeyCode::End => last,
            _ => return,
        };
        self.choose(to.min(last));
    }

    fn go_in_pane(&mut self, code: KeyCode) {
        let page = self.pane_page.max(1);
        let step = isize::try_from(page).unwrap_or(isize::MAX);
        let by = match code {
            KeyCode::Up => -1,
            KeyCode::Down => 1,
            KeyCode::PageUp => -step,
            KeyCode::PageDown => step,
            KeyCode::Home => isize::MIN / 2,
            KeyCode::End => isize::MAX / 2,
            _ => return,
        };
        match self.pane {
            Some(Pane::Logs) => self.logs.scroll(by, page),
            // Events are read from their newest on: the way back is counted from the end.
            Some(Pane::Events) => self.scroll = self.scroll.saturating_add_signed(-by),
            _ => self.scroll = self.scroll.saturating_add_signed(by),
        }
    }

    /// Keys that mean something in the log alone; false: not one of them.
    fn log_key(&mut self, code: KeyCode) -> bool {
        let found = match code {
            KeyCode::Char('/') => {
                self.typing = Typing::Search;
                self.logs.search.clear();
                true
            }
            KeyCode::Char('f') => {
                self.logs.toggle_follow();
                true
            }
            KeyCode::Char('t') => {
                self.logs.next_stream();
                true
            }
            KeyCode::Char('p') => {
                self.logs.previous = !self.logs.previous;
                true
            }
            KeyCode::Char('n') if !self.logs.search.is_empty() => self.logs.find(true),
            KeyCode::Char('N') if !self.logs.search.is_empty() => self.logs.find(false),
            _ => return false,
        };
        if !found {
            self.said = Some((format!("no more {:?} there", self.logs.search), false));
        }
        true
    }

    fn typed(&mut self, code: KeyCode, control: bool) {
        let search = self.typing == Typing::Search;
        let text = if search {
            &mut self.logs.search
        } else {
            &mut self.filter
        };
        match code {
            KeyCode::Char('u') if control => text.clear(),
            KeyCode::Char(c) if !control && text.len() < 200 => text.push(c),
            KeyCode::Backspace => drop(text.pop()),
            KeyCode::Esc => {
                text.clear();
                self.typing = Typing::No;
            }
            KeyCode::Enter => {
                self.typing = Typing::No;
                if search && !self.logs.search.is_empty() && !self.logs.find_newest() {
                    self.said = Some((format!("{:?} is not there", self.logs.search), false));
                }
            }
            _ => {}
        }
        if !search {
            self.arrange();
        }
    }

    fn start(&mut self) -> Act {
        let name = self.subject()?;
        Some((Verb::Start, name))
    }

    /// The chosen module, if a daemon is there to do something to it.
    fn subject(&mut self) -> Option<String> {
        if self.link != Link::Up {
            self.said = Some(("lair does not answer: nothing was asked".to_owned(), true));
            return None;
        }
        self.chosen().map(|row| row.name.clone())
    }

    fn ask(&mut self, verb: Verb) {
        self.asked = self.subject().map(|name| (verb, name));
    }

    fn answer(&mut self, code: KeyCode) -> Act {
        match code {
            KeyCode::Char('y' | 'Y') => self.asked.take(),
            KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => {
                self.asked = None;
                None
            }
            _ => None,
        }
    }
}
