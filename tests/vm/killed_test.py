#!/usr/bin/env -S python3 -B
"""kill -9 of `troupe` and of the broker: no process, no memory and, after a while, no file stays."""

import json
import os
import signal
import time

import durability
import machine
import report
import supervised

RAM_FD = 19  # the broker's, broker/broker.profile


def holders_of(inode):
    """Processes that have the memory with this inode open or mapped."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/maps") as file:
                mapped = any(line.split()[4] == str(inode) and "memfd:" in line for line in file)
            opened = any(os.stat(f"/proc/{pid}/fd/{fd}").st_ino == inode and
                         "memfd:" in os.readlink(f"/proc/{pid}/fd/{fd}")
                         for fd in os.listdir(f"/proc/{pid}/fd"))
            if mapped or opened:
                found.append(int(pid))
        except (OSError, IndexError):
            continue
    return found


# Whoever is stopped meanwhile: nobody, or the process of this name.
STOPPED = ("", "troupe-blk", "troupe-rng", "troupe-net", "troupe-console", "troupe-vsock",
           "troupe-balloon", "troupe-serial", "troupe-front", "troupe-recorder", "passt")


class Killed(supervised.SupervisedVm):
    victims = 0

    def victim(self):
        """A VM at work with an actor of every kind, the pids of all its processes, and the inode of
        its memory."""
        recording = self.folder.file(f"recording{self.victims}")
        self.victims += 1
        vm = self.start("idle", "--disk", self.folder.disk("a"), "--console",
                        f"file={self.folder.file('guest/console')}", "--vsock", f"cid={self.folder.cid()}",
                        "--balloon", "stats", "--net", "user", f"--record=rng0={recording}")
        self.until(vm, " passed, ")
        self.actors()  # starts the front end
        processes = durability.processes_below(vm.pid)
        broker = next(pid for pid, name in processes.items() if name == "troupe-broker")
        return vm, processes, broker, os.stat(f"/proc/{broker}/fd/{RAM_FD}").st_ino

    def stop(self, processes, name):
        if name == "":
            return
        pids = [pid for pid, its in processes.items() if its == name]
        self.assertEqual(len(pids), 1, processes)
        os.kill(pids[0], signal.SIGSTOP)

    def untilGone(self, processes, since):
        until = since + 60
        left = dict(processes)
        while left:
            left = {pid: name for pid, name in left.items() if durability.is_alive(pid)}
            self.assertLess(time.monotonic(), until, f"still there: {left}")
            time.sleep(0.005)
        print(f"every process ended within {(time.monotonic() - since) * 1000:.0f} ms")

    def testTroupe(self):
        for stopped in STOPPED + ("troupe-broker",):
            with self.subTest(stopped):
                vm, processes, _, inode = self.victim()
                self.stop(processes, stopped)
                begun = time.monotonic()
                vm.kill()
                vm.wait()
                self.untilGone(processes, begun)
                self.assertEqual(holders_of(inode), [])

    def testWhatTroupeLeavesIsKnownAsDead(self):
        vm, processes, _, _ = self.victim()
        begun = time.monotonic()
        vm.kill()
        vm.wait()
        self.untilGone(processes, begun)
        left = [os.path.basename(path) for path in self.folder.left_over()]
        self.assertEqual(sorted(left)[-2:], [f"{self.name}.lock", f"{self.name}.sock"])
        code, out, err = self.folder.run("gc", "--json")
        self.assertEqual(code, 0, err)
        removed = {os.path.basename(one["path"]): one["kind"]
                   for one in json.loads(out)["removed"]}
        self.assertEqual(removed[f"{self.name}.lock"], "lock")
        self.assertEqual(removed[f"{self.name}.sock"], "socket")
        self.assertEqual(removed[f"cid-{self.folder.cid()}"], "lease of a cid")
        self.assertEqual(self.folder.left_over(), [])

    def testBroker(self):
        for stopped in STOPPED:
            with self.subTest(stopped):
                vm, processes, broker, inode = self.victim()
                self.stop(processes, stopped)
                begun = time.monotonic()
                os.kill(broker, signal.SIGKILL)
                self.untilGone(processes, begun)
                self.assertIn("TRP-run-005", self.end(vm, 20))
                self.assertEqual(holders_of(inode), [])

    def testNothingIsRemovedWhileItsOwnerLives(self):
        vm = self.start("idle", "--vsock", f"cid={self.folder.cid()}")
        self.until(vm, " passed, ")
        for _ in range(3):
            code, out, err = self.folder.run("gc")
            self.assertEqual(code, 0, err)
            self.assertNotIn(self.name, out)
            self.assertNotIn(f"cid-{self.folder.cid()}", out)
        self.assertEqual(self.actors()["rng0"]["restarts"], 0)
        vm.terminate()
        self.end(vm, 18)

    def testTheNextStartRemovesThemToo(self):
        first, _, _, _ = self.victim()
        first.kill()
        first.wait()
        dead = self.name
        self.name = self.folder.vm("next")
        vm = self.start("idle")
        self.until(vm, " passed, ")
        self.assertEqual([path for path in self.folder.left_over() if dead in path], [])
        vm.terminate()
        self.end(vm, 18)


if __name__ == "__main__":
    report.main()
