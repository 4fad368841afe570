#!/usr/bin/env -S python3 -B
"""`troupe policy learn` and `coverage` of whole VMs: what is learned is sound, suffices, and is said."""

import json
import os
import re
import unittest

import machine
import report

ACTORS = {"blk": "devices/blk/blk.profile", "broker": "broker/broker.profile",
          "console": "devices/console/console.profile", "rng": "devices/rng/rng.profile",
          "serial": "devices/console/serial.profile"}


class Learn(unittest.TestCase):
    user = None

    def setUp(self):
        self.folder = machine.Folder(self.user)
        self.addCleanup(self.folder.close)
        self.troupe = os.path.join(self.folder.bin, "troupe")
        self.learned = self.folder.file("guest/learned")

    def vm(self, words, *options):
        """The words of a `troupe run` that drives every device."""
        log = self.folder.file("guest/console")
        return ["run", "--kernel", self.folder.payload, "--memory", "64M", "--cmdline", words,
                "--disk", self.folder.disk("a"), "--console", f"file={log}", *options]

    def learn(self, *options, words="scratch", expect=0):
        code, out, err = self.folder.run("policy", "learn", "--out", self.learned, *options, "--",
                                         self.troupe, *self.vm(words, "--on-reboot", "exit"))
        self.assertEqual(code, expect, out + err)
        return out, err

    def profile(self, actor):
        with open(os.path.join(self.learned, ACTORS[actor])) as file:
            return file.read()

    def testProfilesLearnedFromNothingAreSoundAndSuffice(self):
        out, err = self.learn("--from-scratch")
        self.assertRegex(out, r"payload: [1-9]\d* passed, 0 failed")
        for actor, path in ACTORS.items():
            self.assertRegex(err, rf"(?m)^ +{actor} +\d+ +[1-9]\d* +.*{path}$")
        paths = [os.path.join(self.learned, path) for path in ACTORS.values()]
        code, out, err = self.folder.run("policy", "check", *paths)
        self.assertEqual(code, 0, out + err)
        self.assertRegex(out, r"(?m)^0 errors, ")
        # No folder of records stays.
        self.assertEqual([name for name in os.listdir(self.learned) if "calls" in name], [])

        self.learnAtFullSpeed()
        # The guest that was learned from is served by what was learned, and refused nothing.
        code, out, err = self.folder.run(*self.vm("scratch", "--profile-dir", self.learned))
        self.assertEqual(code, 0, out + err)
        self.assertRegex(out, r"payload: [1-9]\d* passed, 0 failed")
        self.assertEqual(self.folder.left_over(), [])

    def learnAtFullSpeed(self):
        """A watched VM is slow, and who waits for whom is chance: learns on under what was learned
        until nothing is found to be missing for a while."""
        rounds = quiet = 0
        while quiet < 3:
            rounds += 1
            self.assertLess(rounds, 20, "there is always something missing")
            code, out, err = self.folder.run("policy", "learn", "--out", self.learned, "--",
                                             self.troupe,
                                             *self.vm("scratch", "--profile-dir", self.learned))
            self.assertEqual(code, 0, out + err)
            quiet = quiet + 1 if "no filter refused a call" in err else 0

    def testEachRuleSaysWhatNeededIt(self):
        self.learn("--from-scratch")
        rng = self.profile("rng")
        rule = re.search(r'rule \{\s*syscall: "getrandom"\s*arg \{ index: 1 at_most: "(\d+)" \}'
                         r'\s*arg \{ index: 2 value: "0" \}\s*reason: "(.*?)"', rng)
        self.assertIsNotNone(rule, rng)
        self.assertRegex(rule.group(2), r"^\d+ calls, main thread: .*troupe::rng::")
        self.assertRegex(rng, r'syscall: "recvmsg"\s*fd: "rpc"')
        self.assertIn('"getrandom"', rng[rng.index("\nrun {"):])
        self.assertIn('"signalfd4"', rng[rng.index("\nstart {"):rng.index("\nrun {")])
        blk = self.profile("blk")
        self.assertRegex(blk, r'thread \{\s*name: "queue"')
        self.assertRegex(blk[blk.index("\nthread {"):], r'"(preadv2|io_uring_enter)"')
        self.assertIn('budget { filter: "thread:queue"', blk)
        vcpu = self.profile("broker")
        self.assertRegex(vcpu, r'fd: "vcpu"\s*arg \{ index: 1 value: "KVM_RUN"')

    def testLearnedProfilesAllowLessThanTheShippedOnes(self):
        self.learn("--from-scratch")
        path = os.path.join(self.learned, ACTORS["rng"])
        code, out, err = self.folder.run("policy", "budget", "--json", "rng", path)
        self.assertEqual(code, 0, out + err)
        runs = [row["syscalls"] for row in json.loads(out) if row["stage"] == "run"]
        self.assertEqual(len(runs), 2, out)
        self.assertLess(runs[1], runs[0])

    def testLearningAgainWidens(self):
        self.learn("--from-scratch", words="hello")
        before = self.profile("blk")
        self.assertNotIn("pwritev2", before)
        self.learn("--from-scratch")
        after = self.profile("blk")
        self.assertRegex(after, r"pwritev2|io_uring_enter")
        self.assertIn('"arch_prctl"', after)
        code, out, err = self.folder.run("policy", "check", os.path.join(self.learned,
                                                                        ACTORS["blk"]))
        self.assertEqual(code, 0, out + err)
        self.assertNotIn("already", out)  # no rule that another makes idle

    def testShippedProfilesLackNothing(self):
        _, err = self.learn()
        self.assertIn("no filter refused a call", err)
        self.assertEqual([name for _, _, files in os.walk(self.learned) for name in files], [])

    def testWhatAProfileLacksIsFound(self):
        # The shipped rng without its one call of its own.
        profile = os.path.join(self.learned, ACTORS["rng"])
        os.makedirs(os.path.dirname(profile))
        if self.user is not None:
            for folder, _, _ in os.walk(self.learned):
                os.chown(folder, self.user, self.user)
        with open(profile, "w") as file:
            file.write('actor: "rng"  # mine\ninclude: "devices/virtio/device.profile"\n'
                       'include: "devices/virtio/journal.profile"\n'
                       'include: "devices/virtio/flight.profile"\n'
                       'fd { name: "answers" number: 13 kind: MEMFD closed: true optional: true }\n'
                       'fd { name: "flight" number: 14 kind: MEMFD closed: true optional: true }\n'
                       'fd { name: "journal" number: 15 kind: MEMFD closed: true optional: true }\n'
                       'fd { name: "kick" number: 17 kind: EVENTFD from: PLACED }\n'
                       'fd { name: "call" number: 18 kind: EVENTFD from: PLACED }\n'
                       'run {\n  rule { syscall: "write" fd: "call" reason: "interrupts" }\n}\n')
        if self.user is not None:
            os.chown(profile, self.user, self.user)
        code, out, err = self.folder.run("policy", "learn", "--out", self.learned, "--",
                                         self.troupe,
                                         *self.vm("scratch", "--profile-dir", self.learned))
        self.assertEqual(code, 0, out + err)
        text = self.profile("rng")
        self.assertIn("# mine\n", text)
        self.assertIn('rule { syscall: "write" fd: "call" reason: "interrupts" }', text)
        self.assertRegex(text, r'syscall: "getrandom"')
        code, out, err = self.folder.run(*self.vm("scratch", "--profile-dir", self.learned))
        self.assertEqual(code, 0, out + err)

    def testRunSaysLoudlyThatFiltersOnlyReport(self):
        name = self.folder.vm("vm")
        process = self.folder.start("policy", "learn", "--out", self.learned, "--from-scratch",
                                    "--", self.troupe, *self.vm("idle", "--name", name))
        try:
            status = self.folder.status(name)
            self.assertEqual({actor["jail"] for actor in status["actors"]}, {"only reports"})
            _, out, _ = self.folder.run("inspect", name, "jail")
            self.assertIn("FILTERS ONLY REPORT", out)
            self.assertNotIn("attested", out)
        finally:
            self.folder.run("stop", "--force", name)
            out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 18, out + err)
        self.assertIn(b"FILTERS ONLY REPORT", err)

    def testStatusOfTheCommandIsOurs(self):
        self.learn("--from-scratch", words="end=reset", expect=16)


