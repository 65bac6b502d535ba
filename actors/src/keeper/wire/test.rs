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
    ]
}

proptest! {
    #[test]
    fn every_request_is_read_as_it_was_written_and_no_part_of_it_is_one(message in request()) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert_eq!(Request::decode(&bytes), Ok(message));
        for end in 0..bytes.len() {
            assert!(Request::decode(&bytes[..end]).is_err());
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
