//! Colours: they repeat what the text says, and only where they are wanted.

use std::io::IsTerminal;

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// On a terminal that can.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a colour means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Ready, healthy.
    Good,
    /// In between.
    Warn,
    /// Failed.
    Bad,
    /// At rest.
    Dim,
    /// Headings.
    Strong,
}

/// Whether this output is coloured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    on: bool,
}

impl Style {
    /// Decides for an output: `--color`, then `NO_COLOR`, `CLICOLOR_FORCE`, `TERM=dumb`, then whether it is a terminal.
    #[must_use]
    pub fn choose(when: When, output: &impl IsTerminal) -> Style {
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty() && v != "0");
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let on = match when {
            When::Always => true,
            When::Never => false,
            When::Auto if no_color => false,
            When::Auto if set("CLICOLOR_FORCE") => true,
            When::Auto => {
                output.is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
            }
        };
        Style { on }
    }

    /// Is it?
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// The text in its tone.
    #[must_use]
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.on {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Dim => "90",
            Tone::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// The tone of a state's or a health verdict's word.
#[must_use]
pub fn tone(word: &str) -> Option<Tone> {
    match word {
        "running" | "healthy" | "yes" | "ready" => Some(Tone::Good),
        "starting" | "backoff" | "stopping" | "unknown" => Some(Tone::Warn),
        "failed" | "unhealthy" => Some(Tone::Bad),
        "stopped" | "-" => Some(Tone::Dim),
        _ => None,
    }
}