class LearnAsOrdinaryUser(Learn):
    user = machine.ORDINARY_USER


class Coverage(unittest.TestCase):
    user = None

    def setUp(self):
        self.folder = machine.Folder(self.user)
        self.addCleanup(self.folder.close)
        self.troupe = os.path.join(self.folder.bin, "troupe")
        self.counts = self.folder.file("guest/counts")

    def cover(self, *options):
        code, out, err = self.folder.run(
            "policy", "coverage", *options, "--", self.troupe, "run", "--kernel",
            self.folder.payload, "--memory", "64M", "--cmdline", "scratch", "--disk",
            self.folder.disk("a"))
        self.assertEqual(code, 0, out + err)
        return out, err

    def testRulesAreCountedAndTheUnusedNamed(self):
        out, err = self.cover()
        self.assertRegex(out, r"payload: [1-9]\d* passed, 0 failed")
        self.assertIn("system calls are counted", err)
        self.assertRegex(out, r"(?m)^ +0 +0 +[1-9]\d* +run +getrandom ")
        self.assertRegex(out, r"(?m)^ +0 +0 +[1-9]\d* +thread:vcpu +ioctl +fd = vcpu")
        unused = out[out.index("\nnever used\n"):]
        self.assertRegex(unused, r"(?m)^ +broker +run +tgkill +sig = SIGABRT +abort")
        self.assertNotIn("getrandom   buflen", unused)

    def testRunsAddUpInAFile(self):
        def hits():
            code, out, err = self.folder.run("policy", "coverage", "--out", self.counts, "--json")
            self.assertEqual(code, 0, out + err)
            rows = [row for row in json.loads(out)
                    if row["actor"] == "rng" and row["syscall"] == "getrandom"]
            return sum(row["run"] for row in rows)

        self.cover("--out", self.counts)
        once = hits()
        self.assertGreater(once, 0)
        self.cover("--out", self.counts)
        self.assertEqual(hits(), 2 * once)

    def testJsonIsAlone(self):
        out, err = self.cover("--json")
        self.assertGreater(len(json.loads(out)), 100)
        self.assertIn("payload: ", err)


