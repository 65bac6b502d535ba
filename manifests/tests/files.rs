//! What is opened, and what is refused in bounded time.

use lair_manifests::{parse_module, read_manifest};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A folder of this test alone, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn refused(path: &Path) -> String {
    let start = Instant::now();
    let problem = read_manifest(path).expect_err("a refusal");
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{}: {:?}",
        path.display(),
        start.elapsed()
    );
    assert!(
        problem.to_string().contains(&*path.to_string_lossy()),
        "{problem}"
    );
    problem.message
}

#[test]
fn what_is_no_regular_file_is_refused_in_bounded_time() {
    let folder = Folder::new("odd_files");
    let at = |name: &str| folder.0.join(name);
    let fifo = std::process::Command::new("mkfifo")
        .arg(at("fifo"))
        .status()
        .expect("mkfifo");
    assert!(fifo.success());
    symlink(at("loop"), at("loop")).expect("a link");
    symlink(at("gone"), at("dangling")).expect("a link");
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("a socket");
    assert_eq!(refused(&at("fifo")), "this is no regular file");
    assert_eq!(refused(&folder.0), "this is no regular file");
    assert_eq!(refused(Path::new("/dev/zero")), "this is no regular file");
    for name in ["loop", "dangling", "socket", "missing"] {
        assert!(
            refused(&at(name)).starts_with("the file can't be opened"),
            "{name}"
        );
    }
}

#[test]
fn a_file_that_is_too_long_or_no_text_is_refused() {
    let folder = Folder::new("odd_texts");
    let (long, binary) = (folder.0.join("long"), folder.0.join("binary"));
    let file = std::fs::File::create(&long).expect("a file");
    file.set_len(1 << 40).expect("a sparse terabyte");
    assert_eq!(refused(&long), "longer than 16MiB");
    std::fs::write(&binary, [0xff, 0xfe, 0x00]).expect("a file");
    assert_eq!(refused(&binary), "the file is not UTF-8");
}

#[test]
fn a_file_that_is_read_tells_where_it_lies_and_what_it_holds() {
    let folder = Folder::new("good_file");
    let path = folder.0.join("m.yaml");
    std::fs::write(&path, "name: m\nruntime: { native: { command: [a] } }\n").expect("a file");
    let source = read_manifest(&path).expect("a source");
    let module = parse_module(&source).expect("a module");
    assert_eq!(module.origin.dir, folder.0);
    let facts = source.facts.expect("facts");
    assert_eq!(facts.sha256, *module.origin.digest);
    assert_eq!(facts.path, path);
}
