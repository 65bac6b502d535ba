//! What a runtime asks of its keeper.

use std::ffi::CString;

use super::fields::{Reader, WireFault, Writer};
use crate::keeper::spec::{CgroupDir, ChildKey, DeathPolicy, Rlimit, Scope, SpawnSpec};

/// A message from the runtime to its keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The first message; anything else before it ends the connection.
    Hello {
        /// The runtime's protocol version.
        version: u32,
    },
    /// Start a child.
    Spawn {
        /// The name it gets.
        key: ChildKey,
        /// What to start.
        spec: Box<SpawnSpec>,
    },
    /// Start a child whose spawn request, whole, is in the memfd beside this message.
    SpawnInMemfd {
        /// The name it gets, repeated so that an unreadable memfd can be answered.
        key: ChildKey,
    },
    /// Send a signal; a stop signal is followed by CONT.
    Signal {
        /// To which child.
        key: ChildKey,
        /// Which signal.
        signal: i32,
        /// To how much of its tree.
        scope: Scope,
    },
    /// KILL the whole tree.
    Kill {
        /// Of which child.
        key: ChildKey,
    },
    /// The runtime has the exit: give up its status and streams.
    Ack {
        /// Of which child.
        key: ChildKey,
    },
    /// Send every child, with its streams and pending exit.
    List,
    /// KILL everything that is left, then end.
    Shutdown,
    /// What to do when this connection closes.
    Policy(DeathPolicy),
    /// Keep the descriptors beside this message for the next life of the runtime, in place of those with this tag.
    Store {
        /// What they are called.
        tag: CString,
    },
    /// Let go of what is stored under this tag.
    Unstore {
        /// What it is called.
        tag: CString,
    },
}

impl Request {
    /// Replaces the buffer's content with this message.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.clear();
        let mut out = Writer(buffer);
        match self {
            Self::Hello { version } => {
                out.u8(0);
                out.u32(*version);
            }
            Self::Spawn { key, spec } => {
                out.u8(1);
                out.u64(key.0);
                put_spec(&mut out, spec);
            }
            Self::SpawnInMemfd { key } => tagged(&mut out, 2, *key),
            Self::Signal { key, signal, scope } => {
                tagged(&mut out, 3, *key);
                out.i32(*signal);
                out.u8(match scope {
                    Scope::Leader => 0,
                    Scope::Group => 1,
                    Scope::All => 2,
                });
            }
            Self::Kill { key } => tagged(&mut out, 4, *key),
            Self::Ack { key } => tagged(&mut out, 5, *key),
            Self::List => out.u8(6),
            Self::Shutdown => out.u8(7),
            Self::Policy(policy) => {
                out.u8(8);
                out.option(grace_of(*policy), Writer::u32);
            }
            Self::Store { tag } => {
                out.u8(9);
                out.text(tag);
            }
            Self::Unstore { tag } => {
                out.u8(10);
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
            },
            1 => Self::Spawn {
                key: get_key(&mut input)?,
                spec: Box::new(get_spec(&mut input)?),
            },
            2 => Self::SpawnInMemfd {
                key: get_key(&mut input)?,
            },
            3 => Self::Signal {
                key: get_key(&mut input)?,
                signal: input.i32()?,
                scope: get_scope(&mut input)?,
            },
            4 => Self::Kill {
                key: get_key(&mut input)?,
            },
            5 => Self::Ack {
                key: get_key(&mut input)?,
            },
            6 => Self::List,
            7 => Self::Shutdown,
            8 => Self::Policy(match input.option(Reader::u32)? {
                None => DeathPolicy::Keep,
                Some(grace_ms) => DeathPolicy::Kill { grace_ms },
            }),
            9 => Self::Store { tag: input.text()? },
            10 => Self::Unstore { tag: input.text()? },
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

fn get_scope(input: &mut Reader<'_>) -> Result<Scope, WireFault> {
    match input.u8()? {
        0 => Ok(Scope::Leader),
        1 => Ok(Scope::Group),
        2 => Ok(Scope::All),
        _ => Err(WireFault::BadValue),
    }
}

fn grace_of(policy: DeathPolicy) -> Option<u32> {
    match policy {
        DeathPolicy::Keep => None,
        DeathPolicy::Kill { grace_ms } => Some(grace_ms),
    }
}

fn put_spec(out: &mut Writer<'_>, spec: &SpawnSpec) {
    out.list(&spec.argv, Writer::text);
    out.list(&spec.env, Writer::text);
    out.flag(spec.workdir.is_some());
    if let Some(dir) = &spec.workdir {
        out.text(dir);
    }
    out.option(spec.uid, Writer::u32);
    out.option(spec.gid, Writer::u32);
    out.flag(spec.groups.is_some());
    if let Some(groups) = &spec.groups {
        out.list(groups, |out, group| out.u32(*group));
    }
    out.list(&spec.rlimits, |out, limit| {
        out.u32(limit.resource);
        out.u64(limit.soft);
        out.u64(limit.hard);
    });
    out.option(spec.umask, Writer::u32);
    out.flag(spec.no_new_privs);
    out.i32(spec.stop_signal);
    out.list(&spec.cgroups, |out, group| {
        out.text(&group.path);
        out.flag(group.unified);
        out.flag(group.ours);
    });
    out.text(&spec.marker);
    out.flag(spec.ready);
    super::confine::put(out, &spec.confine);
}

fn get_spec(input: &mut Reader<'_>) -> Result<SpawnSpec, WireFault> {
    let spec = SpawnSpec {
        argv: input.list(Reader::text)?,
        env: input.list(Reader::text)?,
        workdir: input.option(Reader::text)?,
        uid: input.option(Reader::u32)?,
        gid: input.option(Reader::u32)?,
        groups: input.option(|input| input.list(Reader::u32))?,
        rlimits: input.list(|input| {
            Ok(Rlimit {
                resource: input.u32()?,
                soft: input.u64()?,
                hard: input.u64()?,
            })
        })?,
        umask: input.option(Reader::u32)?,
        no_new_privs: input.flag()?,
        stop_signal: input.i32()?,
        cgroups: input.list(|input| {
            Ok(CgroupDir {
                path: input.text()?,
                unified: input.flag()?,
                ours: input.flag()?,
            })
        })?,
        marker: input.text()?,
        ready: input.flag()?,
        confine: super::confine::get(input)?,
    };
    if spec.argv.first().is_none_or(|program| program.is_empty()) {
        return Err(WireFault::BadValue);
    }
    Ok(spec)
}
