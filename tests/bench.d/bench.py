"""Runs the contestants of tests/bench in random order and prints medians, with ratios to the limit."""
import argparse
import ctypes
import json
import os
import pathlib
import random
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import contestants

MODULE = "m0007"


class Reports:
    """What the modules say about themselves over a FIFO: id -> [(pid, time of the first instruction in ns)]."""

    def __init__(self, path):
        os.mkfifo(path)
        self.fd, self.rest, self.seen = os.open(path, os.O_RDWR | os.O_NONBLOCK), b"", {}

    def read(self, seconds):
        if select.select([self.fd], [], [], seconds)[0]:
            *lines, self.rest = (self.rest + os.read(self.fd, 1 << 16)).split(b"\n")
            for id, pid, ns in (line.decode().split() for line in lines):
                self.seen.setdefault(id, []).append((int(pid), int(ns)))

    def wait(self, done, seconds, what):
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                raise TimeoutError(what)
            self.read(0.05)

    def pids(self):
        return [starts[-1][0] for starts in self.seen.values()]


def stat(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rsplit(")", 1)[1].split()


def family():
    """Every living process below this one: it is the subreaper, so daemons stay below it too."""
    below = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = stat(pid)
        except OSError:
            continue
        if fields[0] != "Z":
            below.setdefault(int(fields[1]), []).append(int(pid))
    found, todo = [], [os.getpid()]
    while todo:
        children = below.get(todo.pop(), [])
        found += children
        todo += children
    return found


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def cpu_ms(pids):
    total = 0
    for pid in pids:
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/schedstat") as f:
                    total += int(f.read().split()[0])
        except OSError:
            pass
    return total / 1e6


def switches(pids):
    total = 0
    for pid in pids:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            total += sum(int(l.split()[1]) for l in (task / "status").read_text().splitlines() if "ctxt_switches" in l)
    return total


def pss_mib(pids):
    return sum(int(l.split()[1]) for p in pids for l in pathlib.Path(f"/proc/{p}/smaps_rollup").read_text().splitlines() if l.startswith("Pss:")) / 1024


class Run:
    """One supervisor with its modules, in a folder of its own; nothing of it is left afterwards."""

    def __init__(self, contestant, tools, modules):
        self.c, self.tools = contestant, tools
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="lair-bench-", dir="/dev/shm"))
        self.reports = Reports(self.work / "fifo")
        names = {"FIFO": str(self.work / "fifo"), "GO": str(self.work / "go")}
        self.modules = {id: [names.get(a, str(a)) for a in argv] for id, argv in modules.items()}
        self.c.prepare(self.work, self.modules)

    def __enter__(self):
        argv = [str(a) for a in self.c.command(self.work)]
        self.said = open(self.work / "said", "w+")
        self.t0 = time.monotonic_ns()
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.said, stderr=self.said)
        try:
            self.reports.wait(lambda: len(self.reports.seen) >= len(self.modules), 60, "not every module started")
            self.reports.wait(lambda: self.c.ready(self.work), 20, "its control never answered")
        except TimeoutError as e:
            self.__exit__()
            raise TimeoutError(f"{e}: {self.tail}")
        return self

    def __exit__(self, *_):
        for _ in range(100):
            left = family()
            if not left:
                break
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.02)
            reap()
        self.process.returncode = 0
        self.said.seek(0)
        self.tail = self.said.read()[-300:]
        shutil.rmtree(self.work, ignore_errors=True)

    def own(self):
        """The supervisor's processes: all but the modules."""
        return sorted(set(family()) - set(self.reports.pids()))


def children(tools, n):
    return {f"m{i:04d}": [tools / "child", "FIFO", f"m{i:04d}"] for i in range(n)}


