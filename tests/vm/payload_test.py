#!/usr/bin/env -S python3 -B
"""The payload guest on `troupe run`, natively: every device, every way to end, as root and not."""

import os
import socket
import subprocess
import time
import unittest

import machine
import report


class Payload(unittest.TestCase):
    user = None

    def setUp(self):
        self.folder = machine.Folder(self.user)
        self.addCleanup(self.folder.close)

    def boot(self, words="", *options, expect=0):
        code, out, err = self.folder.run("run", "--kernel", self.folder.payload, "--memory", "64M",
                                         "--cmdline", words, *options)
        self.assertEqual(code, expect, out + err)
        self.assertEqual(self.folder.left_over(), [])
        return out

    def assertPassed(self, out):
        self.assertRegex(out, r"payload: [1-9]\d* passed, 0 failed")
        self.assertNotIn("FAIL", out)

    def testEveryDevicePassesWithMsix(self):
        log = self.folder.file("guest/console")
        out = self.boot("scratch", "--disk", self.folder.disk("a"), "--console", f"file={log}")
        self.assertPassed(out)
        with open(log) as file:
            self.assertTrue(file.read(), "the console's file is empty")

    def testEveryDevicePassesWithIntx(self):
        out = self.boot("scratch intx", "--disk", self.folder.disk("a"),
                        "--console", f"file={self.folder.file('guest/console')}")
        self.assertPassed(out)

    def testSeveralDisksAndQueues(self):
        disks = []
        for name in "abcd":
            disks += ["--disk", self.folder.disk(name) + ",queues=2"]
        self.assertPassed(self.boot("scratch", *disks))

    def testEverySlotOfTheBusButOneAndEveryPinOfIt(self):
        log = self.folder.file("guest/console")
        disks = []
        for i in range(28):
            disks += ["--disk", self.folder.disk(f"d{i}") + ",queues=4"]
        for words in ("scratch", "scratch intx"):
            with self.subTest(words):
                self.assertPassed(self.boot(words, "--console", f"file={log}", *disks))

    def testReadOnlyDiskStaysAsItIs(self):
        disk = self.folder.disk("a")
        self.assertPassed(self.boot("", "--disk", f"{disk},ro"))
        with open(disk, "rb") as file:
            self.assertEqual(file.read().count(b"\0"), 1 << 20)

    def testRingFeaturesOffAndOn(self):
        for words in ("eventidx=0 indirect=0", "eventidx=1 indirect=0", "eventidx=0 indirect=1",
                      "eventidx=1 indirect=1"):
            with self.subTest(words):
                self.assertPassed(self.boot(f"scratch {words}", "--disk", self.folder.disk("a")))

    def testPowerOffEndsWithZero(self):
        self.boot("end=poweroff", expect=0)

    def testResetHasItsOwnStatus(self):
        self.boot("end=reset", "--on-reboot", "exit", expect=16)

    def testCrashHasItsOwnStatus(self):
        self.boot("end=crash", "--on-reboot", "exit", expect=17)

    def testReadsInInterruptMode(self):
        out = self.boot("bench=blk depth=8 count=2000 mode=irq warmup=10 rounds=1",
                        "--disk", self.folder.disk("a"))
        self.assertRegex(out, r"(?m)^bench .*iops=[1-9]")

    def testRequestsOnTwoQueues(self):
        for mode in ("poll", "irq"):
            with self.subTest(mode):
                out = self.boot(f"bench=blk depth=6 queues=2 count=1000 mode={mode} warmup=10",
                                "--disk", f"{self.folder.disk(mode)},queues=2")
                self.assertRegex(out, r"(?m)^bench .*queues=2 .*iops=[1-9]")

    def testManyBootsLeaveNoProcess(self):
        for _ in range(5):
            self.boot("hello")
        self.assertEqual(machine.processes_of(self.folder.path), [])


class Memory(unittest.TestCase):
    """Sizes at which the layout of RAM changes."""

    def setUp(self):
        self.folder = machine.Folder()
        self.addCleanup(self.folder.close)
        self.name = self.folder.vm("vm")

    def testSmallestAndAroundTheHole(self):
        # RAM goes on at 4 GiB once 3 GiB are full.
        for size in ("2M", "3070M", "3072M", "3074M", "5G"):
            with self.subTest(size):
                code, out, err = self.folder.run(
                    "run", "--kernel", self.folder.payload, "--memory", size, "--cmdline",
                    "scratch", "--disk", self.folder.disk("a"))
                self.assertEqual(code, 0, out + err)
                self.assertRegex(out, r"payload: [1-9]\d* passed, 0 failed")


