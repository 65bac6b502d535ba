//! What a keeper tells its runtime.

use std::ffi::CString;

use super::fields::{Reader, WireFault, Writer};
use crate::keeper::spec::{ChildKey, ProcessId, SpawnFault, Stage};

/// A message from the keeper to its runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The answer to a hello.
    Hello {
        /// The keeper's protocol version; the connection is closed when it is not the runtime's.
        version: u32,
        /// The keeper itself.
        keeper: ProcessId,
        /// Why it cannot listen at its socket path; 0 when it does, or was given none.
        listen_errno: i32,
    },
    /// A child runs. Beside it: its stdout's and stderr's read ends, then readiness if it was asked for.
    Spawned {
        /// Its name.
        key: ChildKey,
        /// The process.
        process: ProcessId,
    },
    /// A child could not be started; its key is free again.
    SpawnFailed {
        /// Its name.
        key: ChildKey,
        /// Where and why.
        fault: SpawnFault,
    },
    /// The child itself has ended.
    Exited {
        /// Its name.
        key: ChildKey,
        /// The raw wait status.
        status: i32,
        /// Whether nothing is left of its tree either; if not, [`Event::Empty`] follows one day.
        tree_empty: bool,
    },
    /// Nothing is left of the tree of a child that had ended before.
    Empty {
        /// Its name.
        key: ChildKey,
    },
    /// One child of the list. Beside it: its streams, as with [`Event::Spawned`].
    Listed {
        /// Its name.
        key: ChildKey,
        /// The process.
        process: ProcessId,
        /// The marker it was started with.
        marker: CString,
        /// Its raw wait status, if it has ended.
        status: Option<i32>,
        /// Whether nothing is left of its tree.
        tree_empty: bool,
    },
    /// The list is complete.
    ListEnd,
    /// Descriptors that were stored, as part of a list. Beside it: they.
    Stored {
        /// What they are called.
        tag: CString,
    },
    /// A request about a child could not be carried out.
    Failed {
        /// Its name; `u64::MAX` when the request could not be read.
        key: ChildKey,
        /// Why.
        errno: i32,
    },
}

impl Event {
    /// Replaces the buffer's content with this message.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.clear();
        let mut out = Writer(buffer);
        match self {
            Self::Hello {
                version,
                keeper,
                listen_errno,
            } => {
                out.u8(0);
                out.u32(*version);
                put_process(&mut out, *keeper);
                out.i32(*listen_errno);
            }
            Self::Spawned { key, process } => {
                tagged(&mut out, 1, *key);
                put_process(&mut out, *process);
            }
            Self::SpawnFailed { key, fault } => put_fault(&mut out, *key, *fault),
            Self::Exited {
                key,
                status,
                tree_empty,
            } => {
                tagged(&mut out, 3, *key);
                out.i32(*status);
                out.flag(*tree_empty);
            }
            Self::Empty { key } => tagged(&mut out, 4, *key),
            Self::Listed {
                key,
                process,
                marker,
                status,
                tree_empty,
            } => {
                tagged(&mut out, 5, *key);
                put_process(&mut out, *process);
                out.text(marker);
                put_end(&mut out, *status, *tree_empty);
            }
            Self::ListEnd => out.u8(6),
            Self::Failed { key, errno } => {
                tagged(&mut out, 7, *key);
                out.i32(*errno);
            }
            Self::Stored { tag } => {
                out.u8(8);
                out.text(tag);
            }
        }
    }

    /// Reads one datagram.
    ///
    /// # Errors
    /// When the bytes are not exactly one message.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireFault> {
        let mut input = Reader(bytes);
        let message = match input.u8()? {
            0 => Self::Hello {
                version: input.u32()?,
                keeper: get_process(&mut input)?,
                listen_errno: input.i32()?,
            },
            1 => Self::Spawned {
                key: get_key(&mut input)?,
                process: get_process(&mut input)?,
            },
            2 => Self::SpawnFailed {
                key: get_key(&mut input)?,
                fault: SpawnFault {
                    stage: Stage::from_number(input.u8()?).ok_or(WireFault::BadValue)?,
                    errno: input.i32()?,
                },
            },
            3 => Self::Exited {
                key: get_key(&mut input)?,
                status: input.i32()?,
                tree_empty: input.flag()?,
            },
            4 => Self::Empty {
                key: get_key(&mut input)?,
            },
            5 => Self::Listed {
                key: get_key(&mut input)?,
                process: get_process(&mut input)?,
                marker: input.text()?,
                status: input.option(Reader::i32)?,
                tree_empty: input.flag()?,
            },
            6 => Self::ListEnd,
            7 => Self::Failed {
                key: get_key(&mut input)?,
                errno: input.i32()?,
            },
            8 => Self::Stored { tag: input.text()? },
            tag => return Err(WireFault::UnknownTag(tag)),
        };
        input.end()?;
        Ok(message)
    }
}

fn tagged(out: &mut Writer<'_>, tag: u8, key: ChildKey) {
    out.u8(tag);
    out.u64(key.0);
}

fn get_key(input: &mut Reader<'_>) -> Result<ChildKey, WireFault> {
    input.u64().map(ChildKey)
}

fn put_end(out: &mut Writer<'_>, status: Option<i32>, tree_empty: bool) {
    out.option(status, Writer::i32);
    out.flag(tree_empty);
}

fn put_fault(out: &mut Writer<'_>, key: ChildKey, fault: SpawnFault) {
    tagged(out, 2, key);
    out.u8(fault.stage as u8);
    out.i32(fault.errno);
}

fn put_process(out: &mut Writer<'_>, process: ProcessId) {
    out.i32(process.pid);
    out.u64(process.start_ticks);
}

fn get_process(input: &mut Reader<'_>) -> Result<ProcessId, WireFault> {
    Ok(ProcessId {
        pid: input.i32()?,
        start_ticks: input.u64()?,
    })
}
