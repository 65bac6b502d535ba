//! Podman, by its libpod API on a Unix socket.
//!
//! Owns: the requests. Promises: what is asked for is in the request under the name that libpod reads (4.0 and newer),
//! and what libpod would ignore in silence is refused here. Never: uses the docker-style half of the API, which drops
//! device requests without a word.

mod ask;
mod told;

use super::engine::{
    Answer, ContainerFacts, CreateSpec, Engine, EngineInfo, HandingOn, ImageFacts, Listed,
    Progress, Stats,
};
use super::fault::{EngineFault, EngineFaultKind};
use super::feed::Feed;
use super::http::{Hijacked, Reply, Wire, escape};
use super::service::ServiceOrder;
use super::{command, streams};
use crate::backend::{BoxFuture, CommandOutcome};
use hyper::{Method, StatusCode};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// One Podman service.
#[derive(Clone)]
pub struct Podman {
    wire: Wire,
}

impl Podman {
    /// Speaks to the service on this socket; connects at each question.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Podman::anywhere(vec![socket.to_owned()], None)
    }

    /// Speaks to the first of these sockets that listens, and from then on only to that; starts a service of its own
    /// where none does.
    #[must_use]
    pub fn anywhere(sockets: Vec<PathBuf>, service: Option<ServiceOrder>) -> Self {
        Podman {
            wire: Wire::new(sockets, service),
        }
    }

    async fn get(&self, path: &str) -> Result<Reply, EngineFault> {
        self.wire.call(Method::GET, &url(path), None).await
    }

    async fn post(&self, path: &str) -> Result<Reply, EngineFault> {
        self.wire.call(Method::POST, &url(path), None).await
    }

    /// A call on one container, for which "there is none" is an answer.
    async fn act(&self, id: &str, what: &str, gone: Gone) -> Result<(), EngineFault> {
        let path = format!("/containers/{}/{what}", escape(id));
        let reply = self.post(&path).await?;
        match (reply.status, gone) {
            (StatusCode::NOT_FOUND | StatusCode::CONFLICT, Gone::IsFine) => Ok(()),
            (_, gone) => match reply.good(EngineFaultKind::Refused) {
                // On its way down, or not frozen: libpod has one phrase for both, and the status of a failure.
                Err(fault)
                    if matches!(gone, Gone::IsFine)
                        && fault.reason.contains("container state improper") =>
                {
                    Ok(())
                }
                done => done.map(|_| ()),
            },
        }
    }
}

/// By index alone, as it names them by default, no GPU is found that was chosen by its UUID.
pub(super) const BY_CDI: &str = "`nvidia-ctk cdi generate --device-name-strategy=uuid --output=/etc/cdi/nvidia.yaml` tells Podman of its GPUs";

#[derive(Clone, Copy)]
enum Gone {
    IsFine,
    IsAFault,
}

/// 4.0.0 is the oldest that today's Podman accepts, and the newest that Debian's does.
fn url(path: &str) -> String {
    format!("/v4.0.0/libpod{path}")
}

fn container(id: &str, rest: &str) -> String {
    format!("/containers/{}{rest}", escape(id))
}

