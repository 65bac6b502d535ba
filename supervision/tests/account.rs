//! The account's promises: nothing is granted twice, refusals add up, and the modules they name make room.

use lair_supervision::account::{Lack, Rules, Seen, size};
use lair_supervision::{Account, ChildId, Claim, GpuClaim, Measured, Pool};
use proptest::prelude::*;
use std::collections::BTreeMap;

const GIB: u64 = 1 << 30;

fn id(name: &str) -> ChildId {
    ChildId::new(name)
}

fn memory(bytes: u64) -> Claim {
    Claim {
        memory: Some(bytes),
        gpus: Vec::new(),
    }
}

fn gpu(uuid: &str, vram: Option<u64>) -> Claim {
    let uuid = uuid.to_owned();
    Claim {
        memory: None,
        gpus: vec![GpuClaim { uuid, vram }],
    }
}

fn seen(pool: Pool, capacity: u64, strangers: Option<u64>, ours: &[(&str, u64)]) -> Measured {
    let ours = ours.iter().map(|(name, bytes)| (id(name), *bytes));
    let seen = Seen {
        capacity: Some(capacity),
        strangers,
        ours: ours.collect(),
    };
    [(pool, seen)].into()
}

fn card() -> Pool {
    Pool::Gpu("GPU-1".into())
}

#[test]
fn a_refusal_shows_its_sum_and_the_one_stop_that_frees_the_least() {
    let rules = Rules {
        reserve: 2 * GIB,
        ..Rules::default()
    };
    let mut account = Account::new(rules);
    let machine = seen(Pool::Memory, 16 * GIB, Some(3 * GIB), &[("c", GIB)]);
    for (name, bytes) in [("a", 5 * GIB), ("b", 3 * GIB)] {
        account
            .admit(&id(name), &memory(bytes), &machine)
            .expect("it fits");
    }
    account.hold(&id("c"), Claim::default());
    let short = account
        .admit(&id("d"), &memory(4 * GIB), &machine)
        .expect_err("it doesn't");
    assert_eq!(
        short.to_string(),
        "`d` doesn't fit: it asks for 4GiB of memory: capacity 16GiB - reserve 2GiB - strangers 3GiB - a 5GiB - b 3GiB - c 1GiB (measured) = 2GiB"
    );
    assert_eq!(short.short[0].sum.room, Some(2 * GIB as i64));
    assert_eq!(short.stop, Some(vec![id("b")]));
    assert_eq!(short.help(), "stop b to make room, then start it again");
    account.release(&id("b"));
    account
        .admit(&id("d"), &memory(4 * GIB), &machine)
        .expect("there is room now");
}

#[test]
fn more_than_one_stop_is_named_only_where_one_is_too_few() {
    let mut account = Account::new(Rules {
        budget: Some(6 * GIB),
        ..Rules::default()
    });
    for name in ["a", "b", "c"] {
        account
            .admit(&id(name), &memory(2 * GIB), &Measured::new())
            .expect("it fits");
    }
    let asked = |bytes| {
        let short = account.judge(&id("d"), &memory(bytes), &Measured::new());
        short
            .expect_err("it doesn't fit")
            .stop
            .map(|stop| stop.len())
    };
    assert_eq!(
        [asked(2 * GIB), asked(3 * GIB), asked(5 * GIB)],
        [Some(1), Some(2), Some(3)]
    );
    assert_eq!(asked(7 * GIB), None);
    let short = account
        .judge(&id("d"), &memory(GIB), &Measured::new())
        .expect_err("full");
    assert_eq!(
        short.to_string(),
        "`d` doesn't fit: it asks for 1GiB of memory: budget 6GiB - a 2GiB - b 2GiB - c 2GiB = 0B"
    );
}

#[test]
fn what_uses_more_than_it_declared_counts_for_what_it_uses() {
    let mut account = Account::new(Rules::default());
    let machine = seen(Pool::Memory, 8 * GIB, Some(0), &[("a", 6 * GIB)]);
    account.hold(&id("a"), memory(4 * GIB));
    let short = account
        .judge(&id("b"), &memory(3 * GIB), &machine)
        .expect_err("a squeeze");
    assert!(
        short
            .to_string()
            .ends_with("capacity 8GiB - a 6GiB (measured; it declared 4GiB) = 2GiB"),
        "{short}"
    );
}

#[test]
fn a_module_without_a_limit_is_refused_only_where_a_rule_leaves_nothing() {
    let full = seen(Pool::Memory, 8 * GIB, Some(9 * GIB), &[]);
    let lax = Account::new(Rules::default());
    assert_eq!(lax.judge(&id("a"), &Claim::default(), &full), Ok(()));
    let mut strict = Account::new(Rules {
        budget: Some(GIB),
        ..Rules::default()
    });
    assert_eq!(
        strict.judge(&id("a"), &Claim::default(), &Measured::new()),
        Ok(())
    );
    strict.hold(&id("b"), memory(GIB));
    let short = strict
        .judge(&id("a"), &Claim::default(), &Measured::new())
        .expect_err("full");
    assert_eq!(
        short.to_string(),
        "`a` doesn't fit: it declares no memory limit, and nothing is left: budget 1GiB - b 1GiB = 0B"
    );
}

