//! What a running lair takes of a new configuration or manifest.

use super::RuntimeHandle;
use super::words::Refused;
use crate::prepare::same_path;
use crate::reload::{ConfigReport, ReloadReport, revise};
use lair_actors::messages::RootMsg;
use lair_manifests::RuntimeConfig;
use lair_manifests::launch::LaunchPlan;
use lair_supervision::Origin;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

impl RuntimeHandle {
    /// Takes of a new configuration what a running lair can; the rest stays as it is.
    #[must_use]
    pub fn take_config(&self, new: &RuntimeConfig) -> ConfigReport {
        let config = &self.inner.config;
        let mut config = config.write().unwrap_or_else(PoisonError::into_inner);
        let (taken, report) = revise(&config, new);
        *config = Arc::new(taken);
        report
    }

    /// Modules that were loaded from one of these files and are not among the named.
    #[must_use]
    pub fn orphans(&self, files: &[PathBuf], named: &[String]) -> Vec<String> {
        let files: Vec<PathBuf> = files.iter().map(|f| same_path(f)).collect();
        self.loaded_from(|source, name| {
            files.iter().any(|f| f == source) && !named.iter().any(|n| n == name)
        })
    }

    /// Modules whose file was in this folder and is there no more.
    #[must_use]
    pub fn vanished(&self, folder: &Path) -> Vec<String> {
        let folder = same_path(folder);
        self.loaded_from(|source, _| source.starts_with(&folder) && !source.exists())
    }

    fn loaded_from(&self, is: impl Fn(&Path, &str) -> bool) -> Vec<String> {
        let views = self.inner.board.all();
        let named = views.iter().filter_map(|view| {
            let source = view.plan.source.as_deref()?;
            let name = view.plan.spec.id.as_str();
            is(source, name).then(|| name.to_owned())
        });
        named.collect()
    }

    /// A group's name stands for one file's group.
    pub(super) fn check_groups(&self, plans: &[LaunchPlan]) -> Result<(), Refused> {
        let views = self.inner.board.all();
        for plan in plans {
            let Some(group) = &plan.group else { continue };
            let other = views.iter().find(|view| {
                let same = view
                    .plan
                    .group
                    .as_ref()
                    .is_some_and(|g| g.name == group.name);
                same && view.plan.source != plan.source
                    && !plans.iter().any(|p| p.spec.id == view.plan.spec.id)
            });
            if let Some(other) = other {
                let message = format!(
                    "there is a group `{}` already, with `{}` of another file",
                    group.name, other.plan.spec.id
                );
                return Err(Refused::new("group_exists", message)
                    .help("give the group another name, or unload the other file's modules"));
            }
        }
        Ok(())
    }

    /// Tells observers what came of reading everything again.
    pub(crate) fn tell_reloaded(&self, report: &ReloadReport, origin: Origin) {
        let report = serde_json::to_string(report).unwrap_or_default();
        if let Ok(root) = self.root_ref() {
            let _ = root.cast(RootMsg::Reloaded { report, origin });
        }
    }
}
