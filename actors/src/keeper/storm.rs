//! Many signals at once: when ends can wait until all of them are out.
//!
//! Owns nothing. Promises that whoever asks for a few is never kept waiting for their ends, and that no storm holds an
//! end back for longer than [`HELD_UP`]. To reap a child and to prove its tree gone costs some 60 µs, a signal 3.

use std::time::{Duration, Instant};

/// So many signals are no storm yet.
const FEW: usize = 16;

/// So long without a signal, and the storm is over.
const LULL: Duration = Duration::from_millis(1);

/// The longest that ends are held back.
const HELD_UP: Duration = Duration::from_millis(30);

/// The signals of late.
#[derive(Default)]
pub(super) struct Storm {
    began: Option<Instant>,
    last: Option<Instant>,
    signals: usize,
}

impl Storm {
    /// So many signals were sent just now.
    pub(super) fn hear(&mut self, signals: usize, now: Instant) {
        if signals == 0 {
            return;
        }
        if self.last.is_none_or(|last| now >= last + LULL) {
            self.began = Some(now);
            self.signals = 0;
        }
        self.last = Some(now);
        self.signals = self.signals.saturating_add(signals);
    }

    /// Until when ends wait, unless more signals come.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        let (began, last) = self.began.zip(self.last)?;
        let until = (last + LULL).min(began + HELD_UP);
        (self.signals > FEW && now < until).then_some(until)
    }
}

#[cfg(test)]
mod test {
    use super::{FEW, HELD_UP, LULL, Storm};
    use std::time::Instant;

    #[test]
    fn the_ends_of_a_few_wait_for_nobody() {
        let (mut storm, now) = (Storm::default(), Instant::now());
        assert_eq!(storm.until(now), None);
        storm.hear(FEW, now);
        assert_eq!(storm.until(now), None);
        storm.hear(FEW, now + LULL);
        assert_eq!(
            storm.until(now + LULL),
            None,
            "those before were another storm's"
        );
    }

    #[test]
    fn a_storm_holds_ends_back_until_its_lull_and_no_longer_than_promised() {
        let (mut storm, now) = (Storm::default(), Instant::now());
        storm.hear(FEW + 1, now);
        assert_eq!(storm.until(now), Some(now + LULL));
        storm.hear(0, now + LULL / 2);
        assert_eq!(storm.until(now + LULL), None);
        let mut at = now;
        while at < now + HELD_UP {
            storm.hear(1, at);
            assert!(storm.until(at).is_some_and(|until| until <= now + HELD_UP));
            at += LULL / 2;
        }
        storm.hear(1, at);
        assert_eq!(
            storm.until(at),
            None,
            "it goes on, and ends are told all the same"
        );
    }
}
