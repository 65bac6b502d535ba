//! What the machine's memory, and each GPU's, is promised to.
//!
//! Owns: the claims of the modules that run, and the arithmetic of granting one more. Promises: a claim is granted only
//! if it fits beside all that was granted before, so that what is granted never exceeds the budget, whatever starts,
//! stops and crashes in whatever order; a refusal carries its whole sum, and whose stop would make room. Never: measures:
//! what was seen is handed in, and what nobody could see stays unknown.
//!
//! ```text
//! machine: capacity − reserve − strangers − charges = room     budget: budget − charges = room     the lesser counts
//! charge of a module = the larger of what it declared and what it was seen to use
//! ```

use crate::spec::ChildId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

mod relief;
mod words;

pub use words::size;

/// Something that is shared out in bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// The machine's memory.
    Memory,
    /// The memory of the GPU with this UUID.
    Gpu(String),
}

/// The rules of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Bytes of memory that all modules together may have; `None`: as much as there is.
    pub budget: Option<u64>,
    /// Bytes of memory that stay free for others.
    pub reserve: u64,
    /// Bytes that stay free on each GPU.
    pub gpu_reserve: u64,
}

impl Rules {
    /// Whether somebody set a rule for memory: then a module without a limit is judged, too.
    #[must_use]
    pub fn binds_memory(&self) -> bool {
        self.budget.is_some() || self.reserve > 0
    }
}

/// What a module declares that it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Bytes of memory; `None`: it declares none, and what it is seen to use counts.
    pub memory: Option<u64>,
    /// Its GPUs.
    pub gpus: Vec<GpuClaim>,
}

/// One GPU that a module was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuClaim {
    /// Which.
    pub uuid: String,
    /// Bytes on it, shared with others; `None`: no other module may be on it.
    pub vram: Option<u64>,
}

impl Claim {
    /// Whether it asks for nothing at all.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.memory.is_none() && self.gpus.is_empty()
    }

    fn gpu(&self, pool: &Pool) -> Option<&GpuClaim> {
        self.gpus
            .iter()
            .find(|gpu| matches!(pool, Pool::Gpu(uuid) if *uuid == gpu.uuid))
    }

    fn bytes(&self, pool: &Pool) -> Option<u64> {
        match pool {
            Pool::Memory => self.memory,
            Pool::Gpu(_) => self.gpu(pool)?.vram,
        }
    }

    fn is_alone_on(&self, pool: &Pool) -> bool {
        self.gpu(pool).is_some_and(|gpu| gpu.vram.is_none())
    }
}

/// What was seen of one pool. What could not be seen is `None` or absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Bytes that there are.
    pub capacity: Option<u64>,
    /// Bytes used by what is none of ours.
    pub strangers: Option<u64>,
    /// Bytes that each module uses.
    pub ours: BTreeMap<ChildId, u64>,
}

/// What was seen of every pool that matters for a question.
pub type Measured = BTreeMap<Pool, Seen>;

/// The sum of one pool. It comes out as `room`, which is negative where more is used than there should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// Of what.
    pub pool: Pool,
    /// Bytes that there are; `None`: unknown.
    pub capacity: Option<u64>,
    /// Bytes that modules may have together; `None`: no such rule.
    pub budget: Option<u64>,
    /// Bytes that stay free.
    pub reserve: u64,
    /// Bytes used by what is none of ours; `None`: unknown, and counted as nothing.
    pub strangers: Option<u64>,
    /// What each module counts for, by name.
    pub charges: Vec<Charge>,
    /// Who has it alone, if somebody does.
    pub alone: Option<ChildId>,
    /// Bytes left; `None`: neither capacity nor budget is known.
    pub room: Option<i64>,
}

/// What one module counts for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// The module.
    pub id: ChildId,
    /// Bytes that it declared.
    pub declared: Option<u64>,
    /// Bytes that it was seen to use.
    pub seen: Option<u64>,
    /// It has ended, and something of it was left behind: its claim is held until it is started again or unloaded.
    pub left: bool,
}

impl Charge {
    /// The larger of the two.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.declared.unwrap_or(0).max(self.seen.unwrap_or(0))
    }
}

/// A claim that does not fit, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortage {
    /// Who asked.
    pub id: ChildId,
    /// The pools that fall short.
    pub short: Vec<Lack>,
    /// The fewest modules whose stop would make room; `None`: not even all of them would.
    pub stop: Option<Vec<ChildId>>,
}

/// One pool that falls short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// What there is.
    pub sum: Sum,
    /// Bytes asked for; `None`: a whole GPU, or an unknown amount of memory.
    pub asked: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    claim: Claim,
    left: bool,
}

/// Who has what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    rules: Rules,
    grants: BTreeMap<ChildId, Grant>,
}

