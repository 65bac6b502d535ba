//! Many children: that nothing leaks, and what a start costs.

use std::time::Instant;

use lair_actors::keeper::{Ending, KeeperClient};

use super::{command, exit_of, fds_of, options, run, until};

#[test]
fn a_thousand_children_leave_no_descriptor_behind() {
    run(async {
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let pid = keeper.keeper().pid;
        let (ours, theirs) = (fds_of(std::process::id().cast_signed()), fds_of(pid));
        for _ in 0..10 {
            let starts: Vec<_> = (0..100)
                .map(|_| keeper.spawn(command(&["/bin/true"])))
                .collect();
            for start in starts {
                let mut child = start.await.unwrap();
                assert_eq!(exit_of(&mut child).await.ending, Ending::Code(0));
                keeper.ack(child.key).unwrap();
            }
        }
        until("the keeper's descriptors are as before", || {
            fds_of(pid) == theirs
        })
        .await;
        assert_eq!(fds_of(std::process::id().cast_signed()), ours);
        assert_eq!(keeper.failures(), 0);
    });
}

/// `cargo nextest run -p lair-actors --release --run-ignored all what_a_start_costs --no-capture`
#[test]
#[ignore = "measures, promises nothing"]
fn what_a_start_costs() {
    run(async {
        let keeper = KeeperClient::launch(options()).await.unwrap();
        let mut children = Vec::new();
        let start = Instant::now();
        let starts: Vec<_> = (0..1000)
            .map(|_| keeper.spawn(command(&["/bin/sleep", "300"])))
            .collect();
        for start in starts {
            children.push(start.await.unwrap());
        }
        let each = start.elapsed() / 1000;
        let rollup =
            std::fs::read_to_string(format!("/proc/{}/smaps_rollup", keeper.keeper().pid)).unwrap();
        let memory = |name: &str| {
            rollup
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_default()
                .to_owned()
        };
        println!(
            "pipelined start: {each:?}; {}; {}",
            memory("Pss:"),
            memory("Private_Dirty:")
        );
        let mut waits = Vec::new();
        for child in &mut children {
            let start = Instant::now();
            keeper
                .signal(child.key, libc::SIGKILL, lair_actors::keeper::Scope::Leader)
                .unwrap();
            exit_of(child).await;
            waits.push(start.elapsed());
        }
        waits.sort();
        println!(
            "kill to exit told: p50 {:?}, p99 {:?}",
            waits[500], waits[990]
        );
        let mut waits = Vec::new();
        for _ in 0..500 {
            let start = Instant::now();
            let child = keeper.spawn(command(&["/bin/true"])).await.unwrap();
            waits.push(start.elapsed());
            drop(child);
        }
        waits.sort();
        println!(
            "single start, answered: p50 {:?}, p99 {:?}",
            waits[250], waits[495]
        );
    });
}
