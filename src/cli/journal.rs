//! lair's own log in the journal's native protocol, where stderr is the journal's (systemd.exec(5), `JOURNAL_STREAM`).
//!
//! Promises: each event is one entry with its priority, and with its fields as fields (`LAIR_NAME`, `LAIR_RUN`). Never:
//! speaks to the journal where stderr was sent elsewhere.

use super::log::Log;
use rustix::fs::fstat;
use std::fmt::{Debug, Write as _};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Longest field: far below what fits into a datagram.
const MAX_FIELD: usize = 32 << 10;

/// The journal's socket, if stderr is a stream to it.
pub fn socket() -> Option<&'static Path> {
    let said = std::env::var("JOURNAL_STREAM").ok()?;
    let stat = fstat(std::io::stderr().as_fd()).ok()?;
    let ours = said == format!("{}:{}", stat.st_dev, stat.st_ino);
    let socket = Path::new(SOCKET);
    (ours && socket.exists()).then_some(socket)
}

/// Turns events into entries.
pub struct Journal(pub Log);

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let meta = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut entry = Vec::with_capacity(256);
        put(&mut entry, "PRIORITY", priority(*meta.level()));
        put(&mut entry, "SYSLOG_IDENTIFIER", "lair");
        put(&mut entry, "LAIR_TARGET", meta.target());
        for (name, value) in &fields.others {
            put(&mut entry, &field_name(name), value);
            let _ = write!(fields.message, " {name}={value}");
        }
        put(&mut entry, "MESSAGE", fields.message.trim_start());
        let _ = self.0.clone().write(&entry);
    }
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.others.push((field.name(), format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// Letters, digits and underscores are all that the journal takes.
fn field_name(name: &str) -> String {
    let clean = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    "LAIR_".chars().chain(name.chars().map(clean)).collect()
}

/// One field; a value of several lines comes with its length.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let mut end = value.len().min(MAX_FIELD);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    let value = &value.as_bytes()[..end];
    entry.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value);
    entry.push(b'\n');
}
