#!/usr/bin/env -S python3 -B
"""Realms: `troupe serve` with whole jailed VMs, launched and listed and ended by its commands."""

import json
import os
import signal
import subprocess
import sys
import time
import unittest

import machine
import realms


class Daemon(realms.Realms):

    def testAGuestIsLaunchedListedAndStopped(self):
        daemon = self.serve("--keep", "lab")
        bundle = self.bundle("waiting", "end=halt")
        name, realm, cid = self.launch(bundle, "--realm", "lab", "--label", "first")
        self.assertEqual((realm, cid), (0, 3))
        self.assertEqual(self.launch(bundle, "--realm", "0")[2], 4)
        listed = self.listed()
        self.assertEqual([(one["name"], one["realm"], one["cid"], one["label"], one["state"])
                          for one in listed],
                         [(name, "lab", 3, "first", "running"),
                          (listed[1]["name"], "lab", 4, bundle, "running")])
        status = self.folder.status(name)
        self.assertEqual(status["pid"], daemon.pid)
        self.assertTrue(all(actor["jail"] == "attested" for actor in status["actors"]), status)
        self.tell("stop", "--force", name)
        self.assertEqual([one["cid"] for one in self.listed()], [4])
        # A number is nobody else's for as long as the realm lives.
        self.assertEqual(self.launch(bundle, "--realm", "lab")[2], 5)

    def testTheLastConnectionOfARealmEndsItsGuestsAndNoOthers(self):
        self.serve("--keep", "lab")
        bundle = self.bundle("waiting", "end=halt")
        kept, _, _ = self.launch(bundle, "--realm", "lab")
        own = self.folder.start("launch", bundle, "--json", "--socket", self.socket)
        self.addCleanup(own.kill)
        said = json.loads(own.stdout.readline())
        self.assertEqual(said["realm"], 1)
        # Another one in the same realm.
        beside, _, cid = self.launch(bundle, "--realm", "1")
        self.assertEqual(cid, 4)
        self.assertEqual(len(self.listed()), 3)
        own.kill()
        own.wait()
        self.until(lambda: [one["name"] for one in self.listed()] == [kept],
                   "the guests of the realm have ended")
        code, _, err = self.folder.run("launch", bundle, "--realm", "1", "--socket", self.socket)
        self.assertEqual(code, 2)
        self.assertIn("TRP-rlm-033: ", err)

    def testALaunchThatFailsSaysWhyAndItsNumberIsGone(self):
        self.serve("--keep", "lab")
        empty = self.bundle("empty", "end=poweroff")
        os.truncate(os.path.join(empty, "kernel"), 0)
        code, out, err = self.folder.run("launch", empty, "--realm", "lab", "--socket", self.socket)
        self.assertEqual((code, out), (2, ""), err)
        self.assertRegex(err, "TRP-[a-z]+-[0-9]{3}: ")
        self.assertEqual(self.listed(), [])
        self.assertEqual(self.launch(self.bundle("good", "end=halt"), "--realm", "lab")[2], 4)

    def testAGuestThatPowersOffEndsItsLaunch(self):
        self.serve()
        for words, code in ("end=poweroff", 0), ("end=crash", 17):
            with self.subTest(words):
                found = self.folder.run("launch", self.bundle(words, words), "--socket", self.socket)
                self.assertEqual(found[0], code, found)
        self.assertEqual(self.listed(), [])

    def testWhenTheDaemonEndsNothingStays(self):
        for number in signal.SIGTERM, signal.SIGKILL:
            with self.subTest(number):
                daemon = self.serve("--keep", "lab")
                bundle = self.bundle("waiting", "end=halt")
                self.launch(bundle, "--realm", "lab")
                self.launch(bundle, "--realm", "lab")
                daemon.send_signal(number)
                daemon.communicate(timeout=60)
                self.until(lambda: machine.processes_of(self.folder.path) == [], "all have ended")
                self.tell("gc")
                self.assertEqual([path for path in self.folder.left_over()
                                  if not path.endswith("/realms")], [])

    def testASerialPortIsReadFromItsBeginning(self):
        self.serve("--keep", "lab")
        name, _, _ = self.launch(self.bundle("waiting", "end=halt"), "--realm", "lab")
        process = self.folder.start("serial", name, stdin=subprocess.PIPE)
        self.addCleanup(process.kill)
        said = b""
        while b"troupe payload" not in said:
            piece = os.read(process.stdout.fileno(), 4096)
            self.assertNotEqual(piece, b"", said)
            said += piece
        process.kill()
        process.communicate()


if __name__ == "__main__":
    unittest.main(verbosity=2)