class PayloadAsOrdinaryUser(Payload):
    user = machine.ORDINARY_USER


class Serial(unittest.TestCase):
    """The 16550's back ends."""

    def setUp(self):
        self.folder = machine.Folder()
        self.addCleanup(self.folder.close)
        self.name = self.folder.vm("vm")

    def testLateReaderOfTheSocketSeesTheFirstByte(self):
        path, console = self.folder.file("run/serial"), self.folder.file("guest/console")
        process = self.folder.start("run", "--name", self.name, "--kernel", self.folder.payload,
                                    "--memory", "64M", "--cmdline", "idle",
                                    "--console", f"file={console}", "--serial", f"socket={path}")
        try:
            self.folder.status(self.name)
            until = time.monotonic() + 60
            while os.path.getsize(console) == 0:  # by then its first lines are said
                self.assertLess(time.monotonic(), until)
                time.sleep(0.01)
            with socket.socket(socket.AF_UNIX) as reader:
                reader.settimeout(60)
                reader.connect(path)
                text = b""
                while b"passed," not in text:
                    piece = reader.recv(65536)
                    self.assertNotEqual(piece, b"", text)
                    text += piece
            self.assertRegex(text, rb"^payload: idle\r?\n")
        finally:
            self.folder.run("stop", "--force", self.name)
            out, err = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 18, out + err)
        self.assertEqual(self.folder.left_over(), [])

    def testInputReachesTheGuest(self):
        process = self.folder.start("run", "--kernel", self.folder.payload, "--memory", "64M",
                                    "--cmdline", "keys=echo", stdin=subprocess.PIPE)
        out, err = process.communicate(input=b"abcq", timeout=30)
        self.assertEqual(process.returncode, 0, out + err)
        self.assertIn(b"abc", out)


class Ends(unittest.TestCase):
    """How a VM ends that somebody else ends."""

    def setUp(self):
        self.folder = machine.Folder()
        self.addCleanup(self.folder.close)
        self.name = self.folder.vm("vm")
        self.process = self.folder.start(
            "run", "--name", self.name, "--kernel", self.folder.payload, "--memory", "64M",
            "--cmdline", "idle", "--disk", self.folder.disk("a"), "--console",
            "file=" + self.folder.file("guest/console"))
        self.addCleanup(self.process.kill)
        actors = self.folder.status(self.name)["actors"]
        self.pids = {actor["name"]: actor["pid"] for actor in actors}

    def ended(self, status):
        out, err = self.process.communicate(timeout=20)
        self.assertEqual(self.process.returncode, status, out + err)
        self.assertEqual(self.folder.left_over(), [])
        for name, pid in self.pids.items():
            self.assertFalse(os.path.exists(f"/proc/{pid}"), f"{name} is still there")
        return err.decode(errors="replace")

    def testStop(self):
        self.folder.run("stop", "--force", self.name)
        self.ended(18)

    def testSigterm(self):
        self.process.terminate()
        self.ended(18)

    def testDeadSerialPortIsReplacedAndNamed(self):
        os.kill(self.pids["serial"], 9)
        until = time.monotonic() + 20
        serial = {}
        while serial.get("restarts") != 1 or serial["isStarting"]:
            self.assertLess(time.monotonic(), until)
            serial = {actor["name"]: actor for actor in self.folder.status(self.name)["actors"]}["serial"]
        self.folder.run("stop", "--force", self.name)
        self.assertRegex(self.ended(18), r"serial .* was killed by SIGKILL")

    def testDeadBroker(self):
        os.kill(self.pids["broker"], 9)
        self.ended(20)

    def testKilledSupervisorTakesAllWithIt(self):
        self.process.kill()
        self.process.communicate(timeout=20)
        until = time.monotonic() + 5
        left = self.pids
        while left and time.monotonic() < until:
            left = {name: pid for name, pid in left.items() if os.path.exists(f"/proc/{pid}")}
            time.sleep(0.02)
        self.assertEqual(left, {})
        # What nobody was left to remove does not stand in the way of the next VM of that name.
        code, out, err = self.folder.run("run", "--name", self.name, "--kernel",
                                         self.folder.payload, "--memory", "64M", "--cmdline",
                                         "hello")
        self.assertEqual(code, 0, out + err)
        self.assertEqual(self.folder.left_over(), [])


if __name__ == "__main__":
    report.main()
