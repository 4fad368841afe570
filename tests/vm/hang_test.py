#!/usr/bin/env -S python3 -B
"""Devices that hang are replaced: stopped by a signal, or in an endless loop, in whatever state."""

import contextlib
import os
import random
import signal
import socket
import sys
import threading
import time

import graph_test
import report
import supervised

sys.path.insert(0, "vmm/testing")
import tiny_guest

ENDLESS_LOOP = bytes.fromhex("ebfe")
DEVICES = ("blk0", "net0", "console0", "balloon0", "vsock0", "rng0")
CID = 4100000014


class Hang(supervised.SupervisedVm):
    def stop(self, name):
        """Stops this device's process, whose pid it returns."""
        pid = self.actors()[name]["pid"]
        os.kill(pid, signal.SIGSTOP)
        return pid

    def untilReplaced(self, process, name, pid):
        until = time.monotonic() + 60
        while True:
            actor = self.actors()[name]
            if actor["pid"] != pid:
                return
            self.assertIsNone(process.poll(), "the VM ended")
            self.assertLess(time.monotonic(), until, f"{name} is not replaced: {actor}")
            time.sleep(0.02)

    def untilMore(self, process, words):
        """Until the guest has said them once more."""
        count = self.said().count(words)
        until = time.monotonic() + 60
        while self.said().count(words) <= count:
            self.assertIsNone(process.poll(), "the VM ended")
            self.assertLess(time.monotonic(), until, f"no further {words!r}")
            time.sleep(0.01)

    def everyDevice(self):
        """Options of a VM that has one of each, and the devices' names."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        options = ("--disk", self.folder.disk("a", 8 << 20), "--net", f"fd={theirs.fileno()}",
                   "--console", f"socket={self.folder.file('console')}", "--balloon", "stats",
                   "--vsock", f"cid={CID},socket={self.folder.file('vsock')}")
        return options, {"pass_fds": [theirs.fileno()]}

    def testWhileItServesADisk(self):
        """The guest goes on whichever is stopped."""
        options, more = self.everyDevice()
        vm = self.start("bench=durability scratch count=2000000000 seed=5 size=4096 depth=32 "
                        "mode=irq", *options, **more)
        self.until(vm, "flushed ")
        for name in DEVICES + ("rng0", "blk0"):
            with self.subTest(name):
                pid = self.stop(name)
                if name != "blk0":
                    self.untilMore(vm, "flushed ")  # nobody waits for it
                self.untilReplaced(vm, name, pid)
                self.untilMore(vm, "flushed ")
        self.assertNotIn("FAIL", self.said())
        vm.terminate()
        said = self.end(vm, 18)
        for name in DEVICES:
            self.assertRegex(said, name + r" \(.*\) hung \(it is stopped\) and was killed; another "
                                          "process takes its place")

    def testWhileItsDriverUsesIt(self):
        """All at once, of a guest that has tried each of them and keeps it."""
        options, more = self.everyDevice()
        vm = self.start("idle", *options, **more)
        self.until(vm, " 0 failed")
        pids = {name: self.stop(name) for name in DEVICES}
        for name, pid in pids.items():
            self.untilReplaced(vm, name, pid)
        vm.terminate()
        self.end(vm, 18)

    def underWay(self, bench, again, name, *options, memory="64M", **more):
        """It is stopped with requests on their way, and the guest's benchmark goes on."""
        vm = self.start(bench, *options, memory=memory, **more)
        self.until(vm, again, seconds=120)
        self.untilReplaced(vm, name, self.stop(name))
        self.untilMore(vm, again)
        self.untilMore(vm, again)
        self.assertNotIn("FAIL", self.said())
        vm.terminate()
        self.end(vm, 18)

    def testWithFramesUnderWay(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        over = threading.Event()

        def take():
            ours.settimeout(0.1)
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    if not ours.recv(2048):
                        return
        taker = threading.Thread(target=take)
        taker.start()
        try:
            self.underWay("bench=net op=send frame=60 depth=64 count=20000 rounds=1000000 mode=irq",
                          "bench net net=0", "net0", "--net", f"fd={theirs.fileno()}",
                          pass_fds=[theirs.fileno()])
        finally:
            over.set()
            taker.join()
            ours.close()
            theirs.close()

    def testWithPagesUnderWay(self):
        self.underWay("bench=balloon count=4096 rounds=1000000 mode=irq", "bench balloon round=",
                      "balloon0", "--balloon", "stats", memory="256M")

    def testWithKeysUnderWay(self):
        path = self.folder.file("console")
        vm = self.start("keys=console", "--console", f"socket={path}")
        self.until(vm, "console0  write")
        pid = self.stop("console0")
        client = self.clientOf(path)
        client.sendall(b"abc")
        self.untilReplaced(vm, "console0", pid)
        # Whoever waited in the backlog is served by the next one.
        got = b""
        while not got.endswith(b"abc"):
            part = client.recv(65536)
            self.assertTrue(part, "hung up on")
            got += part
        client.sendall(b"q")
        self.end(vm)
        self.assertNotIn("FAIL", self.said())

    def testWithAStreamUnderWay(self):
        """Which ends, as the guest has not answered yet; the next one can begin."""
        path = self.folder.file("vsock")
        vm = self.start("idle", "--vsock", f"cid={CID},socket={path}")
        self.until(vm, " failed")
        client = self.clientOf(path)
        client.sendall(b"CONNECT 1234\n")
        self.untilReplaced(vm, "vsock0", self.stop("vsock0"))
        with contextlib.suppress(ConnectionError):
            self.assertEqual(client.recv(64), b"")
        self.clientOf(path).sendall(b"CONNECT 1234\n")
        vm.terminate()
        self.end(vm, 18)

    def clientOf(self, path):
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.settimeout(60)
        client.connect(path)
        return client

    def testWhileNoDriverUsesIt(self):
        kernel = self.folder.file("sleeper")
        with open(kernel, "wb") as file:
            file.write(tiny_guest.elf(tiny_guest.SLEEP))
        self.folder.payload = kernel
        options, more = self.everyDevice()
        vm = self.start("", *options, **more)
        pids = {name: self.stop(name) for name in DEVICES}
        for name, pid in pids.items():
            self.untilReplaced(vm, name, pid)
        vm.terminate()
        self.end(vm, 18)

    def testWhileItsDriverBegins(self):
        """Of those whose death a driver sees nothing of but a pause."""
        rng = random.Random(7)
        for _ in range(4):
            vm = self.start("", "--disk", self.folder.disk("a"), "--balloon", "stats")
            actors = self.actors()
            time.sleep(rng.random() * 0.03)
            for name in ("blk0", "rng0", "balloon0"):
                with contextlib.suppress(ProcessLookupError):  # the VM may have ended
                    os.kill(actors[name]["pid"], signal.SIGSTOP)
            self.end(vm)
            self.assertIn(" 0 failed", self.said())

    def testWhileItsVmIsPaused(self):
        options, more = self.everyDevice()
        vm = self.start("idle", *options, **more)
        self.until(vm, " 0 failed")
        self.assertEqual(self.folder.run("pause", self.name)[0], 0)
        pids = {name: actor["pid"] for name, actor in self.actors(paused=True).items()}
        for name in DEVICES:
            os.kill(pids[name], signal.SIGSTOP)
        time.sleep(2)
        for name in DEVICES:
            self.assertEqual(self.actors(paused=True)[name]["pid"], pids[name])
        self.assertEqual(self.folder.run("resume", self.name)[0], 0)
        for name in DEVICES:
            self.untilReplaced(vm, name, pids[name])
        vm.terminate()
        self.end(vm, 18)

    def testTheSerialPortIsWaitedFor(self):
        """Its actor is nobody's to replace: it goes on where it was stopped, and the guest's vCPUs
        run meanwhile."""
        kernel = self.folder.file("talker")
        with open(kernel, "wb") as file:
            file.write(tiny_guest.elf(tiny_guest.TALK))
        self.folder.payload = kernel
        vm = self.start("")
        self.until(vm, "hi\n")
        pid = self.stop("serial")
        before = self.cpuTime(vm)
        until = time.monotonic() + 60
        while self.cpuTime(vm) < before + 0.5:
            self.assertLess(time.monotonic(), until, "its vCPU stands still")
            time.sleep(0.02)
        self.assertEqual(self.actors()["serial"]["pid"], pid)
        os.kill(pid, signal.SIGCONT)
        self.untilMore(vm, "hi\n")
        vm.terminate()
        self.end(vm, 18)

    def cpuTime(self, vm):
        """Seconds of CPU that the broker has used."""
        pid = self.actors()["broker"]["pid"]
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def testAnEndlessLoop(self):
        options, more = self.everyDevice()
        vm = self.start("idle", *options, **more)
        self.until(vm, " 0 failed")
        for name in DEVICES:
            pid = self.actors()[name]["pid"]
            graph_test.take_over(pid, ENDLESS_LOOP)
            self.untilReplaced(vm, name, pid)
        vm.terminate()
        self.assertIn("its event loop turns no more", self.end(vm, 18))

    def testTheThirdTimeItStaysDownUntilItsDriverResetsIt(self):
        vm = self.start("idle", "--disk", self.folder.disk("a"))
        self.until(vm, " 0 failed")
        pid = None
        until = time.monotonic() + 200
        while not self.actors()["rng0"]["isDown"]:
            self.assertLess(time.monotonic(), until, "it never stays down")
            actor = self.actors()["rng0"]
            if actor["pid"] != pid and self.serves(actor["pid"]):
                pid = actor["pid"]
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            time.sleep(0.02)
        self.assertTrue(self.actors()["rng0"]["isDown"])
        self.assertRegex(self.folder.run("status", self.name)[1], r"(?m)^rng0 .* \d+, down *$")
        # Everything else goes on, and a driver that begins anew finds it well.
        self.assertEqual(self.folder.run("reset", self.name)[0], 0)
        until = time.monotonic() + 60
        while self.said().count(" 0 failed") < 2:
            self.assertIsNone(vm.poll(), "the VM ended")
            self.assertLess(time.monotonic(), until, self.said()[-500:])
            time.sleep(0.02)
        self.assertFalse(self.actors()["rng0"]["isDown"])
        vm.terminate()
        self.assertIn("for the third time within 10 s; it stays down until its driver resets it",
                      self.end(vm, 18))


if __name__ == "__main__":
    report.main()
