//! What a native module may still do: read from the kernel for real children, and the ways out tried and failed.

mod support;

use lair::WaitFor;
use lair::actors::status::ModuleStatus;
use std::fs::{self, Permissions};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Lair, asker, sh};

const NOBODY: u32 = 65534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A line of `/proc/PID/status`.
fn field(pid: i32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = text.lines().find_map(|l| l.strip_prefix(name)).expect(name);
    line.trim_start_matches(':').trim().to_owned()
}

/// A manifest with more keys under `native:`.
fn native(name: &str, script: &str, keys: &str) -> String {
    sh(name, script, "").replace("native: {", &format!("native: {{ {keys}, "))
}

/// Starts it and waits until it has printed this many lines.
async fn said(lair: &Lair, manifest: &str, lines: usize) -> Vec<String> {
    lair.load(manifest).await.unwrap_or_else(|e| panic!("{e}"));
    lair.handle.start("m", asker()).await.expect("a start");
    let text = || String::from_utf8_lossy(&lair.output("m", "stdout")).into_owned();
    lair.until("m", "having said it all", |s| {
        assert_ne!(s.state, "failed", "{s:#?}");
        text().lines().count() >= lines
    })
    .await;
    text().lines().map(str::to_owned).collect()
}

fn pid(status: &ModuleStatus) -> i32 {
    status.pid.expect("a process")
}

#[tokio::test]
async fn a_module_runs_without_capabilities_and_can_gain_none_and_status_says_so() {
    let lair = Lair::start("caps").await;
    lair.sh("m", "exec sleep 1000", "").await;
    let up = lair.wait("m", WaitFor::Ready).await;
    let pid = pid(&up);
    assert_eq!(field(pid, "NoNewPrivs"), "1");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(pid, set), "0".repeat(16), "{set}");
    }
    let told = up.confinement.expect("what holds it");
    assert!(
        told.no_new_privs && told.capabilities.is_empty(),
        "{told:?}"
    );
    assert_eq!(told.uid, rustix::process::geteuid().as_raw());
    assert_eq!((told.sandbox, told.seccomp.as_str()), (None, "none"));
    lair.end().await;
}

#[tokio::test]
async fn what_is_kept_is_exactly_what_the_manifest_names() {
    if !is_root() {
        return;
    }
    let lair = Lair::start("kept").await;
    for user in ["user: nobody", "workdir: /"] {
        let keys = format!("{user}, cap_add: [NET_BIND_SERVICE, CAP_IPC_LOCK]");
        lair.load(&native("m", "exec sleep 1000", &keys))
            .await
            .expect("loaded");
        lair.handle.start("m", asker()).await.expect("a start");
        let up = lair.wait("m", WaitFor::Ready).await;
        let wanted = format!("{:016x}", 1 << 10 | 1 << 14);
        assert_eq!(field(pid(&up), "CapEff"), wanted, "{user}");
        assert_eq!(
            up.confinement.expect("told").capabilities,
            ["NET_BIND_SERVICE", "IPC_LOCK"]
        );
        lair.stop("m").await;
    }
    let wrong = native("m", "true", "cap_add: [EVERYTHING]");
    let refused = lair.load(&wrong).await.expect_err("no such thing");
    assert_eq!(refused.code, "invalid_manifest");
    lair.end().await;
}

/// The user's own folder and the socket of readiness lie below lair's folders, which are not for others.
#[tokio::test]
async fn a_module_of_another_user_reaches_its_folder_and_says_that_it_is_ready() {
    if !is_root() {
        return;
    }
    let lair = Lair::start("user").await;
    let perl = "use IO::Socket::UNIX; use Socket; \
        my $s = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Peer => $ENV{NOTIFY_SOCKET}) or die $!; \
        open(my $f, '>', \\\"$ENV{DATA}/mine\\\") or die $!; close $f; \
        $s->send('READY=1'); sleep 1000";
    let manifest = format!(
        "name: m\nruntime:\n  native: {{ command: [perl, -e, \"{perl}\"], workdir: /, user: nobody, env: {{ DATA: \"${{module.data}}\" }} }}\n  health: {{ startup: {{ notify: true, deadline: 20s }} }}\n"
    );
    lair.load(&manifest).await.unwrap_or_else(|e| panic!("{e}"));
    lair.handle.start("m", asker()).await.expect("a start");
    let up = lair.wait("m", WaitFor::Ready).await;
    let pid = pid(&up);
    assert_eq!(field(pid, "Uid").split_whitespace().next(), Some("65534"));
    assert_eq!(field(pid, "CapEff"), "0".repeat(16));
    let environ = fs::read(format!("/proc/{pid}/environ")).expect("its environment");
    let environ = String::from_utf8_lossy(&environ).into_owned();
    assert!(
        environ.contains("USER=nobody") && !environ.contains("HOME=/root"),
        "{environ}"
    );
    assert_eq!(up.confinement.expect("told").uid, NOBODY);
    lair.end().await;
}