#[test]
fn what_nobody_could_see_is_said_and_not_guessed() {
    let account = Account::new(Rules::default());
    assert_eq!(
        account.judge(&id("a"), &memory(u64::MAX), &Measured::new()),
        Ok(())
    );
    let machine = seen(Pool::Memory, GIB, None, &[]);
    let short = account
        .judge(&id("a"), &memory(2 * GIB), &machine)
        .expect_err("too large");
    assert!(
        short
            .to_string()
            .ends_with("capacity 1GiB - strangers unknown = 1GiB"),
        "{short}"
    );
    // A GPU of which nothing is known is lost.
    let lost = account.judge(&id("a"), &gpu("GPU-1", Some(1)), &Measured::new());
    assert!(
        lost.expect_err("lost")
            .to_string()
            .ends_with("capacity unknown")
    );
}

#[test]
fn a_gpu_is_one_modules_alone_unless_all_on_it_declare_their_share() {
    let mut account = Account::new(Rules {
        gpu_reserve: GIB,
        ..Rules::default()
    });
    let machine = seen(card(), 24 * GIB, Some(3 * GIB), &[]);
    account
        .admit(&id("a"), &gpu("GPU-1", Some(12 * GIB)), &machine)
        .expect("a share");
    account
        .admit(&id("b"), &gpu("GPU-1", Some(6 * GIB)), &machine)
        .expect("another");
    let short = account
        .judge(&id("c"), &gpu("GPU-1", Some(4 * GIB)), &machine)
        .expect_err("full");
    assert_eq!(
        short.to_string(),
        "`c` doesn't fit: it asks for 4GiB of memory of GPU GPU-1: capacity 24GiB - reserve 1GiB - strangers 3GiB - a 12GiB - b 6GiB = 2GiB"
    );
    assert_eq!(short.stop, Some(vec![id("b")]));
    let alone = account
        .judge(&id("c"), &gpu("GPU-1", None), &machine)
        .expect_err("taken");
    assert_eq!(
        alone.to_string(),
        "`c` doesn't fit: it asks for GPU GPU-1 alone, and on it: a, b"
    );
    assert_eq!(alone.stop, Some(vec![id("a"), id("b")]));
    account.release(&id("a"));
    account.release(&id("b"));
    account
        .admit(&id("c"), &gpu("GPU-1", None), &machine)
        .expect("it is empty");
    let shut = account
        .judge(&id("a"), &gpu("GPU-1", Some(1)), &machine)
        .expect_err("taken");
    assert!(shut.to_string().ends_with(": c has it alone"), "{shut}");
    // Another GPU is another matter.
    let other = seen(Pool::Gpu("GPU-2".into()), GIB * 24, None, &[]);
    account
        .admit(&id("a"), &gpu("GPU-2", None), &other)
        .expect("free");
}

#[test]
fn what_was_left_behind_keeps_its_claim_and_is_not_named_as_a_stop() {
    let mut account = Account::new(Rules {
        budget: Some(GIB),
        ..Rules::default()
    });
    account.hold(&id("a"), memory(GIB));
    account.leave(&id("a"));
    let short = account
        .judge(&id("b"), &memory(1), &Measured::new())
        .expect_err("held");
    assert_eq!(short.stop, None);
    assert!(
        short.to_string().contains("a 1GiB (left behind)"),
        "{short}"
    );
    assert_eq!(
        account.judge(&id("a"), &memory(GIB), &Measured::new()),
        Ok(())
    );
}

#[test]
fn sizes_are_exact_where_a_unit_divides_them() {
    let read = [
        0,
        1023,
        1024,
        1 << 20,
        GIB,
        3 * GIB / 2,
        GIB + GIB / 4,
        GIB + 1,
        5 << 40,
    ]
    .map(size);
    assert_eq!(
        read,
        [
            "0B", "1023B", "1KiB", "1MiB", "1GiB", "1.5GiB", "1.25GiB", "1GiB", "5TiB"
        ]
    );
}

/// What may happen, in any order.
#[derive(Clone, Debug)]
enum Step {
    Start(u8, Claim),
    Gone(u8),
    Left(u8),
    Machine(u64, Option<u64>, BTreeMap<u8, u64>),
}

