use std::ffi::CString;

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::{collection::vec, option};

use super::{Event, Request};
use crate::keeper::confine::{Confine, Files, Landlock, OwnNetwork};
use crate::keeper::spec::{
    CgroupDir, ChildKey, DeathPolicy, ProcessId, Rlimit, Scope, SpawnFault, SpawnSpec, Stage,
};

fn text() -> impl Strategy<Value = CString> {
    vec(1_u8.., 0..20).prop_map(|bytes| CString::new(bytes).expect("no byte is 0"))
}

fn key() -> impl Strategy<Value = ChildKey> {
    any::<u64>().prop_map(ChildKey)
}

fn spec() -> impl Strategy<Value = SpawnSpec> {
    let program = vec(1_u8.., 1..20).prop_map(|bytes| CString::new(bytes).expect("no byte is 0"));
    let limit =
        (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(resource, soft, hard)| Rlimit {
            resource,
            soft,
            hard,
        });
    let group =
        (text(), any::<bool>(), any::<bool>()).prop_map(|(path, unified, ours)| CgroupDir {
            path,
            unified,
            ours,
        });
    let words = (
        program,
        vec(text(), 0..4),
        vec(text(), 0..4),
        option::of(text()),
        text(),
    );
    let numbers = (
        any::<[Option<u32>; 3]>(),
        option::of(vec(any::<u32>(), 0..4)),
        any::<i32>(),
        any::<[bool; 2]>(),
    );
    let files = [vec(text(), 0..3), vec(text(), 0..3), vec(text(), 0..3)].prop_map(
        |[system, read, write]| Files {
            system,
            read,
            write,
        },
    );
    let ports = || option::of(vec(any::<u16>(), 0..3));
    let landlock =
        (option::of(files), ports(), ports()).prop_map(|(files, bind, connect)| Landlock {
            files,
            bind,
            connect,
        });
    let network = prop_oneof![
        Just(OwnNetwork::No),
        Just(OwnNetwork::IfPossible),
        Just(OwnNetwork::Required)
    ];
    let confine = (option::of(any::<u64>()), network, option::of(landlock)).prop_map(
        |(capabilities, network, landlock)| Confine {
            capabilities,
            network,
            landlock,
        },
    );
    (words, numbers, vec(limit, 0..3), vec(group, 0..3), confine).prop_map(
        |(words, numbers, rlimits, cgroups, confine)| {
            let (program, rest, env, workdir, marker) = words;
            let ([uid, gid, umask], groups, stop_signal, [no_new_privs, ready]) = numbers;
            let argv = std::iter::once(program).chain(rest).collect();
            SpawnSpec {
                argv,
                env,
                workdir,
                uid,
                gid,
                groups,
                rlimits,
                umask,
                no_new_privs,
                stop_signal,
                cgroups,
                marker,
                ready,
                confine,
            }
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let scope = prop_oneof![Just(Scope::Leader), Just(Scope::Group), Just(Scope::All)];
    prop_oneof![
        any::<u32>().prop_map(|version| Request::Hello { version }),
        (key(), spec()).prop_map(|(key, spec)| Request::Spawn {
            key,
            spec: Box::new(spec)
        }),
        key().prop_map(|key| Request::SpawnInMemfd { key }),
        (key(), any::<i32>(), scope).prop_map(|(key, signal, scope)| Request::Signal {
            key,
            signal,
            scope
        }),
        key().prop_map(|key| Request::Kill { key }),
        key().prop_map(|key| Request::Ack { key }),
        Just(Request::List),
        Just(Request::Shutdown),
        Just(Request::Policy(DeathPolicy::Keep)),
        any::<u32>().prop_map(|grace_ms| Request::Policy(DeathPolicy::Kill { grace_ms })),
        text().prop_map(|tag| Request::Store { tag }),
        text().prop_map(|tag| Request::Unstore { tag }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let process = || {
        (any::<i32>(), any::<u64>()).prop_map(|(pid, start_ticks)| ProcessId { pid, start_ticks })
    };
    let fault = (0..Stage::ALL.len(), any::<i32>()).prop_map(|(stage, errno)| SpawnFault {
        stage: Stage::ALL[stage],
        errno,
    });
    let listed = (
        key(),
        process(),
        text(),
        any::<Option<i32>>(),
        any::<bool>(),
    );
    prop_oneof![
        (any::<u32>(), process(), any::<i32>()).prop_map(|(version, keeper, listen_errno)| {
            Event::Hello {
                version,
                keeper,
                listen_errno,
            }
        }),
        (key(), process()).prop_map(|(key, process)| Event::Spawned { key, process }),
        (key(), fault).prop_map(|(key, fault)| Event::SpawnFailed { key, fault }),
        (key(), any::<i32>(), any::<bool>()).prop_map(|(key, status, tree_empty)| Event::Exited {
            key,
            status,
            tree_empty
        }),
        key().prop_map(|key| Event::Empty { key }),
        listed.prop_map(|(key, process, marker, status, tree_empty)| Event::Listed {
            key,
            process,
            marker,
            status,
            tree_empty
        }),
        Just(Event::ListEnd),
        (key(), any::<i32>()).prop_map(|(key, errno)| Event::Failed { key, errno }),
        text().prop_map(|tag| Event::Stored { tag }),
    ]
}

proptest! {
    #[test]
    fn every_request_is_read_as_it_was_written_and_no_part_of_it_is_one(message in request()) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert_eq!(Request::decode(&bytes).as_ref(), Ok(&message));
        for end in 0..bytes.len() {
            match (Request::decode(&bytes[..end]), &message) {
                (Err(_), _) => {}
                // What an older runtime sends, which knows nothing of the last part.
                (Ok(Request::Spawn { spec: read, .. }), Request::Spawn { spec, .. }) => {
                    let mut older = spec.clone();
                    older.confine = Default::default();
                    assert_eq!(read, older);
                }
                (Ok(read), _) => panic!("{read:?} was read out of a part of {message:?}"),
            }
        }
    }

    #[test]
    fn every_event_is_read_as_it_was_written_and_no_part_of_it_is_one(message in event()) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert_eq!(Event::decode(&bytes), Ok(message));
        for end in 0..bytes.len() {
            assert!(Event::decode(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(tag in 0_u8..12, mut bytes in vec(any::<u8>(), 0..300)) {
        bytes.insert(0, tag);
        // Whatever they are read as, they are read to the end or refused.
        let _ = (Request::decode(&bytes), Event::decode(&bytes));
    }
}

/// Every message of version 1 that a runtime needs to take an old keeper over, byte for byte: a keeper that was started
/// by an older program says exactly this, and understands exactly this.
#[test]
fn the_messages_of_version_1_are_what_they_were() {
    let key = ChildKey(0x0102);
    let process = ProcessId {
        pid: 77,
        start_ticks: 0x0a0b,
    };
    let requests = [
        (Request::Hello { version: 1 }, "0001000000"),
        (
            Request::Signal {
                key,
                signal: 15,
                scope: Scope::All,
            },
            "0302010000000000000f00000002",
        ),
        (Request::Kill { key }, "040201000000000000"),
        (Request::Ack { key }, "050201000000000000"),
        (Request::List, "06"),
        (Request::Shutdown, "07"),
        (Request::Policy(DeathPolicy::Keep), "0800"),
        (
            Request::Policy(DeathPolicy::Kill { grace_ms: 10_000 }),
            "080110270000",
        ),
    ];
    for (message, wanted) in requests {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert_eq!(hex(&bytes), wanted, "{message:?}");
        assert_eq!(Request::decode(&bytes), Ok(message));
    }
    let events = [
        (
            Event::Hello {
                version: 1,
                keeper: process,
                listen_errno: 0,
            },
            "00010000004d0000000b0a00000000000000000000",
        ),
        (
            Event::Spawned { key, process },
            "0102010000000000004d0000000b0a000000000000",
        ),
        (
            Event::Exited {
                key,
                status: 0x0900,
                tree_empty: true,
            },
            "0302010000000000000009000001",
        ),
        (Event::Empty { key }, "040201000000000000"),
        (
            Event::Listed {
                key,
                process,
                marker: c"1-0:m.7".to_owned(),
                status: None,
                tree_empty: false,
            },
            "0502010000000000004d0000000b0a00000000000007000000312d303a6d2e370000",
        ),
        (Event::ListEnd, "06"),
        (
            Event::Failed { key, errno: 3 },
            "07020100000000000003000000",
        ),
    ];
    for (message, wanted) in events {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert_eq!(hex(&bytes), wanted, "{message:?}");
        assert_eq!(Event::decode(&bytes), Ok(message));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
