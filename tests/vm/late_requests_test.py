#!/usr/bin/env -S python3 -B
"""A request of a dead process that may still land: its successor does nothing before it has ended."""

import os
import re
import signal
import time

import report
import supervised

WRITES = "bench=durability scratch count=2000000000 seed=5 size=4096 depth=32 mode=irq"


def witness_of(kind):
    """The number of the fd that each process holds and so do its requests in the kernel."""
    with open(f"devices/{kind}/{kind}.profile") as file:
        return int(re.search(r'fd \{ name: "witness" number: (\d+)', file.read())[1])


class LateRequests(supervised.SupervisedVm):
    def flushes(self):
        return self.said().count("flushed ")

    def untilItStandsStill(self, vm):
        """Until the guest has said nothing for a second, which it does when nobody answers it."""
        until, last = time.monotonic() + 60, None
        while last != self.flushes():
            self.assertIsNone(vm.poll(), "the VM ended")
            self.assertLess(time.monotonic(), until, "its disk answers, though a request may still land")
            last = self.flushes()
            time.sleep(1)

    def untilAnotherIsThere(self, vm, pid):
        """Another process than `pid` that has a jail and all that it needs to serve."""
        until = time.monotonic() + 60
        while True:
            actor = self.actors()["blk0"]
            if actor["pid"] != pid and self.serves(actor["pid"]):
                return
            self.assertIsNone(vm.poll(), "the VM ended")
            self.assertLess(time.monotonic(), until, actor)
            time.sleep(0.01)

    def theOneAfterWaits(self, spare):
        path = self.folder.disk(f"disk{spare}", 8 << 20)
        vm = self.start(WRITES, "--disk", path, spare=spare)
        self.until(vm, "flushed ")
        until = time.monotonic() + 60
        while spare and "blk0" not in self.spares():
            self.assertLess(time.monotonic(), until, "there is no spare")
            time.sleep(0.01)
        pid = self.actors()["blk0"]["pid"]
        # As a request in the kernel does, this holds it beyond the death of the process.
        held = os.open(f"/proc/{pid}/fd/{witness_of('blk')}", os.O_WRONLY)
        os.kill(pid, signal.SIGKILL)
        self.untilAnotherIsThere(vm, pid)
        self.untilItStandsStill(vm)
        count = self.flushes()
        time.sleep(1)
        self.assertEqual(self.flushes(), count)
        self.assertTrue(self.actors()["blk0"]["isStarting"])
        os.close(held)
        until = time.monotonic() + 60
        while self.flushes() < count + 20:
            self.assertIsNone(vm.poll(), "the VM ended")
            self.assertLess(time.monotonic(), until, "the guest waits for ever")
            time.sleep(0.01)
        self.assertNotIn("FAIL", self.said())
        vm.terminate()
        self.end(vm, 18)

    def testANewProcessWaits(self):
        self.theOneAfterWaits(spare=0)

    def testASpareWaits(self):
        self.theOneAfterWaits(spare=1)


if __name__ == "__main__":
    report.main()
