#!/usr/bin/env python3
"""The system calls that README.md and docs/sandbox.md count are those of the filters, and so are the budgets."""

import json
import os
import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(os.path.realpath(__file__)).parents[2]

# What a row is called, and the filters that it counts.
README = {
    "entropy device": ["rng run"],
    "net: main thread, each queue pair's thread": ["net run", "net thread:queue"],
    "balloon": ["balloon run"],
    "vsock": ["vsock run"],
    "console": ["console run"],
    "disk: main thread, queue thread": ["blk run", "blk thread:queue"],
    "VM's own process, vCPU thread": ["broker run", "broker thread:vcpu"],
}
SANDBOX = {
    "rng": "rng run",
    "balloon": "balloon run",
    "net, main thread": "net run",
    "net, each queue pair's thread": "net thread:queue",
    "vsock": "vsock run",
    "console": "console run",
    "serial": "serial run",
    "blk, main thread": "blk run",
    "blk, each queue's thread": "blk thread:queue",
    "broker": "broker run",
    "broker, each vCPU's thread": "broker thread:vcpu",
    "front": "front run",
    "realm-front": "realm-front run",
    "disk_tool": "disk_tool run",
    "recorder": "recorder run",
    "replayer": "replayer run",
}
NUMBER = r" (\d+) \|"


class Figures(unittest.TestCase):

    def setUp(self):
        told = subprocess.run(["bin/troupe", "policy", "budget", "--json"], capture_output=True, check=True)
        self.rows = {f"{row['actor']} {row['stage']}": row for row in json.loads(told.stdout)}

    def testTheReadmeCountsTheCallsOfEachFilter(self):
        page = (ROOT / "README.md").read_text()
        for name, filters in README.items():
            with self.subTest(name):
                found = re.search(rf"(?m)^\| {re.escape(name)} \| ([\d/, ]+) \|", page)[1]
                self.assertEqual(found.split(", "), [
                    f"{self.rows[one]['syscalls']} / {self.rows[one]['conditional']}" for one in filters])

    def testThePageOfTheJailDoesToo(self):
        page = (ROOT / "docs/sandbox.md").read_text()
        for name, one in SANDBOX.items():
            with self.subTest(name):
                found = re.search(rf"(?m)^\| {re.escape(name)} \|{NUMBER * 3}", page)
                row = self.rows[one]
                self.assertEqual([int(number) for number in found.groups()],
                                 [row["syscalls"], row["conditional"], row["unconditional"]])

    def testNoBudgetHasRoomForACallThatNobodyMakes(self):
        budgets = {name: row["budget"] for name, row in self.rows.items() if "budget" in row}
        self.assertGreater(len(budgets), 15)
        for name, budget in budgets.items():
            with self.subTest(name):
                self.assertEqual(budget, {key: self.rows[name][key] for key in ("syscalls", "unconditional")})


if __name__ == "__main__":
    unittest.main()
