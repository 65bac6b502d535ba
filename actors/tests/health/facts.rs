//! Facts of real processes.

use crate::support::{SEC, eventually};
use lair_actors::backend::Tree;
use lair_actors::clock::SimClock;
use lair_actors::facts::{Sampler, belongs, listeners, pids, port_holder, usage};
use lair_supervision::ChildId;
use std::net::{IpAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

/// A family of real processes in a group of its own; ended with the value.
struct Family(Child);

impl Family {
    fn sh(script: &str) -> Self {
        let mut command = Command::new("sh");
        Family(
            command
                .args(["-c", script])
                .process_group(0)
                .spawn()
                .unwrap(),
        )
    }
    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
    fn tree(&self) -> Tree {
        Tree::Descendants(self.pid())
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_raw(self.pid()).unwrap();
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn usage_counts_the_whole_tree_and_no_zombie() {
    // The second child ends at once and is never waited for.
    let family = Family::sh("sleep 1000 & true & exec sleep 1000");
    let comm = format!("/proc/{}/comm", family.pid());
    let replaced = || std::fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n");
    eventually("two live, the leader past its exec", || {
        replaced() && usage(&family.tree()).pids.len() == 2
    })
    .await;
    let used = usage(&family.tree());
    assert!(used.pids.contains(&family.pid()));
    assert!(used.rss > 0 && used.threads == 2);
    assert_eq!(usage(&Tree::None), Default::default());
}

#[tokio::test]
async fn a_tree_that_is_gone_uses_nothing() {
    let family = Family::sh("exec sleep 1000");
    let tree = family.tree();
    drop(family);
    assert_eq!(usage(&tree), Default::default());
    let folder = Tree::Cgroup("/sys/fs/cgroup/nonexistent/lair".into());
    assert_eq!(usage(&folder), Default::default());
}

#[tokio::test]
async fn cpu_time_grows_with_work() {
    let family = Family::sh("while :; do :; done");
    eventually("it worked", || usage(&family.tree()).cpu_ms >= 50).await;
}

#[tokio::test]
async fn kinship_is_told_by_ancestors() {
    let family = Family::sh("sleep 1000 & wait");
    eventually("two live", || pids(&family.tree()).len() == 2).await;
    for pid in pids(&family.tree()) {
        assert_eq!(belongs(pid, &family.tree()), Some(true));
    }
    let me = i32::try_from(std::process::id()).unwrap();
    assert_eq!(belongs(me, &family.tree()), Some(false));
    assert_eq!(belongs(i32::MAX, &family.tree()), None);
    assert_eq!(belongs(family.pid(), &Tree::None), None);
}

/// A module's helper may say that it is ready and end at once (systemd-notify(1)): nobody is a stranger for that.
#[tokio::test]
async fn who_has_ended_is_no_stranger_while_its_parent_has_not_heard_of_it() {
    let family = Family::sh("exec sleep 1000");
    let nobodys = Tree::Cgroup("/sys/fs/cgroup/nonexistent/lair".into());
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let told = [&nobodys, &family.tree()].map(|tree| belongs(pid, tree));
    child.kill().unwrap();
    let stat = format!("/proc/{pid}/stat");
    let is_dead = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z "));
    eventually("its parent could hear of it", is_dead).await;
    let after = [&nobodys, &family.tree()].map(|tree| belongs(pid, tree));
    child.wait().unwrap();
    assert_eq!((told, after), ([Some(false); 2], [None; 2]));
}

/// A folder that looks like a cgroup is one to the reader.
#[tokio::test]
async fn a_cgroup_is_read_with_the_groups_below_it() {
    let family = Family::sh("sleep 1000 & exec sleep 1000");
    eventually("two live", || pids(&family.tree()).len() == 2).await;
    let found = pids(&family.tree());
    let dir = std::env::temp_dir().join(format!("lair-cgroup-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("below")).unwrap();
    std::fs::write(dir.join("cgroup.procs"), format!("{}\n0\n", found[0])).unwrap();
    std::fs::write(dir.join("below/cgroup.procs"), format!("{}\n", found[1])).unwrap();
    let tree = Tree::Cgroup(dir.clone());
    let (read, member) = (pids(&tree), belongs(found[1], &tree));
    std::fs::remove_dir_all(dir).unwrap();
    assert_eq!((read, member), (found, Some(true)));
}

#[tokio::test]
async fn listeners_are_found_with_their_address_and_who_holds_a_port_is_named() {
    let me = i32::try_from(std::process::id()).unwrap();
    let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
    let v6 = TcpListener::bind("[::1]:0").ok();
    let port = v4.local_addr().unwrap().port();
    let found = listeners(&Tree::Descendants(me));
    let ours = found.iter().find(|one| one.port == port).unwrap();
    assert_eq!(
        (ours.address, ours.pid),
        ("127.0.0.1".parse::<IpAddr>().unwrap(), me)
    );
    if let Some(v6) = v6 {
        let port = v6.local_addr().unwrap().port();
        assert!(
            found
                .iter()
                .any(|one| one.port == port && one.address.is_ipv6())
        );
    }
    let holder = port_holder(port).unwrap();
    assert_eq!(holder.pid, me);
    assert!(!holder.command.is_empty());
    drop(v4);
    assert_eq!(port_holder(port), None);
}

#[tokio::test]
async fn the_sampler_reads_only_when_somebody_asks_and_it_is_too_old() {
    let clock = SimClock::new();
    let sampler = Sampler::new(clock.clone());
    let family = Family::sh("exec sleep 1000");
    let id = ChildId::new("m");
    assert_eq!(sampler.last(&id, 1), None);
    let first = sampler.fresh(&id, 1, &family.tree(), SEC);
    assert_eq!(first.usage.pids, [family.pid()]);
    let none = || std::future::ready(());
    clock.advance(Duration::from_millis(900), none).await;
    let second = sampler.fresh(&id, 1, &family.tree(), SEC);
    assert!(Arc::ptr_eq(&first.usage, &second.usage), "young enough");
    clock.advance(Duration::from_millis(200), none).await;
    let third = sampler.fresh(&id, 1, &family.tree(), SEC);
    assert!(third.at > second.at);
    assert_eq!(sampler.last(&id, 2), None, "another run's is nobody's");
    sampler.forget(&id);
    assert_eq!(sampler.last(&id, 1), None);
    assert_eq!(clock.next_due(), None);
}
