//! Engines that talk nonsense: every answer that is none is a fault with a code, costs a bounded time and memory, and no panic.

mod support;

use lair::actors::backend::container::docker::Docker;
use lair::actors::backend::container::engine::{ConnectionEnd, CreateSpec, Engine};
use lair::actors::backend::container::fault::{EngineFault, EngineFaultKind};
use lair::actors::backend::container::feed::Feed;
use lair::actors::backend::container::podman::Podman;
use lair::actors::backend::{CommandOutcome, Streams};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::fake_engine::{FakeEngine, Nonsense};
use support::{Home, SOON, eventually};

/// How long a question may take that has an answer. The silent one has none: that is the backend's deadline to end.
const BRIEF: Duration = Duration::from_millis(300);

fn client(name: &str, fake: &FakeEngine) -> Arc<dyn Engine> {
    match name {
        "podman" => Arc::new(Podman::at(&fake.socket)),
        _ => Arc::new(Docker::at(&fake.socket)),
    }
}

/// The kinds of fault that each nonsense may be called.
fn may_be(mode: Nonsense) -> &'static [EngineFaultKind] {
    use EngineFaultKind as K;
    match mode {
        Nonsense::Refuses | Nonsense::RefusesInHtml => &[K::Refused, K::PullFailed],
        Nonsense::Truncated | Nonsense::WrongType | Nonsense::WrongFields => {
            &[K::Nonsense, K::Refused]
        }
        Nonsense::Ssh => &[K::Nonsense, K::Unreachable],
        Nonsense::EndlessBody | Nonsense::EndlessHead | Nonsense::EndlessRefusal => &[K::Nonsense],
        Nonsense::CutInBody | Nonsense::Closes => &[K::Unreachable],
        Nonsense::BadFrames | Nonsense::HugeFrames => {
            &[K::Nonsense, K::Unreachable, K::Refused, K::PullFailed]
        }
        Nonsense::Silent => &[K::TimedOut],
    }
}

/// An answer in time, or the fault that the backend makes of none.
async fn asked<T>(
    mode: Nonsense,
    answer: impl Future<Output = Result<T, EngineFault>>,
) -> Result<T, EngineFault> {
    let patience = if mode == Nonsense::Silent {
        BRIEF
    } else {
        SOON
    };
    let late = |_| Err(EngineFault::new(EngineFaultKind::TimedOut, "no answer"));
    tokio::time::timeout(patience, answer)
        .await
        .unwrap_or_else(late)
}

/// Every question whose answer is more than "done".
async fn every_question(
    engine: &dyn Engine,
    mode: Nonsense,
) -> Vec<(&'static str, Result<(), EngineFault>)> {
    let spec = Arc::new(CreateSpec {
        name: "x".into(),
        image: "y".into(),
        log_bytes: 1 << 20,
        ..CreateSpec::default()
    });
    let labels = BTreeMap::from([("lair.instance".to_owned(), "x".to_owned())]);
    vec![
        ("info", asked(mode, engine.info()).await.map(drop)),
        ("image", asked(mode, engine.find_image("y")).await.map(drop)),
        ("create", asked(mode, engine.create(spec)).await.map(drop)),
        ("inspect", asked(mode, engine.inspect("x")).await.map(drop)),
        ("list", asked(mode, engine.list(labels)).await.map(drop)),
        ("stats", asked(mode, engine.stats("x")).await.map(drop)),
    ]
}

/// Those that are only done or not: a success without a word is one.
async fn every_order(
    engine: &dyn Engine,
    mode: Nonsense,
) -> Vec<(&'static str, Result<(), EngineFault>)> {
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let progress = Arc::new(move |line: &str| {
        assert!(line.len() < 300, "a line of progress is bounded");
        count.fetch_add(1, Ordering::Relaxed);
    });
    vec![
        ("ping", asked(mode, engine.ping()).await),
        ("start", asked(mode, engine.start("x")).await),
        ("signal", asked(mode, engine.signal("x", 15)).await),
        ("wait", asked(mode, engine.wait("x")).await),
        ("remove", asked(mode, engine.remove("x")).await),
        ("pause", asked(mode, engine.pause("x")).await),
        ("pull", asked(mode, engine.pull("y", progress)).await),
    ]
}

/// Bytes of memory that this process holds.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("/proc");
    let pages: usize = text
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number");
    pages * 4096
}

