//! A systemd scope for the keeper and the modules, beside the service that lair is.
//!
//! A service that starts again gets its first process put into the top of its group, and the kernel refuses that (EBUSY)
//! where the group passes controllers on, as it must while modules with limits live below it. In a scope of their own
//! they are also out of the reach of what is done to the service: its KillMode, `systemctl kill`, its own limits.
//!
//! Promises: one bounded question to the manager, by its private socket, which needs neither a bus nor a program. Never:
//! moves anything but the keeper, nor into a group that was not given away.

use super::find::LEAF;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a scope is called, after its service's name.
const SUFFIX: &str = "-modules.scope";

/// How long the manager may take for an answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Time between two looks at what the manager does, and how many.
const LOOK: Duration = Duration::from_millis(10);
const LOOKS: u32 = 300;

/// The longest answer that is read.
const LONGEST: usize = 1 << 16;

/// Whether a group is that of a service.
pub(super) fn is_service(group: &Path) -> bool {
    group.extension().is_some_and(|kind| kind == "service")
}

/// Whether a group belongs to a user's own manager, which marks nothing: all below it is that user's.
pub(super) fn is_users(group: &Path) -> bool {
    user(group).is_some()
}

/// Whether a group is a scope that was made here, and so given away.
pub(super) fn is_ours(group: &Path) -> bool {
    let name = group.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.ends_with(SUFFIX))
}

/// Puts the keeper into the scope `<service>-modules.scope`, made or found; returns the scope's name when it is there.
/// `place` tells which group the keeper is in.
///
/// # Errors
/// Why it could not be done, as words. The keeper is then where it was.
pub(super) fn enter(
    keeper: i32,
    service: &Path,
    place: impl Fn() -> Option<PathBuf>,
) -> Result<String, String> {
    let stem = service.file_stem().unwrap_or_default().to_string_lossy();
    let unit = format!("{stem}.service");
    let name = format!("{stem}{SUFFIX}");
    let slice = service.parent().and_then(Path::file_name);
    let slice = slice.map(|slice| slice.to_string_lossy().into_owned());
    let slice = slice.filter(|slice| slice.ends_with(".slice"));
    let before = place();
    for _ in 0..LOOKS {
        let body = request(&name, &unit, slice.as_deref(), keeper);
        match ask(&manager(service), "StartTransientUnit", &body)
            .map_err(|e| format!("{}: {e}", manager(service).display()))?
        {
            Answer::Done => return until_moved(&before, place).map(|()| name),
            Answer::Refused { code, .. } if code.ends_with(".UnitExists") => {
                // Of an earlier keeper, with modules in it; or one that is just about to go.
                let leaf = service.with_file_name(&name).join(LEAF);
                if fs::write(leaf.join("cgroup.procs"), keeper.to_string()).is_ok() {
                    return Ok(name);
                }
            }
            Answer::Refused { code, text } => return Err(format!("{text} ({code})")),
        }
        pause();
    }
    Err(format!("{name} is there and can't be entered"))
}

/// The answer comes when the work is queued, not when it is done.
fn until_moved(
    before: &Option<PathBuf>,
    place: impl Fn() -> Option<PathBuf>,
) -> Result<(), String> {
    for _ in 0..LOOKS {
        if place() != *before {
            return Ok(());
        }
        pause();
    }
    Err("it was promised and not done".to_owned())
}

#[allow(
    clippy::disallowed_methods,
    reason = "nothing announces it, and there is no runtime yet whose clock could be used"
)]
fn pause() {
    std::thread::sleep(LOOK);
}

/// Where the manager of this service listens: the machine's, or that of one user.
fn manager(service: &Path) -> PathBuf {
    match user(service) {
        Some(uid) => format!("/run/user/{uid}/systemd/private").into(),
        None => "/run/systemd/private".into(),
    }
}

/// Below whose manager a group is.
fn user(group: &Path) -> Option<u32> {
    group.iter().find_map(|part| {
        let part = part.to_str()?.strip_prefix("user@")?;
        part.strip_suffix(".service")?.parse().ok()
    })
}

/// The arguments of StartTransientUnit (org.freedesktop.systemd1(5)), `ssa(sv)a(sa(sv))`.
fn request(name: &str, unit: &str, slice: Option<&str>, keeper: i32) -> Vec<u8> {
    let mut body = Wire::default();
    body.string(name).string("fail");
    body.array(8, |list| {
        list.property("Description", "s", |v| {
            v.string(&format!("Modules of {unit}"));
        });
        list.property("PIDs", "au", |v| {
            v.array(4, |pids| {
                pids.number(keeper.unsigned_abs());
            });
        });
        list.property("Delegate", "b", |v| {
            v.number(1);
        });
        // Each module has its own limit.
        list.property("TasksMax", "t", |v| {
            v.align(8).0.extend(u64::MAX.to_le_bytes());
        });
        // At shutdown lair ends first, and ends its modules itself.
        list.property("Before", "as", |v| {
            v.array(4, |units| {
                units.string(unit);
            });
        });
        // One that has seen a module run out of memory counts as failed, and would keep its name taken.
        list.property("CollectMode", "s", |v| {
            v.string("inactive-or-failed");
        });
        if let Some(slice) = slice {
            list.property("Slice", "s", |v| {
                v.string(slice);
            });
        }
    });
    body.array(8, |_| {});
    body.0
}

