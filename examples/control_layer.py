#!/usr/bin/env python3
"""A Control Layer in Python's standard library: policy and a manifest go in, truth comes out.

    python3 control_layer.py /run/lair/lair.sock [MODULE]
"""
import json
import socket
import sys


class Lair:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r", encoding="utf-8", newline="\n")
        self.next, self.events = 1, []

    def line(self):
        text = self.lines.readline()
        if not text:
            raise ConnectionError("lair closed the connection")
        return json.loads(text)

    def call(self, method, **params):
        number, self.next = self.next, self.next + 1
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            line = self.line()
            if line.get("id") != number:
                self.events.append(line["params"])  # came between
            elif "error" in line:
                raise RuntimeError(f'{line["error"]["data"]["code"]}: {line["error"]["message"]}')
            else:
                return line["result"]


def main():
    lair = Lair(sys.argv[1])
    lair.call("events.subscribe", types=["module."])
    names = sys.argv[2:] or [m["name"] for m in lair.call("module.list")["modules"]]
    for name in names:
        run = lair.call("module.start", name=name)["run"]
        status = lair.call("module.wait", **{"name": name, "for": "ready", "timeout_ms": 10_000})
        print(f'{name}: run {run} is {status["state"]}, health {status["health"]["state"]}')
        for line in lair.call("logs.read", name=name, lines=3)["lines"]:
            print(f'  {line["stream"]}: {line["text"]}')
        lair.call("module.stop", name=name)
        exit = lair.call("module.wait", **{"name": name, "for": "stopped"})["exit"]
        print(f"{name}: ended with {exit.get('code', exit.get('signal'))}")
    for params in lair.events:
        if "event" in params:
            print(f'event {params["event"]["seq"]}: {params["event"]["type"]} {params["event"]["name"]}')


main()
