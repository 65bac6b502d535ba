//! Docker, by its API on a Unix socket.
//!
//! Owns: the requests. Promises: questions with one answer go through bollard, on connections with a bound; streams (output, exec,
//! logs, a pull's progress) go around it, because its decoders collect a frame before they hand it on. The URL says no
//! version: a daemon answers in its own. Never: asks Docker to restart, to remove or to check anything by itself.

mod ask;
mod told;
mod transport;

use super::engine::{
    Answer, ContainerFacts, CreateSpec, Engine, EngineInfo, HandingOn, ImageFacts, Listed,
    Progress, Stats,
};
use super::fault::{EngineFault, EngineFaultKind};
use super::feed::Feed;
use super::http::{Hijacked, Wire, escape};
use super::{command, pause, streams};
use crate::backend::{BoxFuture, CommandOutcome};
use bollard::errors::Error;
use bollard::models::ExecConfig;
use bollard::query_parameters as query;
use hyper::Method;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at a command whose output does not end.
const LOOK: Duration = Duration::from_millis(200);

/// One Docker daemon.
#[derive(Clone)]
pub struct Docker {
    wire: Wire,
    /// Or why there is no client, which every question then gets as its answer.
    api: Result<bollard::Docker, EngineFault>,
}

impl Docker {
    /// Speaks to the daemon on this socket; connects at each question.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Docker::anywhere(vec![socket.to_owned()])
    }

    /// Speaks to the first of these sockets that listens, and from then on only to that.
    #[must_use]
    pub fn anywhere(sockets: Vec<PathBuf>) -> Self {
        let wire = Wire::new(sockets, None);
        let api = transport::client(wire.clone()).map_err(refused);
        Docker { wire, api }
    }

    fn api(&self) -> Result<&bollard::Docker, EngineFault> {
        self.api.as_ref().map_err(Clone::clone)
    }
}

/// Docker hands GPUs in by NVIDIA's hook alone, which it looks for when it starts.
pub(super) const BY_HOOK: &str = "install nvidia-container-toolkit, run `nvidia-ctk runtime configure --runtime=docker`, and start Docker again";

/// A refusal without words that are known.
fn refused(e: Error) -> EngineFault {
    told::fault(&e, EngineFaultKind::Refused)
}

