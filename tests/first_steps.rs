//! The page of first steps, done as it stands: every command of it in one shell, in an empty folder, and what it says of the answers.

mod face;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The fenced blocks of a page: language and text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => open = Some((language.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((_, text))) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

#[test]
fn every_command_of_the_first_steps_does_what_the_page_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/first-steps.md");
    let blocks = blocks(&fs::read_to_string(page).expect("the page"));
    let lair = face::Lair::folder();
    let mut script = String::from("set -euo pipefail\n");
    let mut said = Vec::new();
    for (language, text) in &blocks {
        match language.as_str() {
            "sh" => {
                said.push("");
                script += &format!("{text}\nprintf '\\n-- step %d done\\n' {}\n", said.len());
            }
            "text" => *said.last_mut().expect("a command comes first") = text,
            other => panic!("a block of {other:?} is neither run nor compared"),
        }
    }
    // The page's port may be somebody's.
    let free = std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|l| l.local_addr())
        .expect("a port");
    let port = free.port().to_string();
    assert!(script.contains("18123"), "the page's port has changed");
    let script = script.replace("18123", &port);
    let folder = Path::new(face::LAIR).parent().expect("a folder").display();
    let path = format!("{folder}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    let out = lair.dir.join("said");
    let file = fs::File::create(&out).expect("a file");
    let mut shell = Command::new("bash")
        .args(["-c", &script])
        .current_dir(&lair.dir)
        .env_clear()
        .env("PATH", path)
        .env("HOME", &lair.dir)
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a file"))
        .stderr(file)
        .spawn()
        .expect("bash");
    let mut code = None;
    let deadline = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        face::until("the last step", face::SOON * 6, || {
            code = shell.try_wait().expect("the shell").map(|s| s.code());
            code.is_some()
        });
    }));
    let text = fs::read_to_string(&out).expect("what was said");
    if deadline.is_err() {
        let _ = shell.kill();
    }
    assert_eq!(code, Some(Some(0)), "{text}");
    let mut rest = text.as_str();
    for (n, expected) in said.iter().enumerate() {
        let (step, later) = rest
            .split_once(&format!("\n-- step {} done\n", n + 1))
            .expect("each step");
        for line in expected.lines() {
            let line = line.replace("18123", &port);
            assert!(
                step.contains(&line),
                "step {}: no {line:?} in\n{step}",
                n + 1
            );
        }
        rest = later;
    }
}
