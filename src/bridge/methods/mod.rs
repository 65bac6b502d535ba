//! The one registry of methods: it gives dispatch and the OpenRPC document alike.
//!
//! Promises: parameters are typed, and unknown ones refused; what is answered `Now` waits for nobody.

pub(crate) mod logs;
mod module;
pub mod results;
mod runtime;
pub mod types;

use super::peer::Peer;
use super::server::Counters;
use super::wire::RpcError;
use crate::handle::RuntimeHandle;
use lair_supervision::Origin;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

/// Who asks, and whom.
#[derive(Clone)]
pub struct Context {
    /// The runtime.
    pub handle: RuntimeHandle,
    /// The peer, as the kernel names it.
    pub peer: Peer,
    /// Counters of the bridge.
    pub counters: Arc<Counters>,
}

impl Context {
    /// How what this peer asks for is marked in events.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin::Requested {
            peer: self.peer.label(),
        }
    }
}

/// The text of a result, or an error.
pub type Reply = Result<Vec<u8>, RpcError>;
/// A reply that takes time.
pub type Later = Pin<Box<dyn Future<Output = Reply> + Send>>;

type NowFn =
    Box<dyn Fn(&Context, Option<&RawValue>, &mut Vec<u8>) -> Result<(), RpcError> + Send + Sync>;
type LaterFn = Box<dyn Fn(Context, Option<&RawValue>) -> Result<Later, RpcError> + Send + Sync>;

/// How a method is carried out.
pub enum Call {
    /// Answered at once, from published state.
    Now(NowFn),
    /// Changes something: carried out even if the peer leaves.
    Change(LaterFn),
    /// Waits or reads: given up when the peer leaves.
    Wait(LaterFn),
    /// Needs the connection itself.
    Connection(OnConnection),
}

/// Methods that act on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConnection {
    /// `events.subscribe`
    Events,
    /// `logs.follow`
    Logs,
    /// `unsubscribe`
    Unsubscribe,
}

type Schemas = fn(&mut SchemaGenerator) -> (Schema, Schema);

/// One method.
pub struct Method {
    /// One sentence for the OpenRPC document.
    pub doc: &'static str,
    /// What it does.
    pub call: Call,
    /// Schemas of its parameters and its result.
    pub schemas: Schemas,
}

/// All methods by name.
pub type Registry = BTreeMap<&'static str, Method>;

/// The registry; built once per process.
pub fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let mut all = Registry::new();
        runtime::register(&mut all);
        module::register(&mut all);
        logs::register(&mut all);
        all
    })
}

/// Reads parameters; none given reads as an empty object.
///
/// # Errors
/// They are not what the method takes.
pub fn params<P: DeserializeOwned>(raw: Option<&RawValue>) -> Result<P, RpcError> {
    serde_json::from_str(raw.map_or("{}", RawValue::get))
        .map_err(|e| RpcError::invalid_params(&e.to_string()))
}

fn schemas<P: JsonSchema, R: JsonSchema>(g: &mut SchemaGenerator) -> (Schema, Schema) {
    (g.subschema_for::<P>(), g.subschema_for::<R>())
}

fn text<R: Serialize>(result: &R) -> Reply {
    serde_json::to_vec(result).map_err(|e| RpcError::internal(&e.to_string()))
}

fn now<P, R>(doc: &'static str, f: fn(&Context, P) -> Result<R, RpcError>) -> Method
where
    P: DeserializeOwned + JsonSchema + 'static,
    R: Serialize + JsonSchema + 'static,
{
    let call: NowFn = Box::new(move |cx, raw, out| {
        let result = f(cx, params(raw)?)?;
        serde_json::to_writer(out, &result).map_err(|e| RpcError::internal(&e.to_string()))
    });
    Method {
        doc,
        call: Call::Now(call),
        schemas: schemas::<P, R>,
    }
}

fn later<P, R, F>(f: fn(Context, P) -> F) -> LaterFn
where
    P: DeserializeOwned + 'static,
    R: Serialize + 'static,
    F: Future<Output = Result<R, RpcError>> + Send + 'static,
{
    Box::new(move |cx, raw| {
        let work = f(cx, params(raw)?);
        Ok(Box::pin(async move { text(&work.await?) }))
    })
}

fn change<P, R, F>(doc: &'static str, f: fn(Context, P) -> F) -> Method
where
    P: DeserializeOwned + JsonSchema + 'static,
    R: Serialize + JsonSchema + 'static,
    F: Future<Output = Result<R, RpcError>> + Send + 'static,
{
    Method {
        doc,
        call: Call::Change(later(f)),
        schemas: schemas::<P, R>,
    }
}

fn wait<P, R, F>(doc: &'static str, f: fn(Context, P) -> F) -> Method
where
    P: DeserializeOwned + JsonSchema + 'static,
    R: Serialize + JsonSchema + 'static,
    F: Future<Output = Result<R, RpcError>> + Send + 'static,
{
    Method {
        doc,
        call: Call::Wait(later(f)),
        schemas: schemas::<P, R>,
    }
}

fn on_connection<P: JsonSchema, R: JsonSchema>(doc: &'static str, what: OnConnection) -> Method {
    Method {
        doc,
        call: Call::Connection(what),
        schemas: schemas::<P, R>,
    }
}
