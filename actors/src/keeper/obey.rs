//! What each request does, and what the runtime is told about a child.

use std::os::fd::OwnedFd;

use super::children::Entry;
use super::exec::Launched;
use super::family;
use super::serve::{Keeper, Phase};
use super::spec::{ChildKey, DeathPolicy, ProcessId, SpawnFault, SpawnSpec, Stage};
use super::wire::{Event, MAX_MEMFD, Request};

/// The key in the answer to a request that could not be read.
const NO_KEY: ChildKey = ChildKey(u64::MAX);

/// Room for a module's words while no runtime reads them.
const PATIENT_PIPE: usize = 1024 * 1024;

impl Keeper {
    pub(super) fn obey(&mut self, request: Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Hello { .. } => {}
            Request::Spawn { key, spec } => self.spawn(key, *spec),
            Request::SpawnInMemfd { key } => self.spawn_from_memfd(key, &fds),
            Request::Signal { key, signal, scope } => {
                if let Err(errno) = self.signal(key, signal, scope) {
                    self.outbox.push_back(Event::Failed { key, errno });
                }
            }
            Request::Kill { key } => self.begin_kill(key),
            Request::Ack { key } => self.acknowledge(key),
            Request::List => self.list(),
            Request::Shutdown => self.phase = Phase::Ending,
            Request::Policy(DeathPolicy::Keep) if !self.door.is_open() => {
                self.outbox.push_back(Event::Failed {
                    key: NO_KEY,
                    errno: libc::EINVAL,
                });
            }
            Request::Policy(policy) => self.policy = policy,
            Request::Store { tag } => {
                if let Err(errno) = self.store.put(tag, fds) {
                    self.outbox.push_back(Event::Failed { key: NO_KEY, errno });
                }
            }
            Request::Unstore { tag } => self.store.remove(&tag),
        }
    }

    pub(super) fn refuse_unread(&mut self) {
        self.outbox.push_back(Event::Failed {
            key: NO_KEY,
            errno: libc::EBADMSG,
        });
    }

    fn spawn(&mut self, key: ChildKey, spec: SpawnSpec) {
        let at_request = |errno| {
            Err(SpawnFault {
                stage: Stage::Request,
                errno,
            })
        };
        let launched = if self.children.contains(key) {
            at_request(libc::EEXIST)
        } else if self.phase != Phase::Serving {
            at_request(libc::ESHUTDOWN)
        } else {
            self.launcher.launch(&spec)
        };
        match launched {
            Ok(Launched { pid, streams }) => {
                if self.first {
                    // The kernel wakes this before the new program's first instruction, often on the same processor:
                    // whoever waits for a module waits for that, and not for the news of it.
                    std::thread::yield_now();
                }
                let start_ticks = family::start_ticks(pid).unwrap_or(0);
                let entry = Entry {
                    process: ProcessId { pid, start_ticks },
                    stop_signal: spec.stop_signal,
                    marker: spec.marker,
                    cgroups: spec.cgroups,
                    streams,
                    status: None,
                    empty: false,
                    acked: false,
                    killing: false,
                    due: Default::default(),
                };
                self.children.insert(key, entry);
                self.children.owe(key, |due| due.spawned = true);
            }
            Err(fault) => self.outbox.push_back(Event::SpawnFailed { key, fault }),
        }
    }

    /// The memory goes back to the kernel at once: a request this large is an exception.
    fn spawn_from_memfd(&mut self, key: ChildKey, fds: &[OwnedFd]) {
        let read = fds.first().and_then(|memfd| read_whole(memfd).ok());
        match read.as_deref().map(Request::decode) {
            Some(Ok(Request::Spawn { key: inner, spec })) if inner == key => self.spawn(key, *spec),
            _ => {
                let fault = SpawnFault {
                    stage: Stage::Request,
                    errno: libc::EBADMSG,
                };
                self.outbox.push_back(Event::SpawnFailed { key, fault });
            }
        }
    }

    fn acknowledge(&mut self, key: ChildKey) {
        let Some(entry) = self.children.get_mut(key) else {
            return;
        };
        if entry.status.is_none() || entry.due.exited {
            self.outbox.push_back(Event::Failed {
                key,
                errno: libc::EBUSY,
            });
            return;
        }
        entry.acked = true;
        entry.streams.clear();
        self.forget_if_finished(key);
    }

    pub(super) fn forget_if_finished(&mut self, key: ChildKey) {
        if let Some(entry) = self.children.forget_finished(key) {
            let ours = entry.cgroups.into_iter().filter(|group| group.ours);
            self.chores.add(ours);
        }
    }

    pub(super) fn forget_all_finished(&mut self) {
        for key in self.children.keys() {
            self.forget_if_finished(key);
        }
    }

    fn list(&mut self) {
        self.store.list();
        let keys = self.children.keys();
        self.listing = Some(keys.len());
        for key in keys {
            self.children.owe(key, |due| due.listed = true);
        }
        self.end_list(0);
    }

    fn end_list(&mut self, told: usize) {
        self.listing = self.listing.map(|left| left.saturating_sub(told));
        if self.listing == Some(0) {
            self.listing = None;
            self.outbox.push_back(Event::ListEnd);
        }
    }

    /// Tells the runtime everything that is due about one child, or stops where it cannot.
    pub(super) fn tell(&mut self, key: ChildKey) {
        let Some(entry) = self.children.get(key) else {
            return self.children.told();
        };
        let (due, process) = (entry.due, entry.process);
        if due.listed {
            let event = Event::Listed {
                key,
                process,
                marker: entry.marker.clone(),
                status: entry.status,
                tree_empty: entry.empty,
            };
            event.encode(&mut self.scratch);
            if self.transmit(Some(key)) {
                self.children.told();
                self.end_list(1);
                self.forget_if_finished(key);
            }
            return;
        }
        if due.spawned {
            Event::Spawned { key, process }.encode(&mut self.scratch);
            if !self.transmit(Some(key)) {
                return;
            }
            self.children.owe(key, |due| due.spawned = false);
        }
        self.tell_end(key);
    }

    fn tell_end(&mut self, key: ChildKey) {
        let Some(entry) = self.children.get(key) else {
            return;
        };
        let event = match entry.status {
            Some(status) if entry.due.exited => Event::Exited {
                key,
                status,
                tree_empty: entry.empty,
            },
            _ if entry.due.empty => Event::Empty { key },
            _ => return self.children.told(),
        };
        event.encode(&mut self.scratch);
        if self.transmit(None) {
            self.children.told();
            self.forget_if_finished(key);
        }
    }

    /// No runtime: the children go on, with more room for what they say.
    pub(super) fn wait_for_the_next(&mut self) {
        self.phase = Phase::Waiting;
        for (_, entry) in self.children.iter() {
            for stream in &entry.streams {
                // Refused where the user's pipes take too much memory already: they wait sooner, no more.
                let _ = rustix::pipe::fcntl_setpipe_size(stream, PATIENT_PIPE);
            }
        }
    }
}

fn read_whole(memfd: &OwnedFd) -> std::io::Result<Vec<u8>> {
    let size = usize::try_from(rustix::fs::fstat(memfd)?.st_size).unwrap_or(usize::MAX);
    if size > MAX_MEMFD {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(memfd, rest, filled as u64)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => filled += length,
        }
    }
    Ok(bytes)
}
