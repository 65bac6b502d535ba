//! The keeper of log files, as an actor: remarks, new segments, the end of a run.
//!
//! Owns: nothing that a panic could lose; the pump has the streams and files. Promises: remarks come in the order in
//! which things were decided. Never: touches a module's bytes.

use crate::messages::LogMsg;
use crate::pump::{CrashPoint, Pump, StreamKey};
use lair_supervision::ChildId;
use ractor::{Actor, ActorProcessingErr, ActorRef};

/// The behaviour; its state is the pump's handle.
pub struct LogActor;

/// What a log actor is started with.
pub struct LogArgs {
    /// What moves the bytes.
    pub pump: Pump,
}

impl Actor for LogActor {
    type Msg = LogMsg;
    type State = Pump;
    type Arguments = LogArgs;

    async fn pre_start(
        &self,
        _me: ActorRef<LogMsg>,
        args: LogArgs,
    ) -> Result<Pump, ActorProcessingErr> {
        Ok(args.pump)
    }

    async fn handle(
        &self,
        _me: ActorRef<LogMsg>,
        msg: LogMsg,
        pump: &mut Pump,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            LogMsg::Remark { id, inc, text } => {
                if !pump.remark(key(&id, inc), text) {
                    tracing::warn!(module = %id, run = inc, "a remark was not written: the pump is too far behind");
                }
            }
            LogMsg::Close { id, inc, failed } => {
                if failed {
                    pump.pin(key(&id, inc));
                }
                pump.close(key(&id, inc));
            }
            LogMsg::Rotate { id, inc } => {
                pump.rotate(key(&id, inc));
            }
            LogMsg::Crash { pump: true, .. } => {
                pump.crash(CrashPoint::Wake);
            }
            LogMsg::Stall(until) => drop(until.await),
            LogMsg::Crash { pump: false, label } => panic!("injected: {label}"),
        }
        Ok(())
    }
}

fn key(id: &ChildId, inc: u64) -> StreamKey {
    StreamKey {
        module: id.shared(),
        run: inc,
    }
}
