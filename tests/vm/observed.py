"""A VM that is looked at from outside: its load, its events, its metrics."""

import json
import os
import socket
import sys
import unittest

import machine

sys.path.insert(0, "vmm/testing")
import tiny_guest

MIB = 1 << 20
# Writes and flushes for ever.
WRITING = "bench=durability scratch count=2000000000 seed=5 size=4096 depth=32 mode=irq"


class Observed(unittest.TestCase):
    user = None
    handed = ()  # fds that the VM inherits

    def setUp(self):
        self.folder = machine.Folder(self.user)
        self.addCleanup(self.folder.close)
        self.name = self.folder.vm("seen")
        self.serial = self.folder.file("guest/serial")

    def launch(self, kernel, *options):
        self.vm = self.folder.start("run", "--name", self.name, "--kernel", kernel, "--memory",
                                    "64M", "--serial", f"file={self.serial}", *options,
                                    pass_fds=self.handed)
        self.addCleanup(self.vm.kill)

    def start(self, cmdline, *options):
        """The actors of a VM that runs."""
        self.launch(self.folder.payload, "--cmdline", cmdline, "--disk",
                    self.folder.disk("disk", 8 * MIB), *options)
        return {actor["name"]: actor for actor in self.folder.status(self.name)["actors"]}

    def wire(self):
        """The number of an open socket, for a network that leads nowhere."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        self.handed = (theirs.fileno(),)
        return theirs.fileno()

    def tiny(self, code):
        path = self.folder.file("tiny")
        with open(path, "wb") as file:
            file.write(tiny_guest.elf(code))
        os.chmod(path, 0o644)
        return path

    def tell(self, *words):
        code, out, err = self.folder.run(*words)
        self.assertEqual(code, 0, out + err)
        return out

    def top(self, *words):
        """The samples of `troupe top`, each with its processes by name."""
        samples = [json.loads(line) for line in
                   self.tell("top", self.name, "--json", *words).splitlines()]
        for sample in samples:
            sample["processes"] = {one["name"]: one for one in sample["processes"]}
        return samples

    def until_blk_works(self):
        while True:
            blk = self.top("--count", 1, "--interval", "0.1")[0]["processes"]["blk0"]
            if blk["queues"] and blk["queues"][0]["requests"] > 100:
                return blk

    def follow(self, *words):
        reader = self.folder.start("events", self.name, "--follow", *words)
        self.addCleanup(reader.kill)
        return reader

    def events_until(self, reader, name):
        """The events of a reader up to the first of this name."""
        events = []
        for line in iter(reader.stdout.readline, b""):
            events.append(json.loads(line))
            if events[-1]["event"] == name:
                return events
        self.fail(f"no {name} among {events}: {reader.stderr.read()}")

    def end(self, code=18):
        if code == 18:
            self.tell("stop", "--force", self.name)
        out, err = self.vm.communicate(timeout=120)
        self.assertEqual(self.vm.returncode, code, err)
        self.assertEqual(self.folder.left_over(), [])
        return err.decode(errors="replace")
