//! Where one account of a stream goes on in another: lair's own files, the engine's log, the live output.
//!
//! Owns: the comparison. Promises: pure; what lies at the same place in both is found by its bytes, and by their number
//! where that is known; what can't be found is said to be a gap. Never: reads or waits.

use crate::files::read::Recorded;
use memchr::memmem;

/// Shorter ends that are looked for where the whole tail isn't found, as where a log could not keep a byte as it was.
const SHORTER: [usize; 3] = [16 << 10, 1 << 10, 128];

/// Where a log goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// What is before is known.
    pub at: usize,
    /// Something between is in neither.
    pub gap: bool,
}

/// The place in an engine's log behind what is recorded.
pub(super) fn cut(log: &[u8], known: &Recorded) -> Cut {
    let tail = &known.tail[..];
    let here = |at| Cut { at, gap: false };
    if tail.is_empty() {
        return here(0);
    }
    let total = known.total.and_then(|n| usize::try_from(n).ok());
    if let Some(at) = total.filter(|n| *n <= log.len())
        && log[..at].ends_with(&tail[tail.len().saturating_sub(at)..])
    {
        return here(at);
    }
    if let Some(found) = memmem::rfind(log, tail) {
        return here(found + tail.len());
    }
    if let Some(at) = begins_within(log, tail) {
        return here(at);
    }
    // A line that has not ended may not be in an engine's log yet.
    let ended = memchr::memrchr(b'\n', tail).map_or(0, |at| at + 1);
    if ended < tail.len() && log.ends_with(&tail[..ended]) {
        return here(log.len());
    }
    if ended < tail.len() && begins_within(log, &tail[..ended]) == Some(log.len()) {
        return here(log.len());
    }
    let mut shorter = SHORTER.iter().filter(|n| **n < tail.len());
    let found = shorter.find_map(|n| {
        let end = &tail[tail.len() - n..];
        memmem::rfind(log, end).map(|at| at + n)
    });
    found.map_or(Cut { at: 0, gap: true }, here)
}

/// A log that has lost its beginning: it begins at a line within the tail.
fn begins_within(log: &[u8], tail: &[u8]) -> Option<usize> {
    let starts = memchr::memchr_iter(b'\n', tail).map(|at| at + 1);
    let mut starts = std::iter::once(0).chain(starts);
    starts.find_map(|from| {
        let rest = &tail[from..];
        (!rest.is_empty() && log.starts_with(rest)).then_some(rest.len())
    })
}

/// How live output goes on behind a log that was read to its end, and again after the first live bytes had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Join {
    /// Bytes of the second reading that come first.
    pub of_log: usize,
    /// Live bytes that are in the first reading already.
    pub skip: usize,
}

/// `before`: the end of the first reading; `new`: what the second has behind it. `None`: they don't meet (yet).
pub(super) fn join(before: &[u8], new: &[u8], live: &[u8]) -> Option<Join> {
    let agree = |a: &[u8], b: &[u8]| {
        let n = a.len().min(b.len());
        a[..n] == b[..n]
    };
    let skip = |skip| Join { of_log: 0, skip };
    if new.is_empty() {
        if before.ends_with(live) {
            return Some(skip(live.len()));
        }
        let ended = memchr::memrchr(b'\n', live).map_or(0, |at| at + 1);
        return (ended < live.len() && before.ends_with(&live[..ended])).then(|| skip(ended));
    }
    if agree(live, new) {
        return Some(skip(0));
    }
    let most = live.len().min(before.len());
    let overlap = (1..=most).find(|n| before.ends_with(&live[..*n]) && agree(&live[*n..], new));
    if let Some(found) = overlap {
        return Some(skip(found));
    }
    // The beginning of a line came before the connection, and was in no log before the line had ended; or whole lines
    // did, where the connection takes its time.
    let line = memchr::memchr(b'\n', new).unwrap_or(new.len());
    let lines = memchr::memchr_iter(b'\n', new).map(|at| at + 1);
    let mut starts = (1..=line).chain(lines);
    let begun = starts.find(|n| *n < new.len() && agree(live, &new[*n..]));
    begun.map(|of_log| Join { of_log, skip: 0 })
}

#[cfg(test)]
mod test {
    use super::*;

    fn known(tail: &str, total: Option<u64>) -> Recorded {
        Recorded {
            tail: tail.as_bytes().to_vec(),
            total,
        }
    }

    fn rest(log: &str, tail: &str, total: Option<u64>) -> (String, bool) {
        let cut = cut(log.as_bytes(), &known(tail, total));
        (log[cut.at..].to_owned(), cut.gap)
    }

    fn clean(text: &str) -> (String, bool) {
        (text.to_owned(), false)
    }

    #[test]
    fn a_log_goes_on_behind_what_is_recorded() {
        assert_eq!(rest("a\nb\nc\n", "", Some(0)), clean("a\nb\nc\n"));
        assert_eq!(rest("a\nb\nc\n", "a\nb\n", Some(4)), clean("c\n"));
        assert_eq!(rest("a\nb\nc\n", "b\n", None), clean("c\n"));
        assert_eq!(rest("a\nb\nc\n", "a\nb", Some(3)), clean("\nc\n"));
    }

    #[test]
    fn lines_that_are_all_alike_are_counted() {
        assert_eq!(rest("y\ny\ny\ny\n", "y\ny\n", Some(4)), clean("y\ny\n"));
    }

    #[test]
    fn a_log_that_has_lost_its_beginning_goes_on_where_it_can_or_says_that_it_can_not() {
        assert_eq!(rest("8\n9\n", "6\n7\n8\n", Some(60)), clean("9\n"));
        assert_eq!(rest("7\n8\n", "6\n7\n8\n", Some(60)), clean(""));
        assert_eq!(
            rest("8\n9\n", "5\n6\n", Some(60)),
            ("8\n9\n".to_owned(), true)
        );
    }

    #[test]
    fn a_line_that_has_not_ended_may_be_missing_in_the_log() {
        assert_eq!(rest("a\nb\n", "a\nb\nhal", Some(7)), clean(""));
        assert_eq!(rest("a\nb\nhalf\n", "a\nb\nhal", Some(7)), clean("f\n"));
    }

    fn joined(before: &str, new: &str, live: &str) -> Option<String> {
        let join = join(before.as_bytes(), new.as_bytes(), live.as_bytes())?;
        Some(format!(
            "{before}{}{}",
            &new[..join.of_log],
            &live[join.skip..]
        ))
    }

    #[test]
    fn live_output_goes_on_behind_the_log_whatever_of_it_the_log_has() {
        let whole = |text: &str| Some(text.to_owned());
        assert_eq!(joined("1\n2\n", "3\n", "3\n4\n"), whole("1\n2\n3\n4\n"));
        assert_eq!(joined("1\n2\n", "3\n4\n5\n", "3\n"), whole("1\n2\n3\n"));
        assert_eq!(joined("1\n2\n", "3\n", "2\n3\n"), whole("1\n2\n3\n"));
        assert_eq!(joined("1\n2\n", "", "1\n2\n"), whole("1\n2\n"));
        assert_eq!(joined("1\n2\n", "", "2\nha"), whole("1\n2\nha"));
        assert_eq!(
            joined("1\n", "half 2\n", "f 2\n3\n"),
            whole("1\nhalf 2\n3\n")
        );
        assert_eq!(joined("1\n", "2\n3\n4\n", "3\n4\n"), whole("1\n2\n3\n4\n"));
        assert_eq!(joined("t\n", "t\n", "t\n"), whole("t\nt\n"));
        assert_eq!(joined("1\n", "", "2\n"), None);
    }
}
