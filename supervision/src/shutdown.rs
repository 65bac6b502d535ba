//! In which order and by when children go down.
//!
//! Owns: the plan of a drain. Promises: whoever runs is asked once; all are asked at once, but for the members of a group,
//! which are asked one after the other, last first, each when those behind it are down or had their time; no line takes
//! longer than what is left of the bound. Never: waits itself.

use crate::child::{Child, Phase};
use crate::group::GroupSpec;
use crate::spec::{ChildId, ChildSpec};
use crate::time::Uptime;
use std::collections::VecDeque;
use std::time::Duration;

/// A child that may have to be stopped.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its policy.
    pub spec: &'a ChildSpec,
    /// What is known of it.
    pub child: &'a Child,
    /// Its group.
    pub group: Option<&'a GroupSpec>,
}

/// Who is asked when. Mark every child as draining before anybody is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShutdownPlan {
    /// Asked now, all at the same time, later starters first, with the grace that each is given.
    pub now: Vec<(ChildId, Duration)>,
    /// Those who wait for their turn, a line for each group.
    pub lines: Vec<Line>,
}

impl ShutdownPlan {
    /// All that are going to be stopped.
    pub fn all(&self) -> impl Iterator<Item = &ChildId> {
        let waiting = self.lines.iter().flat_map(|line| &line.left);
        let waiting = waiting.filter(|place| place.until.is_none());
        let now = self.now.iter().map(|(id, _)| id);
        now.chain(waiting.map(|place| &place.id))
    }
}

/// The members of a group, last first, and whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    left: VecDeque<Place>,
    /// When the drain is over.
    end: Uptime,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    id: ChildId,
    grace: Duration,
    needed: Duration,
    /// It was asked, and is waited for until then.
    until: Option<Uptime>,
}

impl Line {
    /// Who is to be asked now, with its grace. Ask again until there is nobody, and after each change.
    pub fn next(
        &mut self,
        now: Uptime,
        is_down: impl Fn(&ChildId) -> bool,
    ) -> Option<(ChildId, Duration)> {
        loop {
            let first = self.left.front()?;
            match first.until {
                _ if is_down(&first.id) => {}
                Some(until) if now < until => return None,
                Some(_) => {}
                None => break,
            }
            self.left.pop_front();
        }
        let wanted: Duration = self.left.iter().map(|place| place.needed).sum();
        let share = share(self.end.since(now), wanted);
        let first = self.left.front_mut()?;
        first.until = Some(now + part(first.needed, share));
        Some((first.id.clone(), part(first.grace, share)))
    }

    /// The drain is to be over sooner: those who were not asked yet share what is left.
    pub fn end_by(&mut self, end: Uptime) {
        self.end = self.end.min(end);
    }

    /// When to ask again even if nothing has changed.
    #[must_use]
    pub fn wake(&self) -> Option<Uptime> {
        self.left.front()?.until
    }
}

/// Plans a drain that ends within `bound`. `children` are in start order.
///
/// Members that do not run yet, or not now, or are being stopped already, are asked at once, so that none of them comes up
/// meanwhile; who stands before them in their line waits for them all the same. Where the time does not suffice, the
/// grace of those who share it is cut by the same proportion; what one leaves over is for those after it.
pub fn plan<'a>(
    children: impl IntoIterator<Item = Candidate<'a>>,
    now: Uptime,
    bound: Duration,
) -> ShutdownPlan {
    let end = now + bound;
    let mut plan = ShutdownPlan::default();
    let mut places: Vec<(&GroupSpec, usize, Place)> = Vec::new();
    for Candidate { spec, child, group } in children {
        let needed = needed(spec);
        let grace = part(spec.grace, share(bound, needed));
        let is_up = match &child.phase {
            Phase::Down(_) => continue,
            Phase::Spawning { .. } | Phase::Waiting { .. } | Phase::Stopping { .. } => false,
            Phase::Up { .. } => true,
        };
        let seat = group.and_then(|group| {
            let at = group.members.iter().position(|member| *member == spec.id)?;
            Some((group, at))
        });
        if seat.is_none() || !is_up {
            plan.now.push((spec.id.clone(), grace));
        }
        if let Some((group, at)) = seat {
            let until = (!is_up).then(|| now + needed.min(bound));
            let (id, grace) = (spec.id.clone(), spec.grace);
            let place = Place {
                id,
                grace,
                needed,
                until,
            };
            places.push((group, at, place));
        }
    }
    plan.now.reverse();
    places.sort_by(|a, b| (&a.0.name, b.1).cmp(&(&b.0.name, a.1)));
    for group in places.chunk_by(|a, b| a.0.name == b.0.name) {
        let left = group.iter().map(|(_, _, place)| place.clone()).collect();
        plan.lines.push(Line { left, end });
    }
    plan
}

