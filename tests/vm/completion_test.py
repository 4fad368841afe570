#!/usr/bin/env -S python3 -B
"""bash and zsh complete commands, options and their values, names of VMs and of realms, and files."""

import os
import re
import shutil
import unittest

import realms
from commands_test import Terminal


class Shell:
    """An interactive shell that has read the script."""

    def __init__(self, case, command, setup):
        environment = dict(case.folder.environment(), TERM="dumb", LC_ALL="C.UTF-8",
                           PATH=case.folder.bin + ":" + os.environ["PATH"])
        for name in ("EDITOR", "VISUAL", "ENV", "BASH_ENV", "ZDOTDIR"):
            environment.pop(name, None)
        self.terminal = Terminal(command, environment, columns=1000)
        case.addCleanup(self.terminal.close)
        self.turn = 0
        self.run(f"cd {case.folder.file('guest')}")
        for line in setup:
            self.run(line)

    def run(self, line):
        self.turn += 1
        # Split, so that the line itself as the terminal shows it is not taken for its end.
        self.terminal.type(f"{line}; printf '%s%s\\n' ready- {self.turn}-now\n".encode())
        self.terminal.until(f"ready-{self.turn}-now".encode())

    def complete(self, line):
        """The words of a command line once the tabulator was hit at its end."""
        self.turn += 1
        self.terminal.type(line.encode() + b"\t")
        # Not run but printed: to the front of the line, and a word each.
        self.terminal.type(b"\x01printf '<%s>' \x05; printf '%s%s\\n' ready- " +
                           f"{self.turn}-now\n".encode())
        said = self.terminal.until(f"ready-{self.turn}-now".encode()).decode()
        return re.findall(r"<([^%>]*)>", said)


class Completion:

    def setUp(self):
        super().setUp()
        self.serve("--keep", "laboratory", "--keep", "my $(touch lost) realm")
        self.bundle("waiting", "end=halt")
        self.shell = Shell(self, *self.start())

    def is_(self, line, *words):
        with self.subTest(line):
            # Whether a folder's slash stays is the shell's affair.
            found = [word.rstrip("/") for word in self.shell.complete(line)]
            self.assertEqual(found, ["troupe", *words])

    def testCommandsAndTheirVerbs(self):
        self.is_("troupe launc", "launch")
        self.is_("troupe balloon-", "balloon-stats")
        self.is_("troupe disk crea", "disk", "create")
        self.is_("troupe policy cov", "policy", "coverage")
        self.is_("troupe completion z", "completion", "zsh")
        self.is_("troupe nothing-of-the-kin", "nothing-of-the-kin")

    def testOptionsAndTheirValues(self):
        self.is_("troupe launch --lab", "launch", "--label")
        self.is_("troupe disk create --clu", "disk", "create", "--cluster-size")
        self.is_("troupe run --jail of", "run", "--jail", "off")
        self.is_("troupe run --jail=of", "run", "--jail=off")
        self.is_("troupe serve --realm-net us", "serve", "--realm-net", "user")
        self.is_("troupe stop --js", "stop", "--json")

    def testNamesOfVms(self):
        name = self.folder.vm("completed")  # as no other on this host is called
        process = self.folder.start("run", "--kernel", self.folder.payload, "--memory", "64M",
                                    "--cmdline", "idle", "--name", name)
        self.addCleanup(process.communicate)
        self.addCleanup(process.terminate)
        self.folder.status(name)
        for command in ("serial", "stop", "status", "inspect", "balloon"):
            self.is_(f"troupe {command} {name[:-3]}", command, name)
        self.is_(f"troupe device replace {name[:-3]}", "device", "replace", name)
        self.is_(f"troupe disk resize d --vm {name[:-3]}", "disk", "resize", "d", "--vm", name)

    def testRealms(self):
        socket = f"--socket {self.socket}"
        self.is_(f"troupe launch waiting {socket} --realm lab", "launch", "waiting", "--socket",
                 self.socket, "--realm", "laboratory")
        self.is_(f"troupe launch waiting {socket} --realm=lab", "launch", "waiting", "--socket",
                 self.socket, "--realm=laboratory")
        # Whatever it is called, it is one word, and nothing in it is done.
        self.is_(f"troupe launch waiting {socket} --realm my", "launch", "waiting", "--socket",
                 self.socket, "--realm", "my $(touch lost) realm")
        self.assertFalse(os.path.exists(self.folder.file("guest/lost")))

    def testFiles(self):
        self.is_("troupe launch wait", "launch", "waiting")
        self.is_("troupe run --kernel waiting/ker", "run", "--kernel", "waiting/kernel")


class InBash(Completion, realms.Realms):

    def start(self):
        return (["bash", "--norc", "--noprofile", "-i"],
                ["bind 'set enable-bracketed-paste off'", "source <(troupe completion bash)"])


class InZsh(Completion, realms.Realms):

    def start(self):
        self.assertIsNotNone(shutil.which("zsh"), "tools/packages names it")
        return (["zsh", "-f", "-i"],
                ["unsetopt zle_bracketed_paste; zstyle ':completion:*' menu no; bindkey -e",
                 "autoload -Uz compinit; compinit -u -D", "source <(troupe completion zsh)"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
