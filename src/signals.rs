//! Signals by name and number.

use lair_manifests::words::SIGNALS;

/// The number of `TERM`, `SIGTERM`, `term` or `15`.
#[must_use]
pub fn number(word: &str) -> Option<i32> {
    if let Ok(n) = word.parse::<i32>() {
        return (1..=64).contains(&n).then_some(n);
    }
    let word = word.to_ascii_uppercase();
    let word = word.strip_prefix("SIG").unwrap_or(&word);
    SIGNALS
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, n)| *n)
}

/// The name of a signal, `SIG` included; its number if it has no name.
#[must_use]
pub fn name(number: i32) -> String {
    match SIGNALS.iter().find(|(_, n)| *n == number) {
        Some((name, _)) => format!("SIG{name}"),
        None => format!("signal {number}"),
    }
}
