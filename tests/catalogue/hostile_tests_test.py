#!/usr/bin/env python3
"""Every test that docs/hostile-tests.md names is there, and each id has one."""

import os
import pathlib
import re
import unittest

ROOT = pathlib.Path(os.path.realpath(__file__)).parents[2]
ROW = re.compile(r"^\| [^|]*\| [^|]*\| (?P<file>\S+)(?: \(jailed\))?: (?P<tests>[^|]+) \|$", re.MULTILINE)
TEST = re.compile(r"TEST(?:_F|_P)?\(\s*\w+,\s*((?:BAL|BLK|BRK|CFG|CON|JAIL|LIST|MSI|NET|NTF|PCI|RNG|RST|TOC|VQ|VSK)"
                  r"_?\d\d\w*)\)")


def id_of(test):
    return re.match(r"([A-Z]+)_?(\d\d)", test).groups()


class HostileTests(unittest.TestCase):

    def testThePageSaysWhatIsThere(self):
        page = (ROOT / "docs/hostile-tests.md").read_text()
        named = {(row["file"] + ".cc", test.strip())
                 for row in ROW.finditer(page) for test in row["tests"].split(",")}
        there = {(str(path.relative_to(ROOT)), test)
                 for folder in ("broker", "devices", "sandbox", "tests", "vmm") for path in (ROOT / folder).rglob("*_test.cc")
                 for test in TEST.findall(path.read_text())}
        self.assertGreater(len(there), 100)
        self.assertEqual(sorted(named - there), [], "named, but not there")
        unnamed = {id_of(test) for _, test in there} - {id_of(test) for _, test in named}
        self.assertEqual(unnamed, set(), "tested, but not on the page")


if __name__ == "__main__":
    unittest.main()
