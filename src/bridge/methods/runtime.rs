//! `runtime.*`, `policy.set`, `fault.inject`, `rpc.discover`, and what acts on the connection.

use super::results::{Done, Subscribed};
use super::types::{
    DrainParams, InjectParams, LoadParams, NoParams, SubscribeParams, UnsubscribeParams,
};
use super::{Context, OnConnection, Registry, change, now, on_connection, wait};
use crate::bridge::wire::RpcError;
use crate::resources::{GpuReport, PlanReport};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

pub(super) fn register(all: &mut Registry) {
    all.insert(
        "runtime.info",
        now("Version, paths, limits, counters.", info),
    );
    all.insert(
        "runtime.doctor",
        wait("What the host offers and lacks.", doctor),
    );
    all.insert(
        "runtime.gpus",
        wait(
            "Per GPU: its memory, the modules that hold it, each process on it and its owner.",
            gpus,
        ),
    );
    all.insert(
        "runtime.plan",
        wait(
            "What loading and starting a manifest would change, and whether it fits; nothing is done.",
            plan,
        ),
    );
    all.insert(
        "runtime.metrics",
        wait("Figures in the OpenMetrics text format.", metrics),
    );
    all.insert("runtime.drain", change("Stops every module and ends the runtime; answered when all is down or the time is over.", drain));
    all.insert(
        "policy.set",
        now(
            "Not available: the policy is the configuration's, or each request's `allowed_modes`.",
            policy,
        ),
    );
    all.insert(
        "fault.inject",
        change(
            "Does something bad on purpose, if the fault gate is open.",
            inject,
        ),
    );
    all.insert("rpc.discover", now("This document.", discover));
    all.insert(
        "events.subscribe",
        on_connection::<SubscribeParams, Subscribed>(
            "Sends events as notifications `event`, from a number on.",
            OnConnection::Events,
        ),
    );
    all.insert(
        "unsubscribe",
        on_connection::<UnsubscribeParams, Done>("Ends a subscription.", OnConnection::Unsubscribe),
    );
}

fn info(cx: &Context, _: NoParams) -> Result<Value, RpcError> {
    let mut info = cx.handle.info();
    if let Some(map) = info.as_object_mut() {
        map.insert("bridge".into(), cx.counters.as_json());
    }
    Ok(info)
}

async fn doctor(cx: Context, _: NoParams) -> Result<Value, RpcError> {
    tokio::task::spawn_blocking(move || cx.handle.doctor())
        .await
        .map_err(|e| RpcError::internal(&format!("the examination broke off: {e}")))
}

async fn gpus(cx: Context, _: NoParams) -> Result<GpuReport, RpcError> {
    Ok(cx.handle.gpus().await?)
}

async fn plan(cx: Context, p: LoadParams) -> Result<PlanReport, RpcError> {
    let (source, options) = p.split()?;
    Ok(cx.handle.plan(source, options).await?)
}

#[derive(Serialize, JsonSchema)]
struct Metrics {
    /// The text's media type.
    content_type: &'static str,
    /// The text.
    text: String,
}

async fn metrics(cx: Context, _: NoParams) -> Result<Metrics, RpcError> {
    let format = crate::metrics::Format::OpenMetrics;
    Ok(Metrics {
        content_type: format.content_type(),
        text: crate::metrics::read(&cx.handle, Some(&cx.counters), format).await?,
    })
}

async fn drain(cx: Context, p: DrainParams) -> Result<Value, RpcError> {
    let within = Duration::from_millis(p.within_ms.unwrap_or(30_000));
    let report = cx.handle.drain(within, cx.origin()).await?;
    cx.counters.drained();
    serde_json::to_value(report).map_err(|e| RpcError::internal(&e.to_string()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "the method takes them and says no")]
struct PolicyParams {
    /// The modes allowed from now on.
    #[serde(default)]
    allowed_modes: Option<Vec<String>>,
    /// The modules that may run from now on.
    #[serde(default)]
    allowed_runtimes: Option<Vec<String>>,
}

fn policy(_: &Context, _: PolicyParams) -> Result<Done, RpcError> {
    let error = RpcError::refused(
        "unsupported",
        "the policy can't be changed while the runtime runs",
    );
    Err(error.with_help("give `allowed_modes` with module.load or module.start, or set `policy:` in the configuration and restart"))
}

#[derive(Serialize, JsonSchema)]
struct InjectedAt {
    /// Number of the event that marks it.
    seq: u64,
}

async fn inject(cx: Context, p: InjectParams) -> Result<InjectedAt, RpcError> {
    let seq = cx.handle.inject(p.fault, &p.label, cx.origin()).await?;
    Ok(InjectedAt { seq: seq.0 })
}

fn discover(_: &Context, _: NoParams) -> Result<&'static Value, RpcError> {
    Ok(crate::bridge::openrpc::document())
}
