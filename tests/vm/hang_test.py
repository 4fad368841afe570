#!/usr/bin/env -S python3 -B
"""Devices that hang are replaced: stopped by a signal, or in an endless loop, in whatever state."""

import contextlib
import os
import random
import signal
import sys
import time

import graph_test
import report
import supervised

sys.path.insert(0, "vmm/testing")
import tiny_guest

ENDLESS_LOOP = bytes.fromhex("ebfe")


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

    def serves(self, pid):
        """Whether it has taken the filter under which it serves, or is about to be looked at for that."""
        try:
            with open(f"/proc/{pid}/status") as file:
                return int(file.read().split("Seccomp_filters:")[1].split()[0]) >= 2
        except (OSError, IndexError):
            return False

    def testWhileItServes(self):
        vm = self.start("bench=durability scratch count=2000000000 seed=5 size=4096 depth=32 "
                        "mode=irq", "--disk", self.folder.disk("a", 8 << 20))
        self.until(vm, "flushed ")
        for name in ("rng0", "blk0", "rng0", "blk0"):
            with self.subTest(name):
                pid = self.stop(name)
                if name != "blk0":
                    self.untilMore(vm, "flushed ")  # nobody waits for it
                self.untilReplaced(vm, name, pid)
                self.untilMore(vm, "flushed ")
        self.assertNotIn("FAIL", self.said())
        vm.terminate()
        said = self.end(vm, 18)
        self.assertRegex(said, r"blk0 \(.*\) hung \(it is stopped\) and was killed; another process "
                               "takes its place")

    def testWhileNoDriverUsesIt(self):
        kernel = self.folder.file("sleeper")
        with open(kernel, "wb") as file:
            file.write(tiny_guest.elf(tiny_guest.SLEEP))
        self.folder.payload = kernel
        vm = self.start("", "--disk", self.folder.disk("a"))
        for name in ("blk0", "rng0"):
            self.untilReplaced(vm, name, self.stop(name))
        vm.terminate()
        self.end(vm, 18)

    def testWhileItsDriverBegins(self):
        rng = random.Random(7)
        for _ in range(4):
            vm = self.start("", "--disk", self.folder.disk("a"))
            actors = self.actors()
            time.sleep(rng.random() * 0.03)
            for name in ("blk0", "rng0"):
                with contextlib.suppress(ProcessLookupError):  # the VM may have ended
                    os.kill(actors[name]["pid"], signal.SIGSTOP)
            self.end(vm)
            self.assertIn(" 0 failed", self.said())

    def testWhileItsVmIsPaused(self):
        vm = self.start("idle", "--disk", self.folder.disk("a"))
        self.until(vm, " 0 failed")
        self.assertEqual(self.folder.run("pause", self.name)[0], 0)
        pids = {name: actor["pid"] for name, actor in self.actors(paused=True).items()}
        for name in ("blk0", "rng0"):
            os.kill(pids[name], signal.SIGSTOP)
        time.sleep(2)
        for name in ("blk0", "rng0"):
            self.assertEqual(self.actors(paused=True)[name]["pid"], pids[name])
        self.assertEqual(self.folder.run("resume", self.name)[0], 0)
        for name in ("blk0", "rng0"):
            self.untilReplaced(vm, name, pids[name])
        vm.terminate()
        self.end(vm, 18)

    def testAnEndlessLoop(self):
        vm = self.start("idle", "--disk", self.folder.disk("a"))
        self.until(vm, " 0 failed")
        for name in ("blk0", "rng0"):
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
