//! Known causes as data: the built-in pack, a user's packs, and asking them of a run that failed.
//!
//! Owns: the form of a pack. Promises: the first rule that fits is the answer; a pack that can't be read is told, and
//! costs no other. Never: looks at a run that did not fail: healthy programs print frightening lines.

use lair_manifests::data::read_data;
use memchr::memmem;
use regex_lite::{Captures, Regex};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::OnceLock;

const FORM: &str = "lair-rules/1";
/// A user's pack may be this long.
const LONGEST_PACK: u64 = 1 << 20;
/// Characters of a line, or of what was found in it, that are shown.
const SHOWN: usize = 300;

/// What is known of a run's end, for rules to look at.
#[derive(Clone, Debug, Default)]
pub struct Seen<'a> {
    /// The last lines of its output, oldest first.
    pub lines: &'a [String],
    /// The kernel ended it for want of memory.
    pub oom: bool,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The step at which the start failed.
    pub stage: Option<&'a str>,
    /// The system's name of the error (`ENOENT`).
    pub errno: Option<&'a str>,
}

/// A known cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The rule's code: `port_in_use`, ...
    pub code: String,
    /// One sentence.
    pub message: String,
    /// What to do now.
    pub next_step: String,
    /// The line that gave it away, if a line did.
    pub line: Option<String>,
    /// `built-in`, or the file of the pack.
    pub pack: String,
}

/// Rules in the order in which they are asked.
#[derive(Debug, Default)]
pub struct Pack {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    written: Written,
    lines: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    regex: Regex,
    /// One of these is in every line that fits; empty: that can't be told.
    needles: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    code: String,
    cause: String,
    next: String,
    #[serde(default)]
    lines: Vec<String>,
    #[serde(default)]
    when: Option<When>,
    #[serde(default)]
    samples: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    oom: Option<bool>,
    signal: Option<i32>,
    stage: Option<String>,
    errno: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    rules: Vec<Written>,
}

impl Pack {
    /// Reads a pack; `name` stands in what it finds.
    ///
    /// # Errors
    /// One sentence: it is no pack, or an expression in it is none.
    pub fn read(name: &str, text: &str) -> Result<Pack, String> {
        let data = read_data(name, text).map_err(|p| p.to_string())?;
        let file: File = serde_json::from_value(data).map_err(|e| format!("{name}: {e}"))?;
        if file.format != FORM {
            return Err(format!(
                "{name}: `format` is {:?}, this lair reads {FORM:?}",
                file.format
            ));
        }
        let rules = file.rules.into_iter().map(|w| Rule::of(name, w));
        Ok(Pack {
            name: name.to_owned(),
            rules: rules.collect::<Result<_, _>>()?,
        })
    }

    /// The pack that lair brings along.
    #[must_use]
    pub fn built_in() -> &'static Pack {
        static PACK: OnceLock<Pack> = OnceLock::new();
        PACK.get_or_init(|| {
            // Read by a test of its own: here it can only be good.
            Pack::read("built-in", include_str!("rules.yaml")).unwrap_or_default()
        })
    }

    /// The first rule that fits.
    #[must_use]
    pub fn ask(&self, seen: &Seen) -> Option<Cause> {
        self.rules
            .iter()
            .find_map(|rule| rule.ask(seen, &self.name))
    }

    /// Each rule's code and its samples: lines that it must fit.
    pub fn samples(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.rules
            .iter()
            .map(|r| (r.written.code.as_str(), r.written.samples.as_slice()))
    }
}

/// The packs in a user's folder, by name, and what is wrong with those that can't be read.
#[must_use]
pub fn user_packs(folder: &Path) -> (Vec<Pack>, Vec<String>) {
    let (mut packs, mut wrong) = (Vec::new(), Vec::new());
    let Ok(entries) = std::fs::read_dir(folder) else {
        return (packs, wrong);
    };
    let mut files: Vec<_> = entries.filter_map(Result::ok).map(|e| e.path()).collect();
    files.retain(|f| {
        f.extension()
            .is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
    });
    files.sort();
    for file in files {
        let name = file.display().to_string();
        match read_file(&file).map_err(|e| format!("{name}: {e}")) {
            Ok(text) => match Pack::read(&name, &text) {
                Ok(pack) => packs.push(pack),
                Err(why) => wrong.push(why),
            },
            Err(why) => wrong.push(why),
        }
    }
    (packs, wrong)
}

