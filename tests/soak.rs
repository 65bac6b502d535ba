//! Floods at their full size: `tests/logs_stories.rs` tells the same stories smaller. What takes longer than the others
//! together is left to `tests/run soak`.

#[path = "support/machine.rs"]
mod machine;
mod support;

use lair::WaitFor;
use machine::{bytes_below, segments};
use std::time::Duration;
use support::Lair;

const GIB: u64 = 1 << 30;
const LONG: Duration = Duration::from_secs(300);

fn logs(max_size: &str, max_files: u32) -> String {
    format!("  logs: {{ max_size: {max_size}, max_files: {max_files}, compress: false }}")
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages = text.split(' ').nth(1).and_then(|w| w.parse::<u64>().ok());
    pages.expect("pages") * 4096
}

/// E1: one GiB on both streams together.
#[tokio::test]
#[ignore = "a GiB is written: tests/run soak"]
async fn a_gibibyte_on_both_streams_is_counted_to_the_byte_and_stays_within_its_files() {
    let lair = Lair::start("soak-flood").await;
    let before = resident();
    let flood = "yes out | head -c 536870912 & yes err | head -c 536870912 >&2; wait";
    lair.sh("m", flood, &logs("16MiB", 8)).await;
    let down = lair.handle.wait("m", WaitFor::Stopped, Some(LONG)).await;
    let down = down.expect("it ends");
    assert_eq!(down.exit.expect("an exit").code, Some(0));
    assert_eq!((down.logs.bytes, down.logs.dropped), (GIB, 0));
    let dir = lair.handle.log_dir().join("m");
    assert!(segments(&dir).len() <= 8, "{:?}", segments(&dir));
    assert!(bytes_below(&dir) <= 8 * (16 << 20));
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more than before");
    lair.end().await;
}

/// E2: one line of 100 MiB, while another module prints and is answered.
#[tokio::test]
async fn a_line_of_a_hundred_mebibytes_is_kept_whole_and_delays_no_other_module() {
    const BYTES: u64 = 100 << 20;
    let lair = Lair::start("soak-line").await;
    let before = resident();
    let line = format!("head -c {BYTES} /dev/zero | tr '\\0' z; exec sleep 1000");
    lair.sh("long", &line, &logs("256MiB", 8)).await;
    lair.sh("other", "echo hello; exec sleep 1000", "").await;
    lair.until("other", "heard", |s| s.logs.bytes == 6).await;
    lair.until("long", "through", |s| s.logs.bytes == BYTES)
        .await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more than before");
    lair.stop("long").await;
    let got = lair.output("long", "stdout");
    let zs = got.iter().filter(|b| **b == b'z').count() as u64;
    assert_eq!((zs, got.len() as u64 - zs), (BYTES, 0));
    lair.end().await;
}
