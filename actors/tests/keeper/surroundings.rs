//! What a child finds around it, and what the keeper makes of bad input and bad surroundings.

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use lair_actors::keeper::wire::{Event, PROTOCOL_VERSION, Request};
use lair_actors::keeper::{Ending, KeeperClient, SpawnSpec};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

use super::{command, exit_of, options, program, run, shell, text, words};

#[test]
fn a_child_has_three_descriptors_default_signals_and_no_mask() {
    run(async {
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let script = "for f in /proc/$$/fd/*; do [ -e $f ] && echo ${f##*/}; done; readlink /proc/$$/fd/0; \
            cut -d' ' -f1,5,6 /proc/$$/stat; ulimit -Sn; cat /proc/$$/oom_score_adj; echo $$";
        let child = keeper.spawn(shell(script)).await.unwrap();
        let said = words(child.streams.stdout).await;
        let pid = child.process.pid;
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .current
            .unwrap();
        let wanted = format!("0\n1\n2\n/dev/null\n{pid} {pid} {pid}\n{limit}\n{own}{pid}\n");
        assert_eq!(said, wanted);
        // Read by the child itself: a shell blocks signals for a moment whenever it forks.
        let own = command(&["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]);
        let child = keeper.spawn(own).await.unwrap();
        let said = words(child.streams.stdout).await;
        assert_eq!(
            said,
            "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
        );
    });
}

#[test]
fn the_environment_is_exactly_the_one_given() {
    run(async {
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let child = keeper
            .spawn(SpawnSpec::new(["/usr/bin/env"], [("A", "1"), ("B", "x=y")]).unwrap())
            .await
            .unwrap();
        assert_eq!(words(child.streams.stdout).await, "A=1\nB=x=y\n");
        let none: [(&str, &str); 0] = [];
        let marked = SpawnSpec::new(["/usr/bin/env"], none)
            .unwrap()
            .marked("m")
            .unwrap();
        let child = keeper.spawn(marked).await.unwrap();
        assert_eq!(words(child.streams.stdout).await, "LAIR_MARKER=m\n");
    });
}

#[test]
fn limits_mask_directory_and_user_are_set_before_the_program_runs() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can become another user");
    }
    run(async {
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let script =
            "pwd; umask; ulimit -n; id -u; id -g; id -G; grep NoNewPrivs /proc/self/status";
        let mut spec = shell(script).in_dir(std::path::Path::new("/usr")).unwrap();
        spec.umask = Some(0o027);
        spec.rlimits.push(lair_actors::keeper::Rlimit {
            resource: libc::RLIMIT_NOFILE,
            soft: 77,
            hard: 88,
        });
        (spec.uid, spec.gid, spec.groups) = (Some(1234), Some(2345), Some(vec![7, 8]));
        spec.no_new_privs = true;
        let child = keeper.spawn(spec).await.unwrap();
        let said = words(child.streams.stdout).await;
        assert_eq!(
            said,
            "/usr\n0027\n77\n1234\n2345\n2345 7 8\nNoNewPrivs:\t1\n"
        );
        let mut bare = shell("id -G");
        (bare.uid, bare.gid) = (Some(1234), Some(2345));
        let child = keeper.spawn(bare).await.unwrap();
        assert_eq!(
            words(child.streams.stdout).await,
            "2345\n",
            "no group of ours is left to another user"
        );
    });
}

/// The keeper's other end without a client, so that it can be told anything.
fn bare_keeper() -> (std::process::Child, OwnedFd) {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let child = Command::new(program())
        .args(["__keeper", "0"])
        .stdin(Stdio::from(theirs))
        .spawn()
        .unwrap();
    (child, ours)
}

fn ask(socket: &OwnedFd, bytes: &[u8]) -> Event {
    send(socket, bytes, SendFlags::empty()).unwrap();
    let mut buffer = [0; 4096];
    let (length, _) = recv(socket, &mut buffer[..], RecvFlags::empty()).unwrap();
    Event::decode(&buffer[..length]).unwrap()
}

