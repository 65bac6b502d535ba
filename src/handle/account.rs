//! What a start is judged by, and what a plan or the GPUs look like.

use super::{LoadOptions, ManifestSource, Refused, RuntimeHandle};
use crate::resources::{GpuReport, PlanReport, ProcessReport};
use lair_actors::facts::claim;
use lair_supervision::{Account, ChildEvent, ChildId, Measured};

impl RuntimeHandle {
    /// Per GPU: its memory, the modules that hold it, and each process on it with its owner.
    ///
    /// # Errors
    /// `internal` when the examination broke off.
    pub async fn gpus(&self) -> Result<GpuReport, Refused> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || crate::resources::gpu_report(&inner))
            .await
            .map_err(broke_off)
    }

    /// The processes of a module's tree, one by one.
    ///
    /// # Errors
    /// `unknown_module`; `internal` when the examination broke off.
    pub async fn processes(&self, name: &str) -> Result<ProcessReport, Refused> {
        let (inner, view) = (self.inner.clone(), self.view(name)?);
        tokio::task::spawn_blocking(move || crate::resources::process_report(&inner, &view))
            .await
            .map_err(broke_off)
    }

    /// What loading and starting these modules would change, and whether it fits, without doing any of it.
    ///
    /// # Errors
    /// As [`RuntimeHandle::load`], up to `untrusted`.
    pub async fn plan(
        &self,
        source: ManifestSource,
        options: LoadOptions,
    ) -> Result<PlanReport, Refused> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || crate::resources::plan(&inner, source, &options))
            .await
            .map_err(broke_off)?
    }

    /// What is granted to whom, as of now.
    #[must_use]
    pub fn account(&self) -> Account {
        self.inner.board.account()
    }

    /// What is measured before a start is asked for; nothing where the account would not look at it.
    pub(super) async fn measured_for(&self, id: &ChildId, event: &ChildEvent) -> Measured {
        let starts = matches!(
            event,
            ChildEvent::StartRequested | ChildEvent::RestartRequested { .. }
        );
        let Some(view) = self.inner.board.get(id.as_str()).filter(|_| starts) else {
            return Measured::new();
        };
        let claim = claim(&view.plan.limits);
        if !view.child.is_down() || (claim.is_nothing() && !self.inner.rules.binds_memory()) {
            return Measured::new();
        }
        let meter = self.inner.meter.clone();
        let gpus = !claim.gpus.is_empty();
        tokio::task::spawn_blocking(move || meter.measure(gpus))
            .await
            .unwrap_or_default()
    }
}

fn broke_off(e: tokio::task::JoinError) -> Refused {
    Refused::new("internal", format!("the examination broke off: {e}"))
}
