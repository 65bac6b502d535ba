//! A made-up NVIDIA driver: a library built from `nvml.c`, whose GPUs and processes are a file that the test rewrites.
#![allow(dead_code, reason = "each test file uses a part")]

use lair::manifests::nvml::Nvml;
use lair::manifests::words::AbsolutePath;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

pub const GIB: u64 = 1 << 30;

pub struct Driver {
    dir: PathBuf,
}

impl Driver {
    /// One with these lines for a state; the machine has to have a C compiler.
    pub fn with(state: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("lair-driver-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder");
        let driver = Driver { dir };
        driver.set(state);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/nvml.c");
        let built = Command::new("cc")
            .args(["-w", "-shared", "-fPIC"])
            .arg(format!("-DSTATE=\"{}\"", driver.state().display()))
            .arg("-o")
            .args([&driver.library(), &source])
            .status();
        assert!(built.expect("a C compiler").success());
        driver
    }

    /// GPUs of 8 GiB, named GPU-0, GPU-1, ..., unused.
    pub fn cards(count: usize) -> Self {
        Self::with(&cards(count))
    }

    fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub fn library(&self) -> PathBuf {
        self.dir.join("libfake-nvml.so")
    }

    /// What the configuration says to use it.
    pub fn nvml(&self) -> Nvml {
        let path = self.library().display().to_string();
        Nvml::At(AbsolutePath::try_from(path.as_str()).expect("an absolute path"))
    }

    /// From now on it is so: a whole file replaces the other.
    pub fn set(&self, state: &str) {
        let new = self.dir.join("new");
        std::fs::write(&new, state).expect("a state");
        std::fs::rename(new, self.state()).expect("a state");
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The lines of that many unused GPUs.
pub fn cards(count: usize) -> String {
    (0..count)
        .map(|n| format!("gpu GPU-{n} {} 0\n", 8 * GIB))
        .collect()
}
