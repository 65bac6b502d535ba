//! What `lair version` says of where the program was made, and how the program is linked.
//!
//! Owns: the commit, its date and the target as the compiler's environment; two of the linker's flags. Promises: what is not known
//! is called so; a debug build says `dev` and is not built again for a commit. Never: reads the clock, so the same sources make the
//! same program.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a build script speaks to cargo on stdout, and asks git"
)]

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Where the sources come from: the commit, and its date where that is known.
struct Origin {
    commit: String,
    date: String,
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LAIR_COMMIT");
    println!("cargo::rerun-if-env-changed=LAIR_COMMIT_DATE");
    let released = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let origin = told().or_else(|| released.then(|| packaged().or_else(in_git)).flatten());
    let build = match &origin {
        Some(o) if o.date.is_empty() => o.commit.clone(),
        Some(o) => format!("{}, {}", o.commit, o.date),
        None if released => "commit unknown".into(),
        None => "dev".into(),
    };
    let origin = origin.unwrap_or(Origin {
        commit: String::new(),
        date: String::new(),
    });
    println!("cargo::rustc-env=LAIR_BUILD={build}");
    println!("cargo::rustc-env=LAIR_BUILD_COMMIT={}", origin.commit);
    println!("cargo::rustc-env=LAIR_BUILD_DATE={}", origin.date);
    let target = env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=LAIR_BUILD_TARGET={target}");
    begin_soon();
}

/// `lair status` is called in loops, and is mostly the loader's and the standard library's beginning.
fn begin_soon() {
    println!("cargo::rustc-check-cfg=cfg(own_entry)");
    if env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|libc| libc == "gnu") {
        // The unwinder within the program: one library less to be found, mapped and bound.
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
        println!("cargo::rustc-link-arg-bin=lair=-Wl,--wrap=main");
        println!("cargo::rustc-cfg=own_entry");
    }
}

/// What whoever builds says.
fn told() -> Option<Origin> {
    let word = |name: &str| {
        let text = env::var(name).unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-+._".contains(c);
        assert!(
            text.chars().all(plain),
            "{name}={text:?}: letters, digits and -+._ are wanted"
        );
        text
    };
    let commit = word("LAIR_COMMIT");
    (!commit.is_empty()).then(|| Origin {
        commit,
        date: word("LAIR_COMMIT_DATE"),
    })
}

/// What `cargo package` left beside the sources.
fn packaged() -> Option<Origin> {
    println!("cargo::rerun-if-changed=Cargo.toml");
    let text = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let sha = text.split("\"sha1\":").nth(1)?.split('"').nth(1)?;
    let dirty = text.replace(' ', "").contains("\"dirty\":true");
    let commit = sha
        .get(..7)
        .filter(|s| s.chars().all(|c| c.is_ascii_hexdigit()))?;
    Some(Origin {
        commit: marked(commit, dirty),
        date: String::new(),
    })
}

/// What git says, if these sources are a repository of their own and not a folder in somebody else's.
fn in_git() -> Option<Origin> {
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let here = env::var("CARGO_MANIFEST_DIR").ok()?;
    if fs::canonicalize(top).ok()? != fs::canonicalize(here).ok()? {
        return None;
    }
    let head = git(&["rev-parse", "--symbolic-full-name", "HEAD"])?;
    let marks = ["HEAD", &head, "packed-refs"].map(|f| git(&["rev-parse", "--git-path", f]));
    let sources = ["src", "actors", "manifests", "supervision", "Cargo.lock"].map(str::to_owned);
    // A path that is not there would have cargo ask again every time.
    for path in marks.into_iter().flatten().chain(sources) {
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(Origin {
        commit: marked(
            &git(&["rev-parse", "--short=7", "HEAD"])?,
            !dirty.is_empty(),
        ),
        date: git(&["log", "-1", "--format=%cs"])?,
    })
}

fn marked(commit: &str, dirty: bool) -> String {
    format!("{commit}{}", if dirty { "-dirty" } else { "" })
}

fn git(args: &[&str]) -> Option<String> {
    let out = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    out.status.success().then(|| text.trim().to_owned())
}
