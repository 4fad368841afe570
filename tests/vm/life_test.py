#!/usr/bin/env -S python3 -B
"""The life of a guest: paused, reset, rebooted, asked to stop, on a whole jailed VM with real KVM."""

import contextlib
import os
import random
import re
import signal
import struct
import sys
import time
import unittest

import machine
import report

sys.path.insert(0, "vmm/testing")
import tiny_guest

SAY = b"\x66\xba\xf8\x03\xb0%c\xee"          # mov dx, 0x3f8; mov al, c; out dx, al
PANIC = b"\x66\xba\x05\x05\xb0\x01\xee"      # 1 to pvpanic's port
HALT = tiny_guest.SLEEP
# Looks at the power button's register until it was pressed, and switches the machine off.
BUTTON = (b"\x66\xba\x03\x06\xec\xa8\x01\x74\xf7"
          b"\x66\xba\x00\x06\xb0\x34\xee" + HALT)
# Triple fault 20 ms after saying '.'.
CRASH_SLOWLY = SAY % ord(".") + b"\xb9" + struct.pack("<I", 10000) + b"\xe2\xfe" + tiny_guest.CRASH


def threads(pid):
    """CPU time in ticks of each thread of `pid`, by the thread's name."""
    times = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat") as file:
            name, rest = file.read().split("(", 1)[1].rsplit(")", 1)
        times[name] = sum(map(int, rest.split()[11:13]))
    return times


def own_threads(pid):
    """How many it has, without those of the kernel's that work for its io_uring and come and go."""
    count = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            with open(f"/proc/{pid}/task/{task}/comm") as file:
                count += not file.read().startswith("iou-")
    return count


def resident(pid):
    """Bytes of its own memory, without what it shares (guest RAM)."""
    with open(f"/proc/{pid}/statm") as file:
        _, all_pages, shared, *_ = map(int, file.read().split())
    return (all_pages - shared) * os.sysconf("SC_PAGE_SIZE")