class CoverageAsOrdinaryUser(Coverage):
    user = machine.ORDINARY_USER


class Errors(unittest.TestCase):
    def setUp(self):
        self.folder = machine.Folder(machine.ORDINARY_USER)
        self.addCleanup(self.folder.close)

    def refused(self, code, *words):
        status, out, err = self.folder.run("policy", *words)
        self.assertEqual(status, 2, out + err)
        self.assertRegex(err, rf"(?m)^troupe: {code}: ")
        return err

    def testCommandLines(self):
        troupe = os.path.join(self.folder.bin, "troupe")
        writable = self.folder.file("guest/x")
        self.refused("TRP-cfg-004", "learn")
        self.refused("TRP-cfg-004", "learn", "--from-scratch", "--")
        self.refused("TRP-cfg-004", "coverage")
        self.refused("TRP-cfg-004", "learn", "run")
        self.refused("TRP-cfg-002", "learn", "--fast", "--", troupe, "run")
        self.refused("TRP-cfg-003", "coverage", "--out")
        self.refused("TRP-cfg-120", "coverage", "--", "no-such-command-anywhere")
        self.refused("TRP-cfg-120", "coverage", "--", "/nowhere/at/all")
        self.refused("TRP-cfg-120", "learn", "--", "no-such-command-anywhere", "run")
        self.assertIn("/bin/sh", self.refused("TRP-cfg-121", "learn", "--", "/bin/sh", "run"))
        self.assertIn('"list"', self.refused("TRP-cfg-121", "learn", "--", troupe, "list"))
        self.refused("TRP-cfg-122", "learn", "--out", "/proc/x", "--", troupe, "run")
        self.refused("TRP-cfg-122", "learn", "--out", "/", "--", troupe, "run")
        self.refused("TRP-cfg-122", "coverage", "--out", "/proc/x", "--", "true")
        self.refused("TRP-cfg-124", "coverage", "--out", self.folder.file("payload"))
        self.refused("TRP-cfg-123", "learn", "--out", writable, "--from-scratch", "--", troupe,
                     "run", "--kernel", "/nowhere")

    def testJailThatIsOffHasNothingToLearn(self):
        troupe = os.path.join(self.folder.bin, "troupe")
        code, out, err = self.folder.run(
            "policy", "learn", "--out", self.folder.file("guest/x"), "--", troupe, "run",
            "--kernel", self.folder.payload, "--jail", "off")
        self.assertEqual(code, 2, out + err)
        self.assertIn("--jail off leaves nothing to learn", err)

    def testCommandThatRunsNoVmCountsNothing(self):
        code, out, err = self.folder.run("policy", "coverage", "--", "sh", "-c", "exit 7")
        self.assertEqual(code, 7, out + err)
        self.assertEqual(out, "no actor ran\n")


if __name__ == "__main__":
    report.main()