fn status(e: &Error) -> Option<u16> {
    match e {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// There is none, or it is not running.
fn gone_is_fine(done: Result<(), Error>) -> Result<(), EngineFault> {
    match done {
        Err(e) if matches!(status(&e), Some(404 | 409)) => Ok(()),
        other => other.map_err(refused),
    }
}

impl Engine for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn info(&self) -> Answer<EngineInfo> {
        let me = self.clone();
        Box::pin(async move { me.api()?.info().await.map(told::info).map_err(refused) })
    }

    fn ping(&self) -> Answer<()> {
        let me = self.clone();
        Box::pin(async move { me.api()?.ping().await.map(|_| ()).map_err(refused) })
    }

    fn find_image(&self, image: &str) -> Answer<Option<ImageFacts>> {
        let (me, image) = (self.clone(), image.to_owned());
        Box::pin(async move {
            match me.api()?.inspect_image(&image).await {
                Ok(facts) => Ok(Some(told::image(facts))),
                Err(e) if status(&e) == Some(404) => Ok(None),
                Err(e) => Err(refused(e)),
            }
        })
    }

    fn pull(&self, image: &str, progress: Progress) -> Answer<()> {
        let (me, image) = (self.clone(), tagged(image));
        Box::pin(async move {
            let path = format!("/images/create?fromImage={}", escape(&image));
            let coming = me
                .wire
                .stream(Method::POST, &path, EngineFaultKind::PullFailed)
                .await?;
            streams::lines(coming, |line| told::pulled(line, &progress)).await
        })
    }

    fn create(&self, spec: Arc<CreateSpec>) -> Answer<String> {
        let me = self.clone();
        Box::pin(async move {
            let options = query::CreateContainerOptions {
                name: Some(spec.name.clone()),
                ..Default::default()
            };
            if !spec.devices.is_empty() {
                me.must_obey_requests().await?;
            }
            let body = ask::create(&spec);
            match me.api()?.create_container(Some(options), body).await {
                Ok(made) if made.id.is_empty() => Err(EngineFault::new(
                    EngineFaultKind::Nonsense,
                    "it made something without an id",
                )),
                Ok(made) => Ok(made.id),
                Err(e) if status(&e) == Some(404) => {
                    Err(told::fault(&e, EngineFaultKind::NoSuchImage))
                }
                Err(e) => Err(refused(e)),
            }
        })
    }

    fn attach(&self, id: &str, feed: Feed) -> Answer<HandingOn> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            let path = format!(
                "/containers/{}/attach?stream=1&stdout=1&stderr=1",
                escape(&id)
            );
            let hijacked = me.wire.hijack(&path, None).await?;
            Ok(streams::of_connection(hijacked, id, feed))
        })
    }

    fn attach_again(&self, id: &str, feed: Feed) -> Answer<HandingOn> {
        self.attach(id, feed)
    }

    fn how_to_have_gpus(&self) -> &'static str {
        BY_HOOK
    }

    fn start(&self, id: &str) -> Answer<()> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            let none = None::<query::StartContainerOptions>;
            me.api()?.start_container(&id, none).await.map_err(refused)
        })
    }

    fn signal(&self, id: &str, signal: i32) -> Answer<()> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            let options = query::KillContainerOptions {
                signal: signal.to_string(),
            };
            gone_is_fine(me.api()?.kill_container(&id, Some(options)).await)
        })
    }

    fn inspect(&self, id: &str) -> Answer<Option<ContainerFacts>> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            let none = None::<query::InspectContainerOptions>;
            match me.api()?.inspect_container(&id, none).await {
                Ok(facts) => told::container(facts).map(Some),
                Err(e) if status(&e) == Some(404) => Ok(None),
                Err(e) => Err(refused(e)),
            }
        })
    }

    fn wait(&self, id: &str) -> Answer<()> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            let path = format!("/containers/{}/wait?condition=not-running", escape(&id));
            let reply = me.wire.call(Method::POST, &path, None).await?;
            if reply.status.as_u16() == 404 {
                return Ok(());
            }
            reply.good(EngineFaultKind::Refused).map(|_| ())
        })
    }

    fn remove(&self, id: &str) -> Answer<()> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            loop {
                let Err(e) = me.remove_now(&id).await? else {
                    return Ok(());
                };
                match (status(&e), e.to_string()) {
                    (Some(404), _) => return Ok(()),
                    // Somebody else's; its name is taken until it is done.
                    (Some(409), words) if words.contains("in progress") => pause(LOOK / 4).await,
                    // One that is frozen can't be killed.
                    (Some(409), words) if words.contains("paused") => {
                        gone_is_fine(me.api()?.unpause_container(&id).await)?;
                    }
                    _ => return Err(refused(e)),
                }
            }
        })
    }

    fn list(&self, labels: BTreeMap<String, String>) -> Answer<Vec<Listed>> {
        let me = self.clone();
        Box::pin(async move {
            let wanted = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let options = query::ListContainersOptions {
                all: true,
                filters: Some(HashMap::from([("label".to_owned(), wanted)])),
                ..Default::default()
            };
            let lines = me.api()?.list_containers(Some(options)).await;
            let lines = lines.map_err(refused)?;
            Ok(lines.into_iter().filter_map(told::listed).collect())
        })
    }

    fn exec(
        &self,
        id: &str,
        argv: Vec<String>,
        marker: String,
        timeout: Duration,
    ) -> BoxFuture<CommandOutcome> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move { command::in_time(timeout, me.exec_now(&id, argv, marker)).await })
    }

    fn stats(&self, id: &str) -> Answer<Stats> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            // Not one-shot, it would wait for a second sample.
            let path = format!("/containers/{}/stats?stream=0&one-shot=1", escape(&id));
            let reply = me.wire.call(Method::GET, &path, None).await?;
            let reply = reply.good(EngineFaultKind::Refused)?;
            reply.json().map(told::stats)
        })
    }

    fn pause(&self, id: &str) -> Answer<()> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move { me.api()?.pause_container(&id).await.map_err(refused) })
    }

    fn unpause(&self, id: &str) -> Answer<()> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            match me.api()?.unpause_container(&id).await {
                Err(e) if e.to_string().contains("not paused") => Ok(()),
                done => gone_is_fine(done),
            }
        })
    }

    fn logs(&self, id: &str, newest: Option<u32>, feed: Feed) -> Answer<HandingOn> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            let tail = newest.map_or(String::new(), |lines| format!("&tail={lines}"));
            let path = format!(
                "/containers/{}/logs?stdout=1&stderr=1&follow=0{tail}",
                escape(&id)
            );
            let coming = me
                .wire
                .stream(Method::GET, &path, EngineFaultKind::Refused)
                .await?;
            Ok(streams::of_answer(coming, feed))
        })
    }
}

