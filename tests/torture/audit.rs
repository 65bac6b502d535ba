//! What is in the files, what lair said, and what the modules themselves prove: all three must agree.

use super::clients::Told;
use super::world::Kills;
use crate::support::segments;
use lair::actors::files::{StreamName, parse_record};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Both streams, in the order of the proof.
const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// How late a module may notice that nobody reads it any more.
const SLACK_MS: u64 = 2_000;

/// How long a killed engine may take to be back.
const DEAD_MS: u64 = 10_000;

/// What a module has noted of one of its lives (`talker.c`).
#[derive(Clone, Debug)]
pub struct Proof {
    pub tried: [u64; 2],
    pub done: [u64; 2],
    /// 0: it was ended; 1000 + code, 2000 + signal: by itself.
    pub ended: u64,
    pub began: u64,
    pub last: u64,
}

impl Proof {
    fn read(path: &Path) -> Option<Proof> {
        let bytes = fs::read(path).ok()?;
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|c| u64::from_le_bytes(c.try_into().expect("eight bytes")))
            .collect();
        let [a, b, c, d, ended, began, last, ..] = words[..] else {
            return None;
        };
        Some(Proof {
            tried: [a, b],
            done: [c, d],
            ended,
            began,
            last,
        })
    }
}

/// The proofs of a module, by its life.
fn proofs(dir: &Path, name: &str) -> BTreeMap<u64, Proof> {
    let prefix = format!("{name}.");
    let entries = fs::read_dir(dir).expect("proofs").flatten();
    let of = |entry: fs::DirEntry| {
        let file = entry.file_name().into_string().ok()?;
        let life = file.strip_prefix(&prefix)?.parse().ok()?;
        Some((life, Proof::read(&entry.path())?))
    };
    entries.filter_map(of).collect()
}

/// What is in the files of one run.
#[derive(Default)]
struct Written {
    streams: [Vec<u8>; 2],
    own: Vec<String>,
    cut: bool,
}

/// All runs of a module.
fn written(dir: &Path) -> BTreeMap<u64, Written> {
    let mut runs: BTreeMap<u64, Written> = BTreeMap::new();
    for (name, bytes) in segments::read(dir) {
        let written = runs.entry(name.run).or_default();
        let side = |of: StreamName| STREAMS.iter().position(|s| *s == of.as_str());
        match (name.stream, name.stream.and_then(side)) {
            (_, Some(side)) => written.streams[side].extend_from_slice(&bytes),
            (Some(_), None) => {}
            (None, None) => written.take(&bytes, &dir.join(name.to_string())),
        }
    }
    runs
}

impl Written {
    fn take(&mut self, records: &[u8], path: &Path) {
        for line in records.split_inclusive(|b| *b == b'\n') {
            let record = line.strip_suffix(b"\n").and_then(parse_record);
            let Some(record) = record else {
                panic!("{}: {:?}", path.display(), String::from_utf8_lossy(line));
            };
            match STREAMS.iter().position(|s| *s == record.stream.as_str()) {
                Some(side) => {
                    self.streams[side].extend_from_slice(record.bytes);
                    if !record.partial {
                        self.streams[side].push(b'\n');
                    }
                }
                None => {
                    let said = String::from_utf8_lossy(record.bytes).into_owned();
                    self.cut |= said.contains("is lost");
                    self.own.push(said);
                }
            }
        }
    }
}

/// The line as `talker.c` writes it.
fn line(life: u64, side: usize, n: u64) -> Vec<u8> {
    let pad = match n % 97 {
        0 => 3000,
        _ => n * 7 % 60,
    };
    let mut text = format!("L{life} {} {n} ", ["o", "e"][side]).into_bytes();
    text.resize(text.len() + pad as usize, b'x');
    text
}

/// What was counted, and what is wrong.
#[derive(Default)]
pub struct Books {
    pub lives: u64,
    pub lines: u64,
    /// Lines that their module had written, and that were lost when lair and keeper were both dead.
    pub lost_with_both: u64,
    /// The same, with the engine that held them.
    pub lost_with_engine: u64,
    /// The same, of containers that their engine started after lair was killed in the middle of that: they are replaced.
    pub lost_with_start: u64,
    pub cut_off_starts: u64,
    /// Runs with a gap that lair has said.
    pub said_gaps: u64,
    pub ends_told: u64,
    pub ends_unknown: u64,
    /// Code 0 by the word of a dockerd that was killed around the end.
    pub ends_wrong_by_docker: u64,
    /// Lives whose end no event, status or dossier tells.
    pub ends_untold: u64,
    pub segments: u64,
    pub wrong: Vec<String>,
}

