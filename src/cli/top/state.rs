//! What `top` shows, as values: changed by news from the daemon and by keys, drawn by `draw`.
//!
//! Promises: pure: no clock, no terminal, no socket. Every list in it has a bound.

use super::logs::LogView;
use super::model::{Row, Trend};
use crate::bridge::logline::LogLine;
use crate::resources::GpuReport;
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

/// Events kept for the pane.
pub const EVENTS: usize = 1000;

/// The connection to the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Not yet.
    #[default]
    Connecting,
    /// It answers.
    Up,
    /// It is gone, or was never there; tried again by itself.
    Lost(String),
}

/// News from the daemon.
#[derive(Debug)]
pub enum News {
    /// It answers.
    Up,
    /// It does not.
    Lost(String),
    /// All modules, seen at this monotonic time, ms.
    List(Vec<Row>, i64),
    /// The page of a module.
    Details(String, Vec<String>),
    /// Lines of a module's log; `true`: the first ones of a view.
    Log(LogWant, bool, Vec<LogLine>),
    /// Events as lines, oldest first; `true`: all that were known are void.
    Events(bool, Vec<EventLine>),
    /// The GPUs.
    Gpus(Box<GpuReport>),
    /// What became of a request; `true`: it failed.
    Said(String, bool),
}

/// An event, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLine {
    /// Whose.
    pub name: String,
    /// The whole line.
    pub text: String,
}

/// What to do to a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `module.start`
    Start,
    /// `module.stop`
    Stop,
    /// `module.restart`
    Restart,
    /// `module.kill`
    Kill,
}

impl Verb {
    /// As people say it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Verb::Start => "start",
            Verb::Stop => "stop",
            Verb::Restart => "restart",
            Verb::Kill => "kill",
        }
    }

    /// The bridge's method.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Verb::Start => "module.start",
            Verb::Stop => "module.stop",
            Verb::Restart => "module.restart",
            Verb::Kill => "module.kill",
        }
    }
}

/// What the daemon is asked for besides the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Whose page.
    pub details: Option<String>,
    /// Whose log.
    pub log: Option<LogWant>,
    /// The GPUs?
    pub gpus: bool,
}

/// Which part of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogWant {
    /// Whose.
    pub name: String,
    /// Only of this stream.
    pub stream: Option<&'static str>,
    /// Of the run before the newest.
    pub previous: bool,
}

/// A part of the screen below the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pane {
    /// A module's page.
    Details,
    /// A module's output.
    Logs,
    /// What happened.
    Events,
    /// Who is on which GPU.
    Gpus,
}

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Name.
    #[default]
    Name,
    /// State, the worst first.
    State,
    /// CPU, the most first.
    Cpu,
    /// Memory, the most first.
    Memory,
    /// GPU memory, the most first.
    Gpu,
    /// Restarts, the most first.
    Restarts,
}

impl Sort {
    /// All, in the order in which keys go through them.
    pub const ALL: [Sort; 6] = [
        Sort::Name,
        Sort::State,
        Sort::Cpu,
        Sort::Memory,
        Sort::Gpu,
        Sort::Restarts,
    ];
}

/// What is being typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Typing {
    /// Nothing.
    #[default]
    No,
    /// The filter of the table.
    Filter,
    /// What is searched in the log.
    Search,
}

/// Everything that is shown.
#[derive(Debug, Default)]
pub struct State {
    /// The connection.
    pub link: Link,
    /// All modules, in name order.
    pub rows: Vec<Row>,
    /// Their last minutes.
    pub trends: BTreeMap<String, Trend>,
    /// The sums of all modules.
    pub total: Trend,
    /// Indices of rows that pass the filter, sorted.
    pub order: Vec<usize>,
    /// The chosen module.
    pub selected: Option<String>,
    /// First line of the table that is seen; kept by `draw`.
    pub top: usize,
    /// Lines of the table, as last drawn.
    pub page: usize,
    /// Only modules with this in their name, state, health or reason.
    pub filter: String,
    /// The order.
    pub sort: Sort,
    /// The other way round.
    pub reverse: bool,
    /// The open pane.
    pub pane: Option<Pane>,
    /// Keys go to the pane.
    pub in_pane: bool,
    /// The pane has the whole screen.
    pub zoom: bool,
    /// Lines of the pane that are scrolled away at its top.
    pub scroll: usize,
    /// Lines of the pane, as last drawn.
    pub pane_page: usize,
    /// The page of a module.
    pub details: Option<(String, Vec<String>)>,
    /// A module's output.
    pub logs: LogView,
    /// What happened, oldest first.
    pub events: VecDeque<EventLine>,
    /// Only the chosen module's events.
    pub events_of_one: bool,
    /// The GPUs.
    pub gpus: Option<Box<GpuReport>>,
    /// What is being typed.
    pub typing: Typing,
    /// A question that waits for yes or no.
    pub asked: Option<(Verb, String)>,
    /// The page of keys is open.
    pub help: bool,
    /// What became of the last request; `true`: it failed.
    pub said: Option<(String, bool)>,
    /// Wall clock, ms: for ages and countdowns.
    pub now_ms: i64,
    /// The program is to end.
    pub over: bool,
}

