//! The conversation with the daemon, on a thread of its own: a list each second, events as they come, and what the open
//! pane needs.
//!
//! Promises: a daemon that is lost is looked for again each second; nothing here holds the screen up. Never: asks for
//! what nobody looks at.

use super::details;
use super::model::Row;
use super::state::{EventLine, LogWant, News, Verb, Want};
use super::terminal::{Bell, monotonic_ms};
use crate::bridge::logline::{LogLine, LogPlace};
use crate::cli::style::Style;
use crate::cli::watch::event_line;
use crate::client::{CallError, Client, Pipeline};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::time::Duration;

/// Time between two looks, and between two tries to connect, ms.
const TICK: i64 = 1000;
/// A daemon that needs longer than this for an answer is called lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// Events asked for at first.
const PAST: u64 = 200;
/// Lines of a log asked for at first.
const LAST_LINES: u64 = 500;
/// News on their way to the screen. A module that floods its log waits here, and so in the daemon.
const QUEUE: usize = 8;
/// Notifications taken at once.
const BATCH: usize = 256;

/// What the screen asks for.
pub enum Order {
    /// From now on, this.
    Want(Want),
    /// Once.
    Act(Verb, String),
}

/// The screen's end.
pub struct Feed {
    /// What came.
    pub news: Receiver<News>,
    /// Rings when something came.
    pub bell: Arc<Bell>,
    orders: Sender<Order>,
    poke: Arc<Bell>,
}

impl Feed {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has none.
    pub fn start(socket: PathBuf) -> io::Result<Feed> {
        let (tell, news) = mpsc::sync_channel(QUEUE);
        let (orders, take) = mpsc::channel();
        let (bell, poke) = (Arc::new(Bell::new()?), Arc::new(Bell::new()?));
        let mut talk = Talk {
            socket,
            tell,
            bell: bell.clone(),
            orders: take,
            poke: poke.clone(),
            want: Want::default(),
            log: None,
            looks: 0,
        };
        std::thread::Builder::new()
            .name("lair-top-feed".into())
            .spawn(move || while talk.once().is_ok() {})?;
        Ok(Feed {
            news,
            bell,
            orders,
            poke,
        })
    }

    /// Asks for something.
    pub fn order(&self, order: Order) {
        // Where the thread has ended, its news end as well, and that is what the screen looks at.
        let _ = self.orders.send(order);
        self.poke.ring();
    }
}

/// The screen has gone.
struct Over;

/// Why a conversation ended.
enum End {
    Over,
    Lost(CallError),
}

impl From<Over> for End {
    fn from(_: Over) -> Self {
        End::Over
    }
}

impl From<CallError> for End {
    fn from(e: CallError) -> Self {
        End::Lost(e)
    }
}

/// The thread's end.
struct Talk {
    socket: PathBuf,
    tell: SyncSender<News>,
    bell: Arc<Bell>,
    orders: Receiver<Order>,
    poke: Arc<Bell>,
    want: Want,
    log: Option<Followed>,
    looks: u64,
}

/// The log that is followed.
struct Followed {
    want: LogWant,
    subscription: Option<String>,
}

#[derive(Deserialize)]
struct List {
    seq: u64,
    modules: Vec<Row>,
}

#[derive(Deserialize)]
struct Page {
    lines: Vec<LogLine>,
    next: Option<LogPlace>,
}

#[derive(Deserialize)]
struct Subscribed {
    subscription: String,
}

#[derive(Deserialize)]
struct Note {
    subscription: String,
    event: Option<Box<RawValue>>,
    line: Option<LogLine>,
}

impl Talk {
    fn say(&self, news: News) -> Result<(), Over> {
        let sent = self.tell.send(news).map_err(|_| Over);
        self.bell.ring();
        sent
    }

