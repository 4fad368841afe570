#!/usr/bin/env python3
"""Disks in qcow2 images, from the command line to qemu-img's judgement."""

import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.getcwd(), "vmm/testing"))
from program import NOTES, ProgramTest

PAYLOAD = "guest/payload/payload.elf"


class ImageDisks(ProgramTest):
    def image(self, name, *words):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *words, name], check=True,
                       cwd=self.folder)
        return self.path(name)

    def run_with(self, *disks):
        words = [word for disk in disks for word in ("--disk", disk)]
        return self.run_troupe("run", "--kernel", PAYLOAD, "--cmdline", "scratch", "--memory", "128M",
                               "--name", self.name, *words)

    def refused(self, disk, code):
        result = self.run_with(disk)
        self.assertIn(f"troupe: {code}: ", NOTES.sub("", result.stderr))
        self.assertNotEqual(result.returncode, 0)
        return result.stderr

    def testAGuestWritesImagesAndLeavesThemSound(self):
        alone = self.image("alone.qcow2", "-o", "size=64M")
        base = self.file("base.raw", size=32 << 20)
        overlay = self.image("overlay.qcow2", "-F", "raw", "-b", "base.raw")
        result = self.run_with(f"{alone},format=qcow2,queues=2",
                               f"{overlay},format=qcow2,backing={base}:raw")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("blk0      verify        64 of 64 as written", result.stdout)
        self.assertIn("blk1      verify        64 of 64 as written", result.stdout)
        for image in alone, overlay:
            subprocess.run(["qemu-img", "check", "-q", image], check=True)
        # What the guest read back is in the images, and the base is as it was.
        self.assertGreater(os.stat(overlay).st_blocks, 1000)
        self.assertEqual(os.stat(base).st_blocks, 0)

    def testBackingFilesAreThoseThatAreNamed(self):
        base = self.file("base.raw", size=1 << 20)
        other = self.file("other.raw", size=1 << 20)
        overlay = self.image("overlay.qcow2", "-F", "raw", "-b", "base.raw")
        self.assertIn(base, self.refused(f"{overlay},format=qcow2", "TRP-blk-024"))
        self.refused(f"{overlay},format=qcow2,backing={other}:raw", "TRP-blk-024")
        self.refused(f"{overlay},format=qcow2,backing={base}:qcow2", "TRP-blk-024")
        self.refused(f"{overlay},format=qcow2,backing={overlay}:qcow2", "TRP-cfg-035")
        self.refused(f"{overlay},format=qcow2,backing={base}x:raw", "TRP-cfg-018")
        self.refused(f"{overlay},backing={base}:raw", "TRP-cfg-014")

    def testAFormatIsNotGuessed(self):
        raw = self.file("raw.img", size=1 << 20)
        self.refused(f"{raw},format=qcow2", "TRP-blk-020")


if __name__ == "__main__":
    unittest.main()
