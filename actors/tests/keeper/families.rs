//! Trees: that they end whole, and that their end is proven.

use std::path::PathBuf;

use lair_actors::keeper::{CgroupDir, Ending, KeeperClient, Scope, SpawnSpec, SpawnedChild};

use super::{children_of, exit_of, is_gone, line, options, run, shell, until};

/// A v2 group of this test's own.
struct Group(PathBuf);

impl Group {
    /// Nothing where no v2 tree can be written to; the caller says so.
    fn new(name: &str) -> Option<Self> {
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(PathBuf::from);
        let root = root
            .into_iter()
            .find(|root| root.join("cgroup.controllers").exists())?;
        let path = root.join(format!("lair-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        Some(Self(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Four processes: the leader, one in its group, one in a session of its own, one that was abandoned there too.
const FAMILY: &str = "sleep 300 & a=$!; setsid sleep 300 & b=$!; \
    c=$(setsid sh -c 'sleep 300 >/dev/null 2>&1 & echo $!'); echo $$ $a $b $c; wait";

async fn pids(child: &SpawnedChild) -> Vec<i32> {
    line(&child.streams.stdout)
        .await
        .split(' ')
        .map(|pid| pid.parse().unwrap())
        .collect()
}

async fn a_killed_family_is_gone(spec: SpawnSpec) {
    let keeper = KeeperClient::launch(options()).await.unwrap();
    let mut child = keeper.spawn(spec).await.unwrap();
    let family = pids(&child).await;
    assert_eq!(family.len(), 4);
    assert!(family.iter().all(|pid| !is_gone(*pid)));
    keeper.kill(child.key).unwrap();
    assert_eq!(
        exit_of(&mut child).await.ending,
        Ending::Signal {
            signal: 9,
            core: false
        }
    );
    (&mut child.empty)
        .await
        .expect("the end of the tree is told");
    assert!(family.iter().all(|pid| is_gone(*pid)), "{family:?}");
    assert_eq!(children_of(keeper.keeper().pid), 0);
}

#[test]
fn kill_ends_the_whole_family_by_descent_session_and_marker() {
    run(a_killed_family_is_gone(
        shell(FAMILY).marked("family-1").unwrap(),
    ));
}

#[test]
fn kill_ends_the_whole_family_by_its_group_and_removes_the_group() {
    let Some(group) = Group::new("kill") else {
        return println!("skipped: no writable v2 control group");
    };
    let mut spec = shell(FAMILY);
    spec.cgroups
        .push(CgroupDir::new(&group.0, true, true).unwrap());
    run(a_killed_family_is_gone(spec));
}

#[test]
fn a_group_of_ours_is_removed_once_its_child_is_forgotten() {
    let Some(group) = Group::new("forget") else {
        return println!("skipped: no writable v2 control group");
    };
    run(async {
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let mut spec = shell(&format!("mkdir {}/nested", group.0.display()));
        spec.cgroups
            .push(CgroupDir::new(&group.0, true, true).unwrap());
        let mut child = keeper.spawn(spec).await.unwrap();
        let note = exit_of(&mut child).await;
        assert!(note.tree_empty);
        assert!(
            group.0.exists(),
            "its counters can be read until the exit is acknowledged"
        );
        keeper.ack(child.key).unwrap();
        until("the group is removed", || !group.0.exists()).await;
    });
}

#[test]
fn the_tree_is_not_said_to_be_gone_while_an_escapee_lives() {
    run(async {
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let script = "p=$(setsid sh -c 'sleep 300 >/dev/null 2>&1 & echo $!'); echo $p; exit 0";
        let mut child = keeper
            .spawn(shell(script).marked("escapee").unwrap())
            .await
            .unwrap();
        let escapee: i32 = line(&child.streams.stdout).await.parse().unwrap();
        let note = exit_of(&mut child).await;
        assert_eq!(note.ending, Ending::Code(0));
        assert!(!note.tree_empty);
        keeper.signal(child.key, libc::SIGTERM, Scope::All).unwrap();
        (&mut child.empty)
            .await
            .expect("the end of the tree is told");
        assert!(is_gone(escapee));
    });
}

#[test]
fn five_hundred_zombies_are_gone_with_their_parent() {
    run(async {
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let script = "for i in $(seq 500); do (exit 0) & done; kill -KILL $$";
        let mut child = keeper.spawn(shell(script)).await.unwrap();
        let note = exit_of(&mut child).await;
        assert_eq!(
            note.ending,
            Ending::Signal {
                signal: 9,
                core: false
            }
        );
        (&mut child.empty)
            .await
            .expect("the end of the tree is told");
        until("every zombie is reaped", || {
            children_of(keeper.keeper().pid) == 0
        })
        .await;
    });
}

#[test]
fn twenty_deaths_in_one_instant_are_twenty_exits() {
    run(async {
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let mut children = Vec::new();
        for _ in 0..20 {
            children.push(keeper.spawn(shell("exec sleep 300")).await.unwrap());
        }
        for child in &children {
            keeper
                .signal(child.key, libc::SIGKILL, Scope::Group)
                .unwrap();
        }
        for child in &mut children {
            assert_eq!(
                exit_of(child).await.ending,
                Ending::Signal {
                    signal: 9,
                    core: false
                }
            );
        }
    });
}
