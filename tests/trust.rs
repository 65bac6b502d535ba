//! Who may have a native module started: stories on real files, with the ways around the rules tried and failed.

mod support;

use lair::manifests::{Source, parse_config};
use lair::{LoadOptions, ManifestSource, Refused};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use support::{Lair, asker};

const KEY: &str = "RWRsYWlydGVzdLlJouYdrjzwZtYEnfWAKtQDpBB1MZKnf3aGrPdODJ3/";
const SIGNED: &str = include_str!("signed/m.yaml");
const SIGNATURE: &str = include_str!("signed/m.yaml.minisig");
const PLAIN: &str = "name: m\nruntime: { native: { command: [/bin/sleep, \"1000\"] } }\n";

/// A runtime with these rules of trust.
async fn lair(name: &str, native: &str) -> Lair {
    let text = format!("runtime: {{ trust: {{ native: [{native}] }} }}");
    let source = Source::of_text("config", &text, Path::new("/"));
    let config = parse_config(&source).expect("a configuration");
    Lair::start_with(name, |o| {
        o.config = config;
        o.foreground = false;
    })
    .await
}

async fn load(lair: &Lair, path: &Path) -> Result<(), Refused> {
    let source = ManifestSource::File(path.to_owned());
    let loaded = lair.handle.load(source, LoadOptions::default(), asker());
    loaded.await.map(drop)
}

async fn refused(lair: &Lair, path: &Path) -> String {
    let refused = load(lair, path).await.expect_err("a refusal");
    assert_eq!(refused.code, "untrusted", "{refused}");
    refused.message
}

fn folder(path: PathBuf, mode: u32) -> PathBuf {
    fs::create_dir_all(&path).expect("a folder");
    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("its mode");
    path
}

fn file(path: PathBuf, text: &str) -> PathBuf {
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("its mode");
    path
}

/// Where nothing above is writable by others but in the sticky way.
fn place(lair: &Lair, name: &str) -> PathBuf {
    folder(lair.home.path().join(name), 0o755)
}

fn path_rule(path: &Path) -> String {
    format!("{{ path: {} }}", path.display())
}

#[tokio::test]
async fn a_folder_is_trusted_only_while_nobody_else_can_write_to_any_folder_above_the_file() {
    let home = support::Home::new("trust-ways");
    let above = folder(home.path().join("above"), 0o755);
    let modules = folder(above.join("modules"), 0o755);
    let path = file(modules.join("m.yaml"), PLAIN);
    let lair = lair("ways", &path_rule(&modules)).await;
    load(&lair, &path).await.expect("trusted");
    for open in [&modules, &above] {
        fs::set_permissions(open, Permissions::from_mode(0o777)).expect("its mode");
        let why = refused(&lair, &path).await;
        assert!(
            why.contains(&format!("the folder {} can be written", open.display())),
            "{why}"
        );
        assert!(
            why.contains("chmod go-w") && why.contains("{ name: m, sha256: "),
            "{why}"
        );
        fs::set_permissions(open, Permissions::from_mode(0o755)).expect("its mode");
    }
    if rustix::process::geteuid().is_root() {
        chown(&above, Some(65534), None).expect("another owner");
        let why = refused(&lair, &path).await;
        assert!(why.contains("belongs to user 65534"), "{why}");
        chown(&above, Some(0), None).expect("its owner");
    }
    load(&lair, &path).await.expect("trusted again");
    lair.end().await;
}

#[tokio::test]
async fn a_link_into_a_folder_of_strangers_is_not_trusted_wherever_it_stands() {
    let lair = lair("links", "{ path: /tmp }").await;
    let modules = place(&lair, "modules");
    let theirs = folder(lair.home.path().join("theirs"), 0o777);
    let target = file(theirs.join("m.yaml"), PLAIN);
    let (linked, through) = (modules.join("m.yaml"), modules.join("sub"));
    symlink(&target, &linked).expect("a link to the file");
    symlink(&theirs, &through).expect("a link to the folder");
    for path in [linked, through.join("m.yaml")] {
        let why = refused(&lair, &path).await;
        assert!(
            why.contains(&format!("the folder {} can be written", theirs.display())),
            "{why}"
        );
    }
    // From outside in: the file is fine, but relative paths would start at the stranger's folder.
    let good = file(modules.join("good.yaml"), PLAIN);
    let planted = theirs.join("good.yaml");
    symlink(&good, &planted).expect("a link");
    refused(&lair, &planted).await;
    load(&lair, &good).await.expect("itself");
    lair.end().await;
}

