//! What a package is made of: version, manual pages, completions, configuration, crates. The package itself is installed, upgraded,
//! removed and purged by `tests/vm/package`.

mod face;
#[path = "../examples/man.rs"]
#[allow(dead_code, reason = "its main is the example's")]
mod man;

use clap::CommandFactory;
use face::Lair;
use lair::cli::args::Cli;
use lair::manifests::{RuntimeConfig, Source, parse_config, problem::render};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_version_tells_where_the_program_was_made_and_what_it_speaks() {
    let lair = Lair::folder();
    let (code, line) = lair.ask(&["-V"]);
    assert_eq!((code, line.lines().count()), (0, 1));
    let origin = line
        .trim()
        .strip_prefix(&format!("lair {} (", env!("CARGO_PKG_VERSION")))
        .and_then(|rest| rest.strip_suffix(')'));
    assert!(origin.is_some_and(|o| !o.is_empty()), "{line}");
    let (code, long) = lair.ask(&["--version"]);
    assert_eq!((code, long.lines().next()), (0, Some(line.trim())));
    assert!(long.contains("keeper protocol: "), "{long}");
    assert_eq!(lair.ask(&["version"]), (0, long));
    let (code, json) = lair.ask(&["version", "-o", "json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, &json["name"]), (0, &Value::from("lair")));
    assert!(
        json["keeper_protocol"]["newest"].as_u64() >= json["keeper_protocol"]["oldest"].as_u64()
    );
    if json["commit"].is_null() {
        let nobody_said = ["dev", "commit unknown"];
        assert!(origin.is_some_and(|o| nobody_said.contains(&o)), "{line}");
    }
}

#[test]
fn every_verb_has_a_manual_page_and_every_shell_its_completion() {
    let lair = Lair::folder();
    man::write(&lair.dir).expect("pages");
    let command = Cli::command();
    for verb in command.get_subcommands().filter(|v| !v.is_hide_set()) {
        let name = format!("man1/lair-{}.1", verb.get_name());
        let page =
            fs::read_to_string(lair.dir.join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let about = verb.get_about().expect("a line").to_string();
        let word = about.split(' ').next().unwrap_or_default();
        for part in [word, ".SH EXAMPLES", "lair(1)"] {
            assert!(
                page.replace('\\', "").contains(part),
                "{name} lacks {part}:\n{page}"
            );
        }
    }
    let page = fs::read_to_string(lair.dir.join("man1/lair.1")).expect("lair(1)");
    assert!(page.contains(".SH \"EXIT STATUS\""), "{page}");
    let page = fs::read_to_string(lair.dir.join("man5/lair-config.5")).expect("lair-config(5)");
    let schema = lair::manifests::schema::config();
    let keys = schema["$defs"]["RuntimeConfig"]["properties"].as_object();
    for key in keys.expect("keys").keys() {
        assert!(page.contains(&format!("\\fB{key}\\fR")), "{key}:\n{page}");
    }
    for script in ["lair", "_lair", "lair.fish"] {
        let text = fs::read_to_string(lair.dir.join("completions").join(script)).expect(script);
        assert!(text.contains("inspect"), "{script}");
    }
}

#[test]
fn the_packages_configuration_holds_as_it_is_and_with_every_line_that_it_offers() {
    let text = fs::read_to_string(format!("{ROOT}/examples/debian/config.yaml")).expect("file");
    let read = |text: &str| {
        let source = Source::of_text("config.yaml", text, Path::new("/"));
        parse_config(&source).unwrap_or_else(|p| panic!("{}", render(&p)))
    };
    let plain = serde_json::to_value(read(&text)).expect("JSON");
    assert_eq!(
        plain,
        serde_json::to_value(RuntimeConfig::default()).expect("JSON")
    );
    let setting = |line: &str| line.starts_with("#runtime:") || line.starts_with("#  ");
    let lines = text.lines().filter(|l| setting(l)).map(|l| &l[1..]);
    let all = lines.collect::<Vec<_>>().join("\n");
    assert!(all.lines().count() > 10, "{all}");
    let all = serde_json::to_value(read(&all)).expect("JSON");
    assert_ne!(all, plain);
}

#[test]
fn a_purge_that_can_not_remove_a_disk_of_its_own_is_a_purge_all_the_same() {
    let script = format!("{ROOT}/examples/debian/postrm");
    let text = fs::read_to_string(&script).expect("a script");
    assert!(
        !text.contains("/rm"),
        "what is called here is what stands in for it"
    );
    let lair = Lair::folder();
    for program in ["rm", "rmdir"] {
        let path = lair.dir.join(program);
        fs::write(&path, "#!/bin/sh\nexit 1\n").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
    }
    let done = Command::new("/bin/sh")
        .args([&script, "purge"])
        .env_clear()
        .env("PATH", &lair.dir)
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}");
    assert!(said.contains("could be removed"), "{said}");
}

#[test]
fn every_crate_can_be_packed() {
    let target = Lair::folder();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let flags = [
        "package",
        "--workspace",
        "--no-verify",
        "--allow-dirty",
        "--offline",
        "--quiet",
    ];
    let done = Command::new(cargo)
        .args(flags)
        .arg("--target-dir")
        .arg(&target.dir)
        .current_dir(ROOT)
        .output()
        .expect("cargo");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    for name in ["lair", "lair-actors", "lair-manifests", "lair-supervision"] {
        let name = format!("{name}-{}", env!("CARGO_PKG_VERSION"));
        let file = target.dir.join(format!("package/{name}.crate"));
        let list = Command::new("tar")
            .arg("-tzf")
            .arg(&file)
            .output()
            .expect("tar");
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        for file in ["Cargo.toml", "LICENSE", "src/lib.rs"] {
            assert!(
                list.contains(&format!("{name}/{file}\n")),
                "{name} lacks {file}:\n{list}"
            );
        }
        assert!(!list.contains("/target/"), "{list}");
    }
}
