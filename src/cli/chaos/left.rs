//! The processes that modules had under chaos, and which of them are still there.
//!
//! Promises: a process is known by its number and its start, so that a stranger with the number of one that ended is
//! not taken for it; one that has ended and waits to be reaped is gone. Never: waits.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

/// First processes of modules: the number of each, and when it began in clock ticks since boot.
#[derive(Default)]
pub struct Processes(BTreeSet<(i64, u64)>);

/// What `/proc/PID/stat` says of one.
struct Stat {
    name: String,
    state: char,
    began: u64,
}

impl Processes {
    /// Takes in what `module.list` shows of one module.
    pub fn note(&mut self, module: &Value) {
        if let Some(pid) = module["pid"].as_i64()
            && let Some(stat) = Stat::read(pid)
        {
            self.0.insert((pid, stat.began));
        }
    }

    /// How many were seen.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Those that live, in words.
    pub fn left(&self) -> Vec<String> {
        let lives = |(pid, began): &(i64, u64)| {
            let stat = Stat::read(*pid)?;
            let there = stat.began == *began && !matches!(stat.state, 'Z' | 'X' | 'x');
            let Stat { name, state, .. } = stat;
            there.then(|| format!("pid {pid} ({name}, state {state}) is still there"))
        };
        self.0.iter().filter_map(lives).collect()
    }
}

impl Stat {
    fn read(pid: i64) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// `PID (NAME) STATE ...`: a name may hold anything, so fields are counted from the last parenthesis.
    fn parse(text: &str) -> Option<Self> {
        let (head, rest) = text.rsplit_once(") ")?;
        let mut fields = rest.split_ascii_whitespace();
        Some(Stat {
            name: head.split_once('(')?.1.to_owned(),
            state: fields.next()?.chars().next()?,
            began: fields.nth(18)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_process_is_known_by_its_number_and_its_start() {
        let own = i64::from(std::process::id());
        let mut seen = Processes::default();
        seen.note(&json!({ "pid": own }));
        assert_eq!((seen.count(), seen.left().len()), (1, 1));
        // A stranger with its number.
        seen.0 = seen
            .0
            .iter()
            .map(|(pid, began)| (*pid, began + 1))
            .collect();
        assert_eq!(seen.left(), Vec::<String>::new());
    }

    #[test]
    fn a_name_may_look_like_the_end_of_itself() {
        let fields = "S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0";
        let stat = Stat::parse(&format!("7 (a) Z) {fields}")).expect("it");
        assert_eq!(
            (stat.name.as_str(), stat.state, stat.began),
            ("a) Z", 'S', 4711)
        );
    }
}