impl Docker {
    /// Podman behind Docker's API takes a request for devices and leaves it out without a word.
    async fn must_obey_requests(&self) -> Result<(), EngineFault> {
        let told = self.api()?.version().await.map_err(refused)?;
        let parts = told.components.unwrap_or_default();
        if parts.iter().any(|part| part.name.contains("Podman")) {
            let why = "behind this Docker socket is Podman, which would leave the GPU out without a word; \
                       name its socket in CONTAINER_HOST, or say `engine: podman`";
            return Err(EngineFault::new(EngineFaultKind::Unsupported, why));
        }
        Ok(())
    }

    async fn remove_now(&self, id: &str) -> Result<Result<(), Error>, EngineFault> {
        let options = query::RemoveContainerOptions {
            force: true,
            v: true,
            link: false,
        };
        Ok(self.api()?.remove_container(id, Some(options)).await)
    }

    async fn exec_now(
        &self,
        id: &str,
        argv: Vec<String>,
        marker: String,
    ) -> Result<CommandOutcome, EngineFault> {
        let config = ExecConfig {
            cmd: Some(argv),
            env: Some(vec![marker]),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let session = self
            .api()?
            .create_exec(id, config)
            .await
            .map_err(refused)?
            .id;
        let path = format!("/exec/{}/start", escape(&session));
        let how = json!({ "Detach": false, "Tty": false });
        let Hijacked {
            source,
            connection: _connection,
            ..
        } = self.wire.hijack(&path, Some(how)).await?;
        let mut output = Vec::new();
        let code = tokio::select! {
            read = streams::first_bytes(source, &mut output) => {
                read?;
                self.exec_code(&session, Duration::ZERO).await?
            }
            // A process that it left behind keeps the stream open.
            code = self.exec_code(&session, LOOK) => code?,
        };
        Ok(command::outcome(code, output))
    }

    /// Looks until it has ended, the first time after `first`.
    async fn exec_code(&self, session: &str, first: Duration) -> Result<i64, EngineFault> {
        let mut wait = first;
        loop {
            pause(wait).await;
            let facts = self.api()?.inspect_exec(session).await.map_err(refused)?;
            if let (Some(code), false) = (facts.exit_code, facts.running.unwrap_or(false)) {
                return Ok(code);
            }
            wait = LOOK.min(wait * 2 + Duration::from_millis(5));
        }
    }
}

/// With a tag, for without one Docker fetches all that there are.
fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.contains([':', '@']) {
        true => image.to_owned(),
        false => format!("{image}:latest"),
    }
}