#[tokio::test]
async fn without_a_network_a_module_reaches_nothing_but_itself() {
    let lair = Lair::start("nonet").await;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let script = format!(
        "perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(PeerAddr => \"127.0.0.1:{port}\") ? \"reached\" : \"cut\", \"\\n\"; \
         my $l = IO::Socket::INET->new(Listen => 1, LocalAddr => \"127.0.0.1:7777\") or die; \
         print IO::Socket::INET->new(PeerAddr => \"127.0.0.1:7777\") ? \"itself\" : \"alone\", \"\\n\"'; \
         grep -c : /proc/net/dev; exec sleep 1000"
    );
    let lines = said(
        &lair,
        &native("m", &script, "sandbox: { network: none }"),
        3,
    )
    .await;
    assert_eq!(lines, ["cut", "itself", "1"]);
    let up = lair.status("m");
    let ours = fs::read_link("/proc/self/ns/net").expect("ours");
    assert_ne!(
        fs::read_link(format!("/proc/{}/ns/net", pid(&up))).expect("its"),
        ours
    );
    let held = up.confinement.and_then(|c| c.sandbox).expect("a sandbox");
    assert_eq!((held.network.as_str(), held.complete), ("none", true));
    lair.end().await;
}

#[tokio::test]
async fn a_module_touches_only_the_files_it_was_given() {
    let lair = Lair::start("files").await;
    let at = |name: &str| lair.home.path().join(name);
    for folder in ["in", "out", "else"] {
        fs::create_dir(at(folder)).expect("a folder");
        fs::write(at(folder).join("f"), "text").expect("a file");
    }
    let home = lair.home.path().display();
    let script = format!(
        "cd {home}; try() {{ if eval \"$1\" 2>/dev/null; then echo yes; else echo no; fi; }}; \
         try 'cat in/f >/dev/null'; try 'echo x > in/g'; try 'echo x > out/g'; try 'cat else/f'; \
         try 'ls else'; try 'echo x > else/g'; try 'cat /etc/passwd'; try 'ln -s {home}/else out/l && cat out/l/f'; \
         try 'cat /proc/self/environ'; try 'mv in/f out/'; exec sleep 1000"
    );
    let keys = "workdir: /, sandbox: { filesystem: { read: [in], write: [out] } }";
    let manifest = native("m", &script, keys);
    let lines = said(&lair, &manifest, 10).await;
    assert_eq!(
        lines,
        ["yes", "no", "yes", "no", "no", "no", "no", "no", "no", "no"]
    );
    let held = lair
        .status("m")
        .confinement
        .and_then(|c| c.sandbox)
        .expect("a sandbox");
    assert!(
        held.complete && held.landlock_abi.is_some_and(|abi| abi >= 1),
        "{held:?}"
    );
    assert_eq!(held.write, Some(vec![at("out").display().to_string()]));
    lair.stop("m").await;

    let missing = manifest.replace("read: [in]", "read: [nowhere]");
    lair.load(&missing).await.expect("loaded");
    lair.handle.start("m", asker()).await.expect("asked");
    let down = lair.until("m", "refused", |s| s.state == "failed").await;
    let why = down.reason.expect("a reason");
    assert_eq!(why.code, "start_failed");
    assert!(why.message.contains("/nowhere in its sandbox"), "{why:?}");
    lair.end().await;
}

#[tokio::test]
async fn a_module_uses_only_the_tcp_ports_it_was_given() {
    if lair::actors::keeper::landlock_abi() < 4 {
        eprintln!("missing: Landlock for TCP (Linux 6.7)");
        return;
    }
    let lair = Lair::start("tcp").await;
    let (good, bad) = (listener(), listener());
    let (free, taken) = (free_port(), free_port());
    let script = format!(
        "perl -MIO::Socket::INET -e 'for ({}, {}) {{ print IO::Socket::INET->new(PeerAddr => \"127.0.0.1:$_\") ? \"yes\" : \"no\", \"\\n\" }} \
         for ({free}, {taken}) {{ print IO::Socket::INET->new(Listen => 1, LocalAddr => \"127.0.0.1:$_\") ? \"yes\" : \"no\", \"\\n\" }}'; exec sleep 1000",
        port(&good),
        port(&bad)
    );
    let keys = format!(
        "sandbox: {{ tcp: {{ bind: [api], connect: [{}] }} }}",
        port(&good)
    );
    let manifest = native("m", &script, &keys) + &format!("  ports: {{ api: {free} }}\n");
    assert_eq!(said(&lair, &manifest, 4).await, ["yes", "no", "yes", "no"]);
    lair.end().await;
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a port")
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("an address").port()
}

