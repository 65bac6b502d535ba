//! In which order and by when children go down.
//!
//! Owns: the plan of a drain. Promises: whatever runs is in exactly one wave; later starters go before earlier ones;
//! the sum of all that is granted never exceeds the bound. Never: waits for a wave.

use crate::child::{Child, Phase};
use crate::spec::{ChildId, ChildSpec};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Children that are asked to stop at the same time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// Who, with the grace each is given, later starters first.
    pub children: Vec<(ChildId, Duration)>,
    /// How long to wait for them before the next wave begins all the same.
    pub bound: Duration,
}

/// Waves, one after the other. Mark every child as draining before the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutdownPlan {
    /// The waves, in order.
    pub waves: Vec<Wave>,
}

impl ShutdownPlan {
    /// The longest the whole plan takes.
    #[must_use]
    pub fn bound(&self) -> Duration {
        self.waves.iter().map(|wave| wave.bound).sum()
    }
}

/// Plans a drain that ends within `bound`. `children` are in start order.
///
/// One wave stops all at once, which is fast and bounded by the longest grace. `ordered` stops them one by one in
/// reverse start order; those that do not run yet, or not now, still go first, so that none of them comes up meanwhile.
/// Where the time does not suffice, every grace is cut by the same proportion.
pub fn plan<'a>(
    children: impl IntoIterator<Item = (&'a ChildSpec, &'a Child)>,
    ordered: bool,
    bound: Duration,
) -> ShutdownPlan {
    let (mut pending, mut running) = (Vec::new(), Vec::new());
    for (spec, child) in children {
        match &child.phase {
            Phase::Down(_) => {}
            Phase::Spawning { .. } | Phase::Waiting { .. } if ordered => pending.push(spec),
            Phase::Spawning { .. }
            | Phase::Waiting { .. }
            | Phase::Up { .. }
            | Phase::Stopping { .. } => running.push(spec),
        }
    }
    pending.reverse();
    running.reverse();
    let mut waves = vec![pending];
    if ordered {
        waves.extend(running.into_iter().map(|spec| vec![spec]));
    } else {
        waves.push(running);
    }
    waves.retain(|wave| !wave.is_empty());
    let wanted = waves.iter().map(|wave| longest(wave)).sum::<Duration>();
    let share = share(bound, wanted);
    ShutdownPlan {
        waves: waves.iter().map(|wave| cut(wave, share)).collect(),
    }
}

/// A child's grace, and the proof of death should that not suffice.
fn needed(spec: &ChildSpec) -> Duration {
    spec.grace.saturating_add(spec.kill_confirm)
}

fn longest(wave: &[&ChildSpec]) -> Duration {
    wave.iter()
        .map(|spec| needed(spec))
        .max()
        .unwrap_or_default()
}

fn share(bound: Duration, wanted: Duration) -> f64 {
    if wanted <= bound {
        1.0
    } else {
        bound.as_secs_f64() / wanted.as_secs_f64()
    }
}

fn cut(wave: &[&ChildSpec], share: f64) -> Wave {
    let part = |whole: Duration| {
        if share < 1.0 {
            // Rounding up could exceed the bound by a nanosecond per wave.
            whole.mul_f64(share).saturating_sub(Duration::from_nanos(1))
        } else {
            whole
        }
    };
    Wave {
        children: wave
            .iter()
            .map(|spec| (spec.id.clone(), part(spec.grace)))
            .collect(),
        bound: part(longest(wave)),
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::child::{ChildIdentity, Readiness, Sight};
    use crate::time::Uptime;

    fn spec(name: &str, grace: u64) -> ChildSpec {
        ChildSpec {
            grace: Duration::from_secs(grace),
            kill_confirm: Duration::from_secs(5),
            ..ChildSpec::new(ChildId::new(name))
        }
    }

    fn up() -> Child {
        Child {
            phase: Phase::Up {
                since: Uptime::ZERO,
                identity: ChildIdentity::Sim { serial: 1 },
                readiness: Readiness::Awaiting { deadline: None },
                sight: Sight::Live,
                frozen: None,
            },
            ..Child::loaded(0)
        }
    }

    fn starting() -> Child {
        Child {
            phase: Phase::Spawning {
                since: Uptime::ZERO,
                deadline: Uptime::ZERO,
                abort: None,
            },
            ..Child::loaded(0)
        }
    }

    fn names(wave: &Wave) -> Vec<&str> {
        wave.children.iter().map(|(id, _)| id.as_str()).collect()
    }

    /// O1
    #[test]
    fn nothing_running_needs_no_wave() {
        let spec = spec("a", 10);
        let child = Child::loaded(0);
        let plan = plan([(&spec, &child)], false, Duration::from_secs(30));
        assert_eq!(plan, ShutdownPlan::default());
        assert_eq!(plan.bound(), Duration::ZERO);
    }

    /// O17, O55
    #[test]
    fn one_wave_takes_as_long_as_its_slowest_child() {
        let specs = [spec("m", 1), spec("c", 1), spec("x", 5)];
        let child = up();
        let plan = plan(
            specs.iter().map(|s| (s, &child)),
            false,
            Duration::from_secs(60),
        );
        assert_eq!(plan.waves.len(), 1);
        assert_eq!(names(&plan.waves[0]), ["x", "c", "m"]);
        assert_eq!(plan.bound(), Duration::from_secs(10));
    }

    /// O22
    #[test]
    fn ordered_children_stop_one_by_one_in_reverse_start_order() {
        let specs = [spec("m", 1), spec("c", 1), spec("new", 1), spec("x", 1)];
        let (up, new) = (up(), starting());
        let children = [
            (&specs[0], &up),
            (&specs[1], &up),
            (&specs[2], &new),
            (&specs[3], &up),
        ];
        let plan = plan(children, true, Duration::from_secs(60));
        let order: Vec<_> = plan.waves.iter().map(names).collect();
        assert_eq!(order, [["new"], ["x"], ["c"], ["m"]]);
    }

    /// I12
    #[test]
    fn too_little_time_is_shared_out_and_never_exceeded() {
        let specs: Vec<_> = (0..7).map(|i| spec(&format!("m{i}"), 3 + i)).collect();
        let child = up();
        for ordered in [false, true] {
            let bound = Duration::from_secs(7);
            let plan = plan(specs.iter().map(|s| (s, &child)), ordered, bound);
            assert!(plan.bound() <= bound, "{plan:?}");
            assert!(
                plan.waves
                    .iter()
                    .flat_map(|w| &w.children)
                    .all(|(_, g)| !g.is_zero())
            );
        }
    }
}
