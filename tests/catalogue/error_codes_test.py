#!/usr/bin/env python3
"""Every error of docs/errors.md is provoked by some test, which names its code, but for those that say here why
not."""

import os
import pathlib
import re
import unittest

ROOT = pathlib.Path(os.path.realpath(__file__)).parents[2]
ROW = re.compile(r"^\| (TRP-[a-z]+-\d{3}) \| (.*) \|$", re.MULTILINE)
FOLDERS = ("broker", "client", "devices", "guest", "sandbox", "tests", "vmm")

UNPROVOKED = {
    "`troupe` refuses it first, and the device looks once more": [
        "TRP-blk-005", "TRP-blk-007", "TRP-blk-008", "TRP-blk-009", "TRP-net-105", "TRP-net-107",
        "TRP-net-108"],
    "a file system, io_uring or a disk would have to fail at that moment": [
        "TRP-blk-002", "TRP-blk-006", "TRP-blk-026", "TRP-blk-027", "TRP-blk-028", "TRP-blk-030",
        "TRP-boot-012", "TRP-con-001", "TRP-net-109"],
    "the kernel of the host would have to lack it, or refuse it": [
        "TRP-jail-002", "TRP-jail-006", "TRP-jail-008", "TRP-jail-009", "TRP-jail-024",
        "TRP-jail-051", "TRP-kvm-002", "TRP-kvm-003", "TRP-kvm-004"],
    "takes a disk larger than any here": ["TRP-blk-010", "TRP-blk-025"],
    "takes a process that hangs at that moment, or was taken over": [
        "TRP-con-003", "TRP-net-012", "TRP-rec-007"],
}


class ErrorCodes(unittest.TestCase):

    def setUp(self):
        self.rows = dict(ROW.findall((ROOT / "docs/errors.md").read_text()))
        self.assertGreater(len(self.rows), 200)
        self.excused = [code for codes in UNPROVOKED.values() for code in codes]

    def named(self):
        said = set()
        for folder in FOLDERS:
            for path in (ROOT / folder).rglob("*"):
                isTest = folder == "tests" or re.search(r"_test\.(cc|py|sh)$", path.name)
                if isTest and path.suffix in (".cc", ".py", ".sh") and path.name != "error_codes_test.py":
                    said.update(re.findall(r"TRP-[a-z]+-\d{3}", path.read_text()))
        return said

    def isOwnMistake(self, code, row):
        """Nobody can provoke it from outside."""
        return code.startswith("TRP-int-") or "a mistake in Troupe" in row

    def testEachIsNamedByATestOrExcused(self):
        named = self.named()
        missing = [code for code, row in self.rows.items()
                   if code not in named and not self.isOwnMistake(code, row)
                   and code not in self.excused]
        self.assertEqual(missing, [], "no test provokes these")
        self.assertEqual([code for code in self.excused if code in named], [], "excused in vain")

    def testExcusesAreForErrorsThatThereAre(self):
        self.assertEqual([code for code in self.excused if code not in self.rows], [])
        self.assertEqual(len(self.excused), len(set(self.excused)))


if __name__ == "__main__":
    unittest.main()
