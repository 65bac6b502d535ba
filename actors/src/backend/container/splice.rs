//! Where one account of a stream goes on in another: lair's own files, the engine's log, the live output.
//!
//! Owns: the comparison. Promises: pure; what lies at the same place in both is found by its bytes, and by their number
//! where that is known; what can't be found is said to be a gap. Never: reads or waits.

use crate::files::read::Recorded;
use memchr::memmem;

/// Shorter ends that are looked for where the whole tail isn't found, as where a log could not keep a byte as it was.
const SHORTER: [usize; 3] = [16 << 10, 1 << 10, 128];

/// As many bytes that two accounts share are no chance.
const SURE: usize = 256;
/// Known lines that are looked for, from the last on, in a log that lacks some.
const LINES: usize = 64;
/// Fewer are hardly one, which is all there is where nothing better can be had.
const LIKELY: usize = 24;

/// Where a log goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// What is before is known.
    pub at: usize,
    /// Something between is in neither.
    pub gap: bool,
    /// So many of the known bytes are not in the log yet: the end of a line that has not ended.
    pub ahead: usize,
}

/// The place in an engine's log behind what is recorded.
pub(super) fn cut(log: &[u8], known: &Recorded) -> Cut {
    let tail = &known.tail[..];
    let here = |at| Cut {
        at,
        gap: false,
        ahead: 0,
    };
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
    let whole_lines =
        || log.ends_with(&tail[..ended]) || begins_within(log, &tail[..ended]) == Some(log.len());
    if ended < tail.len() && whole_lines() {
        return Cut {
            ahead: tail.len() - ended,
            ..here(log.len())
        };
    }
    let mut shorter = SHORTER.iter().filter(|n| **n < tail.len());
    let found = shorter.find_map(|n| {
        let end = &tail[tail.len() - n..];
        memmem::rfind(log, end).map(|at| at + n)
    });
    if let Some(at) = found {
        return here(at);
    }
    // An engine that was killed may never log what it had handed on already.
    if let Some((at, ahead)) = without_its_end(log, tail) {
        return Cut { ahead, ..here(at) };
    }
    Cut {
        gap: true,
        ..here(0)
    }
}

/// Where the log goes on behind the last of the known lines that it has, and the known bytes behind that.
fn without_its_end(log: &[u8], tail: &[u8]) -> Option<(usize, usize)> {
    let ends = memchr::memrchr_iter(b'\n', tail).map(|at| at + 1);
    ends.take(LINES).find_map(|end| {
        let piece = &tail[end.saturating_sub(SURE)..end];
        let found = (piece.len() >= LIKELY).then(|| memmem::rfind(log, piece))??;
        Some((found + piece.len(), tail.len() - end))
    })
}

/// Is the last line of a log among the newest known bytes? A line that is longer than those has to end with them.
pub(super) fn has_line(tail: &[u8], line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let end = &line[line.len().saturating_sub(tail.len())..];
    memmem::rfind(tail, end).is_some() && (end.is_empty() == line.is_empty())
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
    /// Live bytes that are in the first reading already; they may be more than have come yet.
    pub skip: usize,
}

/// Where the two run side by side for long. `before`: the end of the first reading; `new`: what the second has behind it.
/// `None`: nowhere (yet).
pub(super) fn join(before: &[u8], new: &[u8], live: &[u8]) -> Option<Join> {
    side_by_side(before, new, live, SURE)
}

/// The same with little to go by: the last resort.
pub(super) fn join_at_a_guess(before: &[u8], new: &[u8], live: &[u8]) -> Option<Join> {
    side_by_side(before, new, live, LIKELY)
}

fn side_by_side(before: &[u8], new: &[u8], live: &[u8], sure: usize) -> Option<Join> {
    let edge = before.len();
    let all = [before, new].concat();
    let meets = |at: &usize| {
        let shared = live.len().min(all.len() - at);
        shared >= sure && all[*at..*at + shared] == live[..shared]
    };
    // Most begin where the first reading ends, or a little before it. A connection that takes its time begins behind it, and
    // in the middle of a line where that came in pieces.
    let mut places = (edge..=edge).chain((0..edge).rev());
    if let Some(at) = places.find(meets) {
        return Some(Join {
            of_log: 0,
            skip: edge - at,
        });
    }
    if let Some(at) = (edge + 1..all.len()).find(meets) {
        return Some(Join {
            of_log: at - edge,
            skip: 0,
        });
    }
    // More came live than is kept of the first reading.
    let head = &all[..all.len().min(sure)];
    let starts = (head.len() == sure).then(|| memmem::find_iter(live, head));
    let mut starts = starts.into_iter().flatten();
    let agrees = |at: &usize| {
        let shared = all.len().min(live.len() - at);
        all[..shared] == live[*at..*at + shared]
    };
    starts.find(agrees).map(|at| Join {
        of_log: 0,
        skip: at + edge,
    })
}

