//! What the health actor learns from the logs, by way of the pump and the published snapshots.
//!
//! Owns: nothing. Promises: a line that was written before anybody looked for it is still found. Never: holds up the
//! pump: what is read back is read on a thread of its own.

use crate::files::parse_record;
use crate::health::{LogEvidence, OnLine};
use crate::pump::{Pump, StreamKey, StreamStats};
use crate::view::Board;
use lair_supervision::ChildId;
use regex_lite::Regex;
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a run's log that are searched for lines that came before the search.
const READ_BACK: u64 = 4 << 20;

/// The logs of a runtime, as evidence.
pub struct Evidence {
    /// Where the counters are found.
    pub board: Arc<Board>,
    /// What sees the lines.
    pub pump: Pump,
}

impl Evidence {
    fn stats(&self, id: &ChildId, inc: u64) -> Option<Arc<StreamStats>> {
        let view = self.board.get(id.as_str())?;
        (view.child.inc == inc).then(|| view.log.clone()).flatten()
    }
}

impl LogEvidence for Evidence {
    fn bytes(&self, id: &ChildId, inc: u64) -> Option<u64> {
        Some(self.stats(id, inc)?.bytes())
    }

    fn watch_pattern(
        &self,
        id: &ChildId,
        inc: u64,
        pattern: &str,
        on_line: OnLine,
    ) -> Result<(), String> {
        let regex = Regex::new(pattern).map_err(|e| format!("the pattern can't be used: {e}"))?;
        let shared = Arc::new(Mutex::new(Some(on_line)));
        let (live, past) = (shared.clone(), regex.clone());
        if !self
            .pump
            .watch_pattern(key(id, inc), regex, move |m| tell(&live, &m.line))
        {
            return Err("the log pump has ended".into());
        }
        // Lines written before the watch was set are in the file by the time the pump has flushed.
        let stats = self.stats(id, inc);
        self.pump.flush(move || {
            std::thread::spawn(move || {
                if let Some(stats) = stats {
                    read_back(&stats, &past, &shared);
                }
            });
        });
        Ok(())
    }

    fn unwatch(&self, id: &ChildId, inc: u64) {
        self.pump.unwatch(key(id, inc));
    }
}

type Shared = Mutex<Option<OnLine>>;

fn tell(shared: &Shared, line: &str) -> ControlFlow<()> {
    let mut on_line = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(call) = on_line.as_mut() else {
        return ControlFlow::Break(());
    };
    let flow = call(line);
    if flow.is_break() {
        *on_line = None;
    }
    flow
}

fn read_back(stats: &StreamStats, pattern: &Regex, shared: &Shared) {
    let Some(file) = stats
        .current_path()
        .and_then(|path| std::fs::File::open(path).ok())
    else {
        return;
    };
    for line in BufReader::new(file.take(READ_BACK))
        .split(b'\n')
        .map_while(Result::ok)
    {
        let body = match parse_record(&line) {
            Some(record) => record.bytes.to_vec(),
            None => line,
        };
        let text = String::from_utf8_lossy(&body);
        if pattern.is_match(&text) && tell(shared, &text).is_break() {
            return;
        }
    }
}

fn key(id: &ChildId, inc: u64) -> StreamKey {
    StreamKey {
        module: id.shared(),
        run: inc,
    }
}
