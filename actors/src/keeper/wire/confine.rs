//! The part of a spawn request that says what a child may still do.

use super::fields::{Reader, WireFault, Writer};
use crate::keeper::confine::{Confine, Files, Landlock, OwnNetwork};

pub(super) fn put(out: &mut Writer<'_>, confine: &Confine) {
    out.option(confine.capabilities, Writer::u64);
    out.u8(match confine.network {
        OwnNetwork::No => 0,
        OwnNetwork::IfPossible => 1,
        OwnNetwork::Required => 2,
    });
    out.flag(confine.landlock.is_some());
    let Some(rules) = &confine.landlock else {
        return;
    };
    out.flag(rules.files.is_some());
    if let Some(files) = &rules.files {
        for paths in [&files.system, &files.read, &files.write] {
            out.list(paths, Writer::text);
        }
    }
    for ports in [&rules.bind, &rules.connect] {
        out.flag(ports.is_some());
        if let Some(ports) = ports {
            out.list(ports, |out, port| out.u32(u32::from(*port)));
        }
    }
}

/// A runtime that is older than this part sends none of it: it asks for nothing to be taken away.
pub(super) fn get(input: &mut Reader<'_>) -> Result<Confine, WireFault> {
    if input.0.is_empty() {
        return Ok(Confine::default());
    }
    Ok(Confine {
        capabilities: input.option(Reader::u64)?,
        network: match input.u8()? {
            0 => OwnNetwork::No,
            1 => OwnNetwork::IfPossible,
            2 => OwnNetwork::Required,
            _ => return Err(WireFault::BadValue),
        },
        landlock: input.option(|input| {
            Ok(Landlock {
                files: input.option(|input| {
                    Ok(Files {
                        system: input.list(Reader::text)?,
                        read: input.list(Reader::text)?,
                        write: input.list(Reader::text)?,
                    })
                })?,
                bind: input.option(ports)?,
                connect: input.option(ports)?,
            })
        })?,
    })
}

fn ports(input: &mut Reader<'_>) -> Result<Vec<u16>, WireFault> {
    input.list(|input| u16::try_from(input.u32()?).map_err(|_| WireFault::BadValue))
}