async fn no_answer_is_worse_than_a_fault(name: &str) {
    let home = Home::new("nonsense");
    let fake = FakeEngine::start(home.path(), Nonsense::Closes);
    let engine = client(name, &fake);
    let before = resident();
    for mode in Nonsense::ALL {
        fake.set(mode);
        for (what, answer) in every_question(&*engine, mode).await {
            let fault = answer.expect_err(&format!("{what} of {mode:?}"));
            assert!(
                may_be(mode).contains(&fault.kind),
                "{what} of {mode:?}: {fault}"
            );
            assert!(
                fault.reason.len() < 300 && !fault.reason.contains('\n'),
                "{fault}"
            );
        }
        for (what, answer) in every_order(&*engine, mode).await {
            let kind = answer.as_ref().err().map(|f| f.kind);
            assert!(
                kind.is_none_or(|k| may_be(mode).contains(&k)),
                "{what} of {mode:?}: {answer:?}"
            );
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 96 << 20, "{} MiB more after all that", grown >> 20);
    // What was given up is closed: nothing goes on sending.
    eventually("no connection is left", || fake.open() == 0).await;
}

/// G4: 500s, half of a JSON text, wrong types, answers without an end, connections that are cut: each has its code.
#[tokio::test]
async fn no_answer_of_podman_is_worse_than_a_fault() {
    no_answer_is_worse_than_a_fault("podman").await;
}

/// G4
#[tokio::test]
async fn no_answer_of_docker_is_worse_than_a_fault() {
    no_answer_is_worse_than_a_fault("docker").await;
}

async fn ends(streams: Streams) -> usize {
    let mut bytes = 0;
    for fd in [streams.stdout, streams.stderr].into_iter().flatten() {
        let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(fd).expect("a pipe");
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n) = tokio::io::AsyncReadExt::read(&mut pipe, &mut buffer).await {
            bytes += n;
            if n == 0 || bytes > 64 << 20 {
                break;
            }
        }
    }
    bytes
}

/// G4: frames that belong to no stream end it; frames of 4 GiB take no memory; a reader that is gone ends the connection.
#[tokio::test]
async fn streams_of_nonsense_end_or_are_held_up() {
    let home = Home::new("frames");
    let fake = FakeEngine::start(home.path(), Nonsense::BadFrames);
    let engine = client("docker", &fake);
    let (feed, streams) = Feed::new().expect("pipes");
    // Nobody goes on with it: it ends with the connection.
    drop(engine.attach("x", feed).await.expect("a connection"));
    let read = tokio::time::timeout(SOON, ends(streams)).await;
    assert_eq!(read.expect("an end"), 0, "no byte of a frame that is none");
    // A log that breaks off is not taken for the whole log.
    for broken in [
        Nonsense::BadFrames,
        Nonsense::CutInBody,
        Nonsense::Truncated,
    ] {
        fake.set(broken);
        let (feed, streams) = Feed::new().expect("pipes");
        let ended = match engine.logs("x", None, feed).await {
            Ok(handing_on) => {
                let whole = async {
                    handing_on
                        .await
                        .is_ok_and(|ended| ended.end == ConnectionEnd::Whole)
                };
                let both = async { tokio::join!(whole, ends(streams)).0 };
                tokio::time::timeout(SOON, both).await.expect("an end")
            }
            Err(_) => false,
        };
        assert!(!ended, "{broken:?}");
    }
    fake.set(Nonsense::HugeFrames);
    let before = resident();
    let (feed, streams) = Feed::new().expect("pipes");
    drop(engine.attach("x", feed).await.expect("a connection"));
    // Nobody reads: the other side is held up by the pipes' size, and does not fill memory instead.
    let mut seen = 0;
    let held_up = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if std::mem::replace(&mut seen, fake.sent()) == fake.sent() && seen > 0 {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, held_up)
        .await
        .expect("it is held up");
    assert!(
        seen < 4 << 20,
        "{seen} bytes were taken though nobody reads"
    );
    assert!(resident().saturating_sub(before) < 32 << 20);
    drop(streams);
    eventually("the connection ends with its reader", || fake.open() == 0).await;
    let argv = vec!["true".to_owned()];
    fake.set(Nonsense::Silent);
    let never = engine.exec("x", argv.clone(), "A=b".into(), BRIEF).await;
    assert_eq!(never, CommandOutcome::TimedOut);
    fake.set(Nonsense::Refuses);
    let refused = engine.exec("x", argv, "A=b".into(), SOON).await;
    let CommandOutcome::CouldNotRun(why) = refused else {
        panic!("{refused:?}")
    };
    assert!(
        why.contains("the disk is on fire (engine_refused)"),
        "{why}"
    );
}