class Life(unittest.TestCase):

    def setUp(self):
        self.folder = machine.Folder()
        self.addCleanup(self.folder.close)
        self.name = self.folder.vm("vm")
        self.serial = self.folder.file("guest/serial")

    def start(self, kernel, *options):
        self.process = self.folder.start(
            "run", "--name", self.name, "--kernel", kernel, "--memory", "64M",
            "--serial", f"file={self.serial}", *options)
        self.addCleanup(self.process.kill)
        return self.folder.status(self.name,
                                  state="paused" if "--paused" in options else "running")

    def tiny(self, code):
        path = self.folder.file("kernel")
        with open(path, "wb") as file:
            file.write(tiny_guest.elf(code))
        return path

    def payload(self, words, *options):
        """Starts the guest that drives every device."""
        return self.start(self.folder.payload, "--cmdline", words,
                          "--disk", self.folder.disk("a", 16 << 20),
                          "--console", f"file={self.folder.file('guest/console')}", *options)

    def said(self):
        try:
            with open(self.serial, errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def hear(self, pattern, times=1, seconds=60):
        until = time.monotonic() + seconds
        while len(re.findall(pattern, self.said())) < times:
            self.assertIsNone(self.process.poll(), "the VM has ended")
            self.assertLess(time.monotonic(), until, f"no {pattern!r} in: {self.said()[-2000:]}")
            time.sleep(0.01)

    def tell(self, *words, expect=0):
        code, out, err = self.folder.run(*words)
        self.assertEqual(code, expect, out + err)
        return out + err

    def state(self):
        return self.folder.run("status", self.name)[1].split()[1]

    def ended(self, status):
        out, err = self.process.communicate(timeout=120)
        self.assertEqual(self.process.returncode, status, out + err)
        self.assertEqual(self.folder.left_over(), [])
        self.assertEqual(machine.processes_of(self.folder.path), [])
        return err.decode(errors="replace")

    def stop(self):
        self.tell("stop", "--force", self.name)
        return self.ended(18)


class Pause(Life):

    def testUnderLoadTheVcpusStandStillAndEveryRequestIsAnsweredAfterwards(self):
        for mode, requests in ("irq", 300000), ("poll", 800000):
            with self.subTest(mode):
                self.serial = self.folder.file(f"guest/serial-{mode}")
                status = self.payload(
                    f"bench=blk scratch write=1 depth=16 count={requests} mode={mode}")
                broker = next(a["pid"] for a in status["actors"] if a["kind"] == "broker")
                for count in range(5):
                    # A fast host is done before the last of them.
                    if count > 0 and re.search("(?m)^bench ", self.said()):
                        break
                    self.tell("pause", self.name)
                    self.assertEqual(self.state(), "paused")
                    before = threads(broker)["vp-0"]
                    time.sleep(0.1)
                    self.assertEqual(threads(broker)["vp-0"], before)
                    self.tell("resume", self.name)
                    time.sleep(0.05)
                self.ended(0)
                self.assertRegex(self.said(), rf"(?m)^bench .*count={requests} .*iops=[1-9]")
                self.assertRegex(self.said(), r", 0 failed")

    def testListAndStatusShowIt(self):
        self.payload("idle")
        self.tell("pause", self.name)
        self.tell("pause", self.name)  # which is no mistake
        self.assertRegex(self.tell("list"), rf"(?m)^{self.name} +paused ")
        self.assertIn(": paused for", self.tell("status", self.name))
        self.tell("resume", self.name)
        self.assertEqual(self.state(), "running")
        self.stop()

    def testAGuestThatBeginsPausedRunsItsFirstInstructionWhenItIsResumed(self):
        self.start(self.tiny(SAY % ord("a") + BUTTON), "--paused")
        # What it does first takes a microsecond.
        time.sleep(0.2)
        self.assertEqual(self.said(), "")
        self.tell("reset", self.name)
        self.assertEqual((self.state(), self.said()), ("paused", ""))
        self.tell("resume", self.name)
        self.hear("a")
        self.assertEqual(self.state(), "running")
        self.folder.run("power-button", self.name)
        self.ended(0)

    def testAGuestThatBeginsPausedHasItsDevicesAndCanBeStopped(self):
        self.payload("idle", "--paused")
        self.tell("resume", self.name)
        self.hear("passed, 0 failed")
        self.stop()
        self.payload("idle", "--paused")
        self.stop()

    def testInputWaitsForAPausedGuest(self):
        self.start(self.tiny(BUTTON))
        self.tell("pause", self.name)
        self.tell("power-button", self.name)
        time.sleep(0.2)
        self.assertIsNone(self.process.poll())
        self.folder.run("resume", self.name)  # the VM may be gone before it has answered
        self.ended(0)

    def testAPausedVmCanBeStoppedAndResetAndKilled(self):
        self.payload("idle")
        self.hear("0 failed")
        self.tell("pause", self.name)
        self.tell("reset", self.name)
        self.assertEqual(self.state(), "paused")
        self.assertEqual(self.said().count("0 failed"), 1)
        self.tell("resume", self.name)
        self.hear("0 failed", times=2)
        self.tell("pause", self.name)
        self.stop()


class Reset(Life):

    def testUnderLoadTheGuestStartsAnewAndItsDevicesWork(self):
        self.payload("bench=blk scratch write=1 depth=64 warmup=1000000000 count=100 mode=irq")
        for times in range(1, 6):
            self.hear("payload: bench", times)
            time.sleep(0.05)
            self.tell("reset", self.name)
        self.hear("payload: bench", 6)
        self.assertNotIn("FAIL", self.said())
        self.assertEqual(self.folder.status(self.name)["reboots"], 5)
        self.assertIn("started anew 5 time(s)", self.tell("status", self.name))
        self.stop()

    def testAHundredRebootsLeaveNothingBehind(self):
        status = self.payload("scratch end=reset", "--disk", self.folder.disk("b"))
        pids = {actor["name"]: actor["pid"] for actor in status["actors"] if actor["name"] != "front"}
        pids["troupe"] = self.process.pid

        def look():
            """What each process has, between two boots or within one."""
            fds = {name: len(os.listdir(f"/proc/{pid}/fd")) for name, pid in pids.items()}
            own = {name: resident(pid) for name, pid in pids.items()}
            tasks = {name: own_threads(pid) for name, pid in pids.items()}
            return fds, own, tasks

        def least(times):
            """The least of several looks: at one moment a kernel may be open, at another not."""
            looks = []
            for _ in range(times):
                looks.append(look())
                time.sleep(0.007)
            return [{name: min(one[part][name] for one in looks) for name in pids}
                    for part in range(3)]

        self.hear("passed, 0 failed", 5)
        fds, own, tasks = least(20)
        self.hear("passed, 0 failed", 105, seconds=300)
        self.assertNotIn("FAIL", self.said())
        later_fds, later_own, later_tasks = least(20)
        self.assertEqual(later_fds, fds)
        self.assertEqual(later_tasks, tasks)
        for name, size in later_own.items():
            self.assertLess(size, own[name] + (1 << 20), f"{name} grows")
        again = self.folder.status(self.name)
        self.assertGreaterEqual(again["reboots"], 100)
        self.assertEqual({a["name"]: a["pid"] for a in again["actors"]}
                         | {"front": 0, "troupe": self.process.pid}, pids | {"front": 0})
        self.tell("inspect", self.name, "jail")
        self.stop()

    def testEveryDevicePassesAfterAReboot(self):
        for words in ("scratch", "scratch intx", "scratch eventidx=0 indirect=0"):
            with self.subTest(words):
                self.serial = self.folder.file("guest/" + words.replace(" ", "-"))
                self.payload(words + " end=reset", "--cpus", "2")
                self.hear("passed, 0 failed", 3)
                self.assertNotIn("FAIL", self.said())
                self.stop()

    def testNoPageKeepsWhatTheBootBeforeWrote(self):
        # mov edi, 0x1000000; mov ecx, 8192; 1: cmp dword [edi], 0; jne self; add edi, 4096; loop 1b
        each = b"\xbf\x00\x00\x00\x01\xb9\x00\x20\x00\x00"
        look = each + b"\x83\x3f\x00\x75\xfe\x81\xc7\x00\x10\x00\x00\xe2\xf3"
        # The same with mov dword [edi], 1.
        mark = each + b"\xc7\x07\x01\x00\x00\x00\x81\xc7\x00\x10\x00\x00\xe2\xf2"
        # The first boot finds 0 everywhere in 32 MiB and leaves its marks; so does each after it.
        self.start(self.tiny(look + SAY % ord(".") + mark + tiny_guest.RESET))
        self.hear(r"\.", 5)  # a page that kept its mark would have stopped it
        self.stop()

    def testAGuestThatOnlyCrashesIsGivenUp(self):
        began = time.monotonic()
        self.process = self.folder.start(
            "run", "--name", self.name, "--kernel", self.tiny(CRASH_SLOWLY), "--memory", "64M",
            "--serial", f"file={self.serial}")
        err = self.ended(17)
        self.assertRegex(err, r"TRP-run-020: .* crashed, the 5th time within 60 s")
        self.assertIn("triple fault", err)
        self.assertEqual(self.said(), ".....")
        self.assertLess(time.monotonic() - began, 60)

    def testAPanicIsKnown(self):
        kernel = self.tiny(PANIC + SAY % ord("!") + HALT)
        words = ["run", "--name", self.name, "--kernel", kernel, "--memory", "64M", "--serial",
                 f"file={self.serial}"]
        code, out, err = self.folder.run(*words, "--on-reboot", "exit")
        self.assertEqual(code, 21, out + err)
        self.assertRegex(err, "TRP-run-022: .* panicked")
        self.assertEqual(self.said(), "!")
        code, out, err = self.folder.run(*words)
        self.assertEqual(code, 21, out + err)
        self.assertRegex(err, "TRP-run-020: .* panicked, the 5th time")

    def testAKernelThatIsGoneWhenItIsNeededEndsTheVm(self):
        kernel = self.tiny(BUTTON)
        self.start(kernel)
        os.truncate(kernel, 100)
        self.folder.run("reset", self.name)
        err = self.ended(20)
        self.assertRegex(err, r"TRP-boot-\d+: the guest of VM .* could not be started anew")

    def testADeviceThatDoesNotLetGoIsKilledAndReplaced(self):
        status = self.payload("idle")
        self.hear("0 failed")
        rng = next(a["pid"] for a in status["actors"] if a["name"] == "rng0")
        os.kill(rng, signal.SIGSTOP)
        self.tell("reset", self.name)
        self.hear("0 failed", 2)
        self.assertNotIn("FAIL", self.said())
        again = next(a for a in self.folder.status(self.name)["actors"] if a["name"] == "rng0")
        self.assertNotEqual(again["pid"], rng)
        self.assertEqual(again["restarts"], 1)
        self.stop()

    def testADeviceThatDiesAsTheGuestStartsAnewIsReplaced(self):
        status = self.payload("scratch end=reset")
        self.hear("0 failed", 2)
        blk = next(a["pid"] for a in status["actors"] if a["name"] == "blk0")
        os.kill(blk, signal.SIGKILL)
        self.hear("0 failed", 6)
        self.assertNotIn("FAIL", self.said())
        again = next(a for a in self.folder.status(self.name)["actors"] if a["name"] == "blk0")
        self.assertEqual(again["restarts"], 1)
        self.stop()


class Stop(Life):

    def testAGuestThatListensEndsWithZero(self):
        self.start(self.tiny(BUTTON))
        self.tell("stop", self.name)
        self.ended(0)

    def testOneThatDoesNotIsEndedInTime(self):
        self.payload("idle")
        began = time.monotonic()
        self.tell("stop", "--timeout", "2", self.name)
        self.assertGreaterEqual(time.monotonic() - began, 2)
        err = self.ended(18)
        self.assertIn("did not power off within 2 s", err)

    def testAForcedStopDoesNotWaitForAnotherThatDoes(self):
        self.payload("idle")
        patient = self.folder.start("stop", "--timeout", "60", self.name)
        until = time.monotonic() + 20
        while self.state() != "stopping":
            self.assertLess(time.monotonic(), until)
        for verb in ("reset", "pause"):
            self.assertIn("TRP-run-023: ", self.tell(verb, self.name, expect=2))
        self.tell("stop", "--force", self.name)
        self.ended(18)
        self.assertEqual(patient.wait(20), 0)
        patient.communicate()

    def testAPausedGuestIsWokenForIt(self):
        self.start(self.tiny(BUTTON))
        self.tell("pause", self.name)
        self.tell("stop", self.name)
        self.ended(0)

    def testAGuestThatResetsItselfInsteadIsNotStartedAnew(self):
        # Waits for the button, then resets itself.
        self.start(self.tiny(BUTTON[:9] + tiny_guest.RESET))
        self.tell("stop", self.name)
        self.ended(16)

    def testTheTimeoutIsChecked(self):
        for word in ("0", "-1", "soon", "3601"):
            self.assertIn("TRP-run-024", self.tell("stop", "--timeout", word, "x", expect=2))


class Races(Life):
    """Everything a user can do to a guest, at any moment, also when it is doing the same itself."""

    def testNothingIsLostOrStuck(self):
        seed = int(os.environ.get("LIFE_SEED", time.time()))
        print(f"LIFE_SEED={seed}")
        rand = random.Random(seed)
        guests = ["scratch end=reset", "bench=blk scratch write=1 depth=32 count=3000 end=reset",
                  "scratch intx end=reset", "idle"]
        for words in guests:
            with self.subTest(words):
                self.serial = self.folder.file("guest/" + words.replace(" ", "-"))
                self.payload(words, "--cpus", "3")
                until = time.monotonic() + 6
                while time.monotonic() < until:
                    verbs = [rand.choice(["pause", "resume", "reset", "resume", "power-button"])
                             for _ in range(3)]
                    clients = [self.folder.start(verb, self.name) for verb in verbs]
                    for client in clients:
                        out, err = client.communicate(timeout=30)
                        self.assertEqual(client.returncode, 0, out + err)
                    time.sleep(rand.random() * 0.02)
                self.assertIsNone(self.process.poll())
                self.tell("resume", self.name)
                before = self.said().count("payload:")
                self.tell("reset", self.name)
                self.hear("payload:", before + 1)
                self.assertNotIn("FAIL", self.said())
                self.tell("inspect", self.name, "jail")
                self.stop()

    def testAStopAtAnyMomentOfAReboot(self):
        rand = random.Random(4)
        for _ in range(12):
            self.payload("scratch end=reset")
            time.sleep(rand.random() * 0.4)
            self.stop()


if __name__ == "__main__":
    report.main()
