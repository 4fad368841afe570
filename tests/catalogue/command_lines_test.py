#!/usr/bin/env python3
"""Every `troupe` command line in the documents is of a command that there is, with options that it has."""

import functools
import os
import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(os.path.realpath(__file__)).parents[2]
WITH_VERBS = ("device", "disk", "guest", "policy")
# In backticks, or a line of an example; what a command is given after -- is another's.
QUOTED = re.compile(r"`troupe ([a-z][^`]*)`")
EXAMPLE = re.compile(r"(?m)^(?:\S*\$ )?(?:\S*/)?troupe ([a-z].*)")


@functools.lru_cache(None)
def help_of(*words):
    return subprocess.run(["bin/troupe", *words, "--help"], capture_output=True, text=True, check=True).stdout


def names(*words):
    return re.findall(r"(?m)^  ([a-z][a-z-]*) ", help_of(*words))


class CommandLines(unittest.TestCase):

    def found(self):
        """Each page, and a command line of its."""
        for page in (path for path in ROOT.rglob("*.md") if ".git" not in path.relative_to(ROOT).parts):
            text = page.read_text()
            fences = "\n".join(re.findall(r"(?ms)^```.*?$\n(.*?)^```$", text)).replace("\\\n", " ")
            for line in QUOTED.findall(text) + EXAMPLE.findall(fences):
                yield page.relative_to(ROOT), re.split(r" -- | \| |  |#", line)[0]

    def testEachIsUnderstood(self):
        seen = 0
        for page, line in self.found():
            with self.subTest(f"{page}: troupe {line}"):
                seen += 1
                command = line.split()[:1]
                self.assertIn(command[0], names() + ["help"])
                # `troupe disk …` and the like are about all of them.
                verb = line.split()[1:2]
                if command[0] in WITH_VERBS and verb and re.fullmatch("[a-z]+", verb[0]):
                    self.assertIn(verb[0], ["create"] if command[0] == "guest" else names(command[0]))
                    command += verb
                options = re.findall(r"(?m)^  (--[a-z-]+)", help_of(*command))
                for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line):
                    self.assertIn(option, options)
        self.assertGreater(seen, 150)


if __name__ == "__main__":
    unittest.main()