fn claims() -> impl Strategy<Value = Claim> {
    let vram = prop_oneof![Just(None), (0..40_u64).prop_map(Some)];
    let gpus = prop::collection::btree_map(0..2_u8, vram, 0..3);
    (prop::option::of(0..60_u64), gpus).prop_map(|(memory, gpus)| Claim {
        memory,
        gpus: gpus
            .into_iter()
            .map(|(n, vram)| GpuClaim {
                uuid: format!("GPU-{n}"),
                vram,
            })
            .collect(),
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0..6_u8;
    let step = prop_oneof![
        4 => (who.clone(), claims()).prop_map(|(who, claim)| Step::Start(who, claim)),
        2 => who.clone().prop_map(Step::Gone),
        1 => who.clone().prop_map(Step::Left),
        1 => (0..100_u64, prop::option::of(0..50_u64), prop::collection::btree_map(who, 0..50_u64, 0..4))
            .prop_map(|(capacity, strangers, ours)| Step::Machine(capacity, strangers, ours)),
    ];
    prop::collection::vec(step, 1..60)
}

fn pools() -> [Pool; 3] {
    [
        Pool::Memory,
        Pool::Gpu("GPU-0".into()),
        Pool::Gpu("GPU-1".into()),
    ]
}

fn machine(capacity: u64, strangers: Option<u64>, ours: &BTreeMap<u8, u64>) -> Measured {
    let ours: BTreeMap<ChildId, u64> = ours
        .iter()
        .map(|(n, b)| (id(&format!("m{n}")), *b))
        .collect();
    let seen = Seen {
        capacity: Some(capacity),
        strangers,
        ours,
    };
    pools()
        .into_iter()
        .map(|pool| (pool, seen.clone()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever starts, stops, crashes and leaves something, and whatever the strangers do meanwhile: what is granted
    /// at any moment was within budget and capacity when the last of it was granted.
    #[test]
    fn what_is_granted_never_exceeds_the_budget(
        steps in steps(), budget in prop::option::of(0..120_u64), reserve in 0..20_u64, gpu_reserve in 0..10_u64,
    ) {
        let mut account = Account::new(Rules { budget, reserve, gpu_reserve });
        let mut now = (100, Some(0), BTreeMap::new());
        for step in steps {
            match step {
                Step::Start(who, claim) => {
                    let who = id(&format!("m{who}"));
                    let before = account.clone();
                    let measured = machine(now.0, now.1, &now.2);
                    match account.admit(&who, &claim, &measured) {
                        Ok(()) => {
                            prop_assert!(budget.is_none_or(|b| account.granted(&Pool::Memory) <= b));
                            for pool in pools() {
                                let asked = match &pool {
                                    Pool::Memory => claim.memory,
                                    Pool::Gpu(uuid) => claim.gpus.iter().find(|g| g.uuid == *uuid).and_then(|g| g.vram),
                                };
                                if asked.is_some() {
                                    let kept = if pool == Pool::Memory { reserve } else { gpu_reserve };
                                    let room = now.0.saturating_sub(kept + now.1.unwrap_or(0));
                                    prop_assert!(account.granted(&pool) <= room, "{pool}: {account:?}");
                                }
                                let sum = account.now(&pool, &Measured::new());
                                prop_assert!(sum.alone.is_none() || sum.charges.len() == 1, "shared: {sum:?}");
                            }
                        }
                        Err(short) => {
                            prop_assert_eq!(&account, &before, "a refusal changes nothing");
                            for Lack { sum, .. } in &short.short {
                                let charged: i64 = sum.charges.iter().map(|c| c.bytes() as i64).sum();
                                if let (None, Some(capacity), Some(room)) = (sum.budget, sum.capacity, sum.room) {
                                    let rest = capacity as i64 - sum.reserve as i64 - sum.strangers.unwrap_or(0) as i64;
                                    prop_assert_eq!(rest - charged, room, "the sum adds up");
                                }
                            }
                            if let Some(stop) = short.stop {
                                let mut without = account.clone();
                                let mut ours = now.2.clone();
                                for name in &stop {
                                    without.release(name);
                                    ours.retain(|n, _| id(&format!("m{n}")) != *name);
                                }
                                let after = machine(now.0, now.1, &ours);
                                prop_assert!(without.judge(&who, &claim, &after).is_ok(), "the stop makes room");
                                for spare in &stop {
                                    let mut fewer = without.clone();
                                    fewer.hold(spare, account.held(spare).cloned().unwrap_or_default());
                                    let mut ours = ours.clone();
                                    ours.extend(now.2.iter().filter(|(n, _)| id(&format!("m{n}")) == *spare).map(|(n, b)| (*n, *b)));
                                    let after = machine(now.0, now.1, &ours);
                                    prop_assert!(fewer.judge(&who, &claim, &after).is_err(), "{spare} was named in vain");
                                }
                            }
                        }
                    }
                }
                Step::Gone(who) => account.release(&id(&format!("m{who}"))),
                Step::Left(who) => account.leave(&id(&format!("m{who}"))),
                Step::Machine(capacity, strangers, ours) => now = (capacity, strangers, ours),
            }
        }
    }
}
