//! Which segments of a module go, and which are compressed: a pure decision.

use super::name::SegmentName;
use super::policy::LogPolicy;
use super::stamp::Stamp;

/// A segment on disk and the last change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    pub name: SegmentName,
    pub changed: Stamp,
}

/// What is to be done in a folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Chores {
    pub delete: Vec<SegmentName>,
    pub compress: Vec<SegmentName>,
}

/// Decides over all segments of a module.
///
/// Never deletes a `live` segment (one being written). The last segment of the
/// `pinned` run goes only when nothing else is left to delete. Oldest first.
pub(crate) fn chores(
    mut kept: Vec<Kept>,
    live: &[SegmentName],
    pinned: Option<u64>,
    policy: &LogPolicy,
    now: Stamp,
) -> Chores {
    kept.sort_by_key(|k| k.name);
    let mut chores = Chores::default();
    // Both forms exist when a crash hit between rename and unlink: the .zst is whole.
    let twins: Vec<SegmentName> = kept
        .iter()
        .filter(|k| k.name.zst)
        .map(|k| k.name.with_zst(false))
        .collect();
    kept.retain(|k| {
        let twin = twins.contains(&k.name) && !live.contains(&k.name);
        if twin {
            chores.delete.push(k.name);
        }
        !twin
    });
    let last_pinned = pinned.and_then(|run| kept.iter().rev().find(|k| k.name.run == run));
    let last_pinned = last_pinned.map(|k| k.name);
    let free = |k: &Kept| !live.contains(&k.name);

    if let Some(age) = policy.max_age {
        let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
        kept.retain(|k| {
            let old = free(k) && now.0.saturating_sub(k.changed.0) > age;
            if old {
                chores.delete.push(k.name);
            }
            !old
        });
    }
    let most = policy.max_files.max(1);
    for spare_pinned in [true, false] {
        let mut excess = kept.len().saturating_sub(most);
        kept.retain(|k| {
            let goes = excess > 0 && free(k) && !(spare_pinned && Some(k.name) == last_pinned);
            if goes {
                excess -= 1;
                chores.delete.push(k.name);
            }
            !goes
        });
    }
    if policy.compress {
        chores.compress = kept
            .iter()
            .filter(|k| free(k) && !k.name.zst)
            .map(|k| k.name)
            .collect();
    }
    chores
}

#[cfg(test)]
mod test {
    use super::*;
    use std::time::Duration;

    fn seg(run: u64, segment: u64) -> SegmentName {
        SegmentName {
            run,
            segment,
            stream: None,
            zst: false,
        }
    }

    fn all(names: &[SegmentName]) -> Vec<Kept> {
        names
            .iter()
            .map(|&name| Kept {
                name,
                changed: Stamp(0),
            })
            .collect()
    }

    fn policy(max_files: usize) -> LogPolicy {
        LogPolicy {
            max_files,
            compress: true,
            ..LogPolicy::default()
        }
    }

    #[test]
    fn the_oldest_go_first_and_the_live_one_never() {
        let names = [seg(1, 0), seg(1, 1), seg(2, 0), seg(10, 0)];
        let done = chores(all(&names), &[seg(1, 0)], None, &policy(2), Stamp(1));
        assert_eq!(done.delete, [seg(1, 1), seg(2, 0)]);
        assert_eq!(done.compress, [seg(10, 0)]);
    }

    #[test]
    fn the_last_words_of_a_failed_run_outlive_newer_segments() {
        let names = [seg(1, 0), seg(1, 1), seg(2, 0), seg(3, 0)];
        let done = chores(all(&names), &[seg(3, 0)], Some(1), &policy(2), Stamp(1));
        assert_eq!(done.delete, [seg(1, 0), seg(2, 0)]);
        let done = chores(all(&names), &[seg(3, 0)], Some(1), &policy(1), Stamp(1));
        assert_eq!(done.delete, [seg(1, 0), seg(2, 0), seg(1, 1)]);
    }

    #[test]
    fn age_deletes_closed_segments_only() {
        let aged = LogPolicy {
            max_age: Some(Duration::from_nanos(5)),
            ..policy(8)
        };
        let done = chores(
            all(&[seg(1, 0), seg(1, 1)]),
            &[seg(1, 1)],
            None,
            &aged,
            Stamp(6),
        );
        assert_eq!(done.delete, [seg(1, 0)]);
    }

    #[test]
    fn of_a_segment_in_both_forms_the_plain_one_goes() {
        let names = [seg(1, 0), seg(1, 0).with_zst(true), seg(1, 1)];
        let done = chores(all(&names), &[seg(1, 1)], None, &policy(8), Stamp(1));
        assert_eq!(done.delete, [seg(1, 0)]);
    }
}
