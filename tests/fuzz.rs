//! Hostile input, made by mutation: manifests, configurations, frames of the bridge, the keeper's protocol.
//!
//! Each target replays its corpus (`tests/corpus/<target>`, and for manifests all that are in the tree), then mutates it:
//! a few thousand times with a fixed seed in the usual run, or for `LAIR_FUZZ_SECS` seconds with a seed of its own.
//! An input with a new outcome joins the pool; `LAIR_FUZZ_SAVE=1` adds those to the corpus. What panics, takes too long or breaks a
//! rule of its target is written to the corpus as `found-…` and fails the test, from then on in every run.

#![allow(clippy::print_stdout, reason = "a long run tells what it tried")]

use lair::actors::dossier::rules::Pack;
use lair::actors::keeper::wire::{Event, Request as Order};
use lair::bridge::frame::FrameReader;
use lair::bridge::methods::{params, types};
use lair::bridge::wire::{Request, RpcError, write_error};
use lair::manifests::launch::Mode;
use lair::manifests::{Dirs, HostFacts, PlanContext, Policy, Problem, RuntimeConfig, Source};
use lair::manifests::{parse_config, parse_stack, plan, problem, select};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Mutations in the usual run.
const USUAL: u64 = 1500;
/// An input is at most this long, but for some in a hundred.
const LONG: usize = 4 << 10;
const LONGEST: usize = 64 << 10;
/// Inputs in the pool.
const POOL: usize = 3000;
/// One input may take this long, on a busy machine, unoptimised.
const SLOW: Duration = Duration::from_secs(10);
/// After this long somebody is told which input hangs.
const HANGS: Duration = Duration::from_secs(60);
/// What a process may grow by.
const GROWTH_KIB: u64 = 256 << 10;

/// What an input leads to, as a number: two inputs with the same are alike.
type Target = fn(&[u8]) -> u64;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides.max(1) as u64).expect("fits")
    }
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(name)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
    {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => all.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => all.push(entry.path()),
            _ => {}
        }
    }
    all.sort();
    all
}

fn fuzz(name: &str, words: &[&str], more: Vec<Vec<u8>>, target: Target) {
    let read = |path: PathBuf| std::fs::read(path).expect("the corpus");
    let mut pool: Vec<Vec<u8>> = files(&corpus(name))
        .into_iter()
        .map(read)
        .chain(more)
        .collect();
    assert!(!pool.is_empty(), "no corpus for {name}");
    let now: Arc<Mutex<(Instant, Vec<u8>)>> = Arc::new(Mutex::new((Instant::now(), Vec::new())));
    watch(name, &now);
    let mut seen: HashSet<u64> = HashSet::new();
    for input in &pool {
        seen.insert(run(name, target, input, &now));
    }
    let seconds = std::env::var("LAIR_FUZZ_SECS")
        .ok()
        .and_then(|s| s.parse::<u64>().ok());
    let seed = seconds.map_or(0x1a1b, |_| std::process::id().into());
    let mut dice = Dice(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15) | 1);
    let (begun, mut tried, mut new, known) = (Instant::now(), 0_u64, Vec::new(), pool.len());
    let mut memory = None;
    while seconds.map_or(tried < USUAL, |s| begun.elapsed() < Duration::from_secs(s)) {
        let input = mutate(&pool, words, &mut dice);
        tried += 1;
        if seen.insert(run(name, target, &input, &now)) {
            new.push(input.clone());
            if pool.len() < POOL {
                pool.push(input);
            } else {
                let at = known.min(POOL - 1) + dice.roll(POOL - known.min(POOL - 1));
                pool[at] = input;
            }
        }
        if tried == USUAL / 2 {
            memory = Some(resident());
        }
    }
    let grown = resident().saturating_sub(memory.unwrap_or(u64::MAX));
    println!(
        "{name}: {tried} inputs in {:?}, seed {seed}, {} outcomes, {} new, {grown} KiB more",
        begun.elapsed(),
        seen.len(),
        new.len()
    );
    assert!(grown < GROWTH_KIB, "{name} has grown by {grown} KiB");
    if std::env::var_os("LAIR_FUZZ_SAVE").is_some() {
        new.sort_by_key(Vec::len);
        for input in new.iter().take(150) {
            save(name, "kept", input);
        }
    }
}

