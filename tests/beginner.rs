//! What somebody meets who has never used lair: each mistake is told with what it was about and the next step.

mod face;

use face::Lair;

fn told(lair: &Lair, args: &[&str]) -> (i32, String) {
    let out = lair.lair(args);
    let text = [&out.stdout[..], &out.stderr[..]].concat();
    (
        out.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[track_caller]
fn says(lair: &Lair, args: &[&str], code: i32, words: &[&str]) {
    let (ended, text) = told(lair, args);
    for word in words {
        assert!(text.contains(word), "{args:?} lacks {word:?}: {text}");
    }
    assert_eq!(ended, code, "{args:?}: {text}");
}

#[test]
fn a_name_with_a_slip_is_answered_with_the_one_that_was_meant() {
    let lair = Lair::folder();
    lair.module("server", "exec sleep 1000", "");
    let lair = lair.serve(&[]);
    let (code, _) = told(&lair, &["start", "server", "--wait"]);
    assert_eq!(code, 0);
    for verb in ["start", "stop", "restart", "status", "why", "kill", "logs"] {
        let (code, text) = told(&lair, &[verb, "sevrer"]);
        assert!(
            code != 0 && text.contains("did you mean `server`?"),
            "{verb}: {text}"
        );
    }
    // Nothing near: where to look, the daemon's refusals included.
    says(
        &lair,
        &["start", "postgres"],
        4,
        &["`lair ps -a`", "refused", "`lair plan FILE`"],
    );
}

#[test]
fn an_empty_table_says_why_it_is_empty() {
    let lair = Lair::folder().serve(&[]);
    says(
        &lair,
        &["ps"],
        0,
        &["no module is loaded: `lair load FILE`"],
    );
    let one = lair.module("one", "exec sleep 1000", "");
    says(&lair, &["load", &one.display().to_string()], 0, &[]);
    says(
        &lair,
        &["ps"],
        0,
        &["one module is loaded and stopped: `lair ps -a`"],
    );
    // Scripts see the table alone.
    assert_eq!(lair.ask(&["ps", "-q"]), (0, String::new()));
    assert!(!lair.ask(&["ps"]).1.contains("stopped"));
}

#[test]
fn a_path_that_is_none_and_a_folder_are_told_what_is_wanted() {
    let lair = Lair::folder();
    for verb in ["run", "plan", "validate"] {
        let (code, text) = told(&lair, &[verb, "hello"]);
        assert!(
            code != 0 && text.contains("a manifest is wanted here, by its path"),
            "{verb}: {text}"
        );
        assert!(!text.contains("os error"), "{text}");
        let folder = lair.dir.display().to_string();
        let (code, text) = told(&lair, &[verb, &folder]);
        assert!(
            code != 0 && text.contains("name the manifest in it"),
            "{verb}: {text}"
        );
    }
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let lair = Lair::folder();
    let path = lair.dir.join("gone.yaml");
    for (word, wanted) in [
        ("lama-server", "its program `lama-server` is not found in "),
        (
            "/opt/none/such",
            "its program /opt/none/such is not there, or may not be executed",
        ),
    ] {
        let text = format!("name: gone\nruntime: {{ native: {{ command: [{word}] }} }}\n");
        std::fs::write(&path, text).expect("a manifest");
        says(&lair, &["run", &path.display().to_string()], 127, &[wanted]);
    }
}

#[test]
fn help_is_a_word_too() {
    let lair = Lair::folder();
    assert_eq!(lair.ask(&["help"]), lair.ask(&["--help"]));
    assert_eq!(lair.ask(&["help", "start"]), lair.ask(&["start", "--help"]));
    assert_eq!(lair.ask(&["help", "start"]).0, 0);
}

#[test]
fn mistakes_are_counted_and_each_has_its_place() {
    let lair = Lair::folder();
    let file = lair.dir.join("wrong.yaml");
    std::fs::write(&file, "name: [x]\nfoo: 1\n").expect("a manifest");
    let file = file.display().to_string();
    let mistakes = [
        "error[invalid_manifest]: 3 mistakes\nerror[missing]: runtime",
        "wrong.yaml:1:7",
        "error[unknown_field]: foo",
        "wrong.yaml:2:1",
    ];
    says(&lair, &["validate", &file], 1, &mistakes);
    says(&lair, &["run", &file], 125, &mistakes);
}
