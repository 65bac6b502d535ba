//! Which native modules are trusted.

use lair_manifests::trust::{
    Evidence, FileFacts, Step, StepKind, Trust, TrustDecision, TrustScope,
};
use lair_manifests::{Source, parse_config, problem::render};
use lair_manifests::{integrity, parse_stack};
use std::path::Path;

const ME: u32 = 1000;
const DIGEST: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn file(path: &str, owner: u32, group: u32, mode: u32) -> FileFacts {
    let above = Path::new(path).ancestors().skip(1);
    let mut way: Vec<Step> = above.map(|at| folder(at, 0, 0, 0o755)).collect();
    way.reverse();
    FileFacts {
        path: path.into(),
        owner,
        group,
        mode,
        acl: false,
        way,
        sha256: DIGEST.to_owned(),
    }
}

fn folder(path: impl AsRef<Path>, owner: u32, group: u32, mode: u32) -> Step {
    Step {
        path: path.as_ref().to_owned(),
        kind: StepKind::Folder,
        owner,
        group,
        mode,
        acl: false,
    }
}

fn decide(
    trust: Option<&Trust>,
    scope: TrustScope<'_>,
    name: &str,
    file: Option<&FileFacts>,
) -> TrustDecision {
    let shown = Evidence {
        name,
        digest: DIGEST,
        text: b"",
        file,
        signature: Err("m.yaml.minisig can't be read"),
    };
    lair_manifests::trust::decide(trust, scope, &shown)
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
    assert!(decide(None, scope, "m", None).is_err());
}

#[test]
fn every_folder_and_link_on_the_way_counts_not_only_the_last() {
    let scope = TrustScope::Foreground { uid: ME };
    let with = |step: Step| {
        let mut file = file("/srv/a/b/m.yaml", ME, ME, 0o644);
        let place = file.way.iter().position(|s| s.path == step.path);
        match place {
            Some(at) => file.way[at] = step,
            None => file.way.push(step),
        }
        decide(None, scope, "m", Some(&file)).map_err(|why| why.to_string())
    };
    for path in ["/srv/a/b", "/srv/a", "/srv", "/"] {
        let open = with(folder(path, ME, ME, 0o777)).expect_err(path);
        assert!(
            open.contains(&format!("the folder {path} can be written by others")),
            "{open}"
        );
        let theirs = with(folder(path, 1001, 1001, 0o755)).expect_err(path);
        assert!(theirs.contains("belongs to user 1001"), "{theirs}");
        assert!(
            with(folder(path, 0, 0, 0o1777)).is_ok(),
            "a sticky folder keeps what is ours"
        );
    }
    let link = |owner| Step {
        kind: StepKind::Link,
        mode: 0o777,
        ..folder("/srv/link", owner, owner, 0)
    };
    assert!(with(link(ME)).is_ok());
    assert!(
        with(link(1001))
            .expect_err("theirs")
            .contains("the link /srv/link belongs to user 1001")
    );
}

#[test]
fn an_access_list_is_believed_to_let_others_write_where_the_mode_leaves_room_for_it() {
    let scope = TrustScope::Foreground { uid: ME };
    let with = |mode, acl| {
        let file = FileFacts {
            acl,
            ..file("/srv/m.yaml", ME, ME, mode)
        };
        decide(None, scope, "m", Some(&file))
    };
    assert!(with(0o664, false).is_ok());
    assert!(with(0o664, true).is_err());
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
    let scope = TrustScope::Bridge;
    assert!(decide(None, scope, "m", None).is_err());
    let rule = rules(&format!("{{ name: m, sha256: {DIGEST} }}"));
    assert!(decide(Some(&rule), scope, "m", None).is_ok());
    assert!(decide(Some(&rule), scope, "other", None).is_err());
    let other = rules(&format!("{{ name: m, sha256: {} }}", "b".repeat(64)));
    let why = decide(Some(&other), scope, "m", None).expect_err("no");
    assert!(why.message.contains("SHA-256 differs"), "{why}");
}

