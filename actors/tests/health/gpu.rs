//! GPUs of a made-up driver: a shared object that answers as NVML does.

use lair_actors::facts::{GpuClient, GpuFacts, GpuReader};
use std::path::PathBuf;
use std::process::Command;

const DRIVER: &str = r#"
#include <string.h>
#include <stdlib.h>
#include <stdio.h>
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory2;
typedef struct { unsigned gpu, memory; } rates;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process;
static int lost(void *d) { return d == (void *)2 && getenv("LAIR_FAKE_LOST") ? 15 : 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int e) { return e == 15 ? "GPU is lost" : "some error"; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) {
    if (i == 1) return 15;
    *d = (void *)(unsigned long)(i + 1);
    return 0;
}
int nvmlDeviceGetUUID(void *d, char *out, unsigned n) { snprintf(out, n, "GPU-%d", (int)(long)d); return lost(d); }
int nvmlDeviceGetName(void *d, char *out, unsigned n) { snprintf(out, n, "Imaginary 9000"); return lost(d); }
int nvmlDeviceGetMemoryInfo(void *d, memory *m) { m->total = 100; m->free = 60; m->used = 40; return lost(d); }
int nvmlDeviceGetMemoryInfo_v2(void *d, memory2 *m) { m->total = 100; m->free = 60; m->used = 40; m->reserved = 0; return lost(d); }
int nvmlDeviceGetUtilizationRates(void *d, rates *r) { r->gpu = 7; r->memory = 3; return lost(d); }
int nvmlDeviceGetTemperature(void *d, int s, unsigned *t) { *t = 41; return lost(d); }
int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *n, process *p) {
    if (*n < 1) { *n = 1; return 7; }
    *n = 1; p[0].pid = 4711; p[0].used = 40; p[0].gi = p[0].ci = 0xffffffff;
    return lost(d);
}
"#;

/// `None` if this machine has no C compiler.
fn driver() -> Option<(PathBuf, PathBuf)> {
    let dir = std::env::temp_dir().join(format!("lair-nvml-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (source, library) = (dir.join("nvml.c"), dir.join("libfake.so"));
    std::fs::write(&source, DRIVER).unwrap();
    let made = Command::new("cc")
        .args(["-w", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status();
    match made {
        Ok(status) => {
            assert!(status.success());
            Some((dir, library))
        }
        Err(error) => {
            println!("skipped: no C compiler: {error}");
            None
        }
    }
}

#[test]
fn what_the_driver_will_not_say_is_unknown_and_a_lost_gpu_does_not_hide_the_others() {
    let Some((dir, library)) = driver() else {
        return;
    };
    let reader = GpuReader::new(Some(library));
    let facts = [reader.gpus(), reader.gpus()];
    std::fs::remove_dir_all(dir).unwrap();
    assert_eq!(facts[0], facts[1]);
    let GpuFacts::Present(gpus) = &facts[0] else {
        panic!("{facts:?}");
    };
    assert_eq!(gpus.len(), 2);
    let good = &gpus[0];
    assert_eq!(good.uuid.as_deref(), Some("GPU-1"));
    assert_eq!(good.name.as_deref(), Some("Imaginary 9000"));
    assert_eq!((good.memory_total, good.memory_used), (Some(100), Some(40)));
    assert_eq!((good.busy_percent, good.temperature), (Some(7), Some(41)));
    let client = GpuClient {
        pid: 4711,
        memory: Some(40),
    };
    assert_eq!(good.clients, [client]);
    // The stub has no symbol for these.
    assert_eq!((&good.pci, &good.fault), (&None, &None));
    assert_eq!(gpus[1].uuid, None);
    assert!(gpus[1].fault.is_some());
}
