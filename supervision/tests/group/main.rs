//! Groups: OTP's scenarios told one by one, then everything that can happen in every order.

mod world;

use lair_supervision::RestartType::{Permanent, Temporary, Transient};
use lair_supervision::{DownReason, ExitStatus, Phase, RestartType, Strategy};
use std::collections::HashSet;
use std::time::Duration;
use world::{Happening, Setting, World};

const ALL: [Strategy; 3] = [
    Strategy::OneForOne,
    Strategy::OneForAll,
    Strategy::RestForOne,
];

/// O42
#[test]
fn a_temporary_bystander_goes_down_with_its_group_and_costs_nothing() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let setting = Setting::of(strategy, &[Permanent, Temporary]).max(1);
        let mut world = World::up(&setting);
        world.happen(&setting, 0, Happening::Crashes);
        world.calm(&setting);
        assert_eq!(world.runs(), [2, 0], "{strategy:?}");
        assert_eq!(world.reason(1), Some(&DownReason::Group));
        assert_eq!(
            world.group.at.len(),
            1,
            "the budget pays for the crash alone"
        );
    }
}

/// O44
#[test]
fn under_one_for_one_only_the_dead_one_changes_and_one_death_too_many_ends_the_group() {
    let setting = Setting::of(Strategy::OneForOne, &[Permanent, Permanent, Permanent]);
    let mut world = World::up(&setting);
    world.happen(&setting, 1, Happening::Crashes);
    world.calm(&setting);
    world.happen(&setting, 2, Happening::Crashes);
    world.calm(&setting);
    assert_eq!(world.runs(), [1, 2, 2]);
    assert_eq!(world.take(), ["start b", "start c"]);
    world.happen(&setting, 1, Happening::Crashes);
    world.calm(&setting);
    assert_eq!(world.take(), ["end c", "end b", "end a", "give up for b"]);
    let gave_up = DownReason::GaveUp {
        restarts: 2,
        within: Duration::from_secs(60),
        last: ExitStatus::Code(1),
    };
    assert_eq!(world.reason(1), Some(&gave_up));
    assert_eq!(world.reason(0), Some(&DownReason::GroupGaveUp));
    assert_eq!(world.reason(2), Some(&DownReason::GroupGaveUp));
}

/// O45, O47, O50, O54
#[test]
fn a_restart_that_fails_over_and_over_ends_the_group_within_its_budget() {
    for strategy in ALL {
        let setting = Setting::of(strategy, &[Permanent, Permanent]);
        let mut world = World::up(&setting);
        world.happen(&setting, 0, Happening::Crashes);
        let mut failed = 0;
        while !world.gave_up() {
            let choices = world.choices(&setting, false);
            let fails = choices.contains(&(0, Happening::FailsToStart));
            let next = if fails {
                failed += 1;
                (0, Happening::FailsToStart)
            } else {
                let calm = |(_, w): &&(usize, Happening)| {
                    matches!(w, Happening::Ends | Happening::DelayPasses)
                };
                *choices.iter().find(calm).expect("something is under way")
            };
            world.happen(&setting, next.0, next.1);
        }
        assert_eq!(failed, 2, "{strategy:?}: two restarts are allowed");
        assert_eq!(world.runs(), [0, 0]);
        let last = ExitStatus::Unknown;
        let gave_up =
            matches!(world.reason(0), Some(DownReason::GaveUp { last: l, .. }) if *l == last);
        assert!(gave_up, "{:?}", world.reason(0));
        assert_eq!(world.reason(1), Some(&DownReason::GroupGaveUp));
    }
}

/// O46
#[test]
fn under_one_for_all_every_run_is_a_new_one_and_the_budget_ends_it() {
    let setting = Setting::of(Strategy::OneForAll, &[Permanent, Permanent, Permanent]);
    let mut world = World::up(&setting);
    for run in 2..=3 {
        world.happen(&setting, 1, Happening::Crashes);
        world.calm(&setting);
        assert_eq!(world.runs(), [run; 3]);
        assert_eq!(
            world.take(),
            [
                "restart for b",
                "hold c",
                "hold a",
                "start a",
                "start b",
                "start c"
            ]
        );
    }
    world.happen(&setting, 1, Happening::Crashes);
    world.calm(&setting);
    assert!(world.gave_up());
    assert_eq!(world.runs(), [0; 3]);
}

