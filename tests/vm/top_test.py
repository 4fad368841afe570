#!/usr/bin/env -S python3 -B
"""What `troupe top` shows of a running VM."""

import json
import os
import pty
import re
import signal
import subprocess
import time

import machine
import observed
import report


class Top(observed.Observed):
    def testEveryProcessAndEveryVcpuIsThere(self):
        actors = self.start(observed.WRITING, "--cpus", "2", "--balloon")
        self.until_blk_works()
        first, second = self.top("--count", 2, "--interval", "0.3")
        self.assertEqual(second["state"], "running")
        self.assertGreater(second["monotonicNs"], first["monotonicNs"])
        self.assertGreaterEqual(second["intervalNs"], 300_000_000)
        processes = second["processes"]
        self.assertLessEqual({"troupe", "front", *actors}, set(processes))
        if self.user is None:
            self.assertEqual(processes["troupe"]["pid"], self.vm.pid)
        for name, actor in actors.items():
            self.assertEqual(processes[name]["pid"], actor["pid"])
        for name, one in processes.items():
            self.assertGreater(one["privateBytes"], 4096, name)
            self.assertLess(one["privateBytes"], 32 * observed.MIB, name)
            self.assertGreater(one["cpuNs"], 0, name)
        self.assertEqual([one["name"] for one in processes["broker"]["threads"]], ["vp-0", "vp-1"])
        self.assertGreater(sum(one["cpuNs"] for one in processes["broker"]["threads"]), 0)
        self.end()

    def testQueuesCountWhatPassesThem(self):
        self.start(observed.WRITING)
        before = self.until_blk_works()["queues"][0]
        sample = self.top("--count", 1, "--interval", "0.5")[0]
        blk = sample["processes"]["blk0"]
        after = blk["queues"][0]
        for name in ("requests", "fromGuestBytes", "toGuestBytes", "waitNs"):
            self.assertGreater(after[name], before[name], name)
        self.assertEqual(after["errors"], 0)
        # Blocks of 4 KiB and flushes, each with a header and a status byte.
        self.assertLessEqual(after["fromGuestBytes"], after["requests"] * (4096 + 16))
        self.assertGreaterEqual(after["fromGuestBytes"], after["requests"] * 16)
        self.assertEqual(after["toGuestBytes"], after["requests"])
        self.assertLessEqual(after["inFlight"], 256)
        # One of 16 is timed, but while one is, no other.
        timed = sum(after["waits"])
        self.assertLessEqual(timed, after["requests"] // 16 + 1)
        self.assertGreater(timed, 0)
        self.assertGreater(blk["requestsPerSecond"], 0)
        self.assertGreater(blk["bytesPerSecond"], blk["requestsPerSecond"])
        self.end()

    def testEveryDeviceCounts(self):
        self.start("idle", "--balloon", "--console", f"file={self.folder.file('guest/console')}",
                   "--vsock", f"cid={self.folder.cid()}", "--net", f"fd={self.wire()}")
        wanted = {"balloon0", "blk0", "console0", "net0", "rng0", "vsock0"}
        until = time.monotonic() + 60
        while True:
            processes = self.top("--count", 1, "--interval", "0.1")[0]["processes"]
            counting = {name for name, one in processes.items()
                        if any(queue["requests"] + queue["inFlight"] for queue in one["queues"])}
            if counting == wanted:
                break
            self.assertLess(time.monotonic(), until, counting)
        self.end()

    def testCountersGoOnWithTheNextProcess(self):
        actors = self.start(observed.WRITING)
        before = self.until_blk_works()["queues"][0]["requests"]
        reader = self.follow()
        os.kill(actors["blk0"]["pid"], signal.SIGKILL)
        self.events_until(reader, "device-replaced")
        blk = self.top("--count", 1, "--interval", "0.1")[0]["processes"]["blk0"]
        self.assertEqual(blk["restarts"], 1)
        self.assertNotEqual(blk["pid"], actors["blk0"]["pid"])
        self.assertGreaterEqual(blk["queues"][0]["requests"], before)
        while True:
            later = self.top("--count", 1, "--interval", "0.1")[0]["processes"]["blk0"]
            if later["queues"][0]["requests"] > blk["queues"][0]["requests"]:
                break
        self.end()

    def testATableForEachSampleAndOnATerminalOneThatIsRefreshed(self):
        self.start("idle")
        text = self.tell("top", self.name, "--count", 2, "--interval", "0.1")
        self.assertEqual(len(re.findall(r"(?m)^PROCESS +PID +CPU% +MEMORY +REQ/S ", text)), 2)
        self.assertEqual(len(re.findall(r"(?m)^blk0 ", text)), 2)
        self.assertEqual(len(re.findall(r"(?m)^  vp-0 ", text)), 2)
        self.assertNotIn("\x1b", text)
        master, slave = pty.openpty()
        top = subprocess.Popen(self.folder.command("top", self.name, "--count", 2, "--interval",
                                                   "0.1"), env=self.folder.environment(),
                               stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.PIPE)
        os.close(slave)
        shown = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        os.close(master)
        self.assertEqual(top.wait(), 0)
        self.assertEqual(shown.count(b"\x1b[H\x1b[2J"), 2)
        self.end()

    def testItEndsWithTheVm(self):
        self.start("idle")
        top = self.folder.start("top", self.name, "--interval", "0.1", "--json")
        self.addCleanup(top.kill)
        top.stdout.readline()
        self.end()
        out, err = top.communicate(timeout=60)
        self.assertEqual((top.returncode, err), (0, b""))
        for line in out.splitlines():
            json.loads(line)

    def testWrongOptionsAreErrors(self):
        for words in (("--interval", "0"), ("--interval", "x"), ("--interval", "nan"),
                      ("--interval", "3601"), ("--count", "0"), ("--count", "-1")):
            code, _, err = self.folder.run("top", "any", *words)
            self.assertEqual((code, err[:20]), (2, "troupe: TRP-obs-001:"), words)


class TopAsOrdinaryUser(Top):
    user = machine.ORDINARY_USER


if __name__ == "__main__":
    report.main()
