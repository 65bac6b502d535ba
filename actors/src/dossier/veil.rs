//! Keeps secrets out of what is written down: values of the environment, and what looks like a key.
//!
//! Promises: a value of the module's environment is shown by its name, wherever it turns up; tokens, passwords and the
//! like are hidden even where nobody declared them. Never: touches the log files; those hold what the module printed.

use regex_lite::{Captures, Regex};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// What stands where a secret was.
pub const HIDDEN: &str = "[hidden]";

/// Values shorter than this are words of every day, unless their name says that they are secret.
const SHORT: usize = 8;
const SHORT_SECRET: usize = 3;

/// Variables that are no secret, and whose values are part of many lines.
const PLAIN: [&str; 12] = [
    "PATH", "HOME", "LANG", "TZ", "PWD", "SHELL", "USER", "LOGNAME", "TERM", "TMPDIR", "HOSTNAME",
    "LC_ALL",
];

/// What tokens that betray themselves begin with: one of these is in each that `Looks::token` finds.
const TOKENS: [&str; 7] = ["sk-", "hf_", "gh", "glpat-", "AKIA", "xox", "eyJ"];

/// Hides the values of one module's environment.
#[derive(Clone, Debug, Default)]
pub struct Veil {
    /// Value and name, longest value first.
    values: Vec<(String, String)>,
}

struct Looks {
    /// Names of variables whose value is a secret however short.
    secret: Regex,
    header: Regex,
    keyed: Regex,
    token: Regex,
    url: Regex,
    flag: Regex,
}

fn looks() -> &'static Looks {
    static LOOKS: OnceLock<Looks> = OnceLock::new();
    // An expression that is none would match nothing; the tests below would tell.
    let regex = |text: &str| Regex::new(text).unwrap_or_else(|_| never());
    LOOKS.get_or_init(|| Looks {
        secret: regex(r"(?i)key|token|secret|pass|credential|auth"),
        header: regex(r"(?i)(authorization['\x22]?\s*[:=]\s*['\x22]?(?:bearer|basic)\s+)[^\s'\x22]+"),
        keyed: regex(
            r#"(?i)\b((?:[a-z0-9]+[_-])*(?:api[_-]?key|apikey|token|secret|password|passwd|private[_-]?key)['"]?\s*[=:]\s*['"]?)([^\s'",;&]{3,})"#,
        ),
        token: regex(
            r"\b(?:sk-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16}|xox[abprs]-[A-Za-z0-9-]{10,}|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})",
        ),
        url: regex(r"(://)[^\s/@:]+:[^\s/@]+@"),
        flag: regex(r"(?i)^--?(?:[a-z0-9]+[_-])*(?:api[_-]?key|token|secret|password|passwd|pass)$"),
    })
}

fn never() -> Regex {
    Regex::new("$.").unwrap_or_else(|_| unreachable!("a regex of two characters"))
}

impl Veil {
    /// Hides the values of this environment.
    #[must_use]
    pub fn of(env: &BTreeMap<String, String>) -> Veil {
        let secret = &looks().secret;
        let hides = |(name, value): &(&String, &String)| {
            let least = if secret.is_match(name) {
                SHORT_SECRET
            } else {
                SHORT
            };
            !PLAIN.contains(&name.as_str()) && !name.starts_with("LAIR_") && value.len() >= least
        };
        let mut values: Vec<(String, String)> = env
            .iter()
            .filter(hides)
            .map(|(name, value)| (value.clone(), name.clone()))
            .collect();
        values.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
        Veil { values }
    }

    /// The text without secrets.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (value, name) in &self.values {
            if text.contains(value.as_str()) {
                text = text.replace(value.as_str(), &format!("${{env.{name}}}"));
            }
        }
        // Most texts have nothing that an expression needs to find anything; asking it costs a hundred times as much.
        let l = looks();
        let keyed_at_all = text.contains([':', '=']);
        if keyed_at_all && l.header.is_match(&text) {
            text = l
                .header
                .replace_all(&text, |c: &Captures| format!("{}{HIDDEN}", &c[1]))
                .into_owned();
        }
        if keyed_at_all && l.keyed.is_match(&text) {
            text = l.keyed.replace_all(&text, keyed).into_owned();
        }
        if TOKENS.iter().any(|begin| text.contains(begin)) && l.token.is_match(&text) {
            text = l.token.replace_all(&text, HIDDEN).into_owned();
        }
        if text.contains("://") && l.url.is_match(&text) {
            text = l
                .url
                .replace_all(&text, |c: &Captures| format!("{}{HIDDEN}@", &c[1]))
                .into_owned();
        }
        text
    }

    /// The words of a command, without secrets and without the words that follow `--token` and the like.
    #[must_use]
    pub fn words(&self, words: &[String]) -> Vec<String> {
        let mut hide = false;
        let one = |word: &String| {
            let flag = word.starts_with('-') && looks().flag.is_match(word);
            let secret = std::mem::replace(&mut hide, flag);
            let shown = self.text(word);
            if secret && !shown.starts_with("${env.") {
                HIDDEN.to_owned()
            } else {
                shown
            }
        };
        words.iter().map(one).collect()
    }

    /// A value without secrets in any of its texts; lists of words are taken as commands.
    #[must_use]
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => {
                let words: Option<Vec<String>> = items
                    .iter()
                    .map(|i| i.as_str().map(str::to_owned))
                    .collect();
                match words {
                    Some(words) => self.words(&words).into(),
                    None => items.iter().map(|i| self.value(i)).collect(),
                }
            }
            Value::Object(map) => map
                .iter()
                .map(|(k, v)| (k.clone(), self.value(v)))
                .collect(),
            other => other.clone(),
        }
    }
}