fn read_file(file: &Path) -> std::io::Result<String> {
    let meta = std::fs::metadata(file)?;
    if !meta.is_file() || meta.len() > LONGEST_PACK {
        return Err(std::io::Error::other("not a file of at most 1 MiB"));
    }
    std::fs::read_to_string(file)
}

impl Rule {
    fn of(pack: &str, written: Written) -> Result<Rule, String> {
        if written.lines.is_empty() && written.when.is_none() {
            return Err(format!(
                "{pack}: {} has neither `lines` nor `when`",
                written.code
            ));
        }
        let lines = written.lines.iter().map(|line| {
            let regex = Regex::new(line).map_err(|e| format!("{pack}: {}: {e}", written.code))?;
            let needles = needles(line);
            Ok(Pattern { regex, needles })
        });
        let lines = lines.collect::<Result<_, String>>()?;
        Ok(Rule { written, lines })
    }

    fn ask(&self, seen: &Seen, pack: &str) -> Option<Cause> {
        let w = &self.written;
        let found = seen.lines.iter().rev().find_map(|line| {
            let fits = self.lines.iter().find_map(|p| p.find(line))?;
            Some((line, fits))
        });
        let (line, captures) = match found {
            Some((line, captures)) => (Some(line), Some(captures)),
            None if w.when.as_ref().is_some_and(|when| when.holds(seen)) => (None, None),
            None => return None,
        };
        let filled = |text: &String| match &captures {
            Some(captures) => fill(text, captures),
            None => text.clone(),
        };
        Some(Cause {
            code: w.code.clone(),
            message: filled(&w.cause),
            next_step: filled(&w.next),
            line: line.map(|l| cut(l.trim_end(), SHOWN)),
            pack: pack.to_owned(),
        })
    }
}

impl When {
    fn holds(&self, seen: &Seen) -> bool {
        self.oom.is_none_or(|oom| oom == seen.oom)
            && (self.signal.is_none() || self.signal == seen.signal)
            && (self.stage.is_none() || self.stage.as_deref() == seen.stage)
            && (self.errno.is_none() || self.errno.as_deref() == seen.errno)
    }
}

impl Pattern {
    fn find<'l>(&self, line: &'l str) -> Option<Captures<'l>> {
        let may = |needle: &String| memmem::find(line.as_bytes(), needle.as_bytes()).is_some();
        if !self.needles.is_empty() && !self.needles.iter().any(may) {
            return None;
        }
        self.regex.captures(line)
    }
}

