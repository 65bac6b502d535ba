"""The supervisors, each configured alike: restart always, output into rotating files of 64 MiB."""
import json
import os
import pathlib
import shlex
import signal
import subprocess

ROTATE, KEEP = 64 << 20, 200


class Contestant:
    most = 1000  # modules it takes
    pipelines = False

    def __init__(self, tools):
        self.tools = tools

    def prepare(self, work, modules): ...
    def command(self, work): ...
    def logs(self, work, name): ...
    def query(self, work, name): return None
    def ready(self, work): return True

    def stop(self, work, process):
        process.send_signal(signal.SIGTERM)


class Limit(Contestant):
    """vfork and two pipes a module, nothing else; for logs: read and write."""
    name = "limit"

    def prepare(self, work, modules):
        self.modules = modules
        (work / "log").mkdir()

    def command(self, work):
        first = list(self.modules.values())[0]
        if first[1] == "write":
            return [self.tools / "tool", "sink", work / "log", ROTATE, "--", *first]
        return [self.tools / "tool", "spawn", first[1], len(self.modules), first[0]]

    def logs(self, work, name):
        return sorted((work / "log").iterdir())

    def query(self, work, name):
        return ["/bin/true"]


class Lair(Contestant):
    name, form, pipelines = "lair", "cri", True

    def prepare(self, work, modules):
        (work / "config.yaml").write_text(
            "runtime:\n  native_enabled: true\n  docker_enabled: false\n  default_mode: native\n"
            f"  state_dir: {work}/state\n  log_dir: {work}/log\n  run_dir: {work}/run\n  socket: {work}/lair.sock\n")
        stack = "modules:\n"
        for name, argv in modules.items():
            stack += f"""- name: {name}
  category: tool
  version: 0.1.0
  description: a module of the bench
  license: Apache-2.0
  runtime:
    modes: [native]
    native: {{ command: {json.dumps([str(a) for a in argv])} }}
    restart: {{ policy: always, max: 10000, within: 1m, backoff: {{ first: 0s, cap: 0s }} }}
    logs: {{ max_size: {ROTATE}B, max_files: {KEEP}, compress: false, format: {self.form} }}
"""
        (work / "stack.yaml").write_text(stack)

    def command(self, work):
        return [os.environ["LAIR_BIN"], "up", "--quiet", "--config", work / "config.yaml", work / "stack.yaml"]

    def logs(self, work, name):
        # RUN.SEGMENT...: by number, for the tenth segment comes after the second.
        def place(path):
            return [int(n) for n in path.name.split(".")[:2]]
        files = (p for p in (work / "log" / name).glob("*") if not p.is_symlink() and "stderr" not in p.name)
        return sorted(files, key=place)

    def query(self, work, name):
        return [os.environ["LAIR_BIN"], "status", name, "--socket", work / "lair.sock"]

    def ready(self, work):
        return (work / "lair.sock").exists()


class LairRaw(Lair):
    """The same with `logs: { format: raw }`: no time stamps, as the others."""
    name, form = "lair-raw", "raw"


class Runit(Contestant):
    name, most = "runit", 999  # runsvdir takes 1000 entries and no more

    def prepare(self, work, modules):
        for name, argv in modules.items():
            service = work / "service" / name
            (service / "log").mkdir(parents=True)
            logs = work / "log" / name
            logs.mkdir(parents=True)
            (logs / "config").write_text(f"s{ROTATE}\nn{KEEP}\n")
            script(service / "run", argv)
            script(service / "log/run", ["svlogd", logs])

    def command(self, work):
        return ["runsvdir", "-P", work / "service"]

    def stop(self, work, process):
        process.send_signal(signal.SIGHUP)

    def logs(self, work, name):
        return sorted((work / "log" / name).glob("@*")) + [work / "log" / name / "current"]

    def query(self, work, name):
        return ["sv", "status", work / "service" / name]


class S6(Contestant):
    name = "s6"

    def prepare(self, work, modules):
        for name, argv in modules.items():
            (work / "scan" / name / "log").mkdir(parents=True)
            (work / "log").mkdir(exist_ok=True)
            script(work / "scan" / name / "run", argv)
            script(work / "scan" / name / "log/run", ["s6-log", "-b", f"n{KEEP}", f"s{ROTATE}", work / "log" / name])

    def command(self, work):
        return ["s6-svscan", "-c", 4000, work / "scan"]

    def logs(self, work, name):
        return sorted((work / "log" / name).glob("@*")) + [work / "log" / name / "current"]

    def query(self, work, name):
        return ["s6-svstat", work / "scan" / name]


class Supervisord(Contestant):
    name = "supervisord"

    def prepare(self, work, modules):
        (work / "log").mkdir()
        text = f"""[supervisord]
nodaemon=true
logfile={work}/supervisord.log
pidfile={work}/pid
minfds=8000
minprocs=4000
[unix_http_server]
file={work}/sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{work}/sock
"""
        for name, argv in modules.items():
            text += f"[program:{name}]\ncommand={shlex.join(map(str, argv))}\nautorestart=true\nstartsecs=0\n"
            for stream in ("stdout", "stderr"):
                text += f"{stream}_logfile={work}/log/{name}.{stream}\n{stream}_logfile_maxbytes={ROTATE}\n{stream}_logfile_backups={KEEP}\n"
        (work / "conf").write_text(text)

    def command(self, work):
        return ["supervisord", "-c", work / "conf"]

    def logs(self, work, name):
        number = lambda p: -int(p.suffix[1:]) if p.suffix[1:].isdigit() else 1
        return sorted((work / "log").glob(f"{name}.stdout*"), key=number)

    def query(self, work, name):
        return ["supervisorctl", "-c", work / "conf", "status", name]

    def ready(self, work):
        return (work / "sock").exists()


def script(path, argv):
    path.write_text(f"#!/bin/sh\nexec {shlex.join(map(str, argv))}\n")
    path.chmod(0o755)


def versions():
    def of(*argv):
        return subprocess.run(argv, capture_output=True, text=True).stdout.partition("\n")[0] or "?"
    packages = [f"{p} {of('dpkg-query', '-W', '-f', '${Version}', p)}" for p in ("runit", "s6", "supervisor")]
    return ", ".join([of(os.environ["LAIR_BIN"], "--version"), *packages])


ALL = [Limit, Lair, LairRaw, Runit, S6, Supervisord]