/// Where the two end at the same place: for a module that says nothing more at the moment. Short pieces are found, and lines
/// that are all alike are counted. `before`: what was seen of the log so far.
pub(super) fn same_end(before: &Recorded, new: &[u8], live: &[u8]) -> Option<Join> {
    let all = [&before.tail, new].concat();
    // An engine may log a line only once it has ended.
    let lines = memchr::memrchr(b'\n', live).map_or(0, |at| at + 1);
    // Where all of the log is at hand, what came live beyond it is not in the log yet.
    let is_cut = before.total != Some(before.tail.len() as u64);
    let covers = |n: usize| is_cut && !all.is_empty() && live[..n].ends_with(&all);
    let ends = |n: &usize| all.ends_with(&live[..*n]) || covers(*n);
    let shared = [live.len(), lines].into_iter().find(ends)?;
    Some(Join {
        of_log: new.len().saturating_sub(shared),
        skip: shared.saturating_sub(new.len()),
    })
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

    #[test]
    fn what_the_log_lacks_of_a_line_is_counted() {
        let cut = cut(b"a\nb\n", &known("a\nb\nhal", Some(7)));
        assert_eq!((cut.at, cut.ahead), (4, 3));
    }

    #[test]
    fn what_an_engine_had_handed_on_and_never_logged_is_not_read_again() {
        let text: String = (0..40).map(|n| format!("line {n} of many\n")).collect();
        let lost = "line 40 of many\nline 41 of many\n";
        let known = known(
            &format!("{text}{lost}"),
            Some((text.len() + lost.len()) as u64),
        );
        let log = format!("{text}line 42 of many\n");
        let found = cut(log.as_bytes(), &known);
        assert_eq!((&log[found.at..], found.gap), ("line 42 of many\n", false));
        assert_eq!(found.ahead, lost.len());
        assert_eq!(cut(text.as_bytes(), &known).at, text.len());
    }

    #[test]
    fn a_logs_last_line_is_known_or_it_is_not() {
        assert!(has_line(b"first\nwords", b"words"));
        assert!(has_line(b"first\nlast\nmore\n", b"last\n"), "it lags");
        assert!(has_line(b"", b"") && has_line(b"first\n", b""));
        assert!(!has_line(b"first\n", b"words"));
        assert!(!has_line(b"", b"words\n"));
        assert!(has_line(b"nd of it", b"the end of it\n"));
    }

    fn told(before: &str, new: &str, live: &str, join: Option<Join>) -> Option<String> {
        let join = join?;
        let live = live.get(join.skip..).unwrap_or("");
        Some(format!("{before}{}{live}", &new[..join.of_log]))
    }

    fn ended(before: &str, new: &str, live: &str) -> Option<String> {
        ended_of(before, before.len(), new, live)
    }

    /// The same where only the end of the log is at hand.
    fn ended_of(before: &str, total: usize, new: &str, live: &str) -> Option<String> {
        let seen = known(before, Some(total as u64));
        let join = same_end(&seen, new.as_bytes(), live.as_bytes());
        told(before, new, live, join)
    }

    #[test]
    fn a_module_that_rests_ends_at_the_same_place_in_both() {
        let whole = |text: &str| Some(text.to_owned());
        assert_eq!(ended("1\n2\n", "3\n", "3\n"), whole("1\n2\n3\n"));
        assert_eq!(ended("1\n2\n", "3\n", "2\n3\n"), whole("1\n2\n3\n"));
        assert_eq!(ended("1\n2\n", "3\n4\n", "4\n"), whole("1\n2\n3\n4\n"));
        assert_eq!(ended("1\n2\n", "", "1\n2\n"), whole("1\n2\n"));
        assert_eq!(ended_of("2\n", 4, "", "1\n2\n"), whole("2\n"));
        assert_eq!(ended("1\n2\n", "", "2\nha"), whole("1\n2\nha"));
        assert_eq!(ended("1\n", "half 2\n", "f 2\n"), whole("1\nhalf 2\n"));
        assert_eq!(ended("a 1 b\n", "a 2 b\n", " b\n"), whole("a 1 b\na 2 b\n"));
        assert_eq!(ended("t\n", "t\n", "t\n"), whole("t\nt\n"));
        assert_eq!(ended("t\n", "t\n", "t\nt\n"), whole("t\nt\n"));
        assert_eq!(ended("1\n", "2\n", "ha"), whole("1\n2\nha"));
        assert_eq!(ended("1\n", "", "2\n"), None, "not in the log yet");
    }

    #[test]
    fn what_came_live_before_a_late_log_has_it_is_not_taken_for_known() {
        assert_eq!(ended("", "", "1\n"), None, "its first line");
        assert_eq!(ended("", "1\n", "1\n"), Some("1\n".to_owned()));
        assert_eq!(ended("t\n", "", "t\nt\n"), None, "lines that are all alike");
        assert_eq!(ended("t\n", "", "u\nt\n"), None);
        assert_eq!(ended_of("", 7, "", "1\n"), None, "nothing to go by");
    }

    #[test]
    fn a_module_that_goes_on_is_found_by_many_bytes_wherever_they_begin() {
        let text: String = (0..400).map(|n| format!("half {n} whole\n")).collect();
        let edge = 3000;
        for (from, live, upto) in [
            (2000, edge, 3400),
            (2000, 2900, 3400),
            (2000, 2007, 2300),
            (2000, 3005, 3400),
            (2000, 1500, 3400),
        ] {
            let (before, new) = (&text[from..edge], &text[edge..3800]);
            let head = &text[live..upto];
            let join = join(before.as_bytes(), new.as_bytes(), head.as_bytes());
            let told = told(before, new, &text[live..], join);
            assert_eq!(told.as_deref(), Some(&text[from..]), "live from {live}");
        }
    }

    #[test]
    fn few_bytes_may_be_chance() {
        let by_chance = (&b"a 1 b\n"[..], &b"a 2 b\n"[..], &b" b\na 9"[..]);
        assert_eq!(join(by_chance.0, by_chance.1, by_chance.2), None);
        assert_eq!(join_at_a_guess(by_chance.0, by_chance.1, by_chance.2), None);
        let line = b"a line of some length, and more\n";
        let found = join_at_a_guess(b"1\n", line, line);
        assert_eq!(found, Some(Join { of_log: 0, skip: 0 }));
    }
}
