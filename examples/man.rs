//! Manual pages and completions, out of the program's own help: `cargo run --example man -- FOLDER`.
//!
//! Writes `man1/lair.1`, a page for each verb, `man5/lair-config.5` out of the configuration's schema, and
//! `completions/{lair,_lair,lair.fish}` for bash, zsh and fish. An example and not a verb, so that the program carries none of it.

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use lair::cli::args::Cli;
use serde_json::Value;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    write(&folder.ok_or_else(|| io::Error::other("usage: man FOLDER"))?)
}

/// All of it below a folder.
///
/// # Errors
/// It can't be written.
pub fn write(folder: &Path) -> io::Result<()> {
    let (man1, man5) = (folder.join("man1"), folder.join("man5"));
    let completions = folder.join("completions");
    for made in [&man1, &man5, &completions] {
        fs::create_dir_all(made)?;
    }
    let mut root = Cli::command();
    root.build();
    pages(&root, &man1)?;
    let schema = lair::manifests::schema::config();
    fs::write(man5.join("lair-config.5"), config(&schema))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Cli::command(), "lair", &completions)?;
    }
    // Where bash looks for it, it has the name of the program alone.
    fs::rename(completions.join("lair.bash"), completions.join("lair"))
}

fn head(roff: &mut Roff, title: &str, section: &str) {
    let source = concat!("lair ", env!("CARGO_PKG_VERSION"));
    // An empty word would be left out, and the next one taken for the date.
    let date = match env!("LAIR_BUILD_DATE") {
        "" => " ",
        date => date,
    };
    roff.control("TH", [title, section, date, source, "Local AI Runtime"]);
}

/// The page of a command, and of everything below it.
fn pages(command: &Command, folder: &Path) -> io::Result<()> {
    for verb in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        pages(verb, folder)?;
    }
    let name = command.get_display_name().unwrap_or(command.get_name());
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    let mut roff = Roff::new();
    head(&mut roff, name, "1");
    roff.to_writer(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::new();
    if let Some(help) = command.get_after_help() {
        after(&mut roff, &help.to_string());
    }
    let others: &[&str] = match name {
        "lair" => &["lair-config(5)"],
        "lair-serve" => &["lair(1)", "lair-config(5)"],
        _ => &["lair(1)"],
    };
    see(&mut roff, others);
    roff.to_writer(&mut page)?;
    fs::write(folder.join(format!("{name}.1")), page)
}

/// What stands below the options: a paragraph that begins with `Example:` or `Exit codes:` is a section, its lines as they are.
fn after(roff: &mut Roff, help: &str) {
    for paragraph in help.split("\n\n") {
        let (first, lines) = paragraph.split_once('\n').unwrap_or((paragraph, ""));
        let section = match first {
            "Example:" => "EXAMPLES",
            "Exit codes:" => "EXIT STATUS",
            _ => {
                roff.control("SH", ["NOTES"]);
                roff.text([roman(paragraph)]);
                continue;
            }
        };
        roff.control("SH", [section]);
        roff.control("nf", []);
        for line in lines.lines() {
            roff.text([roman(line.trim())]);
        }
        roff.control("fi", []);
    }
}

fn see(roff: &mut Roff, others: &[&str]) {
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(others.join(", "))]);
}

fn config(schema: &Value) -> String {
    let mut roff = Roff::new();
    head(&mut roff, "lair-config", "5");
    roff.control("SH", ["NAME"]);
    roff.text([roman("lair-config - configuration of the Local AI Runtime")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([
        roman("A YAML file: "),
        italic("/etc/lair/config.yaml"),
        roman(" for root, "),
        italic("$XDG_CONFIG_HOME/lair/config.yaml"),
        roman(" for others, or what "),
        bold("--config"),
        roman(" names. Every key is below "),
        bold("runtime:"),
        roman(" and may be left out. "),
        bold("lair doctor"),
        roman(" tells what is in force."),
    ]);
    roff.control("SH", ["KEYS"]);
    keys(&mut roff, schema, &schema["properties"]["runtime"], "");
    see(&mut roff, &["lair(1)", "lair-serve(1)"]);
    roff.to_roff()
}

/// What a schema refers to, the one alternative that is not `null` included.
fn resolve<'a>(schema: &'a Value, at: &'a Value) -> &'a Value {
    let inner = at["anyOf"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["type"] != "null"));
    match at["$ref"].as_str().and_then(|r| r.strip_prefix('#')) {
        Some(pointer) => schema.pointer(pointer).unwrap_or(at),
        None => inner.map_or(at, |one| resolve(schema, one)),
    }
}

fn keys(roff: &mut Roff, schema: &Value, at: &Value, above: &str) {
    let record = resolve(schema, at);
    for (key, value) in record["properties"].as_object().into_iter().flatten() {
        let path = format!("{above}{key}");
        let below = resolve(schema, value);
        let nested = below["properties"].is_object();
        roff.control("TP", []);
        roff.text(line(&path, value, below, nested));
        roff.text([roman(value["description"].as_str().unwrap_or_default())]);
        if nested {
            keys(roff, schema, value, &format!("{path}."));
        }
    }
}

/// `default_mode: container | native (default: container)`
fn line(path: &str, value: &Value, below: &Value, nested: bool) -> Vec<Inline> {
    let mut line = vec![bold(path)];
    let words = |all: &Value| -> Vec<String> {
        let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let all = all.as_array().into_iter().flatten().map(plain);
        all.filter(|word| word != "null").collect()
    };
    let kinds = match (&below["type"], &below["oneOf"]) {
        (Value::String(one), _) => vec![one.clone()],
        (Value::Null, several) => several
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["type"].as_str().map(str::to_owned))
            .collect(),
        (several, _) => words(several),
    };
    let allowed = words(&below["enum"]);
    if !nested {
        line.push(roman(": "));
        line.push(italic(
            if allowed.is_empty() { kinds } else { allowed }.join(" | "),
        ));
        match &value["default"] {
            Value::Null => {}
            Value::String(word) => line.push(roman(format!(" (default: {word})"))),
            other => line.push(roman(format!(" (default: {other})"))),
        }
    }
    line
}
