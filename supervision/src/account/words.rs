//! The arithmetic in words.

use super::{Charge, Lack, Pool, Shortage, Sum};
use std::fmt;

/// Bytes as people read them: exact where a unit divides them, else to two decimals.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let Some((unit, shift)) = UNITS.into_iter().find(|(_, shift)| bytes >> shift > 0) else {
        return format!("{bytes}B");
    };
    let hundredths = (u128::from(bytes) * 100 + (1 << (shift - 1))) >> shift;
    let (whole, part) = (hundredths / 100, hundredths % 100);
    match part {
        0 => format!("{whole}{unit}"),
        part if part % 10 == 0 => format!("{whole}.{}{unit}", part / 10),
        part => format!("{whole}.{part:02}{unit}"),
    }
}

fn signed(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "" };
    format!("{sign}{}", size(bytes.unsigned_abs()))
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pool::Memory => f.write_str("memory"),
            Pool::Gpu(uuid) => write!(f, "memory of GPU {uuid}"),
        }
    }
}

impl fmt::Display for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.id, size(self.bytes()))?;
        match (self.left, self.declared, self.seen) {
            (true, ..) => f.write_str(" (left behind)"),
            (false, None, Some(_)) => f.write_str(" (measured)"),
            (false, Some(declared), Some(seen)) if seen > declared => {
                write!(f, " (measured; it declared {})", size(declared))
            }
            (false, ..) => Ok(()),
        }
    }
}

/// `capacity 16GiB - reserve 2GiB - strangers 4GiB - a 8GiB = 2GiB`: the tighter of the two sums.
impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(of) = &self.alone {
            return write!(f, "{of} has it alone");
        }
        let machine = self.capacity.map(|capacity| {
            i128::from(capacity)
                - i128::from(self.reserve)
                - i128::from(self.strangers.unwrap_or(0))
        });
        match (self.budget, machine) {
            (Some(budget), machine) if machine.is_none_or(|m| i128::from(budget) <= m) => {
                write!(f, "budget {}", size(budget))?;
            }
            (_, Some(_)) => {
                write!(f, "capacity {}", size(self.capacity.unwrap_or(0)))?;
                if self.reserve > 0 {
                    write!(f, " - reserve {}", size(self.reserve))?;
                }
                match self.strangers {
                    Some(0) => {}
                    Some(bytes) => write!(f, " - strangers {}", size(bytes))?,
                    None => f.write_str(" - strangers unknown")?,
                }
            }
            (_, None) => return f.write_str("capacity unknown"),
        }
        for charge in self.charges.iter().filter(|c| c.bytes() > 0) {
            write!(f, " - {charge}")?;
        }
        match self.room {
            Some(room) => write!(f, " = {}", signed(room)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` doesn't fit: ", self.id)?;
        for (i, Lack { sum, asked }) in self.short.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            match (asked, &sum.pool) {
                (Some(bytes), pool) => write!(f, "it asks for {} of {pool}", size(*bytes))?,
                (None, Pool::Memory) => {
                    f.write_str("it declares no memory limit, and nothing is left")?
                }
                (None, Pool::Gpu(uuid)) => write!(f, "it asks for GPU {uuid} alone")?,
            }
            match (asked, sum.alone.is_some(), &sum.pool) {
                (None, false, Pool::Gpu(_)) => {
                    let on: Vec<&str> = sum.charges.iter().map(|c| c.id.as_str()).collect();
                    write!(f, ", and on it: {}", on.join(", "))?;
                }
                _ => write!(f, ": {sum}")?,
            }
        }
        Ok(())
    }
}

impl Shortage {
    /// What to do now.
    #[must_use]
    pub fn help(&self) -> String {
        match &self.stop {
            Some(names) => {
                let names: Vec<&str> = names.iter().map(super::ChildId::as_str).collect();
                format!("stop {} to make room, then start it again", names.join(" and "))
            }
            None => "not even stopping all other modules would make room: lower what it declares, or raise `runtime.memory` or `runtime.gpu` of the configuration, or end what else uses the machine (`lair plan`, `lair gpus`)".to_owned(),
        }
    }
}
