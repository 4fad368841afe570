"""Sockets between host and guest: 64 MiB each way, half close, and a thousand at once."""

import hashlib
import os
import socket
import time

from device_part import Part

BULK = 64 << 20
STREAMS = 1000


class Vsock(Part):
    def options(self):
        self.path = os.path.join(self.folder, "v")
        self.echo = os.path.join(self.folder, "echo")
        return ["--vsock", f"socket={self.path},forward=7:{self.echo}"]

    def during(self):
        bulk = os.urandom(BULK)
        digest = hashlib.md5(bulk).hexdigest()
        self.wait("listening")
        began = time.monotonic()
        stream = self.connect(1234)
        stream.sendall(bulk)
        stream.shutdown(socket.SHUT_WR)
        self.check("64 MiB arrive in the guest", self.wait("got") == digest)
        print(f"vsock: 64 MiB to the guest and their checksum in {time.monotonic() - began:.1f} s")
        stream.close()

        server, asked = self.listen(52), self.listen(53)
        self.reply()
        got = hashlib.md5()
        began, size = time.monotonic(), 0
        for part in self.served(server):
            got.update(part)
            size += len(part)
        self.check("64 MiB arrive on the host", size == BULK and got.hexdigest() == digest, size)
        print(f"vsock: 64 MiB from the guest in {time.monotonic() - began:.1f} s")
        asked.settimeout(120)
        stream = asked.accept()[0]
        question = stream.makefile("rb").read()
        stream.sendall(b"answer to " + question)
        stream.close()

        self.wait("echoing")
        self.thousand()
        self.reply()

    def thousand(self):
        """As many streams of the forwarded port at once; each gets its own bytes back."""
        began = time.monotonic()
        self.connect(7).close()  # the guest listens
        streams = []
        for number in range(STREAMS):
            stream = socket.socket(socket.AF_UNIX)
            stream.connect(self.echo)  # one with a time limit does not wait for its turn
            stream.settimeout(120)
            stream.sendall(b"%06d" % number)
            streams.append(stream)
        wrong = [number for number, stream in enumerate(streams)
                 if stream.makefile("rb").read(6) != b"%06d" % number]
        self.check("a thousand streams at once are answered", not wrong, str(wrong[:10]))
        open_now = len(os.listdir(f"/proc/{self.pid('vsock0')}/fd"))
        self.check("each has a socket of its own", STREAMS <= open_now <= STREAMS + 50, open_now)
        for stream in streams:
            stream.close()
        until = time.monotonic() + 60
        while open_now > 50 and time.monotonic() < until:
            time.sleep(0.2)
            open_now = len(os.listdir(f"/proc/{self.pid('vsock0')}/fd"))
        self.check("and gives it back", open_now <= 50, open_now)
        print(f"vsock: a thousand streams in {time.monotonic() - began:.1f} s")

    def connect(self, port, seconds=120):
        """A stream to the guest's port by the socket for all, once somebody listens there."""
        until = time.monotonic() + seconds
        while True:
            stream = socket.socket(socket.AF_UNIX)
            stream.connect(self.path)
            stream.settimeout(240)
            stream.sendall(b"CONNECT %d\n" % port)
            answer = b""
            while not answer.endswith(b"\n"):
                byte = stream.recv(1)
                if not byte:
                    break
                answer += byte
            if answer.startswith(b"OK ") or time.monotonic() > until:
                self.check(f"port {port} is reached", answer.startswith(b"OK "), answer)
                return stream
            stream.close()
            time.sleep(0.2)

    def listen(self, port):
        server = socket.socket(socket.AF_UNIX)
        server.bind(f"{self.path}_{port}")
        os.chmod(f"{self.path}_{port}", 0o777)
        server.listen()
        return server

    def served(self, server):
        """What the next client of `server` sends."""
        server.settimeout(240)
        stream = server.accept()[0]
        stream.settimeout(240)
        while part := stream.recv(1 << 20):
            yield part
        stream.close()

    def after(self):
        left = [path for path in (self.path, self.echo) if os.path.exists(path)]
        self.check("its sockets are gone", not left, str(left))
