//! What a module usually takes, from the runs that it made; and whether a new version takes more. Pure.
//!
//! Owns: what is kept of a run, how many are, and what counts as a change. Promises: bounded; what was not seen of a run is
//! not counted as zero; noise is no change. Never: guesses from a run that never served.

use lair_supervision::account::size;
use serde::{Deserialize, Serialize};

/// The form of the file.
pub const FORM: &str = "lair-footprint/1";
/// Runs kept of a version.
pub const RUNS: usize = 16;
/// Versions kept of a module.
pub const VERSIONS: usize = 4;

/// What one run took. `None`: nobody saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Number of the run.
    pub run: u64,
    /// From its start's begin until it first served, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_ms: Option<u64>,
    /// Most memory, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Most memory on its GPUs, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory: Option<u64>,
    /// Thousandths of a CPU, on average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_milli: Option<u64>,
}

/// The middle of some runs, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// Half of the runs took no more.
    pub usual: u64,
    /// The least.
    pub least: u64,
    /// The most.
    pub most: u64,
}

impl Spread {
    fn of(values: impl Iterator<Item = Option<u64>>) -> Option<Self> {
        let mut all: Vec<u64> = values.flatten().collect();
        all.sort_unstable();
        Some(Spread {
            usual: *all.get((all.len().checked_sub(1)?) / 2)?,
            least: *all.first()?,
            most: *all.last()?,
        })
    }
}

/// What a version usually takes, of its last [`RUNS`] runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// Its manifest's version.
    pub version: String,
    /// Runs that served and ended.
    pub runs: u64,
    /// Until it serves, ms.
    pub ready_ms: Option<Spread>,
    /// Most memory, bytes.
    pub memory: Option<Spread>,
    /// Most memory on its GPUs, bytes.
    pub gpu_memory: Option<Spread>,
    /// Thousandths of a CPU, on average.
    pub cpu_milli: Option<Spread>,
}

/// What is run: the same key, the same footprint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// `LaunchPlan::spec_digest`.
    pub spec: String,
    /// The image that its engine took for the reference, for containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// One version of a module and its last runs, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// What is run.
    #[serde(flatten)]
    pub key: Key,
    /// Its manifest's version.
    pub version: String,
    /// All runs that were counted.
    pub count: u64,
    /// The last of them.
    pub runs: Vec<Figures>,
}

impl Version {
    /// What they add up to.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        Footprint {
            version: self.version.clone(),
            runs: self.count,
            ready_ms: Spread::of(self.runs.iter().map(|r| r.ready_ms)),
            memory: Spread::of(self.runs.iter().map(|r| r.memory)),
            gpu_memory: Spread::of(self.runs.iter().map(|r| r.gpu_memory)),
            cpu_milli: Spread::of(self.runs.iter().map(|r| r.cpu_milli)),
        }
    }
}

/// All that is kept of a module: the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// [`FORM`].
    pub format: String,
    /// The module.
    pub name: String,
    /// Its versions, the one that ran last at the end.
    pub versions: Vec<Version>,
}

impl Learned {
    /// Counts a run that has ended.
    pub fn take(&mut self, key: &Key, version: &str, figures: Figures) {
        let at = self.versions.iter().position(|v| v.key == *key);
        let mut of = at.map(|at| self.versions.remove(at)).unwrap_or_default();
        of.key = key.clone();
        version.clone_into(&mut of.version);
        of.count = of.count.saturating_add(1);
        of.runs.push(figures);
        let surplus = of.runs.len().saturating_sub(RUNS);
        of.runs.drain(..surplus);
        self.versions.push(of);
        let surplus = self.versions.len().saturating_sub(VERSIONS);
        self.versions.drain(..surplus);
    }
}

/// Less is noise: bytes, ms, thousandths of a CPU.
const MEMORY: u64 = 64 << 20;
const READY_MS: u64 = 2000;
const CPU_MILLI: u64 = 250;

