//! Looks at the listening sockets of running modules, a moment after each start and then on a modest schedule.
//!
//! Owns: when it is looked, and what was seen last. Promises: asks the kernel alone, never a module; while nothing new
//! listens on the machine a look costs one short question, however many modules there are; nothing runs, nothing is
//! looked at. Never: judges ([`lair_supervision::exposure`]), or stops anything: the root is told.

use crate::backend::Tree;
use crate::clock::{Clock, TimerId};
use crate::events::EventLog;
use crate::facts::{Listening, ProcessTable, listed, listening, sockets_of};
use crate::messages::RootMsg;
use crate::view::{Board, View};
use lair_manifests::launch::LaunchPlan;
use lair_supervision::exposure::{Declared, Exposure, judge};
use lair_supervision::{ChildId, Phase};
use ractor::ActorRef;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Time between two looks.
pub const EVERY: Duration = Duration::from_secs(10);

/// What happens shortly after one another is looked at once.
const SETTLE: Duration = Duration::from_secs(1);

/// What the watch needs.
pub struct ExposureArgs {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What says that something started.
    pub events: Arc<EventLog>,
    /// What runs.
    pub board: Arc<Board>,
    /// Who is told.
    pub root: ActorRef<RootMsg>,
}

/// Watches until the root is gone.
pub async fn watch(args: ExposureArgs) {
    let root = args.root.clone();
    tokio::select! {
        () = keep_looking(args) => {}
        _ = root.wait(None) => {}
    }
}

async fn keep_looking(args: ExposureArgs) {
    let mut newest = args.events.subscribe();
    let mut known = Known::default();
    loop {
        let idle = !args.board.all().iter().any(|view| is_up(view));
        tokio::select! {
            news = newest.changed() => {
                if news.is_err() {
                    return;
                }
                pause(&args.clock, SETTLE).await;
                newest.mark_unchanged();
            }
            () = pause(&args.clock, EVERY), if !idle => {}
        }
        let views = args.board.all();
        let now = listed();
        if known.says_all(&views, now.as_ref()) {
            continue;
        }
        let looked = tokio::task::spawn_blocking(move || {
            let news = known.look(&views, now);
            (known, news)
        });
        // A panic in there is a fault of one look: the next begins anew.
        let (kept, news) = looked.await.unwrap_or_default();
        known = kept;
        for (id, inc, exposure) in news {
            let message = RootMsg::Exposure { id, inc, exposure };
            if args.root.cast(message).is_err() {
                return;
            }
        }
    }
}

/// What was seen last.
#[derive(Default)]
struct Known {
    listening: Option<Listening>,
    judged: BTreeMap<ChildId, (u64, Exposure)>,
}

type News = Vec<(ChildId, u64, Exposure)>;

impl Known {
    /// Nothing else listens than at the last look, and that has seen each of these runs.
    fn says_all(&self, views: &[Arc<View>], now: Option<&Listening>) -> bool {
        let seen = |view: &Arc<View>| {
            let judged = self.judged.get(&view.plan.spec.id);
            judged.is_some_and(|(of, _)| *of == view.child.inc) || tree(view).is_none()
        };
        now.is_some()
            && now == self.listening.as_ref()
            && views.iter().filter(|v| is_up(v)).all(seen)
    }

    fn look(&mut self, views: &[Arc<View>], now: Option<Listening>) -> News {
        let now = now.or_else(|| listening().ok());
        let same = now.is_some() && now == self.listening;
        let mut table = None;
        let (mut news, mut judged) = (News::new(), BTreeMap::new());
        for view in views.iter().filter(|view| is_up(view)) {
            let (id, inc) = (view.plan.spec.id.clone(), view.child.inc);
            let Some(tree) = tree(view) else {
                continue;
            };
            let before = self.judged.remove(&id).filter(|(of, _)| *of == inc);
            let verdict = match (before.as_ref(), &now) {
                (Some((_, verdict)), _) if same => verdict.clone(),
                (_, None) => Exposure::Unknown,
                (_, Some(listening)) => {
                    let table = match &tree {
                        Tree::Descendants(_) => table.get_or_insert_with(ProcessTable::read),
                        Tree::Cgroup(_) | Tree::None => &mut ProcessTable::default(),
                    };
                    let (sockets, complete) = sockets_of(&tree, table, listening);
                    judge(&declared(&view.plan), &sockets, complete)
                }
            };
            if before.is_none_or(|(_, was)| was != verdict) {
                news.push((id.clone(), inc, verdict.clone()));
            }
            judged.insert(id, (inc, verdict));
        }
        self.judged = judged;
        self.listening = now;
        news
    }
}

fn is_up(view: &View) -> bool {
    matches!(view.child.phase, Phase::Up { .. })
}

/// Where its processes are to be found, if it has any.
fn tree(view: &View) -> Option<Tree> {
    let tree = view.handle.as_ref()?.tree();
    (tree != Tree::None).then_some(tree)
}

fn declared(plan: &LaunchPlan) -> Vec<Declared> {
    let ports = plan.ports.iter().map(|port| Declared {
        port: port.port,
        lan: port.is_for_others(),
    });
    ports.collect()
}

/// An armed timer. Dropping it disarms it.
struct Armed<'c>(&'c Arc<dyn Clock>, TimerId);

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.0.cancel(self.1);
    }
}

async fn pause(clock: &Arc<dyn Clock>, time: Duration) {
    let over = Arc::new(Notify::new());
    let tell = over.clone();
    let fire = Box::new(move || tell.notify_one());
    let _armed = Armed(clock, clock.arm(clock.now() + time, fire));
    over.notified().await;
}
