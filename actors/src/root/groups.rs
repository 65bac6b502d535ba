//! Groups: the core says what a group does next, and this does it to the members.
//!
//! Owns: what is known of each group. Promises: after every message, all groups have done what they can do at once.
//! Never: decides anything.

use super::RootState;
use crate::view::GroupView;
use lair_manifests::launch::LaunchPlan;
use lair_supervision::group::{self, Command, Member};
use lair_supervision::restart::delay;
use lair_supervision::{
    ChildEvent, ChildId, Group, GroupPhase, GroupSpec, NoticeKind, Origin, Phase,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All groups with at least one loaded member.
#[derive(Default)]
pub(super) struct Groups {
    all: BTreeMap<ChildId, Known>,
    /// Those with a member that has changed.
    touched: BTreeSet<ChildId>,
    /// Modules that were loaded anew, and may wait for the word of a group that is theirs no more.
    anew: BTreeSet<ChildId>,
}

struct Known {
    spec: Arc<GroupSpec>,
    group: Group,
    /// Why the failure happened that it deals with.
    origin: Origin,
}

impl Groups {
    pub fn touch(&mut self, name: &ChildId) {
        self.touched.insert(name.clone());
    }

    /// Who was loaded last says how the group is. Returns those who are members no more.
    fn know(&mut self, spec: Arc<GroupSpec>) -> Vec<ChildId> {
        let fresh = || Known {
            spec: spec.clone(),
            group: Group::default(),
            origin: Origin::Observed,
        };
        let known = self.all.entry(spec.name.clone()).or_insert_with(fresh);
        if known.spec.members != spec.members || known.spec.strategy != spec.strategy {
            // Its place in the old list means nothing in the new one.
            known.group.phase = GroupPhase::Steady;
        }
        let old = std::mem::replace(&mut known.spec, spec.clone());
        let left = old.members.iter().filter(|m| !spec.members.contains(m));
        left.cloned().collect()
    }
}

impl Known {
    fn view(&self) -> GroupView {
        let (state, reason) = match &self.group.phase {
            GroupPhase::Steady => ("steady", None),
            GroupPhase::Stopping { .. } | GroupPhase::Starting { .. } => ("restarting", None),
            GroupPhase::GivingUp { why, .. } | GroupPhase::GaveUp { why } => {
                ("failed", Some(why.sentence()))
            }
        };
        GroupView {
            name: self.spec.name.to_string(),
            strategy: self.spec.strategy.as_str().to_owned(),
            state: state.to_owned(),
            restarts: self.group.total,
            reason,
        }
    }
}

impl RootState {
    /// A module was loaded, or loaded anew.
    pub(super) fn join_group(&mut self, id: &ChildId) {
        let spec = self.children.get(id).and_then(|k| k.plan.group.clone());
        self.groups.anew.insert(id.clone());
        if let Some(spec) = &spec {
            for left in self.groups.know(spec.clone()) {
                self.ungroup(&left, &spec.name);
            }
            self.groups.touch(&spec.name);
        }
        let view = spec.and_then(|spec| self.groups.all.get(&spec.name).map(Known::view));
        if let Some(known) = self.children.get_mut(id) {
            known.group = view;
        }
        self.leave_group(id);
    }

    /// A module that its group's new form doesn't name is on its own from now on.
    fn ungroup(&mut self, id: &ChildId, name: &ChildId) {
        let Some(known) = self.children.get_mut(id) else {
            return;
        };
        if known.plan.group.as_ref().is_some_and(|g| g.name == *name) {
            let mut plan = LaunchPlan::clone(&known.plan);
            plan.group = None;
            plan.spec.grouped = false;
            known.plan = Arc::new(plan);
            known.group = None;
            self.groups.anew.insert(id.clone());
            self.show(id);
        }
    }

    /// A module was unloaded, or may have left its group: a group without members is forgotten.
    pub(super) fn leave_group(&mut self, id: &ChildId) {
        if self.groups.all.is_empty() {
            return;
        }
        let children = &self.children;
        let named: BTreeSet<&ChildId> = children
            .values()
            .filter_map(|k| k.plan.group.as_ref().map(|g| &g.name))
            .collect();
        self.groups.all.retain(|name, _| named.contains(name));
        for (name, known) in &self.groups.all {
            if known.spec.members.contains(id) {
                self.groups.touched.insert(name.clone());
            }
        }
    }

    /// Lets every group do what it can do now.
    pub(super) async fn settle_groups(&mut self) {
        while let Some(id) = self.groups.anew.pop_first() {
            self.release_stray(&id).await;
        }
        while let Some(name) = self.groups.touched.pop_first() {
            while let Some(commands) = self.advance_group(&name) {
                for command in commands {
                    self.obey_group(&name, command).await;
                }
                self.show_group(&name);
            }
        }
    }

    /// Nobody else would ever let it start; from now on its own delay does.
    async fn release_stray(&mut self, id: &ChildId) {
        let Some(known) = self.children.get(id) else {
            return;
        };
        let held = matches!(known.child.phase, Phase::Waiting { until: None, .. });
        if held && known.plan.group.is_none() {
            let (inc, history) = (known.child.inc, &known.child.history);
            let after = delay(&known.plan.spec.backoff, history.streak, history.total);
            self.step(id, Some(inc), ChildEvent::Released { after }, None)
                .await;
        }
    }

    fn advance_group(&mut self, name: &ChildId) -> Option<Vec<Command>> {
        let known = self.groups.all.get(name)?;
        let member = |id: &ChildId| {
            let known = self.children.get(id)?;
            let of_it = known.plan.group.as_ref().is_some_and(|g| g.name == *name);
            of_it.then_some(Member {
                spec: &known.plan.spec,
                child: &known.child,
            })
        };
        let members: Vec<_> = known.spec.members.iter().map(member).collect();
        let (group, commands) = group::decide(&known.spec, &known.group, &members, self.now())?;
        self.groups.all.get_mut(name)?.group = group;
        Some(commands)
    }

    async fn obey_group(&mut self, name: &ChildId, command: Command) {
        let (member, event) = match command {
            Command::Hold(member) => (member, ChildEvent::Held),
            Command::Release { member, after } => (member, ChildEvent::Released { after }),
            Command::GiveUp { member, own } => (member, ChildEvent::GivenUp { own }),
            Command::TellRestart { failed, members } => {
                let group = name.to_string();
                let origin = self.blame(name, &failed);
                self.publish(&failed, NoticeKind::GroupRestart { group, members }, origin);
                return;
            }
            Command::TellGaveUp(why) => {
                let (group, reason) = (name.to_string(), why.sentence());
                let origin = self.blame(name, &why.member);
                let kind = NoticeKind::GroupGaveUp { group, reason };
                self.publish(&why.member, kind, origin);
                return;
            }
        };
        let Some(inc) = self.children.get(&member).map(|k| k.child.inc) else {
            return;
        };
        let phase = self.groups.all.get(name).map(|k| k.group.phase.clone());
        if let Some(GroupPhase::GivingUp { why, .. } | GroupPhase::GaveUp { why }) = phase {
            self.blame(name, &why.member);
        }
        let origin = self.groups.all.get(name).map(|k| k.origin.clone());
        let ends = !matches!(event, ChildEvent::Released { .. });
        self.step(&member, Some(inc), event, origin.filter(|_| ends))
            .await;
    }

    /// What follows a failure happened for the reason of that failure.
    fn blame(&mut self, name: &ChildId, failed: &ChildId) -> Origin {
        let origin = self.children.get(failed).map(|k| k.origin.clone());
        let origin = origin.unwrap_or_default();
        if let Some(known) = self.groups.all.get_mut(name) {
            known.origin = origin.clone();
        }
        origin
    }

    /// Shows its members what has become of it.
    fn show_group(&mut self, name: &ChildId) {
        let Some(known) = self.groups.all.get(name) else {
            return;
        };
        let (view, spec) = (known.view(), known.spec.clone());
        for id in &spec.members {
            let Some(known) = self.children.get_mut(id) else {
                continue;
            };
            if known.group.as_ref() != Some(&view) && known.plan.group.is_some() {
                known.group = Some(view.clone());
                self.show(id);
            }
        }
    }
}