impl State {
    /// Takes news.
    pub fn take(&mut self, news: News) {
        match news {
            News::Up => self.link = Link::Up,
            News::Lost(why) => self.link = Link::Lost(why),
            News::List(rows, at) => self.list(rows, at),
            News::Details(name, lines) => self.details = Some((name, lines)),
            News::Log(want, first, lines) => self.logs.take(&want, first, lines),
            News::Events(void, lines) => {
                if void {
                    self.events.clear();
                }
                self.events.extend(lines);
                let over = self.events.len().saturating_sub(EVENTS);
                self.events.drain(..over);
            }
            News::Gpus(report) => self.gpus = Some(report),
            News::Said(text, bad) => self.said = Some((text, bad)),
        }
    }

    fn list(&mut self, rows: Vec<Row>, at: i64) {
        self.link = Link::Up;
        self.trends
            .retain(|name, _| rows.binary_search_by(|r| r.name.cmp(name)).is_ok());
        for row in &rows {
            match self.trends.get_mut(&row.name) {
                Some(trend) => trend.take(row, at),
                None => {
                    let mut trend = Trend::default();
                    trend.take(row, at);
                    self.trends.insert(row.name.clone(), trend);
                }
            }
        }
        let sum = |of: fn(&Trend) -> u64| self.trends.values().map(of).sum();
        let (cpu, memory, gpu) = (
            sum(|t| t.cpu.now()),
            sum(|t| t.memory.now()),
            sum(|t| t.gpu.now()),
        );
        self.total.cpu.push(cpu);
        self.total.memory.push(memory);
        self.total.gpu.push(gpu);
        let before = self.cursor();
        self.rows = rows;
        self.arrange_near(before);
    }

    /// Filters and sorts anew; the chosen module stays chosen as long as it is there.
    pub fn arrange(&mut self) {
        self.arrange_near(self.cursor());
    }

    /// The same; where the chosen module is gone, what stands near this line is chosen.
    fn arrange_near(&mut self, before: usize) {
        let words = self.filter.to_lowercase();
        let mut order: Vec<usize> = (0..self.rows.len())
            .filter(|at| fits(&self.rows[*at], &words))
            .collect();
        let by = |a: &usize, b: &usize| {
            let (a, b) = (&self.rows[*a], &self.rows[*b]);
            self.compare(a, b).then_with(|| a.name.cmp(&b.name))
        };
        order.sort_by(by);
        if self.reverse {
            order.reverse();
        }
        self.order = order;
        if self.place().is_none() {
            self.choose(before.min(self.order.len().saturating_sub(1)));
        }
    }

    fn compare(&self, a: &Row, b: &Row) -> Ordering {
        let cpu = |row: &Row| self.trends.get(&row.name).map_or(0, |t| t.cpu.now());
        match self.sort {
            Sort::Name => Ordering::Equal,
            Sort::State => rank(a).cmp(&rank(b)),
            Sort::Cpu => cpu(b).cmp(&cpu(a)),
            Sort::Memory => {
                let of = |row: &Row| row.resources.memory.current;
                of(b).cmp(&of(a))
            }
            Sort::Gpu => b.gpu_memory().cmp(&a.gpu_memory()),
            Sort::Restarts => b.restarts.count.cmp(&a.restarts.count),
        }
    }

    fn place(&self) -> Option<usize> {
        let name = self.selected.as_ref()?;
        self.order
            .iter()
            .position(|at| self.rows[*at].name == *name)
    }

    /// The chosen line of the table.
    #[must_use]
    pub fn cursor(&self) -> usize {
        self.place().unwrap_or(self.top)
    }

    /// Chooses a line of the table.
    pub fn choose(&mut self, line: usize) {
        let name = self.order.get(line).map(|at| self.rows[*at].name.clone());
        if name != self.selected {
            self.selected = name;
            if self.pane == Some(Pane::Details) {
                self.scroll = 0;
            }
        }
    }

    /// The chosen module.
    #[must_use]
    pub fn chosen(&self) -> Option<&Row> {
        let name = self.selected.as_ref()?;
        let at = self.rows.binary_search_by(|r| r.name.cmp(name)).ok()?;
        Some(&self.rows[at])
    }

    /// What the daemon should be asked for.
    #[must_use]
    pub fn want(&self) -> Want {
        let name = self.selected.clone();
        Want {
            details: name.clone().filter(|_| self.pane == Some(Pane::Details)),
            log: name
                .filter(|_| self.pane == Some(Pane::Logs))
                .map(|name| LogWant {
                    name,
                    stream: self.logs.stream,
                    previous: self.logs.previous,
                }),
            gpus: self.pane == Some(Pane::Gpus),
        }
    }
}

fn fits(row: &Row, words: &str) -> bool {
    let reason = row.reason.as_ref().map_or("", |r| r.code.as_str());
    words.split_whitespace().all(|word| {
        row.name.contains(word)
            || row.state.starts_with(word)
            || row.condition().starts_with(word)
            || row.health.state.as_str().starts_with(word)
            || reason.contains(word)
    })
}

/// What needs a person first.
fn rank(row: &Row) -> u8 {
    let unhealthy = row.health.state.as_str() == "unhealthy";
    match row.state.as_str() {
        "failed" => 0,
        "backoff" => 1,
        _ if unhealthy => 2,
        "stopping" => 3,
        "starting" => 4,
        "running" => 5,
        _ => 6,
    }
}
