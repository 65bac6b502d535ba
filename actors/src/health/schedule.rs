//! When the next look is due.

use lair_supervision::{ChildId, ProbeKind};
use std::time::Duration;

/// The period varies by this part of itself to either side, so that modules that were started together drift apart.
const JITTER: f64 = 0.05;

/// The time between look `n` and the next; the same seed gives the same times.
pub(super) fn period(
    interval: Duration,
    seed: u64,
    id: &ChildId,
    kind: ProbeKind,
    n: u64,
) -> Duration {
    let mut mixed = mix(seed ^ mix(n).rotate_left(kind as u32 * 8 + 1));
    for byte in id.as_str().bytes() {
        mixed = mix(mixed ^ u64::from(byte));
    }
    // 2^32 steps between -1 and 1 are fine enough.
    let unit = f64::from(u32::try_from(mixed >> 32).unwrap_or(0)) / f64::from(u32::MAX) * 2.0 - 1.0;
    interval.mul_f64(1.0 + JITTER * unit)
}

/// splitmix64's finalizer.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod test {
    use super::period;
    use lair_supervision::{ChildId, ProbeKind};
    use std::time::Duration;

    #[test]
    fn periods_stay_in_their_band_differ_and_repeat_with_the_seed() {
        let interval = Duration::from_secs(10);
        let of =
            |seed, name, n| period(interval, seed, &ChildId::new(name), ProbeKind::Liveness, n);
        let first: Vec<_> = (0..100).map(|n| of(7, "a", n)).collect();
        assert!(
            first
                .iter()
                .all(|p| (9.5..=10.5).contains(&p.as_secs_f64()))
        );
        assert_eq!(first, (0..100).map(|n| of(7, "a", n)).collect::<Vec<_>>());
        assert_ne!(first, (0..100).map(|n| of(8, "a", n)).collect::<Vec<_>>());
        assert_ne!(of(7, "a", 0), of(7, "b", 0));
        assert_ne!(of(7, "a", 0), of(7, "a", 1));
    }
}