/// What a manager answers.
enum Answer {
    Done,
    Refused { code: String, text: String },
}

/// One call to a manager, over a connection of its own (D-Bus Specification: authentication, message format).
fn ask(socket: &Path, member: &str, body: &[u8]) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
    stream.set_write_timeout(Some(ANSWERS_WITHIN))?;
    let uid = rustix::process::geteuid().as_raw().to_string();
    let uid: String = uid.bytes().map(|digit| format!("{digit:02x}")).collect();
    stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
    let said = line(&mut stream)?;
    if !said.starts_with("OK") {
        return Err(io::Error::other(format!("it says {said}")));
    }
    stream.write_all(b"BEGIN\r\n")?;
    stream.write_all(&call(member, body))?;
    loop {
        if let Some(answer) = answer(&mut stream)? {
            return Ok(answer);
        }
    }
}

fn line(stream: &mut UnixStream) -> io::Result<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n") && text.len() < LONGEST {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        text.extend(byte);
    }
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
}

/// A whole message: a method call of systemd's manager with these arguments.
fn call(member: &str, body: &[u8]) -> Vec<u8> {
    let mut message = Wire(vec![b'l', 1, 0, 1]);
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    message.number(length).number(1);
    message.array(8, |fields| {
        fields.field(1, "o", "/org/freedesktop/systemd1");
        fields.field(2, "s", "org.freedesktop.systemd1.Manager");
        fields.field(3, "s", member);
        fields.field(6, "s", "org.freedesktop.systemd1");
        fields.align(8).0.push(8);
        fields.signature("g").signature("ssa(sv)a(sa(sv))");
    });
    message.align(8).0.extend(body);
    message.0
}

/// Reads one message; `None` if it is neither a return nor an error.
fn answer(stream: &mut UnixStream) -> io::Result<Option<Answer>> {
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    let number = |bytes: &[u8]| {
        let bytes = bytes.try_into().unwrap_or_default();
        let value = if head[0] == b'l' {
            u32::from_le_bytes(bytes)
        } else {
            u32::from_be_bytes(bytes)
        };
        value as usize
    };
    let fields = number(&head[12..16]);
    let rest = fields
        .next_multiple_of(8)
        .saturating_add(number(&head[4..8]));
    if rest > LONGEST {
        return Err(io::Error::other("its answer is too long"));
    }
    let mut rest = vec![0; rest];
    stream.read_exact(&mut rest)?;
    Ok(match head[1] {
        2 => Some(Answer::Done),
        3 => {
            let (fields, body) = rest.split_at(fields.next_multiple_of(8));
            let text = body.get(4..).unwrap_or_default();
            let text = text.split(|b| *b == 0).next().unwrap_or_default();
            Some(Answer::Refused {
                code: error_name(fields),
                text: String::from_utf8_lossy(text).into_owned(),
            })
        }
        _ => None,
    })
}

/// The only field of an answer that is a name with dots and not that of the sender's service.
fn error_name(fields: &[u8]) -> String {
    let words = fields.split(|b| !b.is_ascii_alphanumeric() && *b != b'.');
    let mut words = words.filter_map(|word| std::str::from_utf8(word).ok());
    let known = words
        .find(|word| word.contains(".Error.") || word.starts_with("org.freedesktop.systemd1."));
    known.unwrap_or("no code").to_owned()
}

/// Values in D-Bus' wire format, little endian.
#[derive(Default)]
struct Wire(Vec<u8>);

impl Wire {
    fn align(&mut self, to: usize) -> &mut Self {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
        self
    }

    fn number(&mut self, value: u32) -> &mut Self {
        self.align(4).0.extend(value.to_le_bytes());
        self
    }

    fn string(&mut self, text: &str) -> &mut Self {
        self.number(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
        self
    }

    fn signature(&mut self, text: &str) -> &mut Self {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
        self
    }

    /// Its length does not count what stands between it and the first element.
    fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Self)) {
        self.number(0);
        let at = self.0.len();
        self.align(alignment);
        let begun = self.0.len();
        fill(self);
        let length = u32::try_from(self.0.len() - begun).unwrap_or(u32::MAX);
        self.0[at - 4..at].copy_from_slice(&length.to_le_bytes());
    }

    fn property(&mut self, name: &str, kind: &str, value: impl FnOnce(&mut Self)) {
        self.align(8).string(name).signature(kind);
        value(self);
    }

    fn field(&mut self, code: u8, kind: &str, value: &str) {
        self.align(8).0.push(code);
        self.signature(kind).string(value);
    }
}
