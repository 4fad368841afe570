#!/usr/bin/env -S python3 -B
"""Many launches on one daemon, and what is left of them.

usage: realm_load_test.py GUESTS LAUNCHES     from the folder with bin/troupe and guest/payload
"""

import os
import sys
import unittest

import realms


def private_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_"))


def groups():
    """Control groups of VMs, wherever they are."""
    count = 0
    for mount in "/sys/fs/cgroup", "/sys/fs/cgroup/unified":
        for _, folders, _ in os.walk(mount):
            count += sum(name.startswith("vm-r") for name in folders)
    return count


def counts(daemon):
    """What a daemon holds of this machine."""
    fds = os.listdir(f"/proc/{daemon}/fd")
    return {
        "processes": len(realms.descendants(daemon)),
        "fds": len(fds),
        "control groups": groups(),
        "private KiB": private_kib(daemon),
    }


class Load(realms.Realms):
    GUESTS, LAUNCHES = 12, 40
    SETTLED = "processes", "fds", "control groups"

    def table(self, title, before, after):
        print(f"{title}: " + ", ".join(
            f"{name} {before[name]} -> {after[name]}" for name in before), file=sys.stderr)

    def settled(self, daemon, before):
        """The counts once they are what they were; processes leave in their own time."""
        self.until(lambda: all(counts(daemon.pid)[name] == before[name]
                               for name in self.SETTLED),
                   f"{before}; it is {counts(daemon.pid)}")
        return counts(daemon.pid)

    def testManyAtOnceAndManyInSequenceLeaveNothing(self):
        daemon = self.serve()
        rpc = self.rpc()
        realm = rpc.call(0, "create", label="load")["realm"]
        waiting = {"url": self.bundle("waiting", "end=halt")}
        ending = {"url": self.bundle("ending", "hello end=poweroff")}

        def launch_and_wait(info):
            guest = rpc.call(realm, "launchInstance", launchInfo=info)["controller"]
            self.assertEqual(rpc.call(guest, "waitForEnd")["end"]["exitCode"], 0)
            rpc.ask(drop=guest)

        launch_and_wait(ending)  # what is made once is there
        before = counts(daemon.pid)

        guests = [rpc.call(realm, "launchInstance", launchInfo=waiting)["controller"]
                  for _ in range(self.GUESTS)]
        for guest in guests:
            rpc.call(guest, "waitForStart")
        full = counts(daemon.pid)
        self.table(f"{self.GUESTS} guests at once", before, full)
        self.assertEqual(len(rpc.call(0, "listGuests")["guests"]), self.GUESTS)
        for guest in guests:
            rpc.call(guest, "stop", force=True)
            rpc.ask(drop=guest)
        self.table("all stopped", full, self.settled(daemon, before))

        first = counts(daemon.pid)
        for _ in range(self.LAUNCHES):
            launch_and_wait(ending)
        after = self.settled(daemon, before)
        self.table(f"{self.LAUNCHES} launches in sequence", first, after)
        # A page or two a launch would be a leak; what malloc keeps once is none.
        self.assertLess(after["private KiB"] - first["private KiB"], 1024 + self.LAUNCHES)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        Load.GUESTS, Load.LAUNCHES = int(sys.argv[1]), int(sys.argv[2])
    unittest.main(argv=sys.argv[:1], verbosity=2)
