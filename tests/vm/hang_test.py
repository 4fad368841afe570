#!/usr/bin/env -S python3 -B
"""Devices that hang are replaced: stopped by a signal, or in an endless loop, in whatever state."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import durability
import graph_test
import report
import supervised

sys.path.insert(0, "vmm/testing")
import tiny_guest

ENDLESS_LOOP = bytes.fromhex("ebfe")
# close(3), its pipe, and then the epoll_wait() it was in again and again: keeps rdi for that.
CLOSES_ITS_PIPE = bytes.fromhex("57" "bf03000000" "b803000000" "0f05" "5f" "b8e8000000" "0f05" "ebf7")
DEVICES = ("blk0", "net0", "console0", "balloon0", "vsock0", "rng0")


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
                   "--vsock", f"cid={self.folder.cid()},socket={self.folder.file('vsock')}")
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
        vm = self.start("idle", "--vsock", f"cid={self.folder.cid()},socket={path}")
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

    def testWhileTheNextOneComes(self):
        """Successors that are stopped on their way, wherever that is: also before they serve, where
        nothing is seen of them and a deadline tells."""
        options, more = self.everyDevice()
        vm = self.start("idle", *options, **more)
        self.until(vm, " 0 failed")
        rng = random.Random(23)
        for _ in range(2):  # the third in a row would stay down
            before = {name: self.actors()[name]["pid"] for name in DEVICES}
            begun = set(durability.processes_below(vm.pid))
            for pid in before.values():
                os.kill(pid, signal.SIGKILL)
            stopped = set()
            until = time.monotonic() + 60
            while len(stopped) < len(DEVICES):
                self.assertLess(time.monotonic(), until, "there are no successors")
                for pid, name in durability.processes_below(vm.pid).items():
                    if pid in begun | stopped or f"{name[len('troupe-'):]}0" not in DEVICES:
                        continue
                    time.sleep(rng.random() * 0.003)
                    stopped.add(pid)
                    os.kill(pid, signal.SIGSTOP)
            for name in DEVICES:
                until = time.monotonic() + 100
                while True:
                    actor = self.actors()[name]
                    if actor["pid"] not in stopped | {before[name]} and not actor["isStarting"]:
                        break
                    self.assertIsNone(vm.poll(), "the VM ended")
                    self.assertLess(time.monotonic(), until, f"{name} is not replaced: {actor}")
                    time.sleep(0.05)
        # Each of them serves a guest that begins anew.
        self.assertEqual(self.folder.run("reset", self.name)[0], 0)
        self.untilMore(vm, " 0 failed")
        self.assertNotIn("FAIL", self.said())
        vm.terminate()
        vm.wait(60)
        self.folder.run("gc")  # what was in hand each time, such as a buffer for frames
        self.end(vm, 18)

    def testWhileItIsToHandOver(self):
        """One that is stopped can let go of nothing; whoever wanted another process is told."""
        options, more = self.everyDevice()
        vm = self.start("idle", *options, **more)
        self.until(vm, " 0 failed")
        for name in DEVICES:
            with self.subTest(name):
                pid = self.stop(name)
                code, out, err = self.folder.run("device", "replace", self.name, name)
                if code != 0:
                    self.assertRegex(err, "^troupe: TRP-dev-003: ", out)
                self.untilReplaced(vm, name, pid)
        self.assertEqual(self.folder.run("reset", self.name)[0], 0)
        self.untilMore(vm, " 0 failed")
        self.assertNotIn("FAIL", self.said())
        vm.terminate()
        self.end(vm, 18)

    def testWhileItWaits(self):
        """A spare that is stopped is no spare; another one takes its place, and serves when it is to."""
        options, more = self.everyDevice()
        vm = self.start("idle", *options, spare=1, **more)
        self.until(vm, " 0 failed")
        spares = self.awaitSpares({})
        for pid in spares.values():
            os.kill(pid, signal.SIGSTOP)
        fresh = self.awaitSpares(spares)
        self.assertTrue(all(actor["restarts"] == 0 for actor in self.actors().values()))
        for name, pid in fresh.items():
            os.kill(self.actors()[name]["pid"], signal.SIGKILL)
            until = time.monotonic() + 60
            while self.actors()[name]["pid"] != pid:
                self.assertLess(time.monotonic(), until, f"the spare of {name} does not take over")
                time.sleep(0.01)
        vm.terminate()
        self.end(vm, 18)

    def awaitSpares(self, others):
        """Those of every device, once all are ready and none is one of `others`."""
        until = time.monotonic() + 60
        while True:
            spares = self.spares()
            if set(spares) == set(DEVICES) and not set(spares.values()) & set(others.values()):
                return spares
            self.assertLess(time.monotonic(), until, spares)
            time.sleep(0.02)

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
        """Of its actor nobody judges whether it hangs: it goes on where it was stopped, and the guest's
        vCPUs run meanwhile."""
        vm = self.talker()
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

    def talker(self):
        """A VM whose guest does nothing but talk on its serial port."""
        kernel = self.folder.file("talker")
        with open(kernel, "wb") as file:
            file.write(tiny_guest.elf(tiny_guest.TALK))
        self.folder.payload = kernel
        vm = self.start("")
        self.until(vm, "hi\n")
        return vm

    def testTheSerialPortIsReplaced(self):
        """Whatever the guest says after that arrives, but for what a dead process had read."""
        vm = self.talker()
        for _ in range(4):
            pid = self.actors()["serial"]["pid"]
            os.kill(pid, signal.SIGKILL)
            self.untilReplaced(vm, "serial", pid)
            self.untilMore(vm, "hi\n")
        self.assertEqual(self.folder.run("graph", self.name)[0], 0)
        self.assertEqual(self.actors()["serial"]["restarts"], 4)
        # A piece that is missing is missing whole: nothing came twice or mixed up.
        self.assertLessEqual(sum(line not in ("hi", "") for line in self.said().split("\n")), 8)
        vm.terminate()
        self.end(vm, 18)

    def testTheSerialPortDiesWhileItIsLookedAt(self):
        """Each process right after it was started: none of these deaths is the VM's."""
        vm = self.talker()
        kills, last = 0, None
        while kills < 9:
            self.assertIsNone(vm.poll(), "the VM ended")
            found = [pid for pid, name in durability.processes_below(vm.pid).items()
                     if name == "troupe-serial" and pid != last]
            if not found:
                continue
            last = found[0]
            time.sleep(0.0004 * (kills * 7 % 10))
            with contextlib.suppress(ProcessLookupError):
                os.kill(last, signal.SIGKILL)
                kills += 1
        self.untilReplaced(vm, "serial", last)
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

    def testOneThatClosesItsPipeAndLivesOn(self):
        """Nobody killed it: the death that follows is its own."""
        options, more = self.everyDevice()
        vm = self.start("idle", *options, **more)
        self.until(vm, " 0 failed")
        for name in DEVICES:
            pid = self.actors()[name]["pid"]
            graph_test.take_over(pid, CLOSES_ITS_PIPE)
            self.untilReplaced(vm, name, pid)
        vm.terminate()
        said = self.end(vm, 18)
        for name in DEVICES:
            self.assertRegex(said, name + r" \(.*\) hung \(it closed its pipe and lived on\) and was "
                                          "killed; another process takes its place")

    def testASpareThatHasClosedItsPipe(self):
        """It cannot take the place of the one that dies; another one can."""
        vm = self.start("idle", "--disk", self.folder.disk("a"), spare=1)
        self.until(vm, " 0 failed")
        for name in ("rng0", "blk0"):
            until = time.monotonic() + 60
            while name not in self.spares():
                self.assertLess(time.monotonic(), until, f"{name} has no spare")
                time.sleep(0.02)
            spare, pid = self.spares()[name], self.actors()[name]["pid"]
            graph_test.take_over(spare, CLOSES_ITS_PIPE)
            while os.path.lexists(f"/proc/{spare}/fd/3"):
                self.assertLess(time.monotonic(), until, f"{spare} keeps its pipe")
                time.sleep(0.01)
            os.kill(pid, signal.SIGKILL)
            self.untilReplaced(vm, name, pid)
            self.untilReplaced(vm, name, spare)
        self.assertEqual(self.folder.run("reset", self.name)[0], 0)
        self.untilMore(vm, " 0 failed")
        vm.terminate()
        self.end(vm, 18)

    def testWhenNothingHasHappenedForLong(self):
        """Devices that do nothing, not even to show that they are well."""
        options, more = self.everyDevice()
        vm = self.start("idle", *options, **more)
        self.until(vm, " 0 failed")
        pids = {name: self.actors()[name]["pid"] for name in DEVICES}
        for pid in pids.values():
            self.untilAtRest(pid)
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)
        for name, pid in pids.items():
            self.untilReplaced(vm, name, pid)
        vm.terminate()
        self.end(vm, 18)

    def untilAtRest(self, pid):
        """Until it has used no CPU time for two seconds."""
        until = time.monotonic() + 60
        clock = ~pid << 3 | 2  # as clock_getcpuclockid() says
        before, since = time.clock_gettime_ns(clock), time.monotonic()
        while time.monotonic() < since + 2:
            self.assertLess(time.monotonic(), until, f"{pid} is never at rest")
            time.sleep(0.05)
            now = time.clock_gettime_ns(clock)
            if now != before:
                before, since = now, time.monotonic()

    def testAThreadInAnEndlessLoop(self):
        """Whichever: those of a disk and of a console that reads a pipe and writes a file are others
        than the main one."""
        disk = self.folder.disk("a", 8 << 20)
        with open(disk, "r+b") as file:
            file.write(b"hang here")
        vm = self.start("idle", "--disk", disk, "--console", "stdio", "--console",
                        f"file={self.folder.file('log')},name=log", stdin=subprocess.PIPE)
        self.until(vm, " 0 failed")
        for name in ("blk0", "console0"):
            code, out, err = self.folder.run("device", "replace", self.name, name, "--binary",
                                             os.path.realpath("devices/hanging_devices"))
            self.assertEqual(code, 0, out + err)
        # The thread that reads what is typed.
        pid = self.actors()["console0"]["pid"]
        vm.stdin.write(b"hang here")
        vm.stdin.flush()
        self.untilReplaced(vm, "console0", pid)
        # A guest that begins anew reads its disk, and says something on its console.
        pids = {name: self.actors()[name]["pid"] for name in ("blk0", "console0")}
        self.assertEqual(self.folder.run("reset", self.name)[0], 0)
        for name, pid in pids.items():
            self.untilReplaced(vm, name, pid)
        vm.terminate()
        vm.wait(60)
        self.folder.run("gc")  # the request that each process of the disk's hung at
        said = self.end(vm, 18)
        for name in pids:
            self.assertRegex(said, name + r" \(.*\) hung \(one of its threads turns no more\)")

    def testASpareThatHangsAgainAndAgainIsFollowedMoreAndMoreSeldom(self):
        """It may be the process that serves which makes it look so."""
        vm = self.start("idle", spare=1)
        self.until(vm, " 0 failed")
        stopped = set()
        until = time.monotonic() + 12
        while time.monotonic() < until:
            pid = self.spares().get("rng0")
            if pid is not None and pid not in stopped:
                stopped.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            time.sleep(0.02)
        # After 1, 2, 4 and 8 seconds; at once there would be twenty and more of them.
        self.assertIn(len(stopped), range(2, 6))
        # The one that serves has nothing to do with it.
        self.assertEqual(self.actors()["rng0"]["restarts"], 0)
        vm.terminate()
        self.end(vm, 18)

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
        # Nobody is taken for it.
        for words in (("graph", self.name), ("inspect", self.name, "jail")):
            code, out, err = self.folder.run(*words)
            self.assertEqual(code, 0, out + err)
            self.assertRegex(out, r"(?m)^rng0, \S+, not looked at: down\b")
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