/// O48
#[test]
fn under_one_for_all_a_sibling_that_fails_to_come_back_takes_the_restarted_ones_down_again() {
    let setting = Setting::of(Strategy::OneForAll, &[Permanent, Permanent, Permanent]);
    let mut world = World::up(&setting);
    world.happen(&setting, 0, Happening::Crashes);
    world.happen(&setting, 2, Happening::Ends);
    world.happen(&setting, 1, Happening::Ends);
    world.happen(&setting, 0, Happening::ComesUp);
    world.take();
    world.happen(&setting, 1, Happening::FailsToStart);
    world.calm(&setting);
    assert_eq!(
        world.take(),
        ["restart for b", "hold a", "start a", "start b", "start c"]
    );
    assert_eq!(world.runs(), [3, 3, 2]);
}

/// O49
#[test]
fn under_rest_for_one_those_before_are_not_touched_and_the_budget_ends_it() {
    let setting = Setting::of(Strategy::RestForOne, &[Permanent, Permanent, Permanent]);
    let mut world = World::up(&setting);
    for run in 2..=3 {
        world.happen(&setting, 1, Happening::Crashes);
        world.calm(&setting);
        assert_eq!(world.runs(), [1, run, run]);
        assert_eq!(
            world.take(),
            ["restart for b", "hold c", "start b", "start c"]
        );
    }
    world.happen(&setting, 2, Happening::Crashes);
    world.calm(&setting);
    assert!(world.gave_up());
    assert_eq!(world.take(), ["end c", "end b", "end a", "give up for c"]);
}

/// O51
#[test]
fn under_rest_for_one_a_later_one_that_fails_to_come_back_leaves_the_restarted_ones_alone() {
    let setting = Setting::of(Strategy::RestForOne, &[Permanent, Permanent, Permanent]);
    let mut world = World::up(&setting);
    world.happen(&setting, 0, Happening::Crashes);
    world.happen(&setting, 2, Happening::Ends);
    world.happen(&setting, 1, Happening::Ends);
    world.happen(&setting, 0, Happening::ComesUp);
    world.happen(&setting, 1, Happening::FailsToStart);
    world.calm(&setting);
    assert_eq!(world.runs(), [2, 3, 2], "the first was restarted once");
}

/// O59
#[test]
fn while_a_member_waits_for_its_group_it_can_be_stopped() {
    let setting = Setting::of(Strategy::RestForOne, &[Permanent, Permanent, Permanent]);
    let mut world = World::up(&setting);
    world.happen(&setting, 0, Happening::Crashes);
    world.happen(&setting, 2, Happening::Ends);
    world.happen(&setting, 2, Happening::IsStopped);
    world.calm(&setting);
    assert_eq!(world.runs(), [2, 2, 0]);
    assert_eq!(world.reason(2), Some(&DownReason::Requested));
}

#[test]
fn what_somebody_stopped_or_what_completed_stays_down_in_a_restart_of_the_group() {
    let setting = Setting::of(Strategy::OneForAll, &[Permanent, Permanent, Transient]);
    let mut world = World::up(&setting);
    world.happen(&setting, 1, Happening::IsStopped);
    world.happen(&setting, 1, Happening::Ends);
    world.happen(&setting, 2, Happening::Completes);
    world.happen(&setting, 0, Happening::Crashes);
    world.calm(&setting);
    assert_eq!(world.runs(), [2, 0, 0]);
}

#[test]
fn a_start_that_cannot_succeed_ends_the_group_at_once() {
    let setting = Setting::of(Strategy::OneForAll, &[Permanent, Permanent]);
    let mut world = World::up(&setting);
    world.happen(&setting, 1, Happening::Crashes);
    world.happen(&setting, 0, Happening::Ends);
    world.happen(&setting, 0, Happening::CannotStart);
    assert!(world.gave_up());
    assert!(matches!(world.reason(0), Some(DownReason::StartFailed(_))));
    assert_eq!(world.reason(1), Some(&DownReason::GroupGaveUp));
}

