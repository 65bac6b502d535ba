//! Which native modules are trusted.

use lair_manifests::trust::{FileFacts, Trust, TrustScope, decide};
use lair_manifests::{Source, parse_config, problem::render};
use std::path::Path;

const ME: u32 = 1000;
const DIGEST: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn file(path: &str, owner: u32, group: u32, mode: u32) -> FileFacts {
    FileFacts {
        path: path.into(),
        owner,
        group,
        mode,
        folder: Some((owner, group, 0o755)),
        sha256: DIGEST.to_owned(),
    }
}

fn rules(native: &str) -> Trust {
    let text = format!("runtime: {{ trust: {{ native: [{native}] }} }}\n");
    let source = Source::of_text("c.yaml", &text, Path::new("/"));
    let config = parse_config(&source).unwrap_or_else(|p| panic!("{}", render(&p)));
    config.trust.expect("rules")
}

#[test]
fn in_the_foreground_a_file_of_the_user_or_root_that_nobody_else_can_write_is_trusted() {
    let scope = TrustScope::Foreground { uid: ME };
    let ask = |file: &FileFacts| decide(None, scope, "m", Some(file)).is_ok();
    assert!(ask(&file("/srv/m.yaml", ME, 100, 0o644)));
    assert!(ask(&file("/srv/m.yaml", 0, 0, 0o644)));
    assert!(ask(&file("/srv/m.yaml", ME, ME, 0o664)), "a private group");
    assert!(!ask(&file("/srv/m.yaml", 1001, 1001, 0o644)));
    assert!(!ask(&file("/srv/m.yaml", ME, 100, 0o664)));
    assert!(!ask(&file("/srv/m.yaml", ME, ME, 0o646)));
    let mut open = file("/tmp/x/m.yaml", ME, ME, 0o644);
    open.folder = Some((ME, ME, 0o777));
    assert!(
        !ask(&open),
        "whoever writes to the folder can replace the file"
    );
    open.folder = Some((0, 0, 0o1777));
    assert!(ask(&open), "a sticky folder keeps it");
    assert!(decide(None, scope, "m", None).is_err());
}

#[test]
fn the_daemon_trusts_its_own_folder_alone() {
    let scope = TrustScope::Daemon {
        uid: 0,
        modules: Path::new("/etc/lair/modules"),
    };
    let ask = |path: &str| decide(None, scope, "m", Some(&file(path, 0, 0, 0o644))).is_ok();
    assert!(ask("/etc/lair/modules/m.yaml"));
    assert!(ask("/etc/lair/modules/m/manifest.yaml"));
    assert!(!ask("/etc/lair/modules/../../m.yaml"));
    assert!(!ask("/etc/lair/modules2/m.yaml"));
    assert!(!ask("/home/u/m.yaml"));
}

#[test]
fn what_comes_over_the_bridge_is_trusted_by_name_and_digest_only() {
    let scope = TrustScope::Bridge { digest: DIGEST };
    assert!(decide(None, scope, "m", None).is_err());
    let rule = rules(&format!("{{ name: m, sha256: {DIGEST} }}"));
    assert!(decide(Some(&rule), scope, "m", None).is_ok());
    assert!(decide(Some(&rule), scope, "other", None).is_err());
    let other = TrustScope::Bridge { digest: "bb" };
    assert!(
        decide(Some(&rule), other, "m", None)
            .expect_err("no")
            .contains("SHA-256 differs")
    );
}

#[test]
fn rules_replace_the_usual_rule() {
    let scope = TrustScope::Foreground { uid: ME };
    let mine = file("/srv/m.yaml", ME, ME, 0o600);
    assert!(decide(Some(&rules("")), scope, "m", Some(&mine)).is_err());
    assert!(decide(Some(&rules("{ path: /srv }")), scope, "m", Some(&mine)).is_ok());
    assert!(decide(Some(&rules("{ path: /opt }")), scope, "m", Some(&mine)).is_err());
    let theirs = file("/srv/m.yaml", 1001, 1001, 0o600);
    assert!(decide(Some(&rules("{ path: /srv }")), scope, "m", Some(&theirs)).is_err());
}

#[test]
fn trust_by_key_is_refused_as_not_supported_yet() {
    let scope = TrustScope::Foreground { uid: ME };
    let mine = file("/srv/m.yaml", ME, ME, 0o600);
    let why = decide(Some(&rules("{ key: RWQ }")), scope, "m", Some(&mine)).expect_err("no");
    assert!(why.contains("not supported yet"), "{why}");
}
