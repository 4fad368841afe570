#!/usr/bin/env python3
"""Volatile disks, and disks that grow while their VM runs, from the command line on."""

import hashlib
import json
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.getcwd(), "vmm/testing"))
import tiny_guest
from program import ProgramTest

PAYLOAD = "guest/payload/payload.elf"


class ModesTest(ProgramTest):
    def assertRefused(self, result, exit_code, code, *words):
        """As assertError(), of a command beside a VM that goes on."""
        shown = f"{result.returncode}: {result.stderr}"
        self.assertEqual(result.returncode, exit_code, shown)
        self.assertTrue(result.stderr.startswith(f"troupe: {code}: "), shown)
        self.assertEqual(result.stderr.count("TRP-"), 1, shown)
        for word in words:
            self.assertIn(word, result.stderr)


def state(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest(), os.stat(path).st_mtime_ns


class VolatileDisks(ModesTest):
    def image(self, name, *words):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *words, name], check=True,
                       cwd=self.folder)
        return self.path(name)

    def testAGuestWritesAndTheFilesStayAsTheyAre(self):
        raw = self.file("raw.img", os.urandom(1 << 20), size=32 << 20)
        base = self.file("base.raw", os.urandom(1 << 20), size=32 << 20)
        overlay = self.image("overlay.qcow2", "-F", "raw", "-b", "base.raw")
        for path in raw, base, overlay:
            os.utime(path, (1, 1))
        before = [state(path) for path in (raw, base, overlay)]
        result = self.run_troupe(
            "run", "--kernel", PAYLOAD, "--cmdline", "scratch", "--memory", "128M", "--name",
            self.name, "--disk", f"{raw},volatile,queues=2",
            "--disk", f"{overlay},volatile,format=qcow2,backing={base}:raw")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        for disk in "blk0", "blk1":
            self.assertIn(f"{disk}      verify        64 of 64 as written", result.stdout)
        self.assertEqual([state(path) for path in (raw, base, overlay)], before)

    def testManyShareAFileAndNobodyWritesIt(self):
        raw = self.file("raw.img", size=1 << 20)
        sleeper = self.file("sleeper", tiny_guest.elf(tiny_guest.SLEEP))
        self.start(sleeper, "--disk", f"{raw},volatile,id=one", "--disk", f"{raw},volatile,id=two")
        second = self.run_troupe("run", "--kernel", sleeper, "--name", self.name + "-x",
                                 "--disk", f"{raw}")
        self.assertRefused(second, 2, "TRP-cfg-024", raw)

    def testTheModesExcludeEachOther(self):
        raw = self.file("raw.img", size=1 << 20)
        for mode in "ro", "rw":
            result = self.run_troupe("run", "--kernel", PAYLOAD, "--disk", f"{raw},volatile,{mode}")
            self.assertError(result, 2, "TRP-cfg-005", mode)
        config = self.file("vm.json", json.dumps(
            {"kernel": PAYLOAD, "disk": [{"path": raw, "ro": True, "volatile": True}]}).encode())
        self.assertError(self.run_troupe("run", config), 2, "TRP-cfg-014", raw)
        printed = self.run_troupe("run", "--kernel", PAYLOAD, "--disk", f"{raw},volatile",
                                  "--print-config")
        self.assertTrue(json.loads(printed.stdout)["disk"][0]["volatile"], printed.stdout)