def start(c, tools, a):
    n = min(a.n, c.most)
    with Run(c, tools, children(tools, n)) as r:
        last = max(s[0][1] for s in r.reports.seen.values())
        out = {"start ms": (last - r.t0) / 1e6}
        time.sleep(2)
        if c.name != "limit":
            own = r.own()
            before, began = (cpu_ms(own), switches(own)), time.monotonic()
            time.sleep(a.idle)
            took = time.monotonic() - began
            out |= {f"PSS MiB at {a.n}": pss_mib(own), "idle CPU %": (cpu_ms(own) - before[0]) / took / 10,
                    "idle switches/s": (switches(own) - before[1]) / took,
                    "descriptors/module": sum(len(os.listdir(f"/proc/{p}/fd")) for p in own) / n}
        poll, fds = select.poll(), []
        for pid in r.reports.pids():
            fds.append(os.pidfd_open(pid))
            poll.register(fds[-1], select.POLLIN)
        asked = time.monotonic_ns()
        c.stop(r.work, r.process)
        left = len(fds)
        while left:
            ended = poll.poll(60000)
            if not ended:
                raise TimeoutError(f"{left} modules outlived the stop")
            for fd, _ in ended:
                poll.unregister(fd)
                left -= 1
        out["stop ms"] = (time.monotonic_ns() - asked) / 1e6
        for fd in fds:
            os.close(fd)
        return out


def footprint(c, tools, a):
    if c.name == "limit":
        return {}
    with Run(c, tools, children(tools, 100)) as r:
        time.sleep(2)
        return {"PSS MiB at 100": pss_mib(r.own())}


def restart(c, tools, a):
    with Run(c, tools, children(tools, 24)) as r:
        time.sleep(1.5)  # older than any supervisor's "too soon"
        took, end = [], time.monotonic() + a.restart_s
        while time.monotonic() < end:
            id = min(r.reports.seen, key=lambda i: r.reports.seen[i][-1][1])
            young = 1.35 - (time.monotonic_ns() - r.reports.seen[id][-1][1]) / 1e9
            time.sleep(max(young, random.uniform(0.01, 0.05)))
            known = len(r.reports.seen[id])
            killed = time.monotonic_ns()
            os.kill(r.reports.seen[id][-1][0], signal.SIGKILL)
            r.reports.wait(lambda: len(r.reports.seen[id]) > known, 15, f"{id} never came back")
            took.append((r.reports.seen[id][-1][1] - killed) / 1e6)
        took.sort()
        return {"restart p50 ms": took[len(took) // 2], "restart p99 ms": took[int(len(took) * 0.99)]}


def one_log(c, tools, a, mode, size):
    with Run(c, tools, {"w": [tools / "tool", "write", "FIFO", "w", mode, size, "GO"]}) as r:
        time.sleep(0.3)
        own = [p for p in r.own()]
        before = cpu_ms(own)
        (r.work / "go").touch()
        r.reports.wait(lambda: "w.begin" in r.reports.seen, 10, "the writer never began")
        begun = done = r.reports.seen["w.begin"][0][1]
        bytes_, limit = 0, time.monotonic() + 120
        while time.monotonic() < limit:
            time.sleep(0.004)
            r.reports.read(0)
            there = sum(p.stat().st_size for p in c.logs(r.work, "w") if p.exists())
            now = time.monotonic_ns()
            if there != bytes_:
                bytes_, done = there, now
            elif "w.end" in r.reports.seen and now - done > 1e9:
                break
        cpu = cpu_ms(own) - before
        files = [str(p) for p in c.logs(r.work, "w") if p.exists()]
        check = json.loads(subprocess.check_output([tools / "tool", "verify", *files]))
        lost = size // 100 - check["found"]
        return {f"{mode} MB/s": size / 1e6 / ((done - begun) / 1e9), f"{mode} CPU s/GB": cpu / 1e3 / (size / 1e9),
                f"{mode} lost, doubled, disordered": lost + check["twice"] + check["disorder"]}


def logs(c, tools, a):
    out = {}
    for mode, most in (("bulk", a.bulk_mb), ("line", a.line_mb)):
        trial = one_log(c, tools, a, mode, 32_000_000)
        size = int(min(most, max(32, trial[f"{mode} MB/s"] * a.log_s)) * 1e6) // 64000 * 64000
        out |= one_log(c, tools, a, mode, size)
    return out


def query(c, tools, a):
    tool = tools / "tool"
    if c.name == "limit":
        out = {"status command ms": json.loads(subprocess.check_output([tool, "exec", "300", "--", "/bin/true"]))["p50_us"] / 1e3}
        with tempfile.TemporaryDirectory(dir="/dev/shm") as d:
            # The length of lair's answer, so that only the work differs.
            echo = subprocess.Popen([tool, "echo", f"{d}/s", str(a.answer)])
            while not os.path.exists(f"{d}/s"):
                time.sleep(0.01)
            out |= asked(tool, f"{d}/s", "x" * 80, a)
            echo.kill()
            echo.wait()
        return out
    with Run(c, tools, children(tools, 100)) as r:
        time.sleep(1.5)
        argv = [str(x) for x in c.query(r.work, MODULE)]
        argv[0] = shutil.which(argv[0])
        count = "20" if c.name == "supervisord" else "300"
        out = {"status command ms": json.loads(subprocess.check_output([tool, "exec", count, "--", *argv]))["p50_us"] / 1e3}
        if c.pipelines:
            request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "module.status", "params": {"name": MODULE}})
            out |= asked(tool, r.work / "lair.sock", request, a)
        return out


