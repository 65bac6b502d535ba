//! Histories of a whole stack: twenty children of all kinds on one clock, chance at every step, an ordered shutdown at the
//! end; every promise is checked after every step of every child.

use super::world::World;
use super::{permanent_with_intensity_two, temporary, transient_with_readiness};
use lair_supervision::{ChildSpec, Uptime};
use std::hash::{DefaultHasher, Hash, Hasher};

const MODULES: usize = 20;
/// Steps of a history before its shutdown: some two dozen a child.
const STEPS: usize = 500;
/// Steps after it, at most, until all are down.
const LAST: usize = 4000;

struct Dice(u64);

impl Dice {
    fn of_seed(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).expect("fits")
    }
}

struct Stack {
    now: Uptime,
    children: Vec<(ChildSpec, World)>,
    steps: usize,
    /// Of everything that was decided, in order.
    told: DefaultHasher,
}

impl Stack {
    fn new(dice: &mut Dice) -> Self {
        let kinds = [
            temporary,
            permanent_with_intensity_two,
            transient_with_readiness,
        ];
        let child = |_| (kinds[dice.roll(3)](), World::new());
        Stack {
            now: Uptime::ZERO,
            children: (0..MODULES).map(child).collect(),
            steps: 0,
            told: DefaultHasher::new(),
        }
    }

    /// One event of one child, taken by chance from all that may happen to it now.
    fn step(&mut self, at: usize, dice: &mut Dice) {
        let (spec, world) = &mut self.children[at];
        world.now = world.now.max(self.now);
        let choices = world.choices(spec);
        let pick = dice.roll(choices.len());
        let choice = choices.into_iter().nth(pick).expect("in range");
        // Whatever breaks a promise panics in here, with all that led to it.
        *world = world.step(spec, choice);
        self.now = self.now.max(world.now);
        (at, &world.child).hash(&mut self.told);
        self.steps += 1;
    }

    /// All are asked to stop, as the runtime does it; then only the world goes on, until nothing is left.
    fn shut_down(&mut self, dice: &mut Dice) {
        for (_, world) in &mut self.children {
            *world = world.marked_as_draining();
        }
        for _ in 0..LAST {
            let up =
                |(at, (_, world)): (usize, &(ChildSpec, World))| (!world.is_over()).then_some(at);
            let up: Vec<usize> = self.children.iter().enumerate().filter_map(up).collect();
            if up.is_empty() {
                return;
            }
            let at = up[dice.roll(up.len())];
            self.step(at, dice);
        }
        let up = self.children.iter().filter(|(_, w)| !w.is_over()).count();
        panic!("{up} children are not down after {LAST} steps of a shutdown");
    }
}

/// The steps that a history took, and what it told.
fn history(seed: u64) -> (usize, u64) {
    let mut dice = Dice::of_seed(seed);
    let mut stack = Stack::new(&mut dice);
    for _ in 0..STEPS {
        let at = dice.roll(MODULES);
        stack.step(at, &mut dice);
    }
    stack.shut_down(&mut dice);
    (stack.steps, stack.told.finish())
}

/// N4: ten thousand histories of twenty modules.
#[test]
fn ten_thousand_histories_of_twenty_modules_keep_every_promise() {
    let threads = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let steps: usize = std::thread::scope(|scope| {
        let part = |first| {
            scope.spawn(move || {
                (first..10_000)
                    .step_by(threads as usize)
                    .map(|s| history(s).0)
                    .sum::<usize>()
            })
        };
        let parts: Vec<_> = (0..threads).map(part).collect();
        parts
            .into_iter()
            .map(|p| p.join().expect("no promise is broken"))
            .sum()
    });
    assert!(steps >= 10_000 * STEPS, "only {steps} steps");
}

/// N4
#[test]
fn the_same_seed_gives_the_same_history_and_another_seed_another() {
    let all: Vec<u64> = (0..200).map(|seed| history(seed).1).collect();
    for (seed, told) in (0..).zip(&all) {
        assert_eq!(history(seed).1, *told, "seed {seed}");
    }
    let distinct: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
}