impl Account {
    /// Nothing granted yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Account {
            rules,
            grants: BTreeMap::new(),
        }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Would this claim fit? What the module itself has already is not counted against it.
    ///
    /// # Errors
    /// The sums that fall short.
    pub fn judge(
        &self,
        id: &ChildId,
        claim: &Claim,
        measured: &Measured,
    ) -> Result<(), Box<Shortage>> {
        let none = BTreeSet::new();
        let short: Vec<Lack> = self
            .pools(claim)
            .into_iter()
            .map(|pool| Lack {
                asked: claim.bytes(&pool),
                sum: self.sum(&pool, measured, id, &none),
            })
            .filter(|lack| !fits(&lack.sum, claim))
            .collect();
        if short.is_empty() {
            return Ok(());
        }
        Err(Box::new(Shortage {
            id: id.clone(),
            short,
            stop: self.relief(id, claim, measured),
        }))
    }

    /// Judges a claim, and holds it if it fits.
    ///
    /// # Errors
    /// As [`Account::judge`]; nothing changes then.
    pub fn admit(
        &mut self,
        id: &ChildId,
        claim: &Claim,
        measured: &Measured,
    ) -> Result<(), Box<Shortage>> {
        self.judge(id, claim, measured)?;
        self.hold(id, claim.clone());
        Ok(())
    }

    /// Holds a claim without a judgement: of a module that runs already.
    pub fn hold(&mut self, id: &ChildId, claim: Claim) {
        self.grants.insert(id.clone(), Grant { claim, left: false });
    }

    /// The module's tree is proven gone: its claim is returned.
    pub fn release(&mut self, id: &ChildId) {
        self.grants.remove(id);
    }

    /// The module is down, but something of it lives on: its claim stays until it is started again, or released.
    pub fn leave(&mut self, id: &ChildId) {
        if let Some(grant) = self.grants.get_mut(id) {
            grant.left = true;
        }
    }

    /// What a module holds.
    #[must_use]
    pub fn held(&self, id: &ChildId) -> Option<&Claim> {
        self.grants.get(id).map(|grant| &grant.claim)
    }

    /// Whether a module holds a part of a pool.
    #[must_use]
    pub fn has(&self, id: &ChildId, pool: &Pool) -> bool {
        self.held(id).is_some_and(|claim| match pool {
            Pool::Memory => claim.memory.is_some(),
            Pool::Gpu(_) => claim.gpu(pool).is_some(),
        })
    }

    /// Bytes granted of a pool, by declaration.
    #[must_use]
    pub fn granted(&self, pool: &Pool) -> u64 {
        let bytes = self.grants.values().filter_map(|g| g.claim.bytes(pool));
        bytes.fold(0, u64::saturating_add)
    }

    /// The sum of a pool as it is now.
    #[must_use]
    pub fn now(&self, pool: &Pool, measured: &Measured) -> Sum {
        self.sum(pool, measured, &ChildId::new(""), &BTreeSet::new())
    }

    /// The pools that a claim is judged by.
    fn pools(&self, claim: &Claim) -> Vec<Pool> {
        let memory = (claim.memory.is_some() || self.rules.binds_memory()).then_some(Pool::Memory);
        let gpus = claim.gpus.iter().map(|gpu| Pool::Gpu(gpu.uuid.clone()));
        memory.into_iter().chain(gpus).collect()
    }

    /// The sum of a pool for `asker`, who is not charged, as if `stopped` were gone.
    fn sum(
        &self,
        pool: &Pool,
        measured: &Measured,
        asker: &ChildId,
        stopped: &BTreeSet<&ChildId>,
    ) -> Sum {
        let seen = measured.get(pool).cloned().unwrap_or_default();
        let counts = |id: &ChildId| id != asker && !stopped.contains(id);
        let mut charges: BTreeMap<&ChildId, Charge> = BTreeMap::new();
        for (id, grant) in self.grants.iter().filter(|(id, _)| counts(id)) {
            if *pool == Pool::Memory || grant.claim.gpu(pool).is_some() {
                charges.insert(id, charge(id, grant.claim.bytes(pool), grant.left));
            }
        }
        for (id, bytes) in seen.ours.iter().filter(|(id, _)| counts(id)) {
            let charge = charges.entry(id).or_insert_with(|| charge(id, None, false));
            charge.seen = Some(*bytes);
        }
        let alone = self.grants.iter().filter(|(id, _)| counts(id));
        let alone = alone
            .filter(|(_, grant)| grant.claim.is_alone_on(pool))
            .map(|(id, _)| id.clone())
            .next();
        let charges: Vec<Charge> = charges.into_values().collect();
        let (budget, reserve) = match pool {
            Pool::Memory => (self.rules.budget, self.rules.reserve),
            Pool::Gpu(_) => (None, self.rules.gpu_reserve),
        };
        let room = room(&seen, budget, reserve, &charges);
        Sum {
            pool: pool.clone(),
            capacity: seen.capacity,
            budget,
            reserve,
            strangers: seen.strangers,
            charges,
            alone,
            room,
        }
    }
}

fn charge(id: &ChildId, declared: Option<u64>, left: bool) -> Charge {
    Charge {
        id: id.clone(),
        declared,
        seen: None,
        left,
    }
}

fn room(seen: &Seen, budget: Option<u64>, reserve: u64, charges: &[Charge]) -> Option<i64> {
    let charged: i128 = charges.iter().map(|c| i128::from(c.bytes())).sum();
    let machine = seen.capacity.map(|capacity| {
        i128::from(capacity) - i128::from(reserve) - i128::from(seen.strangers.unwrap_or(0))
    });
    let least = [machine, budget.map(i128::from)]
        .into_iter()
        .flatten()
        .min()?;
    let room = least - charged;
    Some(i64::try_from(room).unwrap_or(if room < 0 { i64::MIN } else { i64::MAX }))
}

/// Whether a claim fits beside what is in the sum.
fn fits(sum: &Sum, claim: &Claim) -> bool {
    let enough = |bytes: u64| sum.room.map(|room| i128::from(room) >= i128::from(bytes));
    match (&sum.pool, claim.bytes(&sum.pool)) {
        (Pool::Memory, Some(bytes)) => enough(bytes).unwrap_or(true),
        // How much it will use is unknown; where nothing is left, it is too much.
        (Pool::Memory, None) => sum.room.is_none_or(|room| room > 0),
        (Pool::Gpu(_), _) if sum.alone.is_some() => false,
        // A GPU of which nothing is known is lost, or its driver is gone.
        (Pool::Gpu(_), Some(bytes)) => enough(bytes).unwrap_or(false),
        (Pool::Gpu(_), None) => sum.charges.is_empty(),
    }
}
