"""What realm_checks.py works with: a script's connection to `troupe serve`, and guests that are told
what to do on their serial ports (realm_guest_init)."""

import base64
import contextlib
import itertools
import json
import re
import socket
import subprocess
import threading
import time

from lost import ASTRAY, SHUTDOWN, STANDSTILL, give_up

TURN = 0.1  # seconds between two looks; those in which nobody looks do not count


def until(isSo, seconds=120):
    """The first true value of `isSo()`; its last one when the time is over."""
    for _ in range(int(seconds / TURN)):
        if found := isSo():
            return found
        time.sleep(TURN)
    return isSo()


class Client:
    """`troupe rpc`. Answers are waited for, or left until somebody wants to know."""

    def __init__(self, command, environment):
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        self.ids = itertools.count(1)
        self.answers, self.events = {}, []
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            said = json.loads(line)
            if "id" in said:
                self.answers[said["id"]] = said
            else:
                self.events.append(said)

    def send(self, **request):
        request["id"] = next(self.ids)
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        return request["id"]

    def answer(self, number, seconds=120):
        until(lambda: number in self.answers, seconds)
        return self.answers.pop(number, {"error": f"no answer within {seconds} s"})

    def ask(self, **request):
        said = self.answer(self.send(**request))
        if "error" in said:
            raise AssertionError(f"{request}: {said['error']}")
        return said

    def call(self, on, method, **params):
        return self.ask(on=on, call=method, params=params)["result"]

    def event(self):
        until(lambda: self.events)
        return self.events.pop(0)

    def read(self, handle):
        return base64.b64decode(self.ask(read=handle)["base64"])

    def write(self, handle, data):
        self.ask(write=handle, base64=base64.b64encode(data).decode())

    def kill(self):
        self.process.kill()
        self.process.wait()


class Guest:
    """One that has been launched, and its serial port. `end()` says how it ended, once it has."""

    def __init__(self, name, cid, end):
        self.name, self.cid, self.end = name, cid, end
        self.numbers = itertools.count(1)
        self.text, self.isOver = "", False
        self.line = socket.socket(socket.AF_UNIX)
        self.line.connect(f"/run/troupe/{name}.serial")
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        with contextlib.suppress(OSError):
            while piece := self.line.recv(65536):
                self.text += piece.decode(errors="replace").replace("\r", "")
        self.isOver = True

    def look(self, quiet):
        """Ends the script when the emulated processor has lost the guest."""
        astray = ASTRAY.search(self.text)
        why = astray and astray[0].strip()
        if quiet > STANDSTILL / TURN:
            why = f"it has said nothing for {STANDSTILL} s"
        if self.isOver:
            reason = self.end()
            if not SHUTDOWN.search(reason):
                raise AssertionError(f"{self.name} has ended: {reason}\n{self.text[-2000:]}")
            why = reason
        if why:
            give_up(self.text[-2000:], f"{self.name}: {why}")

    def wait_for(self, pattern, since=0):
        """The match of `pattern` in what it says, however long that takes it."""
        heard, quiet = 0, 0
        while not (found := re.search(pattern, self.text[since:].replace("TICK\n", ""), re.DOTALL)):
            quiet = 0 if len(self.text) != heard else quiet + 1
            heard = len(self.text)
            self.look(quiet)
            time.sleep(TURN)
        return found

    def up(self):
        self.wait_for("GUEST UP")

    def ask(self, command):
        """(status, what it said) of a command of the guest's shell."""
        number, since = next(self.numbers), len(self.text)
        self.line.sendall(f"{number} {command}\n".encode())
        found = self.wait_for(rf"<{number} (\d+)\n(.*?)\n?{number}>\n", since)
        return int(found[1]), found[2].strip()

    def tell(self, command):
        status, said = self.ask(command)
        if status != 0:
            raise AssertionError(f"{self.name}: {command}: {status}: {said}")
        return said

    def leave(self):
        self.line.shutdown(socket.SHUT_RDWR)
        self.line.close()