/// A child's grace, and the proof of death should that not suffice.
fn needed(spec: &ChildSpec) -> Duration {
    spec.grace.saturating_add(spec.kill_confirm)
}

fn share(left: Duration, wanted: Duration) -> f64 {
    if wanted <= left {
        1.0
    } else {
        left.as_secs_f64() / wanted.as_secs_f64()
    }
}

fn part(whole: Duration, share: f64) -> Duration {
    if share < 1.0 {
        // Rounding up could exceed the bound by a nanosecond each.
        whole.mul_f64(share).saturating_sub(Duration::from_nanos(1))
    } else {
        whole
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::child::{ChildIdentity, Readiness, Sight};
    use crate::group::Strategy;
    use crate::spec::Intensity;
    use std::collections::BTreeSet;

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

    fn group(name: &str, members: &[&str]) -> GroupSpec {
        GroupSpec {
            name: ChildId::new(name),
            strategy: Strategy::OneForOne,
            members: members.iter().copied().map(ChildId::new).collect(),
            intensity: Intensity {
                max: 1,
                within: Duration::from_secs(1),
            },
        }
    }

    fn alone<'a>(spec: &'a ChildSpec, child: &'a Child) -> Candidate<'a> {
        Candidate {
            spec,
            child,
            group: None,
        }
    }

    fn names(asked: &[(ChildId, Duration)]) -> Vec<&str> {
        asked.iter().map(|(id, _)| id.as_str()).collect()
    }

    fn at(seconds: u64) -> Uptime {
        Uptime(Duration::from_secs(seconds))
    }

    const MINUTE: Duration = Duration::from_secs(60);

    /// O1
    #[test]
    fn nothing_running_needs_nobody_asked() {
        let spec = spec("a", 10);
        let child = Child::loaded(0);
        let plan = plan([alone(&spec, &child)], at(0), MINUTE);
        assert_eq!(plan, ShutdownPlan::default());
    }

    /// O17, O55
    #[test]
    fn those_without_a_group_are_asked_at_once_later_starters_first() {
        let specs = [spec("m", 1), spec("c", 1), spec("x", 5)];
        let child = up();
        let plan = plan(specs.iter().map(|s| alone(s, &child)), at(0), MINUTE);
        assert_eq!(names(&plan.now), ["x", "c", "m"]);
        assert_eq!(plan.now[0].1, Duration::from_secs(5));
        assert!(plan.lines.is_empty());
    }

    /// O22: also where a member was started again after its followers.
    #[test]
    fn members_of_a_group_are_asked_one_by_one_last_first() {
        let of = group("g", &["m", "c", "new", "x"]);
        let specs = [
            spec("new", 1),
            spec("x", 1),
            spec("c", 1),
            spec("m", 1),
            spec("o", 1),
        ];
        let (up, new) = (up(), starting());
        let member = |spec, child| Candidate {
            spec,
            child,
            group: Some(&of),
        };
        let children = [
            member(&specs[0], &new),
            member(&specs[1], &up),
            member(&specs[2], &up),
            member(&specs[3], &up),
            alone(&specs[4], &up),
        ];
        let mut plan = plan(children, at(0), MINUTE);
        assert_eq!(names(&plan.now), ["o", "new"]);
        assert_eq!(plan.all().count(), 5);
        let line = &mut plan.lines[0];
        let mut down = BTreeSet::new();
        let mut order = Vec::new();
        for second in 0..20 {
            while let Some((id, _)) = line.next(at(second), |id| down.contains(id.as_str())) {
                order.push((second, id.to_string()));
            }
            let gone = order.last().map(|(_, id)| id.clone());
            if let Some(id) = gone.filter(|id| second % 2 == 1 && id != "c") {
                down.insert(id);
            }
            if second == 4 {
                down.insert("new".to_owned());
            }
        }
        let expected = [(0, "x"), (5, "c"), (11, "m")];
        // `c` outlives its time: 1 s of grace and 5 s to die.
        let order: Vec<_> = order.iter().map(|(at, id)| (*at, id.as_str())).collect();
        assert_eq!(order, expected);
    }

    /// I12
    #[test]
    fn too_little_time_is_shared_out_and_never_exceeded() {
        let specs: Vec<_> = (0..7).map(|i| spec(&format!("m{i}"), 3 + i)).collect();
        let all: Vec<String> = specs.iter().map(|s| s.id.to_string()).collect();
        let of = group("g", &all.iter().map(String::as_str).collect::<Vec<_>>());
        let child = up();
        let members = specs.iter().map(|spec| Candidate {
            spec,
            child: &child,
            group: Some(&of),
        });
        let mut plan = plan(members, at(3), Duration::from_secs(7));
        let line = &mut plan.lines[0];
        let mut now = at(3);
        for left in (0..7).rev() {
            let (id, grace) = line.next(now, |_| false).expect("its turn");
            assert_eq!(id.as_str(), format!("m{left}"));
            assert!(!grace.is_zero());
            assert_eq!(line.next(now, |_| false), None, "one at a time");
            now = line.wake().expect("a bound");
        }
        assert!(now <= at(10), "{now:?}");
        let alone = super::plan(
            specs.iter().map(|s| alone(s, &child)),
            at(3),
            Duration::from_secs(7),
        );
        assert!(
            alone
                .now
                .iter()
                .all(|(_, grace)| *grace < Duration::from_secs(7))
        );
    }

    /// I12: also when somebody is in more of a hurry later.
    #[test]
    fn those_whose_turn_has_not_come_share_the_time_of_who_is_in_more_of_a_hurry() {
        let specs = [spec("a", 5), spec("b", 5), spec("c", 5)];
        let of = group("g", &["a", "b", "c"]);
        let child = up();
        let members = specs.iter().map(|spec| Candidate {
            spec,
            child: &child,
            group: Some(&of),
        });
        let mut plan = plan(members, at(0), MINUTE);
        let line = &mut plan.lines[0];
        let (_, whole) = line.next(at(0), |_| false).expect("c");
        line.end_by(at(11));
        line.end_by(at(50));
        let (_, half) = line.next(at(1), |id| id.as_str() == "c").expect("b");
        let five = Duration::from_secs(5);
        assert_eq!(whole, five);
        assert!(half > five / 3 && half < five, "{half:?}");
        assert!(line.wake() <= Some(at(6)), "{line:?}");
    }

    /// What one leaves over is for those after it.
    #[test]
    fn who_is_quick_leaves_its_time_to_those_after_it() {
        let specs = [spec("a", 10), spec("b", 10)];
        let of = group("g", &["a", "b"]);
        let child = up();
        let members = specs.iter().map(|spec| Candidate {
            spec,
            child: &child,
            group: Some(&of),
        });
        let mut plan = plan(members, at(0), Duration::from_secs(20));
        let line = &mut plan.lines[0];
        let (_, first) = line.next(at(0), |_| false).expect("b");
        let (_, second) = line.next(at(1), |id| id.as_str() == "b").expect("a");
        assert!(first < Duration::from_secs(7));
        assert_eq!(second, Duration::from_secs(10));
    }
}
