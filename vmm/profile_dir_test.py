#!/usr/bin/env python3
"""Profiles of a folder in place of those built in: they are in force, or there is no VM."""

import json
import os
import shutil
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.getcwd(), "vmm/testing"))
import tiny_guest
from program import ProgramTest

RNG = "devices/rng/rng.profile"


class ProfileDir(ProgramTest):
    def setUp(self):
        super().setUp()
        self.sleeper = self.file("sleeper", tiny_guest.elf(tiny_guest.SLEEP))
        self.mine = self.path("mine")
        self.copy(RNG)

    def copy(self, path):
        os.makedirs(os.path.dirname(os.path.join(self.mine, path)), exist_ok=True)
        shutil.copy(path, os.path.join(self.mine, path))

    def edit(self, path, old, new):
        whole = os.path.join(self.mine, path)
        with open(whole) as file:
            text = file.read()
        self.assertIn(old, text)
        os.chmod(whole, 0o644)
        with open(whole, "w") as file:
            file.write(text.replace(old, new, 1))

    def payload(self, *words):
        return self.run_troupe("run", "--kernel", "guest/payload/payload.elf", "--name", self.name,
                               "--serial", "file=" + self.path("serial"), "--profile-dir",
                               self.mine, *words)

    def refused(self, code, *words):
        self.assertError(self.payload(), 2, code, *words)

    def inspect(self, *words):
        return self.run_troupe("inspect", self.name, "jail", *words)

    def testATighterProfileIsInForceAndAttested(self):
        self.edit(RNG, 'at_most: "65536"', 'at_most: "4096"')
        result = self.payload("--cmdline", "end=poweroff")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.start(self.sleeper, "--profile-dir", self.mine)
        jails = json.loads(self.inspect("--json").stdout)
        sources = {actor["name"]: actor["profile"] for actor in jails["actors"]}
        self.assertEqual(sources["rng0"], os.path.join(self.mine, RNG))
        self.assertEqual(sources["broker"], "broker/broker.profile")
        shown = self.run_troupe("policy", "show", "rng", "--profile-dir", self.mine)
        self.assertIn("buflen at most 4096", shown.stdout)
        shown = self.run_troupe("policy", "explain", "rng", "run", "getrandom", "_", "8192", "0",
                                "--profile-dir", self.mine)
        self.assertIn("refused", shown.stdout)

    def testAForgottenCallIsExplainedWithTheFileThatForgotIt(self):
        self.edit(RNG, 'syscall: "getrandom"', 'syscall: "getppid"')
        self.edit(RNG, 'arg { index: 1 at_most: "65536" } arg { index: 2 value: "0" }', "")
        self.edit(RNG, "syscalls: 12 unconditional: 4", "syscalls: 13 unconditional: 9")
        result = self.payload("--cmdline", "end=poweroff")
        self.assertEqual(result.returncode, 0, result.stderr)
        for words in ("TRP-run-009: rng0 (the random number generator) died",
                      "in stage run it called getrandom(", os.path.join(self.mine, RNG),
                      f"`troupe policy show --profile-dir {self.mine} rng`",
                      "two processes in a row of rng0 died of a request"):
            self.assertIn(words, result.stderr)
        self.assertIn("quarantine", self.run_troupe("gc").stdout)

    def testEachBrokenFormIsOneErrorAndNoVm(self):
        place = os.path.join(self.mine, RNG) + ":"
        for old, new, word in (
                ("actor:", "frobnicate: 3 actor:", "frobnicate"),
                ('include: "', 'include: "none/', "there is no"),
                ('"getrandom"', '"getrandon"', "getrandon"),
                ('fd: "call"', 'fd: "cal"', 'no fd "cal"'),
                ("number: 17", "number: 33", "must have number 17"),
                ("syscalls: 12", "syscalls: 3", "budget"),
                ("run {", 'run { rule { syscall: "openat" reason: "x" }', "openat"),
                ('actor: "rng"', 'actor: "blk"', 'where that of "rng" does')):
            with self.subTest(new):
                self.edit(RNG, old, new)
                self.refused("TRP-cfg-034", place, word)
                os.remove(os.path.join(self.mine, RNG))
                self.copy(RNG)

    def testAFolderThatDoesNotDoIsOneErrorAndNoVm(self):
        self.file("mine/devices/rng/notes.txt", b"x")
        self.refused("TRP-cfg-033", "notes.txt", "does not end in .profile")
        os.remove(self.path("mine/devices/rng/notes.txt"))
        shutil.copy(RNG, self.path("mine/devices/rng/rnd.profile"))
        self.refused("TRP-cfg-034", "rnd.profile:1:1: ", "did you mean " + RNG)
        shutil.rmtree(self.mine)
        self.refused("TRP-cfg-033", "no such file or directory")
        os.mkdir(self.mine)
        self.refused("TRP-cfg-033", "it has no profile")
        os.mkfifo(self.path("mine/a.profile"))
        self.refused("TRP-cfg-033", "a.profile", "neither a file nor a folder")
        self.file("mine/b.profile", size=1 << 20)
        os.remove(self.path("mine/a.profile"))
        self.refused("TRP-cfg-033", "b.profile", "more than 512 KiB")

    def testTheConfigurationFileHasItToo(self):
        printed = self.run_troupe("run", "--kernel", self.sleeper, "--profile-dir", self.mine,
                                  "--print-config")
        self.assertEqual(json.loads(printed.stdout)["profile-dir"], self.mine)
        self.edit(RNG, '"getrandom"', '"getrandon"')
        result = self.run_troupe("run", self.file("vm.json", printed.stdout.encode()))
        self.assertError(result, 2, "TRP-cfg-034", "getrandon")

    def testCheckFindsWhatRunWould(self):
        result = self.run_troupe("policy", "check", "--profile-dir", self.mine)
        self.assertEqual(result.returncode, 0, result.stdout)
        self.edit(RNG, '"getrandom"', '"getrandon"')
        result = self.run_troupe("policy", "check", "--profile-dir", self.mine)
        self.assertEqual(result.returncode, 2)
        self.assertIn(os.path.join(self.mine, RNG) + ":", result.stdout)


