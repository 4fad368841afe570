#!/usr/bin/env -S python3 -B
"""A VM with a balloon: what the guest gives back leaves the memory of the host."""

import json
import os
import time
import unittest

import machine
import report

MIB = 1 << 20
RAM = 128 * MIB
# What guest/payload's check of the balloon does.
LOOKED_AT = 4 * MIB
KEPT = 16 * MIB
REPORTED = 4 * MIB


def ram_of(pid):
    """(bytes the host keeps of guest RAM, what each mapping of it may do) by a process of the VM."""
    maps = []
    with open(f"/proc/{pid}/maps") as table:
        for line in table:
            if "/memfd:guest-ram" in line:
                maps.append(line.split()[1])
    for number in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{number}"
        try:
            if "memfd:guest-ram" in os.readlink(path):
                return os.stat(path).st_blocks * 512, maps
        except OSError:
            continue
    return None, maps


class Balloon(unittest.TestCase):
    user = None

    def setUp(self):
        self.folder = machine.Folder(self.user)
        self.addCleanup(self.folder.close)

    def start(self, *words):
        """A VM whose guest has checked its balloon and idles: name, and pids by kind."""
        name = self.folder.vm("balloon")
        serial = self.folder.file("guest/serial")
        process = self.folder.start(
            "run", "--name", name, "--kernel", self.folder.payload, "--memory", "128M",
            "--cmdline", "idle", "--serial", f"file={serial}", *words)
        self.addCleanup(process.communicate, timeout=20)
        self.addCleanup(self.folder.run, "stop", "--force", name)
        status = self.folder.status(name)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with open(serial) as file:
                self.table = file.read()
            if " failed\n" in self.table:
                break
            time.sleep(0.05)
        self.assertIn(", 0 failed", self.table)
        return name, {actor["kind"]: actor["pid"] for actor in status["actors"]}

    def balloon(self, *words, code=0):
        found, out, said = self.folder.run("balloon", *words)
        self.assertEqual(found, code, out + said)
        return json.loads(out) if "--json" in words and code == 0 else out + said

    def testWhatTheGuestGaveBackIsTheHostsAgain(self):
        name, pids = self.start("--balloon", "stats")
        for row in ("start", "inflate", "deflate", "zeroes", "report", "statistics"):
            self.assertRegex(self.table, rf"ok +balloon0 +{row} ")
        kept, _ = ram_of(pids["broker"])
        touched = LOOKED_AT + KEPT + REPORTED
        print(f"the guest touched {touched >> 20} MiB for its check, "
              f"the host keeps {kept / MIB:.1f} MiB for all of it")
        # Looked at again after it came back, and what the payload itself needs.
        self.assertLess(kept, LOOKED_AT + 8 * MIB)
        status = self.balloon(name, "--json")
        self.assertEqual(int(status["givenBackBytes"]), touched)
        self.assertEqual(int(status["freePageBytes"]), REPORTED)
        self.assertEqual(int(status["actualBytes"]), KEPT)
        self.assertTrue(status["hasDriver"])
        self.assertEqual([(one["name"], int(one["value"])) for one in status["statistics"]],
                         [("free", 1 << 20), ("total", 2 << 20)])

    def testTheBalloonsProcessCanWriteNothingOfTheGuests(self):
        _, pids = self.start("--balloon")
        _, maps = ram_of(pids["balloon"])
        self.assertEqual(maps, ["r--s"])
        kept, _ = ram_of(pids["balloon"])
        self.assertIsNone(kept, "it has an fd of guest RAM")

    def testASizeIsToldAndNotWaitedFor(self):
        """This guest does not look at its target."""
        name, _ = self.start("--balloon", "stats")
        said = self.balloon(name, "64M")
        self.assertIn("the guest is to be left 64M of 128M, and is left 112M", said)
        self.assertIn("the balloon is to hold 64M, and holds 16M", said)
        self.assertRegex(said, r"free +1M")
        status = self.balloon(name, "--json")
        self.assertEqual(int(status["targetBytes"]), 64 * MIB)
        self.assertEqual(int(status["actualBytes"]), KEPT)
        self.assertIn("is to hold 0 bytes", self.balloon(name, "128M"))

    def testWrongWordsAreRefused(self):
        name, _ = self.start("--balloon")
        for word, code in (("129M", "TRP-bal-002"), ("0", "TRP-bal-002"), ("1K", "TRP-bal-002"),
                           ("67108865", "TRP-bal-002"), ("much", "TRP-bal-002"),
                           ("99999999T", "TRP-bal-002"), ("-5M", "TRP-cfg-002")):
            self.assertIn(code, self.balloon(name, word, code=2))
        self.assertIn("TRP-cfg-004", self.balloon(name, "64M", "--reclaim", code=2))
        # The payload's driver does not negotiate it.
        self.assertIn("TRP-bal-004", self.balloon(name, "--reclaim", code=2))
        self.assertFalse(self.balloon(name, "--json")["hasStatistics"])

    def testAVmWithoutOneSaysSo(self):
        name, pids = self.start()
        self.assertNotIn("balloon", pids)
        self.assertIn("TRP-bal-001", self.balloon(name, code=2))
        self.assertIn("TRP-bal-001", self.balloon(name, "64M", code=2))

    def testOptions(self):
        def config(*words):
            code, out, said = self.folder.run("run", "--kernel", self.folder.payload,
                                              "--print-config", *words)
            self.assertEqual(code, 0, said)
            return json.loads(out)

        self.assertNotIn("balloon", config())
        self.assertEqual(config("--balloon")["balloon"], {"stats": False})
        self.assertEqual(config("--balloon", "stats")["balloon"], {"stats": True})
        self.assertEqual(config("--balloon=stats")["balloon"], {"stats": True})
        self.assertEqual(config("--balloon", "--cpus", "2")["balloon"], {"stats": False})
        file = self.folder.file("guest/config.json")
        with open(file, "w") as out:
            json.dump({"balloon": {"stats": True}}, out)
        self.assertEqual(config("--balloon", file)["balloon"], {"stats": False})
        self.assertEqual(config(file)["balloon"], {"stats": True})
        self.assertNotIn("balloon", config(file, "--balloon", "off"))
        for words, code in ((["--balloon=status"], "TRP-cfg-006"),
                            (["--balloon", "--balloon"], "TRP-cfg-005")):
            found, _, said = self.folder.run("run", "--kernel", self.folder.payload, *words)
            self.assertEqual(found, 2)
            self.assertIn(code, said)
        with open(file, "w") as out:
            json.dump({"balloon": "stats"}, out)
        self.assertIn("TRP-cfg-010", self.folder.run("run", file)[2])


class BalloonAsOrdinaryUser(Balloon):
    user = machine.ORDINARY_USER


if __name__ == "__main__":
    report.main()