def asked(tool, socket, request, a):
    one = subprocess.run([tool, "ask", socket, "20000", "1", request], capture_output=True, check=True)
    many = subprocess.run([tool, "ask", socket, "100000", "16", request], capture_output=True, check=True)
    a.answer = len(one.stderr.split(b"\n")[0]) + 1
    return {"status p50 us": json.loads(one.stdout)["p50_us"], "status/s, 16 under way": json.loads(many.stdout)["per_s"]}


def table(results, a):
    """Rows are measures, columns contestants; in brackets the ratio to the limit."""
    names = [n for n in [c.name for c in contestants.ALL] if n in results]
    print(f"| {a.n} modules, medians | " + " | ".join(names) + " |\n| --- |" + " ---: |" * len(names))
    for measure in dict.fromkeys(m for n in names for m in results[n]):
        row = []
        for n in names:
            values = results[n].get(measure)
            if not values:
                row.append("")
                continue
            value = statistics.median(values)
            base = results.get("limit", {}).get(measure)
            of = statistics.median(base) if base else 0
            ratio = f" ({value / of:.2f}x)" if of and n != "limit" and "lost" not in measure else ""
            row.append(f"{value:.3g}{ratio}" if value < 1000 else f"{value:.0f}{ratio}")
        print(f"| {measure} | " + " | ".join(row) + " |")


def main():
    p = argparse.ArgumentParser(prog="tests/bench")
    p.add_argument("tools", type=pathlib.Path)
    p.add_argument("--only", default="start,footprint,restart,logs,query", help="start (with stop), footprint, restart, logs, query")
    p.add_argument("--who", default=",".join(c.name for c in contestants.ALL))
    p.add_argument("--n", type=int, default=1000)
    p.add_argument("--reps", type=int, default=3)
    p.add_argument("--idle", type=float, default=5)
    p.add_argument("--restart-s", type=float, default=12)
    p.add_argument("--log-s", type=float, default=1)
    p.add_argument("--bulk-mb", type=float, default=1500)
    p.add_argument("--line-mb", type=float, default=400)
    p.add_argument("--quick", action="store_true")
    p.add_argument("--out", type=pathlib.Path, help="every value, as JSON")
    a = p.parse_args()
    a.answer = 700
    if a.quick:
        a.n, a.reps, a.idle, a.restart_s = 100, 1, 2, 4
    a.tools = a.tools.resolve()
    if os.getloadavg()[0] > 0.7:
        print(f"bench: the machine is busy (load {os.getloadavg()[0]:.1f}): trust the ratios less", file=sys.stderr)
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    who = [c(a.tools) for c in contestants.ALL if c.name in a.who.split(",")]
    results = {c.name: {} for c in who}
    for rep in range(a.reps):
        for measure in a.only.split(","):
            # In random order, so that what else the machine does meets all of them alike; the echo comes last, for it
            # answers with as many bytes as lair did.
            for c in sorted(who, key=lambda c: (measure == "query" and c.name == "limit", random.random())):
                if c.name == "lair-raw" and measure != "logs":
                    continue
                try:
                    got = globals()[measure](c, a.tools, a)
                except (TimeoutError, subprocess.CalledProcessError, OSError) as e:
                    print(f"bench: {c.name}, {measure}: {e}", file=sys.stderr)
                    continue
                print(f"bench: {rep + 1}/{a.reps} {measure} {c.name}: " + ", ".join(f"{k} {v:.4g}" for k, v in got.items()), file=sys.stderr)
                for k, v in got.items():
                    results[c.name].setdefault(k, []).append(v)
    print(f"\n{contestants.versions()}; Linux {os.uname().release}, {os.cpu_count()} cores\n")
    table(results, a)
    if a.out:
        a.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
