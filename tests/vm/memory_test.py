#!/usr/bin/env -S python3 -B
"""What each process of a running VM has mapped of the guest's memory, read from /proc."""

import os
import re
import unittest

import machine
import report

MIB = 1 << 20
RAM = 64 * MIB


def mapped(pid):
    """(protection, offset in the file, bytes) of each mapping of guest RAM."""
    found = []
    with open(f"/proc/{pid}/maps") as table:
        for line in table:
            words = line.split()
            if len(words) > 5 and words[5].startswith("/memfd:guest-ram"):
                begin, end = (int(word, 16) for word in words[0].split("-"))
                found.append((words[1], int(words[2], 16), end - begin))
    return sorted(found, key=lambda one: one[1])


class Memory(unittest.TestCase):
    user = None

    def setUp(self):
        self.folder = machine.Folder(self.user)
        self.addCleanup(self.folder.close)

    def start(self, *words):
        """A VM that idles; the processes by their kind, `troupe` among them."""
        name = self.folder.vm("memory")
        process = self.folder.start(
            "run", "--name", name, "--kernel", self.folder.payload, "--memory", "64M",
            "--cmdline", "idle", "--disk", self.folder.disk("a"),
            "--console", f"file={self.folder.file('guest/console')}", *words)
        self.addCleanup(process.communicate, timeout=20)
        self.addCleanup(self.folder.run, "stop", "--force", name)
        status = self.folder.status(name)
        return {"troupe": status["pid"],
                **{actor["kind"]: actor["pid"] for actor in status["actors"]}}

    def override(self, memory, more=""):
        """A folder with the entropy device's profile, in which `memory` replaces what it has and
        `more` is added; its first death is the last."""
        path = self.folder.file("profiles/devices/rng")
        os.makedirs(path)
        with open("devices/rng/rng.profile") as file:
            text = re.sub(r"restart \{[^}]*\}", "restart { policy: NEVER }", file.read())
        with open(f"{path}/rng.profile", "w") as file:
            file.write(f"{text}\nmemory {{ {memory} }}\n{more}\n")
        return self.folder.file("profiles")

    def testWhoHasNoneOfItMapsNone(self):
        pids = self.start()
        for kind in ("troupe", "serial", "front"):
            self.assertEqual(mapped(pids[kind]), [], kind)
        for kind in ("broker", "blk", "console", "rng"):
            self.assertEqual(mapped(pids[kind]), [("rw-s", 0, RAM)], kind)

    def testADeviceWithRangesMapsThese(self):
        pids = self.start("--profile-dir", self.override(
            f'access: RANGES fd: "ram" range {{ address: 0 size: {3 * MIB} }} '
            f"range {{ address: {8 * MIB} size: 4096 }}"))
        self.assertEqual(mapped(pids["rng"]), [("rw-s", 0, 3 * MIB), ("rw-s", 8 * MIB, 4096)])
        self.assertEqual(mapped(pids["blk"]), [("rw-s", 0, RAM)])

    def testADeviceThatMayOnlyReadDiesOfAStore(self):
        """The entropy device is no good for this: it stores into the ring as soon as it is asked."""
        folder = self.override('access: READ_ONLY fd: "ram"', """
            start { rule {
              syscall: "mmap"
              arg { index: 2 value: "PROT_READ" }
              arg { index: 3 value: "MAP_SHARED" }
              arg { index: 4 fd: "ram" }
              reason: "guest RAM, for reading"
            } }""")
        code, _, said = self.folder.run("run", "--kernel", self.folder.payload, "--memory", "64M",
                                        "--cmdline", "idle", "--profile-dir", folder)
        self.assertEqual(code, 19, said)
        self.assertRegex(said, r"TRP-run-004: .*lost rng0 .*SIGSEGV")

    def testARangeThatIsNoRamStartsNoVm(self):
        folder = self.override(
            f'access: RANGES fd: "ram" range {{ address: {RAM} size: 4096 }}')
        code, _, said = self.folder.run("run", "--kernel", self.folder.payload, "--memory", "64M",
                                        "--profile-dir", folder)
        self.assertEqual(code, 2, said)
        self.assertIn("TRP-cfg-104", said)
        self.assertIn(f"4096 bytes at 0x{RAM:x}, is not inside one piece of the guest's RAM", said)


class MemoryAsOrdinaryUser(Memory):
    user = machine.ORDINARY_USER


if __name__ == "__main__":
    report.main()
