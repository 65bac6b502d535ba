//! An engine that can be lost on purpose.
//!
//! Owns: the gate before an engine. Promises: shut, every question is answered at once as by an engine that is away, those
//! under way as well; output that is connected flows on, as it does past an engine's own API where that dies alone.
//! Never: shuts by itself.

use super::engine::{
    Answer, ContainerFacts, CreateSpec, Engine, EngineInfo, HandingOn, ImageFacts, Listed,
    Progress, Stats,
};
use super::fault::{EngineFault, EngineFaultKind};
use super::feed::Feed;
use super::pause;
use crate::backend::{BoxFuture, CommandOutcome};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often it is shut at the moment.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<watch::Sender<u32>>);

/// An engine behind a gate.
pub(super) struct Gated {
    pub engine: Arc<dyn Engine>,
    pub gate: Gate,
}

impl Gate {
    /// Shuts it for a time. Called in a runtime.
    pub fn shut(&self, time: Duration) {
        self.0.send_modify(|n| *n += 1);
        let shut = self.0.clone();
        tokio::spawn(async move {
            pause(time).await;
            shut.send_modify(|n| *n -= 1);
        });
    }

    fn watch(&self) -> watch::Receiver<u32> {
        self.0.subscribe()
    }

    async fn until_shut(mut shut: watch::Receiver<u32>) {
        if shut.wait_for(|n| *n > 0).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Gated {
    fn pass<T: Send + 'static>(&self, answer: Answer<T>) -> Answer<T> {
        let shut = self.gate.watch();
        Box::pin(async move {
            tokio::select! {
                biased;
                () = Gate::until_shut(shut) => Err(EngineFault::new(
                    EngineFaultKind::Unreachable,
                    "injected: the engine is away",
                )),
                answer = answer => answer,
            }
        })
    }
}

impl Engine for Gated {
    fn name(&self) -> &'static str {
        self.engine.name()
    }
    fn info(&self) -> Answer<EngineInfo> {
        self.pass(self.engine.info())
    }
    fn ping(&self) -> Answer<()> {
        self.pass(self.engine.ping())
    }
    fn find_image(&self, image: &str) -> Answer<Option<ImageFacts>> {
        self.pass(self.engine.find_image(image))
    }
    fn pull(&self, image: &str, progress: Progress) -> Answer<()> {
        self.pass(self.engine.pull(image, progress))
    }
    fn create(&self, spec: Arc<CreateSpec>) -> Answer<String> {
        self.pass(self.engine.create(spec))
    }
    fn attach(&self, id: &str, feed: Feed) -> Answer<HandingOn> {
        self.pass(self.engine.attach(id, feed))
    }
    fn attach_again(&self, id: &str, feed: Feed) -> Answer<HandingOn> {
        self.pass(self.engine.attach_again(id, feed))
    }
    fn shows_process_early(&self) -> bool {
        self.engine.shows_process_early()
    }
    fn logs_without_engine(&self) -> bool {
        self.engine.logs_without_engine()
    }

    fn how_to_have_gpus(&self) -> &'static str {
        self.engine.how_to_have_gpus()
    }
    fn start(&self, id: &str) -> Answer<()> {
        self.pass(self.engine.start(id))
    }
    fn signal(&self, id: &str, signal: i32) -> Answer<()> {
        self.pass(self.engine.signal(id, signal))
    }
    fn inspect(&self, id: &str) -> Answer<Option<ContainerFacts>> {
        self.pass(self.engine.inspect(id))
    }
    fn wait(&self, id: &str) -> Answer<()> {
        self.pass(self.engine.wait(id))
    }
    fn remove(&self, id: &str) -> Answer<()> {
        self.pass(self.engine.remove(id))
    }
    fn list(&self, labels: BTreeMap<String, String>) -> Answer<Vec<Listed>> {
        self.pass(self.engine.list(labels))
    }
    fn exec(
        &self,
        id: &str,
        argv: Vec<String>,
        marker: String,
        timeout: Duration,
    ) -> BoxFuture<CommandOutcome> {
        let outcome = self.engine.exec(id, argv, marker, timeout);
        let outcome = self.pass(Box::pin(async move { Ok(outcome.await) }));
        Box::pin(async move {
            outcome
                .await
                .unwrap_or_else(|fault| CommandOutcome::CouldNotRun(fault.to_string()))
        })
    }
    fn stats(&self, id: &str) -> Answer<Stats> {
        self.pass(self.engine.stats(id))
    }
    fn pause(&self, id: &str) -> Answer<()> {
        self.pass(self.engine.pause(id))
    }
    fn unpause(&self, id: &str) -> Answer<()> {
        self.pass(self.engine.unpause(id))
    }
    fn logs(&self, id: &str, newest: Option<u32>, feed: Feed) -> Answer<HandingOn> {
        self.pass(self.engine.logs(id, newest, feed))
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::backend::container::{docker::Docker, podman::Podman};
    use std::path::Path;

    #[test]
    fn what_an_engine_can_is_told_through_the_gate() {
        let nowhere = Path::new("/nowhere");
        let engines: [Arc<dyn Engine>; 2] =
            [Arc::new(Podman::at(nowhere)), Arc::new(Docker::at(nowhere))];
        for engine in engines {
            let gated = Gated {
                engine: engine.clone(),
                gate: Gate::default(),
            };
            assert_eq!(gated.name(), engine.name());
            let early = engine.shows_process_early();
            assert_eq!(
                (gated.shows_process_early(), early),
                (early, engine.name() == "podman")
            );
            assert_eq!(gated.how_to_have_gpus(), engine.how_to_have_gpus());
        }
    }
}