impl Engine for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn info(&self) -> Answer<EngineInfo> {
        let me = self.clone();
        Box::pin(async move {
            let reply = me.get("/info").await?;
            told::info(&reply.good(EngineFaultKind::Refused)?)
        })
    }

    fn ping(&self) -> Answer<()> {
        let me = self.clone();
        Box::pin(async move {
            let reply = me.get("/_ping").await?;
            reply.good(EngineFaultKind::Refused).map(|_| ())
        })
    }

    fn find_image(&self, image: &str) -> Answer<Option<ImageFacts>> {
        let (me, image) = (self.clone(), image.to_owned());
        Box::pin(async move {
            let reply = me.get(&format!("/images/{}/json", escape(&image))).await?;
            if reply.status == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            told::image(&reply.good(EngineFaultKind::Refused)?).map(Some)
        })
    }

    fn pull(&self, image: &str, progress: Progress) -> Answer<()> {
        let (me, image) = (self.clone(), image.to_owned());
        Box::pin(async move {
            let path = url(&format!("/images/pull?reference={}", escape(&image)));
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
            let body = ask::create(&spec)?;
            let path = url("/containers/create");
            let reply = me.wire.call(Method::POST, &path, Some(body)).await?;
            told::created(&reply.good(EngineFaultKind::Refused)?)
        })
    }

    /// Initialised first: only then is there something to connect to, and its process to be known before it runs.
    fn attach(&self, id: &str, feed: Feed) -> Answer<HandingOn> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            me.act(&id, "init", Gone::IsAFault).await?;
            me.attach_again(&id, feed).await
        })
    }

    fn attach_again(&self, id: &str, feed: Feed) -> Answer<HandingOn> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            let query = "/attach?stdout=true&stderr=true&stdin=false&stream=true&logs=false";
            let path = url(&container(&id, query));
            let hijacked = me.wire.hijack(&path, None).await?;
            Ok(streams::of_connection(hijacked, id, feed))
        })
    }

    // conmon writes it.
    fn logs_without_engine(&self) -> bool {
        true
    }

    fn shows_process_early(&self) -> bool {
        true
    }

    fn how_to_have_gpus(&self) -> &'static str {
        BY_CDI
    }

    fn start(&self, id: &str) -> Answer<()> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move { me.act(&id, "start", Gone::IsAFault).await })
    }

    fn signal(&self, id: &str, signal: i32) -> Answer<()> {
        let (me, id) = (self.clone(), id.to_owned());
        let what = format!("kill?signal={signal}");
        Box::pin(async move { me.act(&id, &what, Gone::IsFine).await })
    }

    fn inspect(&self, id: &str) -> Answer<Option<ContainerFacts>> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            let reply = me.get(&container(&id, "/json")).await?;
            match reply.good(EngineFaultKind::Refused) {
                // One that is being removed is told of by a failure.
                Err(fault) if fault.kind == EngineFaultKind::NoSuchContainer => Ok(None),
                reply => told::container(&reply?).map(Some),
            }
        })
    }

    /// Podman looks by itself once an interval; the kernel's word comes sooner.
    fn wait(&self, id: &str) -> Answer<()> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            let query = "/wait?condition=exited&condition=stopped&condition=removing&interval=1s";
            let reply = me.post(&container(&id, query)).await?;
            if reply.status == StatusCode::NOT_FOUND {
                return Ok(());
            }
            reply.good(EngineFaultKind::Refused).map(|_| ())
        })
    }

    fn remove(&self, id: &str) -> Answer<()> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            // Without a timeout of 0 it would first ask to stop, for ten seconds.
            let path = url(&container(&id, "?force=true&v=true&timeout=0"));
            let reply = me.wire.call(Method::DELETE, &path, None).await?;
            match reply.good(EngineFaultKind::Refused) {
                Err(fault) if fault.kind != EngineFaultKind::NoSuchContainer => Err(fault),
                Ok(_) | Err(_) => Ok(()),
            }
        })
    }

    fn list(&self, labels: BTreeMap<String, String>) -> Answer<Vec<Listed>> {
        let me = self.clone();
        Box::pin(async move {
            let wanted: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let filter = json!({ "label": wanted }).to_string();
            let path = format!("/containers/json?all=true&filters={}", escape(&filter));
            let reply = me.get(&path).await?;
            told::list(&reply.good(EngineFaultKind::Refused)?)
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
            let path = format!("/containers/stats?containers={}&stream=false", escape(&id));
            let reply = me.get(&path).await?;
            told::stats(&reply.good(EngineFaultKind::Refused)?)
        })
    }

    fn pause(&self, id: &str) -> Answer<()> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move { me.act(&id, "pause", Gone::IsAFault).await })
    }

    fn unpause(&self, id: &str) -> Answer<()> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move { me.act(&id, "unpause", Gone::IsFine).await })
    }

    fn logs(&self, id: &str, newest: Option<u32>, feed: Feed) -> Answer<HandingOn> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            let tail = newest.map_or(String::new(), |lines| format!("&tail={lines}"));
            let query = format!("/logs?stdout=true&stderr=true&follow=false{tail}");
            let path = url(&container(&id, &query));
            let coming = me
                .wire
                .stream(Method::GET, &path, EngineFaultKind::Refused)
                .await?;
            Ok(streams::of_answer(coming, feed))
        })
    }
}

impl Podman {
    async fn exec_now(
        &self,
        id: &str,
        argv: Vec<String>,
        marker: String,
    ) -> Result<CommandOutcome, EngineFault> {
        let body =
            json!({ "Cmd": argv, "Env": [marker], "AttachStdout": true, "AttachStderr": true });
        let path = url(&container(id, "/exec"));
        let reply = self.wire.call(Method::POST, &path, Some(body)).await?;
        let session = told::created(&reply.good(EngineFaultKind::Refused)?)?;
        let path = url(&format!("/exec/{}/start", escape(&session)));
        let how = json!({ "Detach": false, "Tty": false });
        let Hijacked {
            source,
            connection: _connection,
            ..
        } = self.wire.hijack(&path, Some(how)).await?;
        let mut output = Vec::new();
        streams::first_bytes(source, &mut output).await?;
        let reply = self
            .get(&format!("/exec/{}/json", escape(&session)))
            .await?;
        let code = told::exec_code(&reply.good(EngineFaultKind::Refused)?)?;
        Ok(command::outcome(code, output))
    }
}
