#!/usr/bin/env -S python3 -B
"""What the user is told when an actor makes a system call its jail refuses: of every actor of a guest, as
the program it ships as, with one call put into its memory as somebody would who has broken into it."""

import json
import os
import signal
import socket
import sys
import time
import unittest

import machine
import report

sys.path.insert(0, "vmm/testing")
import tiny_guest

# mov $102, %eax (getuid); syscall; ud2
REFUSED_CALL = bytes.fromhex("b866000000 0f05 0f0b")
PROFILES = {"balloon": "devices/balloon/balloon", "broker": "broker/broker",
            "blk": "devices/blk/blk", "rng": "devices/rng/rng", "net": "devices/net/net",
            "vsock": "devices/vsock/vsock", "console": "devices/console/console",
            "serial": "devices/console/serial", "front": "vmm/front/front"}
# Another process takes their place, and their VM goes on.
DEVICES = ("balloon0", "blk0", "console0", "net0", "rng0", "vsock0")


def take_over(pid):
    """Makes the main thread of `pid` call getuid() when it next wakes from waiting for events."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with open(f"/proc/{pid}/syscall") as file:
            words = file.read().split()
        # epoll_wait or epoll_pwait: the event loop at rest. The last word is where it goes on.
        if words[0] in ("232", "281"):
            break
        time.sleep(0.01)
    else:
        raise AssertionError(f"{pid} is not at rest: {words}")
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(int(words[-1], 16))
        memory.write(REFUSED_CALL)
    os.kill(pid, signal.SIGWINCH)  # which does nothing, but ends the wait


class TakenOver(unittest.TestCase):
    user = None

    def setUp(self):
        self.folder = machine.Folder(self.user)
        self.addCleanup(self.folder.close)

    def tearDown(self):
        self.assertEqual(self.folder.left_over(), [])

    def start(self, kernel, *words):
        self.name = self.folder.vm("taken")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        process = self.folder.start(
            "run", "--name", self.name, "--kernel", kernel, "--memory", "64M", "--cmdline", "idle",
            "--balloon", "stats", "--disk", self.folder.disk("disk"), "--console",
            f"file={self.folder.file('guest/console')}", "--serial",
            f"file={self.folder.file('guest/serial')}", "--vsock", f"cid={self.folder.cid()}",
            "--net", f"fd={theirs.fileno()}", *words, pass_fds=[theirs.fileno()])
        self.addCleanup(process.kill)
        status = self.folder.status(self.name)
        self.actors = {actor["name"]: actor for actor in status["actors"]}
        return process

    def sleeper(self):
        """A guest without drivers: its devices are ready and never run."""
        path = self.folder.file("sleeper")
        with open(path, "wb") as file:
            file.write(tiny_guest.elf(tiny_guest.SLEEP))
        os.chmod(path, 0o644)
        return path

    def assertTold(self, said, consequence, kind, stage):
        profile = PROFILES[kind] + ".profile"
        self.assertEqual(said.count("TRP-"), 1, said)
        # What is said of the machine as the VM begins comes before.
        lines = said[said.index("troupe: TRP-"):].splitlines()
        self.assertRegex(lines[0], f"^troupe: TRP-run-009: .*{consequence}")
        self.assertIn(f"  1. in stage {stage} it called getuid()", lines, said)
        self.assertIn(f"  see: {profile}; `troupe policy show {kind}`", lines, said)
        self.assertIn(f"  mend: unless somebody has broken into it: add to {profile}, {stage}: "
                      'rule { syscall: "getuid" reason: "..." }', lines, said)

    def death(self, actor, guest, ends=19):
        """What a VM says whose `actor` makes the call, and whether it was replaced; else the VM ends."""
        process = self.start(guest)
        if guest == self.folder.payload:
            self.untilAtRest(actor)
        first = self.actors[actor]["pid"]
        take_over(first)
        until = time.monotonic() + 30
        replaced = False
        while process.poll() is None and not replaced:
            self.assertLess(time.monotonic(), until, f"{actor} goes on")
            code, out, _ = self.folder.run("status", self.name, "--json")
            if code == 0:
                pids = {one["name"]: one["pid"] for one in json.loads(out)["actors"]}
                replaced = pids.get(actor, first) != first
        if replaced:
            self.folder.run("stop", "--force", self.name)
        _, said = process.communicate(timeout=30)
        said = said.decode(errors="replace")
        self.assertEqual(process.returncode, 18 if replaced else ends, said)
        return said, replaced

    def untilAtRest(self, actor):
        """The payload's guest is idle, its drivers running, once it has said so."""
        until = time.monotonic() + 30
        serial = self.folder.file("guest/serial")
        while time.monotonic() < until:
            if os.path.exists(serial) and b" passed, " in open(serial, "rb").read():
                return
            time.sleep(0.05)
        self.fail("the guest does not come to rest")

    def testDeviceWhileTheGuestRuns(self):
        for actor in DEVICES:
            with self.subTest(actor):
                said, replaced = self.death(actor, self.folder.payload)
                self.assertTrue(replaced, said)
                self.assertTold(said, f"{actor} .* died", self.actors[actor]["kind"], "run")
                self.assertIn("another process takes its place", said)

    def testDeviceThatNoDriverUses(self):
        """It is ready; the shipped devices have one filter for that and for serving."""
        guest = self.sleeper()
        for actor in DEVICES:
            with self.subTest(actor):
                said, replaced = self.death(actor, guest)
                self.assertTrue(replaced, said)
                self.assertTold(said, f"{actor} .* died", self.actors[actor]["kind"], "run")

    def testBroker(self):
        said, _ = self.death("broker", self.folder.payload, ends=20)
        self.assertTold(said, 'the broker of VM ".*" died', "broker", "run")

    def testSerialPort(self):
        said, replaced = self.death("serial", self.folder.payload)
        self.assertTrue(replaced)
        self.assertTold(said, "serial .* died", "serial", "run")

    def testFrontEnd(self):
        process = self.start(self.sleeper())
        first = self.actors["front"]["pid"]
        take_over(first)
        until = time.monotonic() + 20
        again = first
        while again == first and time.monotonic() < until:
            actors = self.folder.status(self.name)["actors"]
            again = [actor["pid"] for actor in actors if actor["kind"] == "front"][0]
        self.assertNotEqual(again, first)
        self.assertIsNone(process.poll())
        self.folder.run("stop", "--force", self.name)
        out, said = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 18, said)
        told = said.decode(errors="replace").replace(
            said.decode(errors="replace").splitlines()[-1], "")
        self.assertTold(told, "the front end of the control socket died", "front", "run")


class TakenOverAsOrdinaryUser(TakenOver):
    user = machine.ORDINARY_USER


if __name__ == "__main__":
    report.main()
