"""A server that holds memory, lets go of it when asked, and takes it again: PORT MIB [FILE].

POST /sleep and /wake do that before they answer, /later lets go a second after it has answered, /hold answers once FILE is
there, /broken never does as asked. GET /health is 200 while the memory is held.
"""

import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, MIB = int(sys.argv[1]), int(sys.argv[2])
held = b"x" * (MIB << 20)


def free():
    global held
    held = None


class Server(BaseHTTPRequestHandler):
    def reply(self, status, text):
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        self.reply(200 if held else 503, "")

    def do_POST(self):
        global held
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        path = self.path.split("?")[0]
        print("asked", path, self.headers["content-type"], body, flush=True)
        if path == "/sleep":
            free()
        elif path == "/later":
            threading.Timer(1, free).start()
        elif path == "/wake":
            held = b"x" * (MIB << 20)
        elif path == "/hold":
            while not os.path.exists(sys.argv[3]):
                time.sleep(0.02)
        else:
            return self.reply(500, "no such model\nand more")
        self.reply(200, "done")

    def log_message(self, *_):
        pass


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
server = ThreadingHTTPServer(("127.0.0.1", PORT), Server)
print("ready", flush=True)
print("WARN said", file=sys.stderr, flush=True)
server.serve_forever()
