#!/usr/bin/env -S python3 -B
"""Every device goes on with another process that was ready before the one before ended: a spare, or
one of `troupe device replace`. What is tried on the way is what replace_test tries with deaths."""

import contextlib
import os
import random
import signal
import time
import unittest

import replace_test
import report
import supervised

replace_test.KILLS = 6  # of each test

TESTS = (
    "testAVolatileDiskThatIsWrittenMeanwhile",
    "testADiskThatHasGrownIsStillAsLarge",
    "testReadsAreAnsweredOnceEach",
    "testFramesAreSentAndEachBufferComesBackOnce",
    "testEntropyThatIsIdle",
    "testAConsoleWhoseGuestEchoes",
    "testABalloonThatIsFilled",
    "testTheTargetOfABalloonOutlivesItsProcess",
    "testTheSocketDeviceOfAnIdleGuest",
    "testAnImageThatIsWrittenAndFlushedMeanwhile",
    "testPasst",
    "testWhatEachProcessHolds",
)

EVERYTHING = ("blk0", "blk1", "blk2", "console0", "net0", "rng0", "balloon0", "vsock0")


class Ready(replace_test.Replaced):
    spare = 0

    def start(self, cmdline, *options, **more):
        return super().start(cmdline, *options, spare=self.spare, **more)

    def kill_again_and_again(self, process, program, kills, rng):
        """So many processes of the first device of this program follow one another."""
        device = program[len("troupe-"):] + "0"
        for done in range(kills):
            time.sleep(rng.random() * 0.02)
            if not self.next(process, device):
                return done
        return kills

    def writeAndKillImage(self, variant):
        # Two kinds are enough here: how an image is taken over is not a spare's affair.
        if variant in replace_test.durability.VARIANTS[:2]:
            super().writeAndKillImage(variant)

    def next(self, process, device):
        """Another process for the device; False when the VM has ended instead."""
        raise NotImplementedError

    def serving(self, process):
        """The actors that are no spares; none when the VM has ended."""
        with contextlib.suppress(AssertionError):
            return self.actors()
        process.wait(60)
        return {}

    def everything(self):
        path = self.folder.disk("raw", 1 << 20)
        image = self.folder.file("image")
        self.assertEqual(self.folder.run("disk", "create", image, "8M", "--format", "qcow2")[0], 0)
        return ("--disk", path, "--disk", f"{image},format=qcow2", "--disk",
                f"{self.folder.disk('other', 1 << 20)},volatile", "--console",
                f"socket={self.folder.file('console')}", "--net", "user", "--balloon", "stats",
                "--vsock", f"cid={self.folder.cid()}")

    def testWhatEachProcessHolds(self):
        vm = self.start("idle", *self.everything())
        self.until(vm, " 0 failed")
        for device in EVERYTHING:
            with self.subTest(device):
                self.assertTrue(self.next(vm, device))
        self.awaitSpares()
        for words in (("graph", self.name), ("inspect", self.name, "jail")):
            code, out, err = self.folder.run(*words)
            self.assertEqual(code, 0, out + err)
        # They serve: a guest that begins anew tries each of them.
        passed = self.said().count(" 0 failed")
        self.assertEqual(self.folder.run("reset", self.name)[0], 0)
        until = time.monotonic() + 60
        while self.said().count(" 0 failed") == passed:
            self.assertIsNone(vm.poll(), self.said())
            self.assertLess(time.monotonic(), until, self.said())
            time.sleep(0.01)
        self.assertNotIn("FAIL", self.said())
        vm.terminate()
        self.end(vm, 18)

    def testPasst(self):
        vm = self.start("idle", "--net", "user")
        self.until(vm, " 0 failed")
        helpers = set()
        for _ in range(4):
            self.assertTrue(self.next(vm, "net0"))
            helpers.add(self.actors()["passt0"]["pid"])
        self.assertEqual(len(helpers), 4)
        vm.terminate()
        self.end(vm, 18)

    def awaitSpares(self):
        pass


class WithASpare(Ready):
    """The process dies, and the one that waits takes its place."""

    spare = 1

    def next(self, process, device):
        until = time.monotonic() + 60
        while process.poll() is None:
            self.assertLess(time.monotonic(), until, f"{device} has no spare")
            spare = None
            with contextlib.suppress(AssertionError):  # the VM may just have ended
                spare = self.spares().get(device)
            actors = self.serving(process)
            # It may have been seen just before it took the place of the one before.
            if actors and spare is not None and actors[device]["pid"] != spare:
                return self.kill(process, device, actors[device]["pid"], spare)
            time.sleep(0.005)
        return False

    def kill(self, process, device, pid, spare):
        with contextlib.suppress(ProcessLookupError):  # the VM may just have ended
            os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + 60
        while process.poll() is None:
            actors = self.serving(process)
            if actors and actors[device]["pid"] != pid:
                self.assertEqual(actors[device]["pid"], spare)
                return True
            self.assertLess(time.monotonic(), until, f"{device} is not replaced")
            time.sleep(0.005)
        return False

    def awaitSpares(self):
        until = time.monotonic() + 60
        while set(self.spares()) != set(EVERYTHING):
            self.assertLess(time.monotonic(), until, self.spares())
            time.sleep(0.01)


class WithASpareThatDiesToo(WithASpare):
    """Both die, the second while the first's death is dealt with."""

    rng = random.Random(11)

    def restartsOf(self, kills):
        return range(kills, 2 * kills + 1)

    def kill(self, process, device, pid, spare):
        both = self.rng.sample([pid, spare], 2)
        for one in both:
            with contextlib.suppress(ProcessLookupError):  # the VM may just have ended
                os.kill(one, signal.SIGKILL)
            time.sleep(self.rng.choice((0, 0.0005, 0.002, 0.01)))
        until = time.monotonic() + 60
        while process.poll() is None:
            actors = self.serving(process)
            if actors and actors[device]["pid"] not in both:
                return True
            self.assertLess(time.monotonic(), until, f"{device} is not replaced")
            time.sleep(0.005)
        return False


class ByWish(Ready):
    """`troupe device replace`."""

    def next(self, process, device):
        pid = self.serving(process).get(device, {}).get("pid")
        code, out, err = self.folder.run("device", "replace", self.name, device)
        if code != 0:
            process.wait(60)  # fails when it lives
            return False
        actors = self.serving(process)
        if actors:
            self.assertNotEqual(actors[device]["pid"], pid)
        return True


SECOND_DEATHS = (
    "testReadsAreAnsweredOnceEach",
    "testFramesAreSentAndEachBufferComesBackOnce",
    "testAnImageThatIsWrittenAndFlushedMeanwhile",
)


def load_tests(loader, tests, pattern):
    every = [kind(name) for kind in (WithASpare, ByWish) for name in TESTS]
    return unittest.TestSuite(every + [WithASpareThatDiesToo(name) for name in SECOND_DEATHS])


if __name__ == "__main__":
    report.main()
