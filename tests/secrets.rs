//! Secrets: where they come from, and that they are with their module and nowhere else.

mod face;

use face::{Lair, SOON, until};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// In no file of the machine but those of the test.
const FILE: &str = "canary-of-a-file-7f3a";
const CREDENTIAL: &str = "canary-of-a-credential-91bc";
const VARIABLE: &str = "canary-of-a-variable-d04e";
const PASSED: &str = "canary-that-is-passed-55aa";
const CANARY: &str = "canary-";

const SECRETS: &str =
    "  secrets: { A: { file: a.secret }, B: { credential: b }, C: { env: LAIR_TEST_VARIABLE } }\n";

/// Says the digest of what it was given, and never the thing itself.
const DIGESTS: &str = "for v in \"$A\" \"$B\" \"$C\" \"$LAIR_TEST_PASSED\"; do printf %s \"$v\" | sha256sum; done; exec sleep 1000";

fn private(path: &Path, text: &str) {
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("its mode");
}

fn manifest(name: &str) -> String {
    let script = serde_json::to_string(DIGESTS).expect("a string");
    format!(
        "name: {name}\nruntime:\n  native: {{ command: [/bin/sh, -c, {script}], pass_env: [LAIR_TEST_PASSED] }}\n{SECRETS}"
    )
}

/// A daemon that says all it can of itself, with the secrets in its hands.
fn lair() -> Lair {
    let mut lair = Lair::folder();
    let credentials = lair.dir.join("credentials");
    fs::create_dir(&credentials).expect("a folder");
    private(&credentials.join("b"), CREDENTIAL);
    private(&lair.dir.join("modules/a.secret"), &format!("{FILE}\n"));
    let log = fs::File::create(lair.dir.join("serve.log")).expect("log");
    let mut command = lair.command(&["serve", "-vv"]);
    command
        .env("CREDENTIALS_DIRECTORY", &credentials)
        .env("LAIR_TEST_VARIABLE", VARIABLE)
        .env("LAIR_TEST_PASSED", PASSED)
        .stderr(log)
        .stdout(Stdio::null());
    lair.daemon = Some(command.spawn().expect("serve"));
    until("the socket", SOON, || {
        std::os::unix::net::UnixStream::connect(lair.socket()).is_ok()
    });
    lair
}

fn digest(text: &str) -> String {
    let source = lair::manifests::Source::of_text("x", text, Path::new("/"));
    source.digest.to_string()
}

/// Every file below a folder that holds the text, but those named.
fn holders(dir: &Path, text: &str, but: &[&str]) -> String {
    let found = Command::new("grep").args(["-rla", text]).arg(dir).output();
    let found = String::from_utf8_lossy(&found.expect("grep").stdout).into_owned();
    let others = found
        .lines()
        .filter(|line| !but.iter().any(|b| line.ends_with(b)));
    others.collect::<Vec<_>>().join("\n")
}

// X7
#[test]
fn secrets_reach_their_module_and_nothing_else_that_lair_writes_or_says() {
    let lair = lair();
    let path = lair.dir.join("modules/m.yaml");
    fs::write(&path, manifest("m")).expect("a manifest");
    let file = path.display().to_string();
    let (code, _) = lair.ask(&["load", &file]);
    assert_eq!(code, 0, "{}", lair.log());
    lair.ask(&["start", "m", "--wait"]);
    let logged = || lair.ask(&["logs", "m"]).1;
    until("its digests", SOON, || logged().lines().count() >= 4);
    for value in [FILE, CREDENTIAL, VARIABLE, PASSED] {
        assert!(logged().contains(&digest(value)), "{value}: {}", logged());
    }
    // While it runs, after it crashed, and after it was stopped: everything that can be asked.
    for act in [
        &["status", "m"][..],
        &["kill", "-s", "SEGV", "m"],
        &["stop", "m"],
    ] {
        lair.ask(act);
        for ask in [
            &["status", "m", "-o", "json"][..],
            &["ps", "-a", "-o", "json"],
            &["inspect", "m"],
            &["inspect", "m", "-o", "json"],
            &["explain", "m"],
            &["explain", &file],
            &["why", "m"],
            &["events", "-o", "json", "--since", "0"],
            &["doctor", "-o", "json"],
            &["validate", &file, "-o", "json"],
            &["logs", "m"],
        ] {
            let out = lair.lair(ask);
            let text = [&out.stdout[..], &out.stderr[..]].concat();
            let text = String::from_utf8_lossy(&text);
            assert!(!text.contains(CANARY), "lair {ask:?}: {text}");
        }
        // State, logs, ledger, lair's own log: but for the places the secrets came from.
        assert_eq!(
            holders(&lair.dir, CANARY, &["a.secret", "credentials/b"]),
            ""
        );
        let lines = Command::new("sh")
            .args([
                "-c",
                "cat /proc/[0-9]*/cmdline 2>/dev/null | grep -ac canary-[of] || true",
            ])
            .output()
            .expect("sh");
        assert_eq!(
            String::from_utf8_lossy(&lines.stdout).trim(),
            "0",
            "in an argv"
        );
    }
}

#[test]
fn a_secret_that_others_could_read_or_that_is_not_there_is_refused_without_being_said() {
    let lair = lair();
    let secret = lair.dir.join("modules/a.secret");
    let path = lair.dir.join("modules/m.yaml");
    fs::write(&path, manifest("m")).expect("a manifest");
    lair.ask(&["load", &path.display().to_string()]);
    let refused = |what: &str| {
        lair.ask(&["start", "m"]);
        lair.until_state("m", "failed");
        let reason = lair.status("m")["reason"].to_string();
        assert!(
            reason.contains("start_failed") && reason.contains(what),
            "{reason}"
        );
        assert!(!reason.contains(CANARY), "{reason}");
    };
    fs::set_permissions(&secret, Permissions::from_mode(0o640)).expect("a mode");
    refused("can be read or written by others (mode 0640); `chmod 600` it");
    let real = lair.dir.join("modules/real");
    private(&real, FILE);
    fs::remove_file(&secret).expect("gone");
    symlink(&real, &secret).expect("a link");
    refused("cannot have the secret A");
    fs::remove_file(&secret).expect("gone");
    refused("No such file or directory");
    fs::create_dir(&secret).expect("a folder");
    refused("is no regular file");
    fs::remove_dir(&secret).expect("gone");
    private(&secret, "with\0nul");
    refused("it holds a NUL byte");
    private(&secret, FILE);
    fs::remove_file(lair.dir.join("credentials/b")).expect("gone");
    refused("cannot have the secret B");
    assert_eq!(holders(&lair.dir.join("run"), CANARY, &[]), "");
}

/// A value of `secrets` is not there when the command line is made, so it can't get into one.
#[test]
fn a_secret_cannot_be_written_into_a_command() {
    let lair = Lair::folder();
    let text = manifest("m").replace("exec sleep 1000", "echo ${env.A}");
    let path = lair.dir.join("modules/m.yaml");
    fs::write(&path, text).expect("a manifest");
    let out = lair.lair(&["validate", &path.display().to_string()]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        !out.status.success() && said.contains("neither in `env` nor in `pass_env`"),
        "{said}"
    );
}
