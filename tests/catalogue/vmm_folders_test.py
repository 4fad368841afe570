#!/usr/bin/env python3
"""vmm/README.md names every folder of vmm/, which hold all of its sources, and each includes only those above it."""

import os
import pathlib
import re
import unittest

VMM = pathlib.Path(os.path.realpath(__file__)).parents[2] / "vmm"
ROW = re.compile(r"^\| ((?:`\w+/`(?:, )?)+) \|", re.MULTILINE)
INCLUDE = re.compile(r'^#include "vmm/(\w+)/', re.MULTILINE)


class VmmFolders(unittest.TestCase):

    def setUp(self):
        rows = ROW.findall((VMM / "README.md").read_text())
        self.folders = [name for row in rows for name in re.findall(r"\w+", row)]

    def testTheReadmeNamesEveryFolder(self):
        there = {file.parent.name for file in VMM.glob("*/BUILD.bazel")}
        self.assertEqual(sorted(self.folders), sorted(there))

    def testTheFolderItselfHoldsOnlyTheProgram(self):
        self.assertEqual([file.name for file in VMM.glob("*") if file.suffix in (".cc", ".h", ".capnp")], ["main.cc"])

    def testAFolderIncludesOnlyThoseAboveIt(self):
        height = {name: place for place, name in enumerate(self.folders)}
        below = [f"{file.relative_to(VMM)} includes {folder}/"
                 for name in self.folders for file in (VMM / name).glob("*.*") if file.suffix in (".cc", ".h")
                 for folder in INCLUDE.findall(file.read_text()) if height[folder] > height[name]]
        self.assertEqual(sorted(set(below)), [])


if __name__ == "__main__":
    unittest.main()