/// Tells which input hangs, and ends the process.
fn watch(name: &str, now: &Arc<Mutex<(Instant, Vec<u8>)>>) {
    let (now, name) = (Arc::downgrade(now), name.to_owned());
    std::thread::spawn(move || {
        while let Some(now) = now.upgrade() {
            let (since, input) = now.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if since.elapsed() > HANGS && !input.is_empty() {
                eprintln!("{name} hangs: {}", save(&name, "found", &input).display());
                std::process::exit(1);
            }
            drop(now);
            std::thread::sleep(Duration::from_secs(1));
        }
    });
}

fn run(name: &str, target: Target, input: &[u8], now: &Mutex<(Instant, Vec<u8>)>) -> u64 {
    let begun = Instant::now();
    *now.lock().unwrap_or_else(PoisonError::into_inner) = (begun, input.to_vec());
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    let took = begun.elapsed();
    match outcome {
        Ok(outcome) if took < SLOW => outcome,
        Ok(_) => panic!(
            "{name}: {took:?} for {}",
            save(name, "found", input).display()
        ),
        Err(_) => panic!("{name} panics: {}", save(name, "found", input).display()),
    }
}

fn save(name: &str, word: &str, input: &[u8]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let path = corpus(name).join(format!("{word}-{:016x}", hasher.finish()));
    std::fs::create_dir_all(corpus(name)).expect("a folder");
    std::fs::write(&path, input).expect("written");
    path
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

fn mutate(pool: &[Vec<u8>], words: &[&str], dice: &mut Dice) -> Vec<u8> {
    let mut input = pool[dice.roll(pool.len())].clone();
    for _ in 0..=dice.roll(6) {
        change(&mut input, pool, words, dice);
    }
    input.truncate(if dice.roll(100) == 0 { LONGEST } else { LONG });
    input
}

fn change(input: &mut Vec<u8>, pool: &[Vec<u8>], words: &[&str], dice: &mut Dice) {
    const ODD: [u8; 16] = [
        0, 1, 0x7f, 0x80, 0xff, b'\n', b'\r', b' ', b'"', b'{', b'[', b':', b'-', b'&', b'*', 0xc3,
    ];
    let at = dice.roll(input.len() + 1);
    let end = (at + 1 + dice.roll(24)).min(input.len()).max(at);
    match dice.roll(11) {
        0 if at < input.len() => input[at] ^= 1 << dice.roll(8),
        1 if at < input.len() => input[at] = ODD[dice.roll(ODD.len())],
        2 => drop(input.drain(at..end)),
        3 => {
            let piece = input[at..end].to_vec();
            let times = 1 + dice.roll(40);
            input.splice(at..at, piece.repeat(times));
        }
        4 | 5 => {
            let word = words[dice.roll(words.len())].as_bytes();
            input.splice(at..at, word.iter().copied());
        }
        6 => {
            let word = words[dice.roll(words.len())].as_bytes();
            input.splice(at..end, word.iter().copied());
        }
        7 | 8 => {
            let other = &pool[dice.roll(pool.len())];
            let from = dice.roll(other.len() + 1);
            let to = (from + dice.roll(200)).min(other.len());
            input.splice(at..end, other[from..to].iter().copied());
        }
        9 => {
            // A line of another file, at the beginning of a line of this one.
            let other = &pool[dice.roll(pool.len())];
            let lines: Vec<&[u8]> = other.split_inclusive(|b| *b == b'\n').collect();
            let start = input[..at]
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |n| n + 1);
            if !lines.is_empty() {
                input.splice(start..start, lines[dice.roll(lines.len())].iter().copied());
            }
        }
        _ => input.truncate(at),
    }
}