#[tokio::test]
async fn climbing_out_of_the_trusted_folder_is_no_way_in() {
    let home = support::Home::new("trust-climb");
    let modules = folder(home.path().join("modules"), 0o755);
    let outside = file(home.path().join("m.yaml"), PLAIN);
    let lair = lair("climb", &path_rule(&modules)).await;
    let why = refused(&lair, &modules.join("../m.yaml")).await;
    assert!(why.contains("no rule of it matches"), "{why}");
    refused(&lair, &outside).await;
    lair.end().await;
}

#[tokio::test]
async fn a_manifest_is_trusted_by_its_digest_until_a_byte_changes() {
    let home = support::Home::new("trust-digest");
    let path = file(home.path().join("m.yaml"), PLAIN);
    let digest = lair::manifests::read_manifest(&path).expect("read").digest;
    let lair = lair("digest", &format!("{{ name: m, sha256: {digest} }}")).await;
    load(&lair, &path).await.expect("trusted");
    file(path.clone(), &PLAIN.replace("1000", "1001"));
    let why = refused(&lair, &path).await;
    assert!(why.contains("the SHA-256 differs"), "{why}");
    lair.end().await;
}

#[tokio::test]
async fn a_signed_manifest_is_trusted_wherever_it_lies_and_a_changed_one_nowhere() {
    let lair = lair("signed", &format!("{{ key: {KEY} }}")).await;
    let theirs = folder(lair.home.path().join("theirs"), 0o777);
    let path = file(theirs.join("m.yaml"), SIGNED);
    let why = refused(&lair, &path).await;
    assert!(
        why.contains("it is not signed") && why.contains("m.yaml.minisig"),
        "{why}"
    );
    let signature = file(theirs.join("m.yaml.minisig"), SIGNATURE);
    load(&lair, &path).await.expect("trusted");
    file(path.clone(), &SIGNED.replace("1000", "1001"));
    let why = refused(&lair, &path).await;
    assert!(
        why.contains("not by the key that is trusted, or not over this manifest"),
        "{why}"
    );
    file(path.clone(), SIGNED);
    file(signature, "nonsense");
    refused(&lair, &path).await;
    lair.end().await;
}

#[tokio::test]
async fn a_wrong_checksum_is_refused_whoever_vouches_for_the_file() {
    let lair = Lair::start("checksum").await;
    let with = |sum: &str| {
        PLAIN.replace(
            "runtime:",
            &format!("integrity: {{ checksum: \"sha256:{sum}\" }}\nruntime:"),
        )
    };
    let refused = lair.load(&with(&"1".repeat(64))).await.expect_err("wrong");
    assert_eq!(refused.code, "checksum_mismatch");
    let right = refused
        .message
        .rsplit(' ')
        .next()
        .expect("the right one")
        .to_owned();
    lair.load(&with(&right)).await.expect("right");
    lair.end().await;
}

/// A module can't add itself to what is trusted: neither the configuration nor the trusted folder is writable by the
/// user it runs as, though both lie beside its own folder.
#[tokio::test]
async fn a_module_cannot_write_itself_into_the_list_of_trust() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let home = support::Home::new("trust-self");
    let modules = folder(home.path().join("modules"), 0o755);
    let config = file(home.path().join("config.yaml"), "runtime: {}\n");
    let lair = lair("self", &path_rule(&modules)).await;
    let tries = format!(
        "echo x >> {}; echo x > {}/evil.yaml; ln -s /tmp/evil {}/evil; echo tried; exec sleep 1000",
        config.display(),
        modules.display(),
        modules.display()
    );
    let text = format!(
        "name: m\nruntime: {{ native: {{ command: [/bin/sh, -c, \"{tries}\"], workdir: /, user: nobody }} }}\n"
    );
    let path = file(modules.join("m.yaml"), &text);
    load(&lair, &path).await.expect("trusted");
    lair.handle.start("m", asker()).await.expect("a start");
    lair.until("m", "having tried", |_| {
        lair.output("m", "stdout") == b"tried\n"
    })
    .await;
    assert_eq!(fs::read_to_string(&config).expect("it"), "runtime: {}\n");
    let names: Vec<_> = fs::read_dir(&modules)
        .expect("it")
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(names, ["m.yaml"]);
    lair.end().await;
}
