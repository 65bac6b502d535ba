//! Holding a module still, and letting it go on.

use super::{Refused, RuntimeHandle};
use lair_actors::messages::Answer;
use lair_actors::view::View;
use lair_supervision::{ChildEvent, Origin};
use std::io;
use std::sync::Arc;

impl RuntimeHandle {
    /// Holds all its processes still, by the kernel or its engine: they use no CPU and answer nobody; memory and GPU
    /// memory stay theirs. Its probes rest until it is thawed; a stop thaws it first. Frozen already is fine.
    ///
    /// # Errors
    /// `unknown_module`, `not_running`, `freeze_failed` where nothing here can do it; it then goes on as it was.
    pub async fn freeze(&self, name: &str, origin: Origin) -> Result<Answer, Refused> {
        // Its probes rest before it does: none of them may fail for it.
        let answer = self
            .ask(name, ChildEvent::FreezeRequested, origin.clone())
            .await?;
        let view = self.view(name)?;
        let Some(handle) = view.handle.clone().filter(|_| view.child.is_frozen()) else {
            return Ok(answer);
        };
        if let Err(e) = handle.freeze(true).await {
            let _ = self.ask(name, ChildEvent::ThawRequested, origin).await;
            return Err(failed(name, "frozen", &e));
        }
        // Somebody may have stopped or thawed it meanwhile: then that is what holds.
        if !self.is_still_frozen(&view, name) {
            let _ = handle.freeze(false).await;
        }
        Ok(answer)
    }

    /// Lets it go on. Not frozen is fine.
    ///
    /// # Errors
    /// `unknown_module`, `not_running`, `freeze_failed`; it then stays frozen.
    pub async fn thaw(&self, name: &str, origin: Origin) -> Result<Answer, Refused> {
        let view = self.view(name)?;
        if let Some(handle) = view.handle.as_ref().filter(|_| view.child.is_frozen())
            && let Err(e) = handle.freeze(false).await
        {
            return Err(failed(name, "thawed", &e));
        }
        // It goes on before it is looked at again.
        self.ask(name, ChildEvent::ThawRequested, origin).await
    }

    fn is_still_frozen(&self, then: &Arc<View>, name: &str) -> bool {
        let now = self.view(name);
        now.is_ok_and(|now| now.child.inc == then.child.inc && now.child.is_frozen())
    }
}

fn failed(name: &str, what: &str, e: &io::Error) -> Refused {
    if e.kind() == io::ErrorKind::Unsupported {
        let why =
            format!("`{name}` can't be {what}: its processes are in no control group of version 2");
        return Refused::new("freeze_failed", why).help(
            "`lair doctor` says what this machine offers; a container can be frozen by its engine",
        );
    }
    Refused::new(
        "freeze_failed",
        format!("`{name}` could not be {what}: {e}"),
    )
    .help("it goes on as it was; see `lair status NAME` and the engine's own log")
}
