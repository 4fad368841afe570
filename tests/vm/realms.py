"""A daemon of realms for tests, and guests for it."""

import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import time
import unittest

import machine


def descendants(pid):
    """pids of all processes below this one."""
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as file:
                parents[int(entry)] = int(file.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found, grown = {pid}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found - {pid}


def fronts(daemon):
    """pids of the processes in front of its clients."""
    found = []
    for pid in descendants(daemon):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/cmdline") as file:
                if file.read().startswith("troupe-realm-front\0"):
                    found.append(pid)
    return found


def private_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty:"))


def groups(daemon):
    """How many VMs of its realms have a control group, wherever it is, and how many actors in them."""
    ours = re.compile(rf"vm-r.*-{daemon}(-\d+)?")
    vms, actors = 0, 0
    for mount in "/sys/fs/cgroup", "/sys/fs/cgroup/unified":
        for path, folders, _ in os.walk(mount):
            vms += sum(ours.fullmatch(name) is not None for name in folders)
            actors += len(folders) if ours.fullmatch(os.path.basename(path)) else 0
    return vms, actors


def counts(daemon):
    """What a daemon and its guests hold of this machine."""
    fds = []
    for number in os.listdir(f"/proc/{daemon}/fd"):
        with contextlib.suppress(OSError):  # it may be closed by now
            fds.append(os.readlink(f"/proc/{daemon}/fd/{number}"))
    vms, actors = groups(daemon)
    return {
        "processes": len(descendants(daemon)),
        "fds": len(fds),
        "sockets": sum(name.startswith("socket:") for name in fds),
        "memory files": sum(name.startswith("/memfd:") for name in fds),
        "control groups": vms,
        "groups of actors": actors,
        "private KiB": private_kib(daemon),
    }


def same(now, before):
    """Whether all is what it was but for memory, of which malloc keeps some."""
    return all(now[name] == before[name] for name in before if name != "private KiB")


class Rpc:
    """`troupe rpc`: questions, their answers, and what is told between them."""

    def __init__(self, process):
        self.process = process
        self.ids = itertools.count(1)
        self.answers, self.events = {}, []

    def line(self):
        said = self.process.stdout.readline()
        if not said:
            raise AssertionError("`troupe rpc` has ended: " + self.process.stderr.read().decode())
        return json.loads(said)

    def send(self, **request):
        """A question whose answer() is asked for later, or never."""
        request["id"] = next(self.ids)
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        return request["id"]

    def answer(self, number):
        while number not in self.answers:
            said = self.line()
            if "id" in said:
                self.answers[said["id"]] = said
            else:
                self.events.append(said)
        return self.answers.pop(number)

    def ask(self, mayFail=False, **request):
        answer = self.answer(self.send(**request))
        if "error" in answer and not mayFail:
            raise AssertionError(answer)
        return answer

    def call(self, on, method, **params):
        return self.ask(on=on, call=method, params=params)["result"]

    def refused(self, **request):
        return self.ask(mayFail=True, **request)["error"]

    def event(self):
        return self.events.pop(0) if self.events else self.line()

    def read(self, handle):
        return base64.b64decode(self.ask(read=handle)["base64"])

    def write(self, handle, data):
        return self.ask(write=handle, base64=base64.b64encode(data).decode())["bytes"]


class Realms(unittest.TestCase):

    def setUp(self):
        # An own copy of the executables: their processes are known by where those lie.
        self.folder = machine.Folder(user=self.user())
        self.addCleanup(self.folder.close)
        self.socket = self.folder.file("guest/realms")

    def user(self):
        return None

    def serve(self, *options):
        """A daemon, once it listens."""
        daemon = self.folder.start("serve", "--socket", self.socket, *options)
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.terminate)
        said = daemon.stderr.readline()
        self.assertIn(b"realms are served at ", said)
        return daemon

    def bundle(self, name, words, **guest):
        """A folder with the payload as a Linux kernel."""
        path = self.folder.file("guest/" + name)
        if os.path.isdir(path):
            return path
        os.mkdir(path)
        shutil.copy(self.folder.payload, os.path.join(path, "kernel"))
        config = {"linux": "/kernel", "cmdline": words, "memory": "64M", "cpus": "1",
                  "default-net": "false", "virtio-gpu": "false", **guest}
        with open(os.path.join(path, "guest.cfg"), "w") as file:
            json.dump(config, file)
        return path

    def tell(self, *words, expect=0):
        code, out, err = self.folder.run(*words)
        self.assertEqual(code, expect, out + err)
        return out

    def launch(self, bundle, *options):
        """(name, realm, cid) once it runs."""
        said = json.loads(self.tell("launch", bundle, "--json", "--socket", self.socket, *options))
        return said["name"], said["realm"], said["cid"]

    def rpc(self):
        process = self.folder.start("rpc", "--socket", self.socket, stdin=subprocess.PIPE)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return Rpc(process)

    def listed(self):
        return json.loads(self.tell("list", "--json", "--socket", self.socket))

    def until(self, isSo, what, seconds=60):
        end = time.monotonic() + seconds
        while not isSo():
            if time.monotonic() > end:
                self.fail(f"never: {what() if callable(what) else what}")
            time.sleep(0.02)