class Resize(ModesTest):
    def setUp(self):
        super().setUp()
        self.raw = self.file("raw.img", size=1 << 20)
        self.image = self.path("image.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.image, "4M"], check=True)
        self.fixed = self.file("fixed.img", size=1 << 20)
        self.process = self.start(
            self.file("sleeper", tiny_guest.elf(tiny_guest.SLEEP)),
            "--disk", f"{self.raw},id=raw", "--disk", f"{self.image},format=qcow2,id=image",
            "--disk", f"{self.fixed},ro,id=fixed", "--disk", f"{self.fixed},volatile,id=gone")

    def resize(self, *words):
        return self.run_troupe("disk", "resize", *words, "--vm", self.name)

    def testDisksGrow(self):
        result = self.resize("raw", "3M")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn(str(3 << 20), result.stdout)
        self.assertEqual(os.stat(self.raw).st_size, 3 << 20)
        result = self.resize("image", "20G")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(self.resize("image", "20G").returncode, 0)
        self.assertIsNone(self.process.poll())
        self.assertEqual(self.run_troupe("stop", "--force", self.name).returncode, 0)
        self.process.wait(timeout=10)
        info = json.loads(subprocess.run(["qemu-img", "info", "--output", "json", self.image],
                                         check=True, capture_output=True).stdout)
        self.assertEqual(info["virtual-size"], 20 << 30)
        subprocess.run(["qemu-img", "check", "-q", self.image], check=True)

    def testWhatCannotBeIsAnErrorAndChangesNothing(self):
        self.assertRefused(self.resize("raw", "512K"), 2, "TRP-cfg-037", "raw")
        self.assertRefused(self.resize("raw", "1049088" + "1"), 2, "TRP-cfg-037", "512")
        self.assertRefused(self.resize("raw"), 2, "TRP-cfg-037", "size")
        self.assertRefused(self.resize("raw", "big"), 2, "TRP-cfg-037", "big")
        self.assertRefused(self.resize("image", "1M"), 2, "TRP-blk-011", "image")
        self.assertRefused(self.resize("fixed", "2M"), 2, "TRP-cfg-037", "read-only")
        self.assertRefused(self.resize("gone", "2M"), 2, "TRP-cfg-037", "volatile")
        self.assertRefused(self.resize("row", "2M"), 2, "TRP-cfg-036", "row", "raw, image, fixed, gone")
        self.assertRefused(self.resize(), 2, "TRP-cfg-004")
        self.assertRefused(self.run_troupe("disk", "resize", "raw", "2M", "--vm=" + self.name + "x"), 2,
                         "TRP-cfg-028")
        self.assertEqual(os.stat(self.raw).st_size, 1 << 20)
        self.assertEqual(os.stat(self.fixed).st_size, 1 << 20)
        self.assertIsNone(self.process.poll())


class FullHost(ModesTest):
    def testAFileThatMayNotGrowIsAnErrorAndTheVmGoesOn(self):
        raw = self.file("raw.img", size=1 << 20)
        image = self.path("image.qcow2")
        # Its first table fills a cluster, so a larger disk needs more of the file.
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", image,
                        "1M"], check=True)
        kernel = self.file("sleeper", tiny_guest.elf(tiny_guest.SLEEP))
        process = self.start(kernel, "--disk", f"{raw},id=raw", "--disk",
                             f"{image},format=qcow2,id=image")
        limit = 2 << 20
        pids = [process.pid, self.actors()["blk1"]]
        for pid in pids:
            subprocess.run(["prlimit", "--pid", str(pid), f"--fsize={limit}:{limit}"], check=True)
        result = self.run_troupe("disk", "resize", "raw", "64M", "--vm", self.name)
        self.assertRefused(result, 3, "TRP-host-011", "raw")
        # 2 GiB of clusters of 512 bytes: 512 KiB of table; 64 GiB have 16 MiB of it.
        result = self.run_troupe("disk", "resize", "image", "64G", "--vm", self.name)
        self.assertRefused(result, 3, "TRP-blk-012", "image")
        # What is left of the try is in nobody's way: 512 MiB have 128 KiB of table.
        result = self.run_troupe("disk", "resize", "image", "512M", "--vm", self.name)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIsNone(process.poll())
        self.assertEqual(self.run_troupe("stop", "--force", self.name).returncode, 0)
        process.wait(timeout=10)
        checked = subprocess.run(["qemu-img", "check", "-q", image])
        self.assertIn(checked.returncode, (0, 3), "sound but for leaks")
        self.assertEqual(os.stat(raw).st_size, 1 << 20)


if __name__ == "__main__":
    unittest.main()
