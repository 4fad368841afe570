#!/usr/bin/env -S python3 -B
"""Clients of `troupe serve` that keep to no rule (realm_hostile/): the daemon and other clients' realms
go on, and nothing of them stays."""

import os
import subprocess
import sys
import unittest

import realms

CLIENT = os.path.realpath("tests/vm/realm_hostile/hostile_client")
MOST_CLIENTS = 64
MIB = 1024  # KiB


class Hostile(realms.Realms):
    """In each test a guest of a kept realm and a script that holds it look on."""

    def setUp(self):
        super().setUp()
        self.daemon = self.serve("--keep", "lab")
        self.waiting = self.bundle("waiting", "end=halt")
        self.witness = self.rpc()
        self.lab = self.witness.call(0, "connect", id=0)["realm"]
        launched = self.witness.call(self.lab, "launchInstance",
                                     launchInfo={"url": self.waiting, "label": "witness"})
        self.name = self.witness.call(launched["controller"], "waitForStart")["name"]
        self.others_go_on()  # what is made once is there
        # So is what reads the guest's control socket, which whoever lists VMs makes begin.
        self.folder.run("status", self.name)
        self.before = self.settled()
        self.own, = realms.fronts(self.daemon.pid)

    def turn(self):
        """A launch from its beginning to its end, by who looks on."""
        launched = self.witness.call(self.lab, "launchInstance", launchInfo={"url": self.waiting})
        guest = launched["controller"]
        self.witness.call(guest, "waitForStart")
        self.witness.call(guest, "stop", force=True)
        self.witness.ask(drop=guest)

    def settled(self):
        """The counts, once they have stood still for a while."""
        self.until(lambda: len(realms.fronts(self.daemon.pid)) == 1, "only the witness is left")
        seen = []

        def stand_still():
            seen.append(realms.counts(self.daemon.pid))
            return len(seen) > 10 and all(realms.same(one, seen[-1]) for one in seen[-10:])
        self.until(stand_still, "nothing comes or goes")
        return seen[-1]

    def others_go_on(self):
        self.assertIsNone(self.daemon.poll())
        self.turn()
        states = {one["name"]: one["state"]
                  for one in self.witness.call(0, "listGuests")["guests"]}
        self.assertEqual(states.get(self.name), "running")

    def nothing_stays(self):
        now = lambda: realms.counts(self.daemon.pid)
        self.until(lambda: realms.same(now(), self.before),
                   lambda: f"{self.before} again; it is {now()}")
        kib = realms.counts(self.daemon.pid)["private KiB"]
        print(f"private memory of the daemon: {self.before['private KiB']} KiB before, {kib} after",
              file=sys.stderr)
        self.assertLess(kib, self.before["private KiB"] + 8 * MIB)
        self.assertEqual([one["label"] for one in self.witness.call(0, "list")["environments"]],
                         ["lab"])
        self.others_go_on()

    def client(self, case, number=1):
        process = subprocess.Popen([CLIENT, self.socket, self.waiting, case, str(number)],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def run_case(self, case, number=1):
        """What a client says that ends by itself."""
        process = self.client(case, number)
        said = process.communicate()[0]
        print(said, file=sys.stderr)
        self.assertEqual(process.returncode, 0, said)
        self.assertNotRegex(said, r"(?m)^(stuck|failed)")
        return said.splitlines()

    def run_and_hold(self, case, number):
        """The same of one that holds what it has until it is told to go: its lines, and the process."""
        process = self.client(case, number)
        said = []
        while not said or said[-1] != "done":
            line = process.stdout.readline()
            self.assertNotEqual(line, "", said)
            said.append(line.strip())
        print("\n".join(said), file=sys.stderr)
        return said, process

    def others_go_on_beside(self, case, number):
        """A client that holds what it can costs `troupe` little; what its front end has is bounded by the jail
        of that. What it said."""
        before = realms.private_kib(self.daemon.pid)
        said, process = self.run_and_hold(case, number)
        self.others_go_on()
        now = realms.private_kib(self.daemon.pid)
        print(f"private memory of the daemon: {before} KiB before, {now} beside it", file=sys.stderr)
        self.assertLess(now, before + 8 * MIB)
        process.communicate()
        self.nothing_stays()
        return said

    def testMessagesOutOfOrderAreAnsweredOrEndTheConnection(self):
        said = self.run_case("disorder")
        self.assertGreater(len(said), 20)
        self.nothing_stays()

    def testCapabilitiesThatAreNoneAreRefused(self):
        said = self.run_case("capabilities")
        self.assertFalse([line for line in said if "powered off" in line], said)
        self.assertTrue([line for line in said if "TRP-rlm-041: " in line], said)
        self.nothing_stays()

    def testFdsOfAnyKindAreRefused(self):
        said = self.run_case("wrong-fds")
        refused = [line for line in said if line.startswith("answered: ")]
        self.assertEqual(refused, said)
        for line in said:
            self.assertRegex(line, r"TRP-[a-z]+-\d{3}: ")
        self.nothing_stays()

    def testListsThatAreHugeAreRefused(self):
        said = self.run_case("huge-lists", 20000)
        for line in said:
            self.assertRegex(line, r"^hung up: |^answered: ")
        self.nothing_stays()

    def testWhoFinishesNoCallIsCutOff(self):
        said, = self.run_case("unfinished", 10000)
        self.assertIn("hung up: ", said)
        self.nothing_stays()

    def testCallsThatAreTakenBackCostNothing(self):
        said, = self.run_case("taken-back", 10000)
        self.assertIn("answered: ", said)
        self.nothing_stays()

    def testFilesThatNeverComeHoldLittle(self):
        self.others_go_on_beside("promises", 10000)

    def testWhoNeverReadsAnswersIsCutOffOrWaits(self):
        said = self.others_go_on_beside("deaf", 100000)
        self.assertRegex(said[0], "^stuck: ")

    def testFdsThatNobodyAskedForAreClosed(self):
        fds = lambda: len(os.listdir(f"/proc/{self.daemon.pid}/fd"))
        before = fds()
        said, process = self.run_and_hold("fds", 1000)
        self.others_go_on()
        self.assertLess(fds(), before + 100, said)  # its own process, and what is under way
        front, = set(realms.fronts(self.daemon.pid)) - {self.own}
        self.assertLess(len(os.listdir(f"/proc/{front}/fd")), 100)
        process.communicate()
        self.nothing_stays()

    def testAClientMayLeaveAtEveryMomentOfALaunch(self):
        self.run_case("leaves", 60)
        self.nothing_stays()

    def testManyHalvesOfMessagesKeepNobodyElseFromHisRealm(self):
        process = self.client("halves", 2000)
        self.until(lambda: len(realms.fronts(self.daemon.pid)) == MOST_CLIENTS,
                   "as many clients as may are served")
        self.others_go_on()
        process.kill()
        process.communicate()
        self.until(lambda: len(realms.fronts(self.daemon.pid)) == 1, "all have been let go")
        self.assertEqual(self.listed()[0]["label"], "witness")
        self.nothing_stays()


if __name__ == "__main__":
    unittest.main(verbosity=2)
