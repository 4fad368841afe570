"""A VM with the payload as its guest whose devices are replaced, for tests of that."""

import contextlib
import os
import re
import signal
import time
import unittest

import durability
import machine

PROFILES = {name: f"devices/{name}/{name}.profile"
            for name in ("balloon", "blk", "console", "net", "rng", "vsock")}


class SupervisedVm(unittest.TestCase):
    def setUp(self):
        self.folder = machine.Folder()
        self.addCleanup(self.folder.close)
        self.name = self.folder.vm("replaced")
        self.serial = self.folder.file("guest/serial")

    def profiles(self, restarts, seconds=1, spare=0):
        """A folder of profiles that let each device be replaced so often, by a spare if wanted."""
        folder = self.folder.file("profiles")
        for path in PROFILES.values():
            copy = os.path.join(folder, path)
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            with open(path) as file:
                text, count = re.subn(r"restart \{[^}]*\}", "restart { policy: ALWAYS restarts: "
                                      f"{restarts} seconds: {seconds} spare: {spare} }}",
                                      file.read())
            self.assertEqual(count, 1, path)
            with open(copy, "w") as file:
                file.write(text)
        return folder

    def start(self, cmdline, *options, restarts=1000, spare=0, memory="64M", **more):
        open(self.serial, "w").close()
        process = self.folder.start(
            "run", "--name", self.name, "--kernel", self.folder.payload, "--memory", memory,
            "--serial", f"file={self.serial}", "--cmdline", cmdline, "--profile-dir",
            self.profiles(restarts, spare=spare), *options, **more)
        self.addCleanup(process.kill)
        return process

    def said(self):
        with open(self.serial) as file:
            return file.read()

    def until(self, process, words, seconds=60):
        """Until the guest has said these words."""
        until = time.monotonic() + seconds
        while words not in self.said():
            self.assertIsNone(process.poll(), "the VM ended")
            self.assertLess(time.monotonic(), until, f"no {words!r} in {self.said()[-300:]}")
            time.sleep(0.002)

    def actors(self, paused=False):
        """By their names; spares are left out."""
        status = self.folder.status(self.name, state="paused" if paused else "running")
        return {actor["name"]: actor for actor in status["actors"] if not actor["isSpare"]}

    def spares(self):
        """The pids of those that wait and are ready, by the names of their devices."""
        actors = self.folder.status(self.name)["actors"]
        return {actor["name"]: actor["pid"] for actor in actors
                if actor["isSpare"] and not actor["isStarting"]}

    def serves(self, pid):
        """Whether it has taken the filter under which it serves, or is about to be looked at for that."""
        try:
            with open(f"/proc/{pid}/status") as file:
                return int(file.read().split("Seccomp_filters:")[1].split()[0]) >= 2
        except (OSError, IndexError):
            return False

    def kill_again_and_again(self, process, program, kills, rng):
        """Kills each process of this name, the first and its successors. How many."""
        killed, last = 0, None
        while killed < kills and process.poll() is None:
            found = [pid for pid, name in durability.processes_below(process.pid).items()
                     if name == program and pid != last]
            if not found:
                time.sleep(0.001)
                continue
            time.sleep(rng.choice((0.0, 0.005, 0.05)) * rng.random())
            last = found[0]
            with contextlib.suppress(ProcessLookupError):  # the VM may just have ended
                os.kill(last, signal.SIGKILL)
                killed += 1
        return killed

    def end(self, process, code=0):
        out, err = process.communicate(timeout=120)
        err = err.decode(errors="replace")
        self.assertEqual(process.returncode, code, err + self.said()[-1000:])
        self.assertEqual(self.folder.left_over(), [])
        return err