    /// One conversation, then a pause.
    fn once(&mut self) -> Result<(), Over> {
        let ended = match Client::connect(&self.socket) {
            Ok(client) => self.converse(client),
            Err(e) => Err(End::Lost(e)),
        };
        match ended {
            Ok(()) => {}
            Err(End::Over) => return Err(Over),
            Err(End::Lost(e)) => self.say(News::Lost(e.to_string()))?,
        }
        self.log = None;
        let again = monotonic_ms() + TICK;
        while monotonic_ms() < again {
            self.poke.wait(None, again - monotonic_ms());
            while let Ok(order) = self.orders.try_recv() {
                match order {
                    Order::Want(want) => self.want = want,
                    Order::Act(verb, name) => {
                        let text = format!("{} {name}: lair does not answer", verb.word());
                        self.say(News::Said(text, true))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn converse(&mut self, mut client: Client) -> Result<(), End> {
        client.set_timeout(Some(PATIENCE));
        let newest = self.look(&mut client)?;
        self.say(News::Up)?;
        self.say(News::Events(true, Vec::new()))?;
        let from = newest.saturating_sub(PAST) + 1;
        client.call("events.subscribe", &json!({ "from_seq": from }))?;
        let mut due = monotonic_ms() + TICK;
        loop {
            self.obey(&mut client)?;
            if monotonic_ms() >= due {
                self.look(&mut client)?;
                due = monotonic_ms() + TICK;
            }
            self.turn_to_log(&mut client)?;
            let here = client.has_more();
            if here || self.poke.wait(Some(client.as_fd()), due - monotonic_ms()) {
                self.notes(&mut client)?;
            }
        }
    }

    /// The list, and what the open pane needs; the number of the newest event.
    fn look(&mut self, client: &mut Client) -> Result<u64, End> {
        let text = client.call("module.list", &json!({}))?;
        let list: List =
            serde_json::from_str(&text).map_err(|e| CallError::Broken(e.to_string()))?;
        drop(text);
        self.say(News::List(list.modules, monotonic_ms()))?;
        self.looks += 1;
        self.look_closer(client)?;
        Ok(list.seq)
    }

    fn look_closer(&mut self, client: &mut Client) -> Result<(), End> {
        if let Some(name) = self.want.details.clone() {
            let lines = details::page(client, &name)?;
            self.say(News::Details(name, lines))?;
        }
        if self.want.gpus {
            match client.get("runtime.gpus", &json!({})) {
                Ok(report) => self.say(News::Gpus(Box::new(report)))?,
                Err(CallError::Refused(no)) if no.data.code != "timeout" => {
                    self.say(News::Said(no.message, true))?;
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn obey(&mut self, client: &mut Client) -> Result<(), End> {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Want(want) => {
                    let closer = want.details != self.want.details || want.gpus != self.want.gpus;
                    self.want = want;
                    if closer {
                        self.look_closer(client)?;
                    }
                }
                Order::Act(verb, name) => {
                    let said = match client.call(verb.method(), &json!({ "name": name })) {
                        Ok(text) => {
                            let value: Value = serde_json::from_str(&text).unwrap_or_default();
                            let result = value["result"].as_str().unwrap_or("done");
                            News::Said(format!("{} {name}: {result}", verb.word()), false)
                        }
                        Err(CallError::Refused(no)) => {
                            let text = format!(
                                "{} {name}: {} [{}]",
                                verb.word(),
                                no.message,
                                no.data.code
                            );
                            News::Said(text, true)
                        }
                        Err(e) => return Err(e.into()),
                    };
                    self.say(said)?;
                    self.look(client)?;
                }
            }
        }
        Ok(())
    }

    /// Follows the log that is wanted now, and no other.
    fn turn_to_log(&mut self, client: &mut Client) -> Result<(), End> {
        if self.log.as_ref().map(|l| &l.want) == self.want.log.as_ref() {
            return Ok(());
        }
        if let Some(old) = self.log.take().and_then(|log| log.subscription) {
            client.call("unsubscribe", &json!({ "subscription": old }))?;
        }
        let Some(want) = self.want.log.clone() else {
            return Ok(());
        };
        let mut params = json!({ "name": want.name });
        if let Some(stream) = want.stream {
            params["stream"] = stream.into();
        }
        let mut read = params.clone();
        read["lines"] = LAST_LINES.into();
        if want.previous {
            read["run"] = (-1).into();
        }
        let mut subscription = None;
        match client.get::<Page, _>("logs.read", &read) {
            Ok(page) => {
                self.say(News::Log(want.clone(), true, page.lines))?;
                if !want.previous {
                    params["from"] = match page.next {
                        Some(place) => json!(place),
                        None => json!({ "run": 0, "segment": 0, "offset": 0 }),
                    };
                    let followed: Subscribed = client.get("logs.follow", &params)?;
                    subscription = Some(followed.subscription);
                }
            }
            Err(CallError::Refused(no)) if no.data.code != "timeout" => {
                self.say(News::Log(want.clone(), true, Vec::new()))?;
                self.say(News::Said(no.message, true))?;
            }
            Err(e) => return Err(e.into()),
        }
        self.log = Some(Followed { want, subscription });
        Ok(())
    }

    /// Notifications that are here.
    fn notes(&mut self, client: &mut Client) -> Result<(), End> {
        let (mut events, mut lines) = (Vec::new(), Vec::new());
        loop {
            let text = client.next_note()?;
            let note: Note =
                serde_json::from_str(&text).map_err(|e| CallError::Broken(e.to_string()))?;
            events.extend(note.event.as_deref().and_then(event));
            let log = self.log.as_ref().and_then(|l| l.subscription.as_ref());
            if log == Some(&note.subscription) {
                lines.extend(note.line);
            }
            if !client.has_more() || events.len() + lines.len() >= BATCH {
                break;
            }
        }
        if !events.is_empty() {
            self.say(News::Events(false, events))?;
        }
        if let (false, Some(log)) = (lines.is_empty(), &self.log) {
            self.say(News::Log(log.want.clone(), false, lines))?;
        }
        Ok(())
    }
}

fn event(raw: &RawValue) -> Option<EventLine> {
    let event: Value = serde_json::from_str(raw.get()).ok()?;
    let text = event_line(&event, &Style::default(), Default::default());
    Some(EventLine {
        name: event["name"].as_str().unwrap_or("").to_owned(),
        text: text.trim_end().to_owned(),
    })
}

/// Several calls at once, each result as a value; what was refused is left out.
///
/// # Errors
/// The connection broke, or no answer came in time.
pub fn ask<const N: usize>(
    client: &mut Client,
    calls: [(&str, Value); N],
) -> Result<[Option<Box<str>>; N], CallError> {
    let mut pipe = Pipeline::default();
    for (method, params) in &calls {
        pipe.add(method, params)?;
    }
    let mut replies = client.send(pipe)?.into_iter();
    Ok(std::array::from_fn(|_| replies.next().and_then(Result::ok)))
}