/// How `now` differs from what was usual `before`, a phrase each; empty: it doesn't, beyond noise. Of a run that is not
/// `over`, less is no news: it may still come.
///
/// Different is what lies outside of all that was seen before, by a tenth of the usual (a fifth for time and CPU) and by more
/// than a floor: 64 MiB, 2 s, a quarter of a CPU.
#[must_use]
pub fn changes(before: &Footprint, now: &Figures, over: bool) -> Vec<String> {
    let memory = differs(before.memory, now.memory, MEMORY, 10, over).map(signed);
    let gpu = differs(before.gpu_memory, now.gpu_memory, MEMORY, 10, over);
    let ready = differs(before.ready_ms, now.ready_ms, READY_MS, 5, true).map(|ms| {
        let word = if ms > 0 { "slower" } else { "faster" };
        format!("{} {word} to ready", seconds(ms.unsigned_abs()))
    });
    let cpu = differs(before.cpu_milli, now.cpu_milli, CPU_MILLI, 5, over).map(|milli| {
        let sign = if milli < 0 { '-' } else { '+' };
        let n = milli.unsigned_abs();
        format!("{sign}{}.{} CPUs", n / 1000, n % 1000 / 100)
    });
    let gpu = gpu.map(|bytes| format!("{} of GPU memory", signed(bytes)));
    // CPU time counts only when all of a run is known: starts use more than the rest.
    let cpu = cpu.filter(|_| over);
    [memory, gpu, ready, cpu].into_iter().flatten().collect()
}

fn differs(
    before: Option<Spread>,
    now: Option<u64>,
    floor: u64,
    part: u64,
    less: bool,
) -> Option<i64> {
    let (before, now) = (before?, now?);
    let noise = floor.max(before.usual / part);
    let more = now > before.most.saturating_add(noise);
    let less = less && now < before.least.saturating_sub(noise);
    let by = i64::try_from(now).ok()? - i64::try_from(before.usual).ok()?;
    (more || less).then_some(by)
}

/// Two digits are enough: `+1.9GiB`.
fn signed(bytes: i64) -> String {
    let sign = if bytes < 0 { '-' } else { '+' };
    let n = bytes.unsigned_abs();
    let shift = if n >> 30 > 0 { 30 } else { 20 };
    let tenth = (1_u64 << shift) / 10;
    let rounded = (n + tenth / 2) / tenth * tenth;
    let (whole, tenths) = (
        rounded >> shift,
        (rounded % (1 << shift) + tenth / 2) / tenth,
    );
    let (whole, tenths) = if tenths == 10 {
        (whole + 1, 0)
    } else {
        (whole, tenths)
    };
    let unit = if shift == 30 { "GiB" } else { "MiB" };
    match tenths {
        0 => format!("{sign}{whole}{unit}"),
        n => format!("{sign}{whole}.{n}{unit}"),
    }
}

fn seconds(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10_000..300_000 => format!("{} s", (ms + 500) / 1000),
        _ => format!("{} min", (ms + 30_000) / 60_000),
    }
}

/// `1 run`, `5 runs`.
#[must_use]
pub fn runs_word(n: u64) -> String {
    match n {
        1 => "1 run".to_owned(),
        n => format!("{n} runs"),
    }
}

/// `+1.9GiB, 40 s slower to ready than version 1.2.0 (5 runs)`; `None`: no change worth a word.
#[must_use]
pub fn change_words(before: &Footprint, now: &Figures, over: bool) -> Option<String> {
    let changes = changes(before, now, over);
    let runs = runs_word(before.runs);
    (!changes.is_empty()).then(|| {
        format!(
            "{} against what it was before ({runs} of version {})",
            changes.join(", "),
            before.version
        )
    })
}

