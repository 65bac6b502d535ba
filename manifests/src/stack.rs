//! Several modules in one file, and which of them go together.
//!
//! Owns: groups. Promises: a group names modules of its own file, and no module is in two. Never: orders anything.

use crate::decode::{Sink, View};
use crate::module::ModuleManifest;
use crate::numbers::Count;
use crate::problem::ProblemKind;
use crate::record::record;
use crate::units::{DAY, Span};
use crate::words::{ModuleId, choice};
use lair_supervision::group as core;
use lair_supervision::{ChildId, GroupSpec, Intensity};
use serde::Serialize;

/// Several modules.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Stack {
    /// The modules.
    pub modules: Vec<ModuleManifest>,
    /// Which of them go together.
    #[serde(default)]
    pub groups: Vec<Group>,
}

record! {
    /// Modules that are restarted together.
    pub struct Group {
        /// Its name.
        name: ModuleId,
        /// Who else is restarted when one fails.
        strategy: Strategy = Strategy::OneForOne,
        /// Its modules, in the order in which they are started.
        modules: Vec<ModuleId>,
        /// How many restarts within the window; once more, and the group rests as failed.
        max: Count<0, 10_000> = Count::of(5),
        /// The window.
        within: Span<100, { 30 * DAY }> = Span::millis(600_000),
    }
}

choice! {
    /// Who else is restarted when one fails.
    pub enum Strategy {
        /// Nobody.
        #[default]
        OneForOne = "one_for_one",
        /// All of the group.
        OneForAll = "one_for_all",
        /// Those after it.
        RestForOne = "rest_for_one",
    }
}

impl Group {
    /// As the core takes it.
    #[must_use]
    pub fn spec(&self) -> GroupSpec {
        let child = |name: &ModuleId| ChildId::new(name.as_str());
        GroupSpec {
            name: child(&self.name),
            strategy: match self.strategy {
                Strategy::OneForOne => core::Strategy::OneForOne,
                Strategy::OneForAll => core::Strategy::OneForAll,
                Strategy::RestForOne => core::Strategy::RestForOne,
            },
            members: self.modules.iter().map(child).collect(),
            intensity: Intensity {
                max: self.max.small(),
                within: self.within.get(),
            },
        }
    }
}

pub(crate) fn check(
    groups: &[Group],
    exists: &dyn Fn(&str) -> bool,
    view: View<'_, '_>,
    sink: &mut Sink,
) {
    let mut member: Vec<(&str, &str)> = Vec::new();
    for (i, group) in groups.iter().enumerate() {
        let i = i.to_string();
        if groups.iter().filter(|g| g.name == group.name).count() > 1 {
            let what = "another group has the same name";
            view.fault(
                sink,
                ProblemKind::Duplicate,
                &["groups", &i, "name"],
                what,
                None,
            );
        }
        if group.modules.is_empty() {
            let what = "a group has at least one module";
            view.fault(
                sink,
                ProblemKind::Invalid,
                &["groups", &i, "modules"],
                what,
                None,
            );
        }
        for (j, name) in group.modules.iter().enumerate() {
            let j = j.to_string();
            let below = ["groups", &i, "modules", &j];
            if !exists(name.as_str()) {
                let what = format!("there is no module `{name}` in this file");
                view.fault(sink, ProblemKind::Invalid, &below, what, None);
            }
            if let Some((_, other)) = member.iter().find(|(m, _)| *m == name.as_str()) {
                let what = format!("`{name}` is in group `{other}` already");
                view.fault(sink, ProblemKind::Duplicate, &below, what, None);
            }
            member.push((name.as_str(), group.name.as_str()));
        }
    }
}
