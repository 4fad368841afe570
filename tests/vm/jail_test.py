#!/usr/bin/env -S python3 -B
"""Reads the jail of every process of a running VM from outside, without asking the product."""

import os
import re
import time
import unittest

import machine
import report

# What the link of an fd shows, by the profile's word for its kind.
KINDS = {
    "ANY": r"^(/|pipe:|socket:)", "SOCKET": r"^socket:", "PIPE": r"^pipe:", "FILE": r"^/",
    "MEMFD": r"^/memfd:", "EVENTFD": r"^anon_inode:\[eventfd\]$",
    "EPOLL": r"^anon_inode:\[eventpoll\]$", "SIGNALFD": r"^anon_inode:\[signalfd\]$",
    "KVM_VM": r"^anon_inode:kvm-vm$", "KVM_VCPU": r"^anon_inode:kvm-vcpu:\d+$",
}

# Of the optional fds, which of each range this test's VM makes an actor have: 1 CPU, a balloon of
# five queues, two disks of one, a console of two into a file, the serial port on stdio, one client
# that has left again.
# The broker has 31 places for the queues of each PCI slot.
QUEUES = [0, 1, 2, 3, 4, 31, 62, 93, 94, 124]
OPTIONAL_FDS = {
    "broker": {"serial": [0], "device": [0, 1, 2, 3, 4], "vcpu": [0], "kick": QUEUES,
               "call": QUEUES},
    "blk": {"witness": [0], "wake": [0], "kick": [0], "call": [0]},
    "console": {"out": [0], "kick": [0, 1], "call": [0, 1]},
    "serial": {"in": [0], "out": [0]},
    "front": {},
}

NAMESPACES = ("user", "pid", "net", "mnt", "ipc", "uts", "cgroup")


def status_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


class Jail(unittest.TestCase):
    user = None

    @classmethod
    def setUpClass(cls):
        cls.folder = machine.Folder(cls.user)
        cls.addClassCleanup(cls.folder.close)
        cls.name = cls.folder.vm("jailed")
        cls.process = cls.folder.start(
            "run", "--name", cls.name, "--kernel", cls.folder.payload, "--memory", "64M",
            "--cmdline", "idle", "--balloon", "--disk", cls.folder.disk("a"),
            "--disk", cls.folder.disk("b"),
            "--console", f"file={cls.folder.file('guest/console')}")
        cls.addClassCleanup(cls.process.communicate, timeout=20)
        cls.addClassCleanup(cls.folder.run, "stop", "--force", cls.name)
        status = cls.folder.status(cls.name)
        cls.actors = {actor["name"]: actor for actor in status["actors"]}

    def testEveryKindIsThere(self):
        kinds = sorted(actor["kind"] for actor in self.actors.values())
        self.assertEqual(kinds, ["balloon", "blk", "blk", "broker", "console", "front", "rng",
                                 "serial"])

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

    def testFdTableIsExactlyTheProfiles(self):
        """Number, kind and count: what the profile has, less what it closes, and of the optional
        fds those that this VM's configuration asks for."""
        for name, actor in self.actors.items():
            with self.subTest(name):
                wanted = {}
                for fd in self.profile_fds(actor["kind"]):
                    places = range(fd["count"])
                    if fd["closed"]:
                        continue
                    if fd["optional"]:
                        places = OPTIONAL_FDS[actor["kind"]].get(fd["name"], [])
                    for place in places:
                        wanted[fd["number"] + place] = fd["kind"]
                table = self.fds_of(actor["pid"])
                until = time.monotonic() + 2  # the front end may still be closing its last client
                while sorted(table) != sorted(wanted) and time.monotonic() < until:
                    time.sleep(0.02)
                    table = self.fds_of(actor["pid"])
                self.assertEqual(sorted(table), sorted(wanted), table)
                for number, link in table.items():
                    self.assertRegex(link, KINDS[wanted[number]], f"fd {number}")

    @staticmethod
    def fds_of(pid):
        folder = f"/proc/{pid}/fd"
        return {int(number): os.readlink(f"{folder}/{number}") for number in os.listdir(folder)}

    def profile_fds(self, kind):
        """The fds of an actor's profile, read from its text."""
        places = {"broker": "broker/broker.profile", "front": "vmm/front/front.profile",
                  "serial": "devices/console/serial.profile"}
        text, queue, seen = "", [places.get(kind, f"devices/{kind}/{kind}.profile")], set()
        while queue:
            path = queue.pop()
            if path in seen:
                continue
            seen.add(path)
            with open(path) as file:
                part = file.read()
            text += part
            queue += re.findall(r'^include: *"([^"]+)"', part, re.M)
        fds = []
        for block in re.findall(r"^fd\s*{([^}]*)}", text, re.M):
            words = dict(re.findall(r'(\w+): *"?(\w+)', block))
            fds.append({"name": words["name"], "number": int(words["number"]),
                        "count": int(words.get("count", 1)), "kind": words["kind"],
                        "optional": words.get("optional") == "true",
                        "closed": words.get("closed") == "true"})
        return fds


class JailAsOrdinaryUser(Jail):
    user = machine.ORDINARY_USER


if __name__ == "__main__":
    report.main()