/// What runs so far say of a limit of memory, in words: of `what` (`memory`), with this limit declared.
#[must_use]
pub fn hint(what: &str, spread: &Spread, runs: u64, limit: Option<u64>) -> String {
    let n = runs_word(runs);
    let peaks = if spread.least == spread.most {
        size(spread.most)
    } else {
        format!("{} to {}", size(spread.least), size(spread.most))
    };
    let seen = format!("{n} peaked at {peaks} of {what}");
    match limit {
        None => format!("{seen}; no limit is declared"),
        Some(limit) if limit < spread.most => format!(
            "{seen}, more than the declared {}: it would run short",
            size(limit)
        ),
        Some(limit) if limit / 2 > spread.most && limit - spread.most >= 1 << 30 => format!(
            "{seen}; {} of the declared {} were never used",
            size(limit - spread.most),
            size(limit)
        ),
        Some(limit) => format!("{seen}, within the declared {}", size(limit)),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    fn run(run: u64, memory: u64, ready_ms: u64) -> Figures {
        Figures {
            run,
            ready_ms: Some(ready_ms),
            memory: Some(memory),
            gpu_memory: None,
            cpu_milli: Some(500),
        }
    }

    fn key(spec: &str) -> Key {
        Key {
            spec: spec.into(),
            image: None,
        }
    }

    fn learnt(runs: &[(u64, u64)]) -> Footprint {
        let mut all = Learned::default();
        for (n, (memory, ready)) in (1..).zip(runs) {
            all.take(&key("a"), "1.0.0", run(n, *memory, *ready));
        }
        all.versions[0].footprint()
    }

    #[test]
    fn the_usual_is_the_middle_and_the_unknown_is_not_zero() {
        let mut all = Learned::default();
        for (n, memory) in [(1, Some(5)), (2, None), (3, Some(9)), (4, Some(6))] {
            let figures = Figures {
                run: n,
                memory,
                ..Figures::default()
            };
            all.take(&key("a"), "1.0.0", figures);
        }
        let footprint = all.versions[0].footprint();
        let spread = Spread {
            usual: 6,
            least: 5,
            most: 9,
        };
        assert_eq!((footprint.memory, footprint.runs), (Some(spread), 4));
        assert_eq!((footprint.ready_ms, footprint.gpu_memory), (None, None));
    }

    #[test]
    fn the_last_runs_of_the_last_versions_are_kept_and_no_more() {
        let mut all = Learned::default();
        for n in 1..=100 {
            all.take(&key(&format!("spec {}", n % 7)), "1.0.0", run(n, n, n));
        }
        let specs: Vec<&str> = all.versions.iter().map(|v| v.key.spec.as_str()).collect();
        assert_eq!(specs, ["spec 6", "spec 0", "spec 1", "spec 2"]);
        for n in 101..=150 {
            all.take(&key("spec 2"), "1.0.1", run(n, n, n));
        }
        let last = all.versions.last().expect("one");
        assert_eq!((last.runs.len(), last.count > 50), (RUNS, true));
        assert_eq!(last.runs[0].run, 135);
        // As a file it is small.
        let text = serde_json::to_vec(&all).expect("text");
        assert!(text.len() < 16 << 10, "{}", text.len());
    }

    #[test]
    fn a_change_beyond_noise_is_told_in_numbers() {
        let before = learnt(&[(6 * GIB, 40_000), (6 * GIB + 100 * MIB, 42_000)]);
        let now = run(9, 6 * GIB + 1945 * MIB, 80_000);
        assert_eq!(
            changes(&before, &now, true),
            ["+1.9GiB", "40 s slower to ready"]
        );
        let words = change_words(&before, &now, true).expect("a change");
        assert!(
            words.ends_with("before (2 runs of version 1.0.0)"),
            "{words}"
        );
        let less = run(9, 4 * GIB, 3_000);
        assert_eq!(
            changes(&before, &less, true),
            ["-2GiB", "37 s faster to ready"]
        );
    }

    #[test]
    fn noise_is_no_change() {
        let before = learnt(&[(6 * GIB, 40_000), (7 * GIB, 42_000)]);
        for (memory, ready) in [
            (6 * GIB, 40_000),
            // Within what was seen and a tenth.
            (7 * GIB + 500 * MIB, 49_000),
            (5 * GIB + 500 * MIB, 33_000),
        ] {
            let now = run(9, memory, ready);
            assert!(changes(&before, &now, true).is_empty(), "{now:?}");
        }
        // Small modules may double without being worth a word.
        let small = learnt(&[(10 * MIB, 50)]);
        assert!(changes(&small, &run(2, 60 * MIB, 1900), true).is_empty());
    }

    #[test]
    fn a_run_that_goes_on_may_still_need_more_so_less_is_no_news() {
        let before = learnt(&[(6 * GIB, 40_000)]);
        let now = run(9, GIB, 40_000);
        assert!(changes(&before, &now, false).is_empty());
        assert_eq!(changes(&before, &now, true), ["-5GiB"]);
        let grown = run(9, 9 * GIB, 40_000);
        assert_eq!(changes(&before, &grown, false), ["+3GiB"]);
    }

    #[test]
    fn what_nobody_saw_is_compared_with_nothing() {
        let before = learnt(&[(6 * GIB, 40_000)]);
        assert!(changes(&before, &Figures::default(), true).is_empty());
        assert!(changes(&Footprint::default(), &run(1, GIB, 1), true).is_empty());
    }

    #[test]
    fn a_hint_has_both_numbers() {
        let spread = Spread {
            usual: 6 * GIB,
            least: 5 * GIB,
            most: 6 * GIB,
        };
        let of = |limit| hint("memory", &spread, 5, limit);
        assert_eq!(
            of(Some(4 * GIB)),
            "5 runs peaked at 5GiB to 6GiB of memory, more than the declared 4GiB: it would run short"
        );
        assert_eq!(
            of(Some(16 * GIB)),
            "5 runs peaked at 5GiB to 6GiB of memory; 10GiB of the declared 16GiB were never used"
        );
        assert!(of(None).ends_with("no limit is declared"));
        assert!(of(Some(8 * GIB)).ends_with("within the declared 8GiB"));
    }
}