fn free_port() -> u16 {
    port(&listener())
}

/// Escapes tried by a module of lair's own user, with lair privileged.
#[tokio::test]
async fn a_module_of_lairs_own_user_reads_nothing_of_lair_through_proc() {
    let lair = Lair::start("proc").await;
    let (me, keeper) = (std::process::id(), lair.keeper().expect("a keeper"));
    if !is_root() {
        lair.end().await;
        return;
    }
    let script = format!(
        "for p in {me} {keeper}; do for f in environ mem maps fd/0 root/etc/shadow; do \
         if cat /proc/$p/$f >/dev/null 2>&1; then echo read $p $f; fi; done; done; echo done; \
         ls /proc/self/fd | wc -l; exec sleep 1000"
    );
    let lines = said(&lair, &sh("m", &script, ""), 2).await;
    // `ls` has three of its own and the folder it lists.
    assert_eq!(lines, ["done", "4"]);
    lair.end().await;
}

/// A setuid program is run with its caller's rights.
#[tokio::test]
async fn a_setuid_program_gives_a_module_nothing() {
    if !is_root() {
        return;
    }
    let lair = Lair::start("setuid").await;
    let copy = lair.home.path().join("id");
    fs::copy("/usr/bin/id", &copy).expect("a copy");
    chown(&copy, Some(0), Some(0)).expect("root's");
    fs::set_permissions(&copy, Permissions::from_mode(0o4755)).expect("setuid");
    let outside = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .arg("-u")
        .output()
        .expect("setpriv");
    assert_eq!(outside.stdout, b"0\n", "outside of lair it gives root");
    let script = format!("{} -u; exec sleep 1000", copy.display());
    let keys = "user: nobody, workdir: /";
    assert_eq!(said(&lair, &native("m", &script, keys), 1).await, ["65534"]);
    lair.end().await;
}

/// `lair run` as `nobody`, with a secret in its environment; what the module printed, and what lair did.
fn run_as_nobody(home: &Path, manifest: &str) -> (String, String) {
    let program = home.join("lair");
    let built = Path::new(env!("CARGO_BIN_EXE_lair"));
    if !program.exists() && fs::hard_link(built, &program).is_err() {
        fs::copy(built, &program).expect("the program");
    }
    let path = home.join("m.yaml");
    fs::write(&path, manifest).expect("a manifest");
    chown(home, Some(NOBODY), Some(NOBODY)).expect("its folder");
    let mut child = nobody(&program)
        .arg("run")
        .arg(&path)
        .env_clear()
        .env("HOME", home)
        .env("PATH", "/usr/bin:/bin")
        .env("SECRET", "canary-in-the-environment")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("lair");
    let (mut out, mut err) = (String::new(), String::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    stdout.expect("out").read_to_string(&mut out).expect("text");
    stderr.expect("err").read_to_string(&mut err).expect("text");
    child.wait().expect("its end");
    (out, err)
}

fn nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(program);
    command
}

/// By a user namespace, since the right to a network of its own is root's.
#[tokio::test]
async fn an_unprivileged_lair_confines_as_well() {
    if !is_root() {
        return;
    }
    let home = support::Home::new("unprivileged");
    let script = "grep -E '^(NoNewPrivs|CapEff):' /proc/self/status | tr -d '\\t'; grep -c : /proc/net/dev; id -u";
    let manifest = native("m", script, "sandbox: { network: none }");
    let (out, err) = run_as_nobody(home.path(), &manifest);
    let lines: Vec<&str> = out.lines().collect();
    let wanted = ["CapEff:0000000000000000", "NoNewPrivs:1", "1", "65534"];
    assert_eq!(lines, wanted, "{err}");
}

/// The same user may read the environment of any of its processes, but not lair's.
#[tokio::test]
async fn an_unprivileged_lair_keeps_its_environment_from_its_modules() {
    if !is_root() {
        return;
    }
    let home = support::Home::new("environ");
    let mut plain = nobody(Path::new("/bin/sleep"))
        .arg("1000")
        .env("SECRET", "canary-of-a-plain-process")
        .spawn()
        .expect("a plain process");
    let script = "for what in canary-of-a-plain canary-in-the-env; do \
        if cat /proc/[0-9]*/environ 2>/dev/null | grep -qa $what; then echo found; else echo kept; fi; done";
    let (out, err) = run_as_nobody(home.path(), &native("m", script, "workdir: /"));
    plain.kill().expect("its end");
    plain.wait().expect("its end");
    assert_eq!(out, "found\nkept\n", "{err}");
}
