"""A console of several ports: logins, an agent's questions and a log, over unix sockets."""

import os
import socket
import time

from device_part import Part

MIB = 1 << 20


class Client:
    """One connection to a port's socket, and all that came over it."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.text = b""
        self.at = 0  # behind what was waited for last

    def read_until(self, end, seconds=60):
        """Whether `end` came, behind what was waited for before."""
        until = time.monotonic() + seconds
        while end not in self.text[self.at:]:
            self.socket.settimeout(max(0.1, until - time.monotonic()))
            try:
                piece = self.socket.recv(65536)
            except TimeoutError:
                return False
            if not piece:
                return False
            self.text += piece
        self.at = self.text.index(end, self.at) + len(end)
        return True

    def say(self, line):
        self.socket.sendall(line.encode() + b"\n")


class Console(Part):
    def options(self):
        self.login, self.agent, self.log = (os.path.join(self.folder, name)
                                            for name in ("login", "agent", "log"))
        return ["--console", f"socket={self.login},name=login,size=132x43",
                "--console", f"socket={self.agent},name=org.example.agent,port,replay=off",
                "--console", f"socket={self.log},name=org.example.log,port"]

    def during(self):
        self.wait("getty")
        self.log_in()
        self.reply()
        self.wait("agent")
        self.ask()
        stuck = Client(self.log)
        self.reply()
        self.wait("flooded")
        late = Client(self.log)
        self.check("a late reader gets the last MiB", late.read_until(b"the end of the flood\n"),
                   f"{len(late.text)} bytes, at their end {late.text[-100:]}")
        self.check("and no more", len(late.text) == MIB, str(len(late.text)))
        stuck.socket.close()
        self.reply()

    def log_in(self):
        user = Client(self.login)
        steps = [(None, b"login: "), ("root", b"Password: "),
                 ("secret", b"welcome root, who said secret on /dev/hvc1"), (None, b"$ "),
                 ("expr 40 + 2", b"\n42\r\n")]
        for said, answer in steps:
            if said:
                user.say(said)
            self.check(f"getty on hvc1: {said or 'nothing'} is answered", user.read_until(answer),
                       repr(user.text))
        user.say("exit")
        late = Client(self.login)
        late.read_until(b"\n42\r\n")
        self.check("a late reader of hvc1 gets all from the beginning",
                   late.text[:len(user.text)] == user.text, repr(late.text))

    def ask(self):
        for number in range(2):
            client = Client(self.agent)
            client.say(f"question {number}")
            wanted = f"answer {number} to question {number}\n".encode()
            # Nothing of what was said to the client before.
            self.check(f"the agent's answer {number}",
                       client.read_until(wanted) and client.text == wanted, repr(client.text))
            client.socket.close()
            time.sleep(2)  # the guest looks ten times a second whether anybody is there

    def after(self):
        with open(self.run.console, errors="replace") as file:
            text = file.read()
        self.check("getty on hvc0", "login: " in text, repr(text[-200:]))
        self.check("hvc1 has its size", self.saw("size") == "43 132", self.saw("size"))