fn hashed(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Kinds and places, without numbers and names that the input chose.
fn of_problems(problems: &[Problem], text: &str) -> u64 {
    assert!(!problems.is_empty(), "refused without a problem");
    assert!(!problem::render(problems).is_empty());
    // To YAML a carriage return alone ends a line, too.
    let lines = text.matches(['\n', '\r']).count() + 2;
    let mut shape = Vec::new();
    for p in problems {
        assert!(
            p.line as usize <= lines,
            "a problem in line {} of {lines}",
            p.line
        );
        let place: String = p
            .pointer
            .chars()
            .filter(|c| !c.is_ascii_digit())
            .take(40)
            .collect();
        shape.push((format!("{:?}", p.kind), place));
    }
    shape.sort();
    shape.dedup();
    hashed(shape)
}

fn manifest(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    let source = Source::of_text("m", &text, Path::new("/nowhere"));
    let stack = match parse_stack(&source) {
        Ok(stack) => stack,
        Err(problems) => return of_problems(&problems, &text),
    };
    let env = [("HOME".to_owned(), "/root".to_owned())].into();
    let context = PlanContext::new(Dirs::of(&env, 0));
    let config = RuntimeConfig::default();
    let mut shape = Vec::new();
    for module in &stack.modules {
        for preference in [None, Some(Mode::Native), Some(Mode::Container)] {
            let host = HostFacts::default();
            match select(
                module,
                &host,
                &Policy::default(),
                &config,
                preference,
                true,
                &Ok(()),
            ) {
                Ok(selected) => match plan(module, &selected, &context) {
                    Ok(plan) => {
                        serde_json::to_string(&plan).expect("a plan can be shown");
                        shape.push(hashed((
                            plan.mode.as_str(),
                            plan.ports.len(),
                            plan.explanation.len(),
                        )));
                    }
                    Err(problems) => shape.push(of_problems(&problems, &text)),
                },
                Err(refusal) => shape.push(hashed(refusal.why.len())),
            }
        }
    }
    hashed(shape)
}

fn config(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    let source = Source::of_text("c", &text, Path::new("/nowhere"));
    match parse_config(&source) {
        Ok(config) => {
            let dirs = config.dirs(&Default::default(), 0);
            hashed((format!("{config:?}").len() / 16, dirs.socket.is_absolute()))
        }
        Err(problems) => of_problems(&problems, &text),
    }
}

/// The lines of a stream that comes in pieces of these lengths.
fn lines(input: &[u8], mut piece: impl FnMut() -> usize) -> Vec<Result<String, String>> {
    let mut reader = FrameReader::new(1 << 10, 16);
    let (mut all, mut rest) = (Vec::new(), input);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(piece().clamp(1, rest.len()));
        reader.space().extend_from_slice(now);
        rest = later;
        while let Some(line) = reader.next_line() {
            let line = line
                .map(str::to_owned)
                .map_err(|e| (e.is_fatal(), e.code().to_owned()));
            let fatal = matches!(&line, Err((true, _)));
            all.push(line.map_err(|(_, code)| code));
            if fatal {
                return all;
            }
        }
    }
    if let Some(last) = reader.last_line() {
        all.push(last.map(str::to_owned).map_err(|e| e.code().to_owned()));
    }
    all
}

fn frames(input: &[u8]) -> u64 {
    let mut dice = Dice(hashed(input) | 1);
    let whole = lines(input, || usize::MAX);
    let pieces = lines(input, || 1 + dice.roll(100));
    assert_eq!(whole, pieces, "the same lines whatever the pieces");
    let mut shape = Vec::new();
    for line in whole {
        let line = match line {
            Ok(line) => line,
            Err(code) => {
                shape.push(code);
                continue;
            }
        };
        match Request::parse(&line) {
            Ok(request) => {
                shape.push(request.method.chars().take(30).collect());
                shape.push(
                    of_params(&request).map_or_else(|e| coarse(&e.message), |()| "ok".to_owned()),
                );
            }
            Err(bad) => {
                let mut out = Vec::new();
                write_error(&mut out, bad.id, &bad.error);
                // By grammar: the id is the peer's own, byte for byte, and may be a number that nobody can hold.
                serde_json::from_slice::<&serde_json::value::RawValue>(&out)
                    .expect("an error is JSON");
                shape.push(coarse(&bad.error.message));
            }
        }
    }
    shape.sort();
    shape.dedup();
    hashed(shape)
}

/// The first words of a message, without what it quotes.
fn coarse(message: &str) -> String {
    let words = message.split(['`', '"', ',']).step_by(2).take(2);
    words
        .collect::<String>()
        .chars()
        .filter(|c| !c.is_ascii_digit())
        .collect()
}

fn of_params(request: &Request) -> Result<(), RpcError> {
    let raw = request.params;
    match &*request.method {
        "module.load" => params::<types::LoadParams>(raw)?.split().map(drop),
        "module.start" => params::<types::StartParams>(raw)?.split().map(drop),
        "module.stop" | "module.restart" => params::<types::StopParams>(raw).map(drop),
        "module.kill" => params::<types::KillParams>(raw).map(drop),
        "module.wait" => params::<types::WaitParams>(raw).map(drop),
        "module.why" => params::<types::WhyParams>(raw).map(drop),
        "runtime.drain" => params::<types::DrainParams>(raw).map(drop),
        "fault.inject" => params::<types::InjectParams>(raw).map(drop),
        "events.subscribe" => params::<types::SubscribeParams>(raw).map(drop),
        "unsubscribe" => params::<types::UnsubscribeParams>(raw).map(drop),
        _ => params::<types::OneModule>(raw).map(drop),
    }
}