pub struct Auditor<'a> {
    pub dir: &'a Path,
    pub kills: &'a Kills,
    pub told: Told,
    pub books: Books,
}

impl Auditor<'_> {
    pub fn module(&mut self, name: &str) {
        let logs = self.dir.join("logs").join(name);
        let proofs = proofs(&self.dir.join("proof"), name);
        self.books.lives += proofs.len() as u64;
        self.hear_dossiers(name, &logs);
        let runs = written(&logs);
        let entries = fs::read_dir(&logs).into_iter().flatten();
        self.books.segments += entries.count() as u64;
        let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
        for (run, written) in &runs {
            let Some(life) = life_of(written) else {
                continue;
            };
            let Some(proof) = proofs.get(&life) else {
                self.wrong(
                    name,
                    format!("run {run} prints of life {life}, which never was"),
                );
                continue;
            };
            if let Some(other) = seen.insert(life, *run) {
                self.wrong(
                    name,
                    format!("life {life} is in the runs {other} and {run}"),
                );
            }
            for side in 0..2 {
                self.stream(
                    name,
                    (*run, life),
                    side,
                    &written.streams[side],
                    proof,
                    written.cut,
                );
            }
            self.end(name, *run, proof);
        }
        for (life, proof) in &proofs {
            if !seen.contains_key(life) && proof.done != [0, 0] {
                let lost = proof.done[0] + proof.done[1];
                if self.both_died(name, proof) {
                    self.books.lost_with_both += lost;
                } else if self.start_cut_off(name, proof) {
                    self.books.lost_with_start += lost;
                    self.books.cut_off_starts += 1;
                } else {
                    self.wrong(
                        name,
                        format!("nothing of life {life} is in the files: {proof:?}"),
                    );
                }
            }
        }
    }

    fn wrong(&mut self, name: &str, what: String) {
        self.books.wrong.push(format!("{name}: {what}"));
    }

    /// Every line once and in order, and none missing but where that is said.
    fn stream(
        &mut self,
        name: &str,
        at: (u64, u64),
        side: usize,
        got: &[u8],
        proof: &Proof,
        cut: bool,
    ) {
        let (run, life) = at;
        let (mut next, mut holes) = (1, 0);
        let mut lines: Vec<&[u8]> = got.split(|b| *b == b'\n').collect();
        let rest = lines.pop().unwrap_or_default();
        for (i, text) in lines.iter().enumerate() {
            let n = number(text, life, side);
            let is_right = n.is_some_and(|n| n >= next && **text == line(life, side, n)[..]);
            let Some(n) = n.filter(|_| is_right) else {
                let near = String::from_utf8_lossy(&text[..text.len().min(80)]).into_owned();
                return self.wrong(
                    name,
                    format!(
                        "run {run} life {life} {}: line {i} is {near:?}, {next} was due",
                        STREAMS[side]
                    ),
                );
            };
            holes += n - next;
            next = n + 1;
        }
        let (last, done, tried) = (next - 1, proof.done[side], proof.tried[side]);
        self.books.lines += lines.len() as u64;
        if last > tried || !line(life, side, next).starts_with(rest) {
            let rest = String::from_utf8_lossy(&rest[..rest.len().min(80)]).into_owned();
            self.wrong(
                name,
                format!(
                    "run {run} life {life} {}: {last} lines and {rest:?}, {tried} were printed",
                    STREAMS[side]
                ),
            );
        }
        let missing = holes + done.saturating_sub(last);
        if missing == 0 {
            return;
        }
        let kind = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let engine = match kind {
            "docker" => &self.kills.docker[..],
            _ => &[],
        };
        if cut {
            self.books.said_gaps += 1;
        } else if holes == 0 && self.both_died(name, proof) {
            self.books.lost_with_both += missing;
        } else if engine.iter().any(|at| lived_at(proof, *at)) {
            self.books.lost_with_engine += missing;
        } else {
            self.wrong(
                name,
                format!(
                    "run {run} life {life} {}: {holes} lines missing within, {} at the end; {proof:?}",
                    STREAMS[side],
                    done.saturating_sub(last)
                ),
            );
        }
    }

    /// Was its keeper killed while it lived, and lair before it had ended?
    fn both_died(&self, name: &str, proof: &Proof) -> bool {
        let native = name.starts_with('n');
        native
            && self.kills.keeper.iter().any(|keeper| {
                let (began, last) = (proof.began, proof.last + SLACK_MS);
                let dead = |(from, to): &(u64, u64)| *to >= *keeper && *from <= last;
                began <= *keeper && self.kills.lair.iter().any(dead)
            })
    }

    /// Was this container started while lair was dead or coming up?
    fn start_cut_off(&self, name: &str, proof: &Proof) -> bool {
        let away = |(from, to): &(u64, u64)| from - SLACK_MS <= proof.began && proof.began <= *to;
        !name.starts_with('n') && self.kills.lair.iter().any(away)
    }

    fn lair_died_around_the_end(&self, proof: &Proof) -> bool {
        let near = |(from, to): &(u64, u64)| {
            proof.last + SLACK_MS >= *from && proof.last <= *to + SLACK_MS
        };
        self.kills.lair.iter().any(near)
    }

    fn docker_died_around_the_end(&self, name: &str, proof: &Proof) -> bool {
        let near = |at: &u64| proof.last.abs_diff(*at) <= DEAD_MS;
        name.starts_with("docker") && self.kills.docker.iter().any(near)
    }

    fn hear_dossiers(&mut self, name: &str, logs: &Path) {
        for entry in fs::read_dir(logs).into_iter().flatten().flatten() {
            let file = entry.file_name().into_string().unwrap_or_default();
            let Some(run) = file.strip_suffix(".dossier.json") else {
                continue;
            };
            let text = fs::read(entry.path()).expect("a dossier");
            let dossier: Value = serde_json::from_slice(&text).expect("a whole dossier");
            let run = run.parse().expect("a run");
            if dossier["exit"].is_object() {
                let key = (name.to_owned(), run);
                self.told
                    .entry(key)
                    .or_default()
                    .push(dossier["exit"].clone());
            }
        }
    }

    /// What was said of its end is what happened, or that nobody knows.
    fn end(&mut self, name: &str, run: u64, proof: &Proof) {
        let told = self.told.get(&(name.to_owned(), run)).cloned();
        let Some(told) = told else {
            self.books.ends_untold += 1;
            if !self.lair_died_around_the_end(proof) {
                self.wrong(name, format!("nobody told how run {run} ended: {proof:?}"));
            }
            return;
        };
        let is_native = name.starts_with('n');
        let mut unknown = 0;
        for exit in &told {
            let (code, signal) = (exit["code"].as_u64(), signal_of(exit));
            if exit["unknown"] == true {
                unknown += 1;
                continue;
            }
            let shell = |s: u64| !is_native && code == Some(128 + s);
            let is_so = match proof.ended {
                0 => signal.is_some() || [9, 13, 15].into_iter().any(shell),
                n @ 1000..2000 => code == Some(n - 1000),
                n => signal == Some(n - 2000) || shell(n - 2000),
            };
            if !is_so && code == Some(0) && self.docker_died_around_the_end(name, proof) {
                self.books.ends_wrong_by_docker += 1;
            } else if !is_so {
                self.wrong(
                    name,
                    format!("run {run} is said to have ended with {exit}: {proof:?}"),
                );
            }
        }
        if unknown == told.len() {
            self.books.ends_unknown += 1;
            let lived = |at: &u64| lived_at(proof, *at);
            let excused = match is_native {
                true => self.kills.keeper.iter().any(lived),
                false => self
                    .kills
                    .podman
                    .iter()
                    .chain(&self.kills.docker)
                    .any(lived),
            };
            if !excused {
                self.wrong(name, format!("nobody knows how run {run} ended: {proof:?}"));
            }
        } else {
            self.books.ends_told += 1;
        }
    }
}

fn signal_of(exit: &Value) -> Option<u64> {
    exit["signal"].as_u64()
}

fn lived_at(proof: &Proof, at: u64) -> bool {
    proof.began <= at && at <= proof.last + SLACK_MS
}

/// The number of the life that a run printed of.
fn life_of(written: &Written) -> Option<u64> {
    let text = written.streams.iter().find(|s| !s.is_empty())?;
    let word = text.split(|b| *b == b' ').next()?;
    std::str::from_utf8(word)
        .ok()?
        .strip_prefix('L')?
        .parse()
        .ok()
}

fn number(text: &[u8], life: u64, side: usize) -> Option<u64> {
    let start = format!("L{life} {} ", ["o", "e"][side]);
    let rest = text.strip_prefix(start.as_bytes())?;
    let word = rest.split(|b| *b == b' ').next()?;
    std::str::from_utf8(word).ok()?.parse().ok()
}