#[test]
fn who_starts_a_member_of_a_group_that_gave_up_gives_it_its_whole_budget() {
    let setting = Setting::of(Strategy::OneForAll, &[Permanent, Permanent]).max(1);
    let mut world = World::up(&setting);
    for _ in 0..2 {
        world.happen(&setting, 0, Happening::Crashes);
        world.calm(&setting);
    }
    assert!(world.gave_up());
    for i in 0..2 {
        world.happen(&setting, i, Happening::IsStarted);
        world.calm(&setting);
    }
    world.happen(&setting, 0, Happening::Crashes);
    world.calm(&setting);
    assert!(!world.gave_up());
    assert!(
        world.runs().iter().all(|run| *run > 0),
        "{:?}",
        world.runs()
    );
}

/// O43 for groups.
#[test]
fn one_crash_per_window_never_exhausts_a_groups_budget() {
    for strategy in ALL {
        let setting = Setting::of(strategy, &[Permanent, Permanent]).max(1);
        let mut world = World::up(&setting);
        for _ in 0..50 {
            world.now = world.now + Duration::from_secs(61);
            world.happen(&setting, 0, Happening::Crashes);
            world.calm(&setting);
        }
        assert!(!world.gave_up());
        assert_eq!(world.runs()[0], 51);
    }
}

/// The next one waits until the one before it serves.
#[test]
fn a_member_that_must_say_ready_is_waited_for() {
    let mut setting = Setting::of(Strategy::OneForAll, &[Permanent, Permanent]);
    setting.members[0].awaits_ready = true;
    let mut world = World::up(&setting);
    world.happen(&setting, 1, Happening::Crashes);
    world.happen(&setting, 0, Happening::Ends);
    world.happen(&setting, 0, Happening::ComesUp);
    assert_eq!(world.runs(), [2, 0]);
    assert!(matches!(world.children[1].phase, Phase::Waiting { .. }));
    world.happen(&setting, 0, Happening::BecomesReady);
    world.calm(&setting);
    assert_eq!(world.runs(), [2, 2]);
}

fn explore(setting: &Setting, depth: usize, requests: bool) -> usize {
    let mut seen = HashSet::new();
    let mut edge = vec![World::up(setting), World::down(setting)];
    for _ in 0..depth {
        let mut next = Vec::new();
        for world in &edge {
            for (i, what) in world.choices(setting, requests) {
                let mut after = world.clone();
                after.happen(setting, i, what);
                after.done.clear();
                if seen.insert(after.clone()) {
                    next.push(after);
                }
            }
        }
        edge = next;
    }
    seen.len()
}

fn settings() -> Vec<Setting> {
    let types: [[RestartType; 3]; 3] = [
        [Permanent, Permanent, Permanent],
        [Permanent, Temporary, Transient],
        [Transient, Permanent, Temporary],
    ];
    let mut all = Vec::new();
    for strategy in ALL {
        for types in types {
            let setting = Setting::of(strategy, &types);
            let mut slow = setting.clone();
            slow.members[0].awaits_ready = true;
            slow.members[1].backoff.first = Duration::from_secs(1);
            all.extend([setting, slow]);
        }
    }
    all
}

#[test]
fn a_group_keeps_its_order_and_its_budget_whatever_its_members_do() {
    for setting in settings() {
        let seen = explore(&setting, 9, false);
        assert!(seen >= 50, "only {seen} states of {:?}", setting.spec);
    }
}

#[test]
fn a_group_forgets_nobody_whatever_is_asked_in_between() {
    for setting in settings() {
        let seen = explore(&setting, 4, true);
        assert!(seen >= 300, "only {seen} states of {:?}", setting.spec);
    }
}

#[test]
fn long_random_lives_of_groups_keep_every_promise() {
    for setting in settings() {
        for seed in 1..=60_u64 {
            let (mut world, mut random) = (World::up(&setting), seed);
            for _ in 0..150 {
                // xorshift64
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let choices = world.choices(&setting, random.is_multiple_of(3));
                world.now = world.now + Duration::from_millis(random % 5000);
                let Some(pick) = random.checked_rem(choices.len() as u64) else {
                    world.happen(&setting, 0, Happening::IsStarted);
                    continue;
                };
                let (i, what) = choices[usize::try_from(pick).expect("fits")];
                world.happen(&setting, i, what);
                world.done.clear();
            }
        }
    }
}
