//! The engines that `tests/engines/up` made, and their images. What cannot run fails here, with the reason.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One of the two engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Podman,
    Docker,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Podman => "podman",
            Kind::Docker => "docker",
        }
    }

    /// Its API's socket.
    pub fn socket(self) -> PathBuf {
        let url = self.var("");
        PathBuf::from(url.strip_prefix("unix://").expect("a socket"))
    }

    /// Its command, which knows where the engine is.
    pub fn program(self) -> PathBuf {
        self.var("");
        Path::new(&home()).join("bin").join(self.name())
    }

    /// Runs its command and returns what it printed.
    pub fn cli(self, args: &[&str]) -> String {
        let done = Command::new(self.program())
            .args(args)
            .output()
            .expect("its command");
        let err = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{} {args:?}: {err}", self.name());
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    fn var(self, end: &str) -> String {
        let name = format!("LAIR_TEST_{}{end}", self.name().to_uppercase());
        std::env::var(&name).unwrap_or_else(|_| {
            let why = std::env::var(format!("{name}_WHY"));
            let how =
                "nobody said where it is; before tests by hand: eval \"$(tests/checks/machine)\"";
            panic!(
                "{} cannot run here: {}",
                self.name(),
                why.as_deref().unwrap_or(how)
            )
        })
    }
}

/// The name of one of our images: `base`, `serve`, ... (`tests/engines/images`).
pub fn image(name: &str) -> String {
    let key = std::env::var("LAIR_TEST_IMAGES");
    let key = key.expect("before tests by hand: eval \"$(tests/checks/machine)\"");
    format!("lair-test/{name}:{key}")
}

fn home() -> String {
    std::env::var("LAIR_TEST_ENGINES").expect("tests/engines/up says where its folder is")
}
