#!/usr/bin/python3
"""lair beside each engine's own command: containers of a tiny image from start to removal, and lair's memory for those that run.

`life`: each says a word and ends; who waits has its code and its output, and nothing of it is left. By command that is
`run -d`, `wait`, `logs`, `rm`, one after the other as in a script, and again with as many at a time as lair has in flight.
`hold`: all run; lair is asked for its memory, and then stops them all."""
import argparse
import concurrent.futures
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

IN_FLIGHT = 8


def engine(name):
    at = os.environ.get(f"LAIR_TEST_{name.upper()}")
    if not at:
        sys.exit(f"{name} is not there: " + os.environ.get(f"LAIR_TEST_{name.upper()}_WHY", 'eval "$(tests/checks/machine)"'))
    return at


def image():
    return "lair-test/base:" + os.environ["LAIR_TEST_IMAGES"]


class Lair:
    """`lair up` with N containers of one engine."""

    def __init__(self, name, n, script):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="lair-bench-", dir="/dev/shm"))
        self.names = [f"m{i:03d}" for i in range(n)]
        w = self.work
        (w / "config.yaml").write_text(
            f"runtime:\n  state_dir: {w}/state\n  log_dir: {w}/log\n  run_dir: {w}/run\n  socket: {w}/lair.sock\n")
        (w / "stack.yaml").write_text("modules:\n" + "".join(
            f"- name: {m}\n  runtime:\n    container: {{ image: '{image()}', engine: {name}, command: {json.dumps(['/bin/sh', '-c', script])} }}\n"
            for m in self.names))
        env = dict(os.environ, CONTAINER_HOST=engine("podman"), DOCKER_HOST=engine("docker"))
        self.said = open(w / "said", "w+")
        self.begun = time.monotonic()
        self.process = subprocess.Popen([os.environ["LAIR_BIN"], "up", "--quiet", "--config", w / "config.yaml", w / "stack.yaml"],
                                        env=env, stdin=subprocess.DEVNULL, stdout=self.said, stderr=self.said)

    def tell(self):
        self.said.seek(0)
        return self.said.read()[-500:]

    def modules(self):
        """Each module's status, or none before it answers."""
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(20)
                s.connect(str(self.work / "lair.sock"))
                s.sendall(b'{"jsonrpc":"2.0","id":1,"method":"module.list","params":{}}\n')
                line = s.makefile().readline()
            return json.loads(line)["result"]["modules"]
        except (OSError, KeyError, ValueError):
            return []

    def until(self, so, what):
        for _ in range(6000):
            known = self.modules()
            bad = [m for m in known if m["state"] == "failed"]
            if bad or self.process.poll() is not None:
                break
            if len(known) == len(self.names) and all(so(m) for m in known):
                return known
            time.sleep(0.02)
        self.process.kill()
        sys.exit(f"bench: not every container is {what}: {(bad or [None])[0]} {self.tell()}")

    def pids(self):
        mine, found = self.process.pid, [self.process.pid]
        for p in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if int((p / "stat").read_text().rsplit(") ", 1)[1].split()[1]) == mine:
                    found.append(int(p.name))
            except (OSError, ValueError):
                pass
        return found

    def kib(self):
        return sum(int(l.split()[1]) for p in self.pids() for l in pathlib.Path(f"/proc/{p}/smaps_rollup").read_text().splitlines()
                   if l.startswith("Pss:"))

    def end(self):
        """Ends it; it says nothing is left only once the engine has removed all."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(120)
        if code:
            sys.exit(f"bench: lair ended with {code}: {self.tell()}")
        subprocess.run(["rm", "-rf", self.work], check=True)


def by_command(program, n, parallel):
    def call(*args):
        return subprocess.run([program, *args], check=True, capture_output=True, text=True, cwd="/").stdout.strip()

    def one(i):
        # What lair gives each: no network, no capability, a root that can't be written, an init.
        id = call("run", "-d", "--network", "none", "--cap-drop", "ALL", "--read-only", "--init", "--security-opt", "no-new-privileges",
                  "--tmpfs", "/tmp", image(), "/bin/sh", "-c", f"echo word {i}").splitlines()[-1]
        code, said = call("wait", id), call("logs", id)
        assert (code, said) == ("0", f"word {i}"), (code, said)
        call("rm", id)

    begun = time.monotonic()
    if parallel == 1:
        for i in range(n):
            one(i)
    else:
        with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
            list(pool.map(one, range(n)))
    return (time.monotonic() - begun) / n * 1000


def life(name, n):
    # It ends by itself when all have ended and nothing is left of them.
    lair = Lair(name, n, "echo a word")
    before = os.times()
    code = lair.process.wait(300)
    removed, after = (time.monotonic() - lair.begun) / n * 1000, os.times()
    words = sum(" stdout F a word" in f.read_text() for f in (lair.work / "log").glob("*/*") if not f.is_symlink())
    if (code, words) != (0, n):
        sys.exit(f"bench: lair ended with {code} and {words} words: {lair.tell()}")
    subprocess.run(["rm", "-rf", lair.work], check=True)
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"removed": removed, "lair_cpu": cpu / n * 1000}


def hold(name, n):
    none = Lair(name, 1, "exec sleep 1000")
    none.until(lambda m: m["state"] == "running", "up")
    first = none.kib()
    none.end()
    lair = Lair(name, n, "exec sleep 1000")
    lair.until(lambda m: m["state"] == "running", "up")
    up = (time.monotonic() - lair.begun) / n * 1000
    time.sleep(2)
    more = (lair.kib() - first) / (n - 1)
    begun = time.monotonic()
    lair.end()
    return {"up": up, "kib": more, "stop": (time.monotonic() - begun) / n * 1000}


def main():
    p = argparse.ArgumentParser(prog="tests/bench --only containers")
    p.add_argument("--n", type=int, default=100)
    p.add_argument("--reps", type=int, default=3)
    p.add_argument("--engines", default="podman,docker")
    p.add_argument("--measure", default="life,hold")
    a = p.parse_args()
    if os.getloadavg()[0] > 0.7:
        print(f"bench: the machine is busy (load {os.getloadavg()[0]:.1f}): trust the ratios less", file=sys.stderr)
    rows = []
    for name in a.engines.split(","):
        program = pathlib.Path(os.environ["LAIR_TEST_ENGINES"]) / "bin" / name
        seen = {}
        for rep in range(a.reps):
            got = {}
            if "life" in a.measure:
                got |= life(name, a.n)
                got["command"] = by_command(program, a.n, 1)
                got["commands"] = by_command(program, a.n, IN_FLIGHT)
            if "hold" in a.measure:
                got |= hold(name, a.n)
            print(f"bench: {rep + 1}/{a.reps} {name}: " + ", ".join(f"{k} {v:.4g}" for k, v in got.items()), file=sys.stderr)
            for k, v in got.items():
                seen.setdefault(k, []).append(v)
        rows.append((name, {k: sorted(v)[len(v) // 2] for k, v in seen.items()}))
    print(f"\n{a.n} containers, median of {a.reps}, ms a container; Linux {os.uname().release}, {os.cpu_count()} cores\n")
    words = {"removed": "lair: from its start to its end, all removed", "lair_cpu": "lair's own CPU time (and its helpers')",
             "command": "by command, one at a time", "commands": f"by command, {IN_FLIGHT} at a time", "up": "lair: up", "stop": "lair: stop, until removed",
             "kib": "lair's memory for one more, KiB"}
    print("| | " + " | ".join(name for name, _ in rows) + " |\n|---|" + "---|" * len(rows))
    for key, word in words.items():
        if all(key in seen for _, seen in rows):
            print(f"| {word} | " + " | ".join(f"{seen[key]:.1f}" for _, seen in rows) + " |")
    for word, key in (("lair / command, one at a time", "command"), (f"lair / command, {IN_FLIGHT} at a time", "commands")):
        if all(key in seen for _, seen in rows):
            print(f"| **{word}** | " + " | ".join(f"{seen['removed'] / seen[key]:.2f}" for _, seen in rows) + " |")


if __name__ == "__main__":
    main()