fn keeper(input: &[u8]) -> u64 {
    let (mut order, mut event) = (String::new(), String::new());
    match Order::decode(input) {
        Ok(decoded) => {
            let mut again = Vec::new();
            decoded.encode(&mut again);
            assert_eq!(Order::decode(&again).as_ref(), Ok(&decoded));
            order = format!("{decoded:?}")
                .chars()
                .filter(char::is_ascii_alphabetic)
                .take(200)
                .collect();
        }
        Err(fault) => order += &format!("{fault:?}"),
    }
    match Event::decode(input) {
        Ok(decoded) => {
            let mut again = Vec::new();
            decoded.encode(&mut again);
            assert_eq!(Event::decode(&again).as_ref(), Ok(&decoded));
            event = format!("{decoded:?}")
                .chars()
                .filter(char::is_ascii_alphabetic)
                .take(200)
                .collect();
        }
        Err(fault) => event += &format!("{fault:?}"),
    }
    hashed((order, event, input.first()))
}

fn rules(input: &[u8]) -> u64 {
    match Pack::read("p", &String::from_utf8_lossy(input)) {
        Ok(pack) => hashed(pack.samples().count()),
        Err(why) => hashed(coarse(&why)),
    }
}

const YAML: [&str; 40] = [
    "runtime:",
    "modes: [native]",
    "native:",
    "container:",
    "command:",
    "${env.X}",
    "${port.api}",
    "${module.data}",
    "${",
    "}",
    "- ",
    ": ",
    "\n  ",
    "\n    ",
    "&a",
    "*a",
    "<<: *a",
    "{",
    "}",
    "[",
    "]",
    "'",
    "\"",
    "#",
    "|",
    ">",
    "!!str",
    "~",
    "null",
    "true",
    "-1",
    "0",
    "9223372036854775808",
    "1e309",
    "10s",
    "4GiB",
    "99999999999h",
    "modules:",
    "groups:",
    "\u{feff}",
];

#[test]
fn mutated_manifests_are_read_or_refused() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seeds = files(&root.join("manifests/modules"));
    seeds.extend(files(&root.join("manifests/tests/bad")));
    seeds.extend(files(&root.join("manifests/tests/foreign")));
    seeds.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    let more = seeds
        .into_iter()
        .map(|f| std::fs::read(f).expect("a manifest"));
    fuzz("manifest", &YAML, more.collect(), manifest);
}

#[test]
fn mutated_configurations_are_read_or_refused() {
    fuzz("config", &YAML, Vec::new(), config);
}

#[test]
fn mutated_rule_packs_are_read_or_refused() {
    let pack = b"format: lair-rules/1\nrules: [ { code: a, cause: b., next: c., lines: ['(?P<x>y+)|z{2}'], when: { signal: 4 }, samples: [yy] } ]\n";
    fuzz("rules", &YAML, vec![pack.to_vec()], rules);
}

#[test]
fn mutated_frames_are_answered_and_read_the_same_in_any_pieces() {
    let words = [
        "{",
        "}",
        "[",
        "]",
        "\"",
        ":",
        ",",
        "\n",
        "\\u0000",
        "\\ud800",
        "null",
        "true",
        "1e999",
        "-0",
        "\"id\":",
        "\"jsonrpc\":\"2.0\"",
        "\"method\":",
        "\"params\":",
        "\"name\":",
        "[[[[[[[[[[[[[[[[[[[[",
        "module.start",
        "fault.inject",
        "\u{feff}",
        "\"manifest\":\"",
        "\"from_seq\":",
        "18446744073709551616",
        "\"..\"",
        "\"for\":\"ready\"",
    ];
    fuzz("frames", &words, Vec::new(), frames);
}

#[test]
fn mutated_messages_of_the_keeper_are_decoded_or_refused() {
    let words = [
        "\0\0\0\0",
        "\u{1}\0\0\0",
        "\u{7f}",
        "\0",
        "\u{1}",
        "\u{2}",
        "\u{3}",
        "/bin/sh\0",
        "PATH=/bin\0",
    ];
    fuzz("keeper", &words, Vec::new(), keeper);
}
