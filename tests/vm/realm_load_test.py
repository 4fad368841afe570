#!/usr/bin/env -S python3 -B
"""Many launches on one daemon, and what is left of them.

usage: realm_load_test.py GUESTS LAUNCHES [USER] [groups]

From a folder with bin/troupe and guest/payload. USER: the id of the ordinary user who serves. With
`groups` each actor has to be in a control group of its own; else those that have one are counted.
"""

import os
import sys
import unittest

import realms


class Load(realms.Realms):
    GUESTS, LAUNCHES = 12, 40
    USER, GROUPS = None, False

    def user(self):
        return self.USER

    def table(self, title, before, after):
        print(f"{title}: " + ", ".join(
            f"{name} {before[name]} -> {after[name]}" for name in before), file=sys.stderr)

    def settled(self, daemon, before):
        """The counts once they are what they were; processes leave in their own time."""
        now = lambda: realms.counts(daemon.pid)
        self.until(lambda: realms.same(now(), before), lambda: f"{before}; it is {now()}")
        return now()

    def check_groups(self, before, full):
        vms = full["control groups"] - before["control groups"]
        if not self.GROUPS and full["control groups"] == 0:
            return  # this machine's control groups are not of version 2, or not ours
        self.assertEqual(vms, self.GUESTS)
        self.assertEqual(full["groups of actors"] - before["groups of actors"],
                         full["processes"] - before["processes"])

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
        before = realms.counts(daemon.pid)

        guests = []
        while len(guests) < self.GUESTS:  # some at a time: each has a minute to start, on any machine
            some = [rpc.call(realm, "launchInstance", launchInfo=waiting)["controller"]
                    for _ in range(min(5, self.GUESTS - len(guests)))]
            for guest in some:
                rpc.call(guest, "waitForStart")
            guests += some
        full = realms.counts(daemon.pid)
        self.table(f"{self.GUESTS} guests at once", before, full)
        self.check_groups(before, full)
        self.assertEqual(len(rpc.call(0, "listGuests")["guests"]), self.GUESTS)
        for guest in guests:
            rpc.call(guest, "stop", force=True)
            rpc.ask(drop=guest)
        self.table("all stopped", full, self.settled(daemon, before))

        first = realms.counts(daemon.pid)
        for _ in range(self.LAUNCHES):
            launch_and_wait(ending)
        after = self.settled(daemon, before)
        self.table(f"{self.LAUNCHES} launches in sequence", first, after)
        # A page or two a launch would be a leak; what malloc keeps once is none.
        self.assertLess(after["private KiB"] - first["private KiB"], 1024 + self.LAUNCHES)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        Load.GUESTS, Load.LAUNCHES = int(sys.argv[1]), int(sys.argv[2])
        Load.GROUPS = "groups" in sys.argv[3:]
        Load.USER = next((int(word) for word in sys.argv[3:] if word.isdigit()), None)
    unittest.main(argv=sys.argv[:1], verbosity=2)