fn encoded(request: &Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    bytes
}

#[test]
fn malformed_requests_are_refused_and_served_past() {
    let (mut child, socket) = bare_keeper();
    let hello = ask(
        &socket,
        &encoded(&Request::Hello {
            version: PROTOCOL_VERSION,
        }),
    );
    assert!(matches!(
        hello,
        Event::Hello {
            version: PROTOCOL_VERSION,
            ..
        }
    ));
    let mut seed = 0x9E37_79B9_u32;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        seed
    };
    for _ in 0..2000 {
        let mut bytes: Vec<u8> = (0..=random() % 200).map(|_| random() as u8).collect();
        // A valid tag half of the time, so that the fields are reached.
        bytes[0] = if random() % 2 == 0 {
            1
        } else {
            bytes[0] | 0x80
        };
        let answer = ask(&socket, &bytes);
        assert!(
            matches!(
                answer,
                Event::Failed {
                    errno: libc::EBADMSG,
                    ..
                }
            ),
            "{answer:?}"
        );
    }
    assert_eq!(
        ask(&socket, &encoded(&Request::List)),
        Event::ListEnd,
        "and it goes on serving"
    );
    drop(socket);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_keeper_of_another_version_says_so_and_leaves() {
    let (mut child, socket) = bare_keeper();
    let hello = ask(
        &socket,
        &encoded(&Request::Hello {
            version: PROTOCOL_VERSION + 1,
        }),
    );
    assert!(matches!(
        hello,
        Event::Hello {
            version: PROTOCOL_VERSION,
            ..
        }
    ));
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_keeper_survives_the_signals_of_a_terminal() {
    run(async {
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let pid = rustix::process::Pid::from_raw(keeper.keeper().pid).unwrap();
        for signal in [1, 2, 3, 10, 12, 13, 15, 20, 28] {
            rustix::process::kill_process(
                pid,
                rustix::process::Signal::from_named_raw(signal).unwrap(),
            )
            .unwrap();
        }
        let mut child = keeper.spawn(shell("exit 4")).await.unwrap();
        assert_eq!(exit_of(&mut child).await.ending, Ending::Code(4));
    });
}

#[test]
fn a_launcher_with_closed_standard_streams_mixes_nothing_up() {
    // The keeper is started by a shell that closes 1 and 2 first; its socket is where it always is, on 0.
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let script = format!(
        "exec {} __keeper 0 >&- 2>&- 5</etc/passwd",
        program().display()
    );
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::from(theirs))
        .spawn()
        .unwrap();
    let hello = ask(
        &ours,
        &encoded(&Request::Hello {
            version: PROTOCOL_VERSION,
        }),
    );
    let Event::Hello { keeper, .. } = hello else {
        panic!("{hello:?}")
    };
    let mut fds: Vec<(String, String)> = std::fs::read_dir(format!("/proc/{}/fd", keeper.pid))
        .unwrap()
        .flatten()
        .map(|entry| {
            let target = std::fs::read_link(entry.path()).unwrap();
            (
                entry.file_name().to_str().unwrap().to_owned(),
                target.to_str().unwrap().to_owned(),
            )
        })
        .collect();
    fds.sort();
    let names: Vec<&str> = fds
        .iter()
        .map(|(_, target)| target.split(":[").next().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "/dev/null",
            "/dev/null",
            "/dev/null",
            "anon_inode:[signalfd]".split(":[").next().unwrap(),
            "socket",
            // The slots for a child's ends of its streams lead nowhere between two starts.
            "/dev/null",
            "/dev/null",
            "/dev/null",
            "/dev/null",
        ]
    );
    drop(ours);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_marker_too_long_for_an_event_is_refused_at_once() {
    run(async {
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let mut spec = command(&["true"]);
        spec.marker = text(&"m".repeat(5000));
        let fault = keeper.spawn(spec).await.unwrap_err();
        assert_eq!(fault.errno, libc::ENAMETOOLONG);
    });
}