#[test]
fn a_refusal_names_its_rule_and_the_line_that_would_allow_it() {
    let scope = TrustScope::Daemon {
        uid: 0,
        modules: Path::new("/etc/lair/modules"),
    };
    let elsewhere = file("/home/u/m.yaml", 0, 0, 0o644);
    let why = decide(None, scope, "m", Some(&elsewhere)).expect_err("no");
    assert_eq!(why.rule, "trust.default");
    let line = format!("{{ name: m, sha256: {DIGEST} }}");
    assert!(why.allow.contains(&line), "{why}");
    // The line does what it says.
    assert!(decide(Some(&rules(&line)), scope, "m", Some(&elsewhere)).is_ok());
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

const KEY: &str = "RWRsYWlydGVzdLlJouYdrjzwZtYEnfWAKtQDpBB1MZKnf3aGrPdODJ3/";
const SIGNED: &str = include_str!("../../tests/signed/m.yaml");
const SIGNATURE: &str = include_str!("../../tests/signed/m.yaml.minisig");
/// Of minisign's own pages.
const OTHER_KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

#[test]
fn a_signature_by_a_trusted_key_over_the_very_text_is_trusted_and_nothing_else() {
    let scope = TrustScope::Daemon {
        uid: 0,
        modules: Path::new("/etc/lair/modules"),
    };
    let ask = |key: &str, text: &str, signature: Result<&str, &str>| {
        let shown = Evidence {
            name: "m",
            digest: DIGEST,
            text: text.as_bytes(),
            file: None,
            signature,
        };
        let rules = rules(&format!("{{ key: {key} }}"));
        lair_manifests::trust::decide(Some(&rules), scope, &shown).map_err(|why| why.message)
    };
    assert_eq!(ask(KEY, SIGNED, Ok(SIGNATURE)), Ok(()));
    assert!(ask(KEY, &SIGNED.replace("1000", "1001"), Ok(SIGNATURE)).is_err());
    assert!(ask(OTHER_KEY, SIGNED, Ok(SIGNATURE)).is_err());
    let forged = SIGNATURE.replace("a test", "another");
    assert!(
        ask(KEY, SIGNED, Ok(&forged)).is_err(),
        "the comment is signed, too"
    );
    assert!(ask(KEY, SIGNED, Ok("no signature")).is_err());
    let unsigned = ask(KEY, SIGNED, Err("there is none")).expect_err("no");
    assert_eq!(unsigned, "it is not signed: there is none");
}

#[test]
fn a_key_that_is_none_is_a_mistake_of_the_configuration() {
    let text = "runtime: { trust: { native: [{ key: RWQ }] } }\n";
    let source = Source::of_text("c.yaml", text, Path::new("/"));
    let problems = parse_config(&source).expect_err("no key");
    assert!(render(&problems).contains("no minisign public key"));
}

#[test]
fn a_checksum_is_over_the_file_with_zeros_in_its_place() {
    let check = |text: &str| {
        let source = Source::of_text("m.yaml", text, Path::new("/"));
        let stack = parse_stack(&source).unwrap_or_else(|p| panic!("{}", render(&p)));
        integrity::checksum(&source, &stack, 0)
    };
    let with = |sum: &str| {
        format!(
            "name: m\nintegrity: {{ checksum: \"{sum}\" }}\nruntime: {{ native: {{ command: [a] }} }}\n"
        )
    };
    let zeros = format!("sha256:{}", "0".repeat(64));
    assert_eq!(
        check(&with(&zeros)),
        integrity::Checked::Absent,
        "a placeholder"
    );
    let wrong = with(&format!("sha256:{}", "1".repeat(64)));
    let integrity::Checked::Wrong { real, .. } = check(&wrong) else {
        panic!("not right");
    };
    let right = with(&format!("sha256:{real}"));
    assert_eq!(check(&right), integrity::Checked::Right);
    let changed = right.replace("[a]", "[b]");
    assert!(matches!(check(&changed), integrity::Checked::Wrong { .. }));
    assert!(matches!(
        check(&with("md5:abc")),
        integrity::Checked::Unknown { .. }
    ));
}
