#!/usr/bin/env -S python3 -B
"""Reads the jail of every process of a running VM from outside, without asking the product."""

import os
import re
import unittest

import machine
import report

NAMESPACES = ("user", "pid", "net", "mnt", "ipc", "uts", "cgroup")


def status_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


class Jail(unittest.TestCase):
    user = None

    @classmethod
    def setUpClass(cls):
        cls.folder = machine.Folder(cls.user)
        cls.process = cls.folder.start(
            "run", "--name", "jailed", "--kernel", cls.folder.payload, "--memory", "64M",
            "--cmdline", "idle", "--disk", cls.folder.disk("a"), "--disk", cls.folder.disk("b"),
            "--console", f"file={cls.folder.file('guest/console')}")
        cls.actors = {}
        cls.troupe = None
        status = cls.folder.status("jailed")
        cls.troupe = status["pid"]
        cls.actors = {actor["name"]: actor for actor in status["actors"]}

    @classmethod
    def tearDownClass(cls):
        cls.folder.run("stop", "jailed")
        cls.process.communicate(timeout=20)
        cls.folder.close()

    def testEveryKindIsThere(self):
        kinds = sorted(actor["kind"] for actor in self.actors.values())
        self.assertEqual(kinds, ["blk", "blk", "broker", "console", "front", "rng", "serial"])

    def testStatusShowsFilterAndNoPrivileges(self):
        for name, actor in self.actors.items():
            with self.subTest(name):
                status = status_of(actor["pid"])
                self.assertEqual(status["Seccomp"], "2")
                self.assertEqual(status["NoNewPrivs"], "1")
                for word in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                    self.assertEqual(int(status[word], 16), 0, word)

    def testNoChildIsRootOnTheHost(self):
        for name, actor in self.actors.items():
            with self.subTest(name):
                for word in ("Uid", "Gid"):
                    self.assertNotIn("0", status_of(actor["pid"])[word].split())

    def testEveryThreadIsFiltered(self):
        for name, actor in self.actors.items():
            for tid in os.listdir(f"/proc/{actor['pid']}/task"):
                with self.subTest(f"{name} thread {tid}"):
                    self.assertEqual(status_of(tid)["Seccomp"], "2")

    def testNamespacesAreNobodyElses(self):
        seen = {kind: {os.readlink(f"/proc/self/ns/{kind}"): "the host"} for kind in NAMESPACES}
        for name, actor in self.actors.items():
            for kind in NAMESPACES:
                with self.subTest(f"{name} {kind}"):
                    inode = os.readlink(f"/proc/{actor['pid']}/ns/{kind}")
                    self.assertNotIn(inode, seen[kind], f"shared with {seen[kind].get(inode)}")
                    seen[kind][inode] = name

    def testRootIsEmptyAndReadOnly(self):
        for name, actor in self.actors.items():
            with self.subTest(name):
                self.assertEqual(os.listdir(f"/proc/{actor['pid']}/root/"), [])
                with open(f"/proc/{actor['pid']}/mountinfo") as file:
                    mounts = file.read().splitlines()
                self.assertEqual(len(mounts), 1, mounts)
                self.assertIn("ro", mounts[0].split()[5].split(","))

    def testNoFdReachesAPathButTheOnesHanded(self):
        """Beyond sockets, pipes and anonymous files: a disk has its image, a console its ends."""
        expected = {"blk": 1, "console": 1, "serial": 1}  # an image, a log, /dev/null as stdin
        for name, actor in self.actors.items():
            with self.subTest(name):
                folder = f"/proc/{actor['pid']}/fd"
                links = [os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)]
                paths = [link for link in links if link.startswith("/")
                         and not link.startswith("/memfd:")]
                self.assertEqual(len(paths), expected.get(actor["kind"], 0), links)
                kvm = [link for link in links if "kvm" in link]
                self.assertEqual(bool(kvm), actor["kind"] == "broker", links)

    def testFdTableIsTheProfiles(self):
        for name, actor in self.actors.items():
            with self.subTest(name):
                allowed = self.profileFds(actor["kind"])
                table = {int(fd) for fd in os.listdir(f"/proc/{actor['pid']}/fd")}
                self.assertEqual(table - allowed, set())

    def profileFds(self, kind):
        """The numbers the actor's profile names, read from its text."""
        places = {"broker": "broker/broker.profile", "front": "vmm/front/front.profile",
                  "serial": "devices/console/serial.profile"}
        text, queue = "", [places.get(kind, f"devices/{kind}/{kind}.profile")]
        while queue:
            with open(queue.pop()) as file:
                part = file.read()
            text += part
            queue += re.findall(r'^include: *"([^"]+)"', part, re.M)
        numbers = set()
        for block in re.findall(r"\bfd\s*{([^}]*)}", text):
            number = int(re.search(r"\bnumber:\s*(\d+)", block).group(1))
            count = re.search(r"\bcount:\s*(\d+)", block)
            numbers.update(range(number, number + (int(count.group(1)) if count else 1)))
        return numbers


class JailAsOrdinaryUser(Jail):
    user = machine.ORDINARY_USER


if __name__ == "__main__":
    report.main()