class Inspect(ProgramTest):
    def setUp(self):
        super().setUp()
        self.sleeper = self.file("sleeper", tiny_guest.elf(tiny_guest.SLEEP))

    def inspect(self, *words):
        return self.run_troupe("inspect", self.name, "jail", *words)

    def testAllAgrees(self):
        self.start(self.sleeper, "--disk", self.file("disk", size=1 << 20))
        result = self.inspect()
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("All of it is as the profiles say.", result.stdout)
        method = "by their instructions" if os.geteuid() == 0 else "by mode and count"
        self.assertIn("filters were attested " + method, result.stdout)
        jails = json.loads(self.inspect("--json").stdout)
        names = sorted(actor["name"] for actor in jails["actors"])
        self.assertEqual(names, ["blk0", "broker", "front", "rng0", "serial"])
        for actor in jails["actors"]:
            layers = {row["layer"]: row["found"] for row in actor["rows"]}
            self.assertIn("mode 2", layers["seccomp"])
            self.assertEqual(layers["capabilities"], "none")
            self.assertEqual(layers["tracer"], f"process {self.started[0].pid}")
            self.assertEqual(actor["differences"], [])
            self.assertTrue(all(row["agrees"] for row in actor["rows"]))

    def testDifferencesAreNumberedAndTheExitCodeSaysSo(self):
        self.start(self.sleeper, "--jail", "off")
        result = self.inspect()
        self.assertEqual(result.returncode, 4)
        self.assertIn("No actor is jailed", result.stdout)
        self.assertIn("\n  1. broker: it has seccomp mode 0", result.stdout)
        self.assertIn("DIFFERS", result.stdout)
        self.assertTrue(result.stderr.startswith("troupe: TRP-jail-032: "), result.stderr)
        jails = json.loads(self.inspect("--json").stdout)
        self.assertIn("it has seccomp mode 0; a jailed actor has mode 2 (filter)",
                      jails["actors"][0]["differences"])

    def testWrongWords(self):
        self.assertError(self.run_troupe("inspect"), 2, "TRP-cfg-004", "which VM?")
        self.assertError(self.run_troupe("inspect", "web"), 2, "TRP-cfg-028", "web")
        self.assertError(self.run_troupe("inspect", self.name, "jail"), 2, "TRP-cfg-028")
        self.start(self.sleeper)
        result = self.run_troupe("inspect", self.name, "prison")
        self.assertEqual(result.returncode, 2)
        self.assertRegex(result.stderr, "^troupe: TRP-cfg-006: .*prison")

    def testAReplacedFrontEndIsAttestedBeforeItGetsAClient(self):
        process = self.start(self.sleeper)
        os.kill(self.actors()["front"], signal.SIGKILL)
        # The same file, so the program that `troupe` has open is another one now.
        deadline = time.time() + 20
        while True:
            try:
                with open("vmm/testing/rude_front", "rb") as rude, \
                        open(os.path.join(self.bin, "troupe-front"), "r+b") as front:
                    front.truncate(0)
                    shutil.copyfileobj(rude, front)
                break
            except OSError:
                self.assertLess(time.time(), deadline)
        # One that comes while the first is dying is lost with it; later ones get no answer.
        while "TRP-run-007" not in self.run_troupe("status", self.name).stderr:
            self.assertLess(time.time(), deadline)
        process.terminate()
        _, stderr = process.communicate(timeout=10)
        self.assertIn("TRP-jail-030: the jail of front is not what its profile says", stderr)
        self.assertIn("it has 1 system call filters; its profile makes that 2", stderr)


if __name__ == "__main__":
    unittest.main()
