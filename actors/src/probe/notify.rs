//! What a datagram on `$NOTIFY_SOCKET` says (sd_notify(3)).

use std::time::Duration;

/// Longest `STATUS=` that is kept, in characters.
const MAX_STATUS: usize = 256;
/// No single `EXTEND_TIMEOUT_USEC=` reaches further than this.
const MAX_EXTENSION: Duration = Duration::from_secs(86_400);

/// One thing a module says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// It serves.
    Ready,
    /// It is about to end.
    Stopping,
    /// What it is doing, for people.
    Status(String),
    /// It lives.
    Watchdog,
    /// It takes this much longer.
    Extend(Duration),
}

/// Reads a datagram. What lair has no use for (MAINPID, FDSTORE, ERRNO, ...) and what is malformed is left out.
#[must_use]
pub fn parse(datagram: &[u8]) -> Vec<Note> {
    String::from_utf8_lossy(datagram)
        .split('\n')
        .filter_map(|line| line.split_once('='))
        .filter_map(|(key, value)| note(key, value))
        .collect()
}

fn note(key: &str, value: &str) -> Option<Note> {
    match (key, value) {
        ("READY", "1") => Some(Note::Ready),
        ("STOPPING", "1") => Some(Note::Stopping),
        ("WATCHDOG", "1") => Some(Note::Watchdog),
        ("STATUS", text) => {
            let clean = text.chars().filter(|c| !c.is_control());
            Some(Note::Status(clean.take(MAX_STATUS).collect()))
        }
        ("EXTEND_TIMEOUT_USEC", micros) => {
            let asked = Duration::from_micros(micros.parse().ok()?);
            Some(Note::Extend(asked.min(MAX_EXTENSION)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod test {
    use super::{MAX_EXTENSION, Note, parse};
    use std::time::Duration;

    #[test]
    fn a_datagram_may_say_several_things() {
        let said = parse(b"READY=1\nSTATUS=loading 4/9\nMAINPID=1\nWATCHDOG=1\nSTOPPING=1\n");
        let status = Note::Status("loading 4/9".into());
        assert_eq!(said, [Note::Ready, status, Note::Watchdog, Note::Stopping]);
    }

    #[test]
    fn malformed_datagrams_say_nothing_and_extensions_are_bounded() {
        assert_eq!(parse(b"READY=0\nREADY\n=1\nEXTEND_TIMEOUT_USEC=-1"), []);
        assert_eq!(parse(&[0xff; 300]), []);
        let short = Note::Extend(Duration::from_millis(2));
        assert_eq!(parse(b"EXTEND_TIMEOUT_USEC=2000"), [short]);
        let long = Note::Extend(MAX_EXTENSION);
        assert_eq!(parse(b"EXTEND_TIMEOUT_USEC=18446744073709551615"), [long]);
    }
}
