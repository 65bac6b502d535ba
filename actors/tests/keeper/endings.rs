//! How children end, and how starts fail.

use std::os::unix::fs::PermissionsExt;

use lair_actors::keeper::{Ending, KeeperClient, Scope, SpawnFault, SpawnSpec, Stage};

use super::{Scratch, command, exit_of, line, options, run, shell, state, until, words};

async fn ending_of(keeper: &KeeperClient, script: &str) -> Ending {
    let mut child = keeper.spawn(shell(script)).await.unwrap();
    let note = exit_of(&mut child).await;
    keeper.ack(child.key).unwrap();
    note.ending
}

#[test]
fn exit_codes_and_signals_are_different_values() {
    run(async {
        let keeper = KeeperClient::launch(options()).await.unwrap();
        for code in [0, 1, 125, 126, 127, 137, 255] {
            assert_eq!(
                ending_of(&keeper, &format!("exit {code}")).await,
                Ending::Code(code)
            );
        }
        for signal in [9, 15, 10] {
            let ending = ending_of(&keeper, &format!("kill -{signal} $$")).await;
            assert_eq!(
                ending,
                Ending::Signal {
                    signal,
                    core: false
                }
            );
        }
        for wanted in [libc::SIGSEGV, libc::SIGABRT, libc::SIGBUS] {
            let ending = ending_of(&keeper, &format!("ulimit -c 0; kill -{wanted} $$")).await;
            assert!(
                matches!(ending, Ending::Signal { signal, .. } if signal == wanted),
                "{ending:?}"
            );
        }
    });
}

async fn fault_of(keeper: &KeeperClient, argv: &[&str]) -> SpawnFault {
    keeper
        .spawn(command(argv))
        .await
        .expect_err("this cannot be executed")
}

#[test]
fn each_way_exec_is_impossible_has_its_own_errno() {
    run(async {
        let scratch = Scratch::new();
        let write = |name: &str, text: &str, mode: u32| {
            let path = scratch.path(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let exec = |errno| SpawnFault {
            stage: Stage::Exec,
            errno,
        };
        assert_eq!(
            fault_of(&keeper, &["/no/such/program"]).await,
            exec(libc::ENOENT)
        );
        assert_eq!(
            fault_of(&keeper, &["no-such-program-anywhere"]).await,
            exec(libc::ENOENT)
        );
        let unexecutable = write("unexecutable", "#!/bin/sh\n", 0o644);
        assert_eq!(
            fault_of(&keeper, &[&unexecutable]).await,
            exec(libc::EACCES)
        );
        let bare = write("bare", "echo no interpreter named\n", 0o755);
        assert_eq!(fault_of(&keeper, &[&bare]).await, exec(libc::ENOEXEC));
        let lost = write("lost", "#!/no/such/interpreter\n", 0o755);
        assert_eq!(fault_of(&keeper, &[&lost]).await, exec(libc::ENOENT));
        let busy = write("busy", "#!/bin/sh\n", 0o755);
        let writer = std::fs::OpenOptions::new()
            .append(true)
            .open(&busy)
            .unwrap();
        assert_eq!(fault_of(&keeper, &[&busy]).await, exec(libc::ETXTBSY));
        drop(writer);
        let long = "x".repeat(100_000);
        let many: Vec<&str> = std::iter::once("/bin/true")
            .chain(std::iter::repeat_n(long.as_str(), 80))
            .collect();
        assert_eq!(fault_of(&keeper, &many).await, exec(libc::E2BIG));
        assert_eq!(
            ending_of(&keeper, "exit 3").await,
            Ending::Code(3),
            "and it goes on serving"
        );
    });
}

#[test]
fn a_program_found_unexecutable_in_the_path_is_denied_and_not_missing() {
    run(async {
        let scratch = Scratch::new();
        std::fs::write(scratch.path("tool"), "#!/bin/sh\n").unwrap();
        let path = format!("{}:/usr/bin:/bin", scratch.0.display());
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let fault = keeper
            .spawn(SpawnSpec::new(["tool"], [("PATH", &path)]).unwrap())
            .await
            .unwrap_err();
        assert_eq!(
            fault,
            SpawnFault {
                stage: Stage::Exec,
                errno: libc::EACCES
            }
        );
    });
}

#[test]
fn a_request_larger_than_a_datagram_still_starts_its_child() {
    run(async {
        let long = "x".repeat(100_000);
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let script = r#"echo "${#1} ${#2}""#;
        let child = keeper
            .spawn(command(&["sh", "-c", script, "sh", &long, &long]))
            .await
            .unwrap();
        assert_eq!(words(child.streams.stdout).await, "100000 100000\n");
    });
}

#[test]
fn a_missing_working_directory_is_its_own_stage_and_leaves_nothing_running() {
    run(async {
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let spec = command(&["true"])
            .in_dir(std::path::Path::new("/no/such/dir"))
            .unwrap();
        let fault = keeper.spawn(spec).await.unwrap_err();
        assert_eq!(
            fault,
            SpawnFault {
                stage: Stage::ChangeDir,
                errno: libc::ENOENT
            }
        );
        let mut limited = command(&["true"]);
        limited.rlimits.push(lair_actors::keeper::Rlimit {
            resource: 9999,
            soft: 1,
            hard: 1,
        });
        let fault = keeper.spawn(limited).await.unwrap_err();
        assert_eq!(
            fault,
            SpawnFault {
                stage: Stage::Rlimits,
                errno: libc::EINVAL
            }
        );
        let mut grouped = command(&["true"]);
        grouped.cgroups.push(
            lair_actors::keeper::CgroupDir::new(
                std::path::Path::new("/no/such/group"),
                true,
                false,
            )
            .unwrap(),
        );
        let fault = keeper.spawn(grouped).await.unwrap_err();
        assert_eq!(
            fault,
            SpawnFault {
                stage: Stage::EnterLimits,
                errno: libc::ENOENT
            }
        );
        assert_eq!(super::children_of(keeper.keeper().pid), 0);
    });
}

#[test]
fn a_child_that_stopped_itself_ends_when_asked_to() {
    run(async {
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let mut child = keeper
            .spawn(shell("trap 'exit 5' TERM; kill -STOP $$; exit 6"))
            .await
            .unwrap();
        let pid = child.process.pid;
        until("it stops itself", || state(pid) == Some('T')).await;
        keeper
            .signal(child.key, libc::SIGTERM, Scope::Leader)
            .unwrap();
        assert_eq!(exit_of(&mut child).await.ending, Ending::Code(5));
    });
}

#[test]
fn the_last_bytes_are_readable_after_the_exit() {
    run(async {
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let mut child = keeper
            .spawn(shell("printf last; printf words >&2; exit 1"))
            .await
            .unwrap();
        assert_eq!(exit_of(&mut child).await.ending, Ending::Code(1));
        keeper.ack(child.key).unwrap();
        assert_eq!(words(child.streams.stdout).await, "last");
        assert_eq!(words(child.streams.stderr).await, "words");
    });
}

#[test]
fn readiness_is_a_line_on_the_descriptor_named_in_the_environment() {
    run(async {
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let mut spec = shell("echo up >&$LAIR_READY_FD; echo $LAIR_READY_FD; exec sleep 60");
        spec.ready = true;
        let child = keeper.spawn(spec).await.unwrap();
        assert_eq!(line(child.streams.ready.as_ref().unwrap()).await, "up");
        assert_eq!(line(&child.streams.stdout).await, "3");
        keeper.kill(child.key).unwrap();
    });
}