/// Numbers are counts (`max token = 4096`), and what stands for a variable is no secret any more.
fn keyed(c: &Captures) -> String {
    let value = &c[2];
    let count = value
        .chars()
        .all(|c| c.is_ascii_digit() || c == '.' || c == '/');
    if count || value.starts_with("${env.") {
        c[0].to_owned()
    } else {
        format!("{}{HIDDEN}", &c[1])
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn veil() -> Veil {
        let env = [
            ("HF_TOKEN", "opensesame"),
            ("PIN_PASSWORD", "9876"),
            ("MODEL", "/models/tiny.gguf"),
            ("OMP_NUM_THREADS", "2"),
            ("PATH", "/usr/local/bin:/usr/bin"),
        ];
        Veil::of(&env.map(|(k, v)| (k.to_owned(), v.to_owned())).into())
    }

    #[test]
    fn a_value_of_the_environment_is_shown_by_its_name() {
        let veil = veil();
        assert_eq!(
            veil.text("cannot log in with opensesame/9876 to load /models/tiny.gguf, 2 threads"),
            "cannot log in with ${env.HF_TOKEN}/${env.PIN_PASSWORD} to load ${env.MODEL}, 2 threads"
        );
        assert_eq!(
            veil.text("PATH=/usr/local/bin:/usr/bin"),
            "PATH=/usr/local/bin:/usr/bin"
        );
    }

    #[test]
    fn what_looks_like_a_secret_is_hidden_though_nobody_declared_it() {
        let veil = Veil::default();
        for (line, hidden) in [
            (
                "Authorization: Bearer abc.def",
                "Authorization: Bearer [hidden]",
            ),
            ("{\"api_key\": \"s3cr3t!\"}", "{\"api_key\": \"[hidden]\"}"),
            ("password=hunter22 user=me", "password=[hidden] user=me"),
            ("using sk-abcdefghijklmnopqrstuv now", "using [hidden] now"),
            ("token hf_abcdefghijklmnopqrst", "token [hidden]"),
            (
                "redis://me:hunter2@localhost/0",
                "redis://[hidden]@localhost/0",
            ),
        ] {
            assert_eq!(veil.text(line), hidden);
        }
    }

    #[test]
    fn every_kind_of_token_that_betrays_itself_is_hidden() {
        for token in [
            "sk-abcdefghijklmnopqrstuv",
            "hf_abcdefghijklmnopqrst",
            "ghp_abcdefghijklmnopqrstuv",
            "github_pat_abcdefghijklmnopqrstuv",
            "glpat-abcdefghijklmnopqrstuv",
            "AKIAABCDEFGHIJKLMNOP",
            "xoxb-abcdefghijkl",
            "eyJabcdefghijkl.abcdefghijkl.abcdefghijkl",
        ] {
            assert_eq!(Veil::default().text(&format!("<{token}>")), "<[hidden]>");
        }
    }

    #[test]
    fn counts_of_tokens_are_no_secrets() {
        for line in [
            "print_info: EOG token = 248065 '<|file_sep|>'",
            "prompt_tokens: 12, max_token: 4096",
            "load: control-looking token:    212 '</s>' was not control-type",
        ] {
            assert_eq!(Veil::default().text(line), line);
        }
    }

    #[test]
    fn the_word_behind_a_secret_flag_is_hidden() {
        let words = [
            "serve",
            "--api-key",
            "abc",
            "--port",
            "80",
            "--token=xyz123",
        ];
        let shown = Veil::default().words(&words.map(str::to_owned));
        assert_eq!(
            shown,
            [
                "serve",
                "--api-key",
                "[hidden]",
                "--port",
                "80",
                "--token=[hidden]"
            ]
        );
    }
}