/// Puts what the expression found into a sentence; what it did not find is left out.
fn fill(text: &str, found: &Captures) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            break;
        };
        match found.name(name) {
            Some(value) => {
                out.push_str(before);
                out.push_str(&cut(value.as_str(), SHOWN));
            }
            None if name.chars().all(|c| c.is_ascii_lowercase()) && !name.is_empty() => {
                out.push_str(before.trim_end());
            }
            // Braces that are part of the sentence: a manifest's key.
            None => {
                out.push_str(before);
                out.push('{');
                out.push_str(name);
                out.push('}');
            }
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// At most so many characters.
pub(super) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// For each alternative of an expression the longest text that every match of it holds. Empty if one has none.
fn needles(expression: &str) -> Vec<String> {
    let mut runs = vec![vec![String::new()]];
    let (mut depth, mut class) = (0usize, false);
    let mut chars = expression.chars().peekable();
    if expression.contains("(?i)") {
        return Vec::new();
    }
    while let Some(c) = chars.next() {
        let literal = match c {
            '\\' => match chars.next() {
                Some(e) if !e.is_ascii_alphanumeric() => Some(e),
                _ => None,
            },
            '[' if !class => {
                class = true;
                None
            }
            ']' if class => {
                class = false;
                None
            }
            _ if class => None,
            '(' => {
                depth += 1;
                None
            }
            ')' => {
                depth = depth.saturating_sub(1);
                None
            }
            '|' if depth == 0 => {
                runs.push(vec![String::new()]);
                continue;
            }
            '.' | '^' | '$' | '*' | '+' | '?' | '{' | '}' | '|' => None,
            c => Some(c),
        };
        // What may be there any number of times, or not at all, is no part of every match.
        let repeated = matches!(chars.peek(), Some('*' | '?' | '{' | '+'));
        let Some(alternative) = runs.last_mut() else {
            break;
        };
        match literal {
            Some(c) if depth == 0 && !class && !repeated => {
                if let Some(run) = alternative.last_mut() {
                    run.push(c);
                }
            }
            _ => alternative.push(String::new()),
        }
    }
    let longest = |runs: Vec<String>| runs.into_iter().max_by_key(String::len).unwrap_or_default();
    let needles: Vec<String> = runs.into_iter().map(longest).collect();
    if needles.iter().any(|n| n.len() < 3) {
        return Vec::new();
    }
    needles
}

#[cfg(test)]
mod test {
    use super::*;

    fn ask(lines: &[&str]) -> Option<Cause> {
        let lines: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
        let seen = Seen {
            lines: &lines,
            ..Seen::default()
        };
        Pack::built_in().ask(&seen)
    }

    #[test]
    fn the_built_in_pack_can_be_read() {
        let pack = Pack::read("built-in", include_str!("rules.yaml"));
        assert!(pack.as_ref().is_ok_and(|p| p.rules.len() >= 50), "{pack:?}");
    }

    #[test]
    fn every_sample_is_told_by_its_own_rule() {
        let mut wrong = Vec::new();
        for (code, samples) in Pack::built_in().samples() {
            for sample in samples {
                let told = ask(&[sample]).map(|c| c.code);
                if told.as_deref() != Some(code) {
                    wrong.push(format!("{code}: {told:?} of {sample}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn every_rule_has_a_sample_or_is_about_the_end_itself() {
        for rule in &Pack::built_in().rules {
            let w = &rule.written;
            assert!(w.samples.is_empty() == w.lines.is_empty(), "{}", w.code);
            for text in [&w.cause, &w.next] {
                assert!(text.ends_with(['.', ')']), "{}: {text}", w.code);
            }
        }
    }

    #[test]
    fn no_sentence_is_left_with_a_hole_in_it() {
        for (code, samples) in Pack::built_in().samples() {
            for sample in samples {
                let cause = ask(&[sample]).expect("told");
                let text = format!("{} {}", cause.message, cause.next_step);
                let holes = Regex::new(r"\{[a-z]+\}|[:(] ?\.|: *$").expect("a regex");
                assert!(!holes.is_match(&text), "{code}: {text}");
            }
        }
    }

    #[test]
    fn the_end_itself_is_evidence() {
        let pack = Pack::built_in();
        let code = |seen: Seen| pack.ask(&seen).map(|c| c.code);
        let oom = Seen {
            oom: true,
            signal: Some(9),
            ..Seen::default()
        };
        assert_eq!(code(oom).as_deref(), Some("memory_limit"));
        let missing = Seen {
            stage: Some("exec"),
            errno: Some("ENOENT"),
            ..Seen::default()
        };
        assert_eq!(code(missing).as_deref(), Some("program_missing"));
        let illegal = Seen {
            signal: Some(4),
            ..Seen::default()
        };
        assert_eq!(code(illegal).as_deref(), Some("cpu_too_old"));
        assert_eq!(code(Seen::default()), None);
    }

    #[test]
    fn the_cause_comes_before_what_it_caused() {
        let told = ask(&[
            "E gguf_init_from_file: failed to open GGUF file '/nope/x.gguf' (No such file or directory)",
            "E llama_model_load: error loading model: llama_model_loader: failed to load model from /nope/x.gguf",
            "I srv    operator(): operator(): cleaning up before exit...",
        ]);
        let told = told.expect("told");
        assert_eq!(told.message, "The model file /nope/x.gguf is not there.");
        assert!(told.line.is_some_and(|l| l.contains("gguf_init_from_file")));
    }

    #[test]
    fn needles_are_in_every_match() {
        assert_eq!(needles("a.b"), Vec::<String>::new());
        assert_eq!(needles("abcd+e"), ["abc"]);
        assert_eq!(needles(r"bind\(\) to (x|y)"), ["bind() to "]);
        assert_eq!(needles("first|second"), ["first", "second"]);
        assert_eq!(needles("(?i)whatever"), Vec::<String>::new());
    }

    #[test]
    fn a_pack_with_a_mistake_is_told_by_its_name() {
        let told = Pack::read(
            "mine.yaml",
            "format: lair-rules/1\nrules: [ { code: x } ]\n",
        );
        assert!(told.is_err_and(|e| e.contains("mine.yaml") && e.contains("cause")));
        let told = Pack::read(
            "mine.yaml",
            "format: lair-rules/1\nrules: [ { code: x, cause: c, next: n, lines: ['('] } ]\n",
        );
        assert!(told.is_err_and(|e| e.contains("mine.yaml: x:")));
    }
}
