//! Death and return: of the runtime, and of the keeper.

use lair_actors::keeper::{
    DeathPolicy, Ending, KeeperClient, KeeperOptions, ProcessId, Scope, Stage,
};

use super::{Scratch, exit_of, is_gone, keep_at, line, options, run, shell, until, words};

/// Ends a keeper that a failed story would leave waiting for a next life that never comes.
struct Ended(ProcessId);

impl Drop for Ended {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.0.pid).unwrap();
        if std::thread::panicking() {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

#[test]
fn the_next_life_gets_the_same_children_bytes_and_exits() {
    run(async {
        let scratch = Scratch::new();
        let path = scratch.path("keeper.sock");
        let keeper = KeeperClient::launch(keep_at(&path)).await.unwrap();
        let itself = keeper.keeper();
        let _guard = Ended(itself);
        let go = scratch.path("go");
        let script = format!(
            "echo first; until [ -e {} ]; do sleep 0.01; done; echo second; exit 9",
            go.display()
        );
        let ended = keeper
            .spawn(shell(&script).marked("ended").unwrap())
            .await
            .unwrap();
        let lives = keeper
            .spawn(shell("echo alive; exec sleep 300").marked("lives").unwrap())
            .await
            .unwrap();
        assert_eq!(line(&ended.streams.stdout).await, "first");
        drop(keeper);
        std::fs::write(&go, "").unwrap();
        until("it ends meanwhile", || is_gone(ended.process.pid)).await;

        let (keeper, left) = KeeperClient::connect(&path).await.unwrap();
        let mut children = left.children;
        assert_eq!(keeper.keeper(), itself);
        children.sort_by_key(|child| child.key);
        let [mut first, mut second] = <[_; 2]>::try_from(children).unwrap();
        assert_eq!(
            (first.process, first.marker.to_str()),
            (ended.process, Ok("ended"))
        );
        assert_eq!(
            (second.process, second.marker.to_str()),
            (lives.process, Ok("lives"))
        );
        let note = (&mut first.exit).await.unwrap();
        assert_eq!(note.ending, Ending::Code(9));
        assert_eq!(words(first.streams.unwrap().stdout).await, "second\n");
        assert_eq!(
            line(&second.streams.as_ref().unwrap().stdout).await,
            "alive"
        );
        keeper.ack(first.key).unwrap();
        let third = keeper.spawn(shell("exit 0")).await.unwrap();
        assert!(third.key > second.key, "no key is used twice");
        keeper
            .signal(second.key, libc::SIGTERM, Scope::All)
            .unwrap();
        assert_eq!(
            (&mut second.exit).await.unwrap().ending,
            Ending::Signal {
                signal: 15,
                core: false
            }
        );
        keeper.shutdown().await;
        until("the keeper ends", || is_gone(itself.pid)).await;
        assert!(!path.exists());
    });
}

#[test]
fn the_socket_is_for_this_user_and_a_living_keepers_path_is_not_taken() {
    run(async {
        use std::os::unix::fs::PermissionsExt;
        let scratch = Scratch::new();
        let path = scratch.path("keeper.sock");
        let keeper = KeeperClient::launch(keep_at(&path)).await.unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let second = KeeperClient::launch(keep_at(&path)).await.unwrap_err();
        assert_eq!(second.raw_os_error(), Some(libc::EADDRINUSE));
        let pid = rustix::process::Pid::from_raw(keeper.keeper().pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        keeper.closed().await;
        assert!(path.exists());
        let third = KeeperClient::launch(keep_at(&path))
            .await
            .expect("a dead keeper's path is reclaimed");
        third.shutdown().await;
    });
}

#[test]
fn a_keeper_with_nothing_to_keep_ends_with_its_runtime() {
    run(async {
        let scratch = Scratch::new();
        let path = scratch.path("keeper.sock");
        let keeper = KeeperClient::launch(keep_at(&path)).await.unwrap();
        let pid = keeper.keeper().pid;
        drop(keeper);
        until("the keeper ends", || is_gone(pid)).await;
        assert!(!path.exists());
    });
}

#[test]
fn under_kill_the_children_are_asked_and_then_killed() {
    run(async {
        let scratch = Scratch::new();
        let asked = scratch.path("asked");
        let policy = DeathPolicy::Kill { grace_ms: 300 };
        let keeper = KeeperClient::launch(KeeperOptions {
            policy,
            ..options()
        })
        .await
        .unwrap();
        let polite = format!(
            "trap 'echo asked > {}; exit 0' TERM; echo up; while :; do sleep 0.01; done",
            asked.display()
        );
        let polite = keeper.spawn(shell(&polite)).await.unwrap();
        let stubborn = keeper
            .spawn(shell("trap '' TERM; echo up; while :; do sleep 1; done"))
            .await
            .unwrap();
        line(&polite.streams.stdout).await;
        line(&stubborn.streams.stdout).await;
        let itself = keeper.keeper().pid;
        drop(keeper);
        until("all are gone", || {
            [polite.process.pid, stubborn.process.pid, itself]
                .into_iter()
                .all(is_gone)
        })
        .await;
        assert!(asked.exists());
    });
}

#[test]
fn a_killed_keeper_costs_no_sight_and_no_power() {
    run(async {
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let mut ends = keeper
            .spawn(shell("read x < /dev/zero; exit 7"))
            .await
            .unwrap();
        let mut killed = keeper
            .spawn(shell("exec sleep 300").marked("power").unwrap())
            .await
            .unwrap();
        let pid = rustix::process::Pid::from_raw(keeper.keeper().pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        keeper.closed().await;
        let fault = keeper.spawn(shell("exit 0")).await.unwrap_err();
        assert_eq!(fault.stage, Stage::KeeperGone);
        assert!(
            !is_gone(killed.process.pid),
            "the child outlives its keeper"
        );
        keeper.kill(ends.key).unwrap();
        keeper
            .signal(killed.key, libc::SIGTERM, Scope::Leader)
            .unwrap();
        let note = exit_of(&mut killed).await;
        let honest = [
            Ending::Unknown,
            Ending::Signal {
                signal: 15,
                core: false,
            },
        ];
        assert!(honest.contains(&note.ending), "{note:?}");
        assert!(is_gone(killed.process.pid));
        let note = exit_of(&mut ends).await;
        let honest = [
            Ending::Unknown,
            Ending::Signal {
                signal: 9,
                core: false,
            },
        ];
        assert!(honest.contains(&note.ending), "{note:?}");
    });
}

#[test]
fn a_child_nobody_waits_for_is_killed_and_forgotten() {
    run(async {
        let keeper = KeeperClient::launch(options()).await.unwrap();
        drop(keeper.spawn(shell("exec sleep 300")));
        let mut after = keeper.spawn(shell("exit 0")).await.unwrap();
        exit_of(&mut after).await;
        until("it is killed", || {
            super::children_of(keeper.keeper().pid) == 0
        })
        .await;
    });
}
