//! Whose stop would make room.

use super::{Account, Claim, Measured, Pool, fits};
use crate::spec::ChildId;
use std::collections::BTreeSet;

/// Sets that are tried one by one; beyond this, the small ones are left out one after the other.
const TRIES: usize = 5_000;

type Set<'a> = BTreeSet<&'a ChildId>;

impl Account {
    /// The fewest modules whose stop makes room for `claim`, and among those the ones that free the least.
    pub(super) fn relief(
        &self,
        id: &ChildId,
        claim: &Claim,
        measured: &Measured,
    ) -> Option<Vec<ChildId>> {
        let pools = self.pools(claim);
        let enough = |stopped: &Set<'_>| {
            let sums = pools
                .iter()
                .map(|pool| self.sum(pool, measured, id, stopped));
            sums.into_iter().all(|sum| fits(&sum, claim))
        };
        let mut candidates: Vec<(u64, &ChildId)> = self
            .grants
            .iter()
            .filter(|(of, grant)| *of != id && !grant.left)
            .filter(|(_, grant)| {
                pools
                    .iter()
                    .any(|p| *p == Pool::Memory || grant.claim.gpu(p).is_some())
            })
            .map(|(of, _)| (self.frees(of, &pools, measured), of))
            .collect();
        candidates.sort();
        let all: Set<'_> = candidates.iter().map(|(_, of)| *of).collect();
        if !enough(&all) {
            return None;
        }
        let mut tries = 0;
        for size in 1..=candidates.len() {
            tries += combinations(candidates.len(), size);
            if tries > TRIES {
                break;
            }
            if let Some(found) = cheapest(&candidates, size, &enough) {
                return Some(found);
            }
        }
        let mut kept = all;
        for (_, of) in &candidates {
            let mut fewer = kept.clone();
            fewer.remove(of);
            if enough(&fewer) {
                kept = fewer;
            }
        }
        Some(kept.into_iter().cloned().collect())
    }

    /// Bytes that its stop gives back, over all these pools.
    fn frees(&self, id: &ChildId, pools: &[Pool], measured: &Measured) -> u64 {
        let of = |pool: &Pool| {
            let seen = measured.get(pool).and_then(|seen| seen.ours.get(id));
            let declared = self.held(id).and_then(|claim| claim.bytes(pool));
            seen.copied().unwrap_or(0).max(declared.unwrap_or(0))
        };
        pools.iter().map(of).fold(0, u64::saturating_add)
    }
}

fn combinations(n: usize, k: usize) -> usize {
    (0..k).fold(1_usize, |ways, i| ways.saturating_mul(n - i) / (i + 1))
}

/// Of the sets of this size that suffice, the one that frees the least; `candidates` are in order of what they free.
fn cheapest(
    candidates: &[(u64, &ChildId)],
    size: usize,
    enough: &dyn Fn(&Set<'_>) -> bool,
) -> Option<Vec<ChildId>> {
    let mut best: Option<(u64, Vec<ChildId>)> = None;
    let mut at: Vec<usize> = (0..size).collect();
    loop {
        let frees = at
            .iter()
            .map(|i| candidates[*i].0)
            .fold(0, u64::saturating_add);
        let set: Set<'_> = at.iter().map(|i| candidates[*i].1).collect();
        if best.as_ref().is_none_or(|(least, _)| frees < *least) && enough(&set) {
            best = Some((frees, set.into_iter().cloned().collect()));
        }
        // The next combination in order.
        let Some(moved) = (0..size)
            .rev()
            .find(|i| at[*i] < candidates.len() - size + i)
        else {
            return best.map(|(_, set)| set);
        };
        at[moved] += 1;
        for i in moved + 1..size {
            at[i] = at[i - 1] + 1;
        }
    }
}
