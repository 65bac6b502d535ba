//! Numbers that repeat for a seed.

use std::time::Duration;

#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        dice.below(2);
        dice
    }

    pub fn below(&mut self, most: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Anything up to this long.
    pub fn sleep(&mut self, most: Duration) {
        let most = u64::try_from(most.as_micros()).expect("a short time");
        std::thread::sleep(Duration::from_micros(self.below(most + 1)));
    }
}
