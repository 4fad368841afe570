#!/usr/bin/env -S python3 -B
"""Every command of `troupe` speaks JSON; its tables fit a terminal; consoles are left and replayed."""

import base64
import contextlib
import errno
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import unittest

import machine
import realms

WIDTH = 80


class Commands(realms.Realms):

    def setUp(self):
        super().setUp()
        self.daemon = self.serve("--keep", "lab")

    def guest(self, label="web", realm="lab"):
        return self.launch(self.bundle("waiting", "end=halt"), "--realm", realm, "--label", label)[0]

    def names(self, *words):
        """What stands first in the indented lines of a command's --help."""
        return re.findall(r"(?m)^  ([a-z][a-z-]*) ", self.tell(*words, "--help"))


class EveryCommand(Commands):
    """A new command is found by itself, and fails here until it speaks JSON and has an example."""

    # Those with verbs of their own.
    WITH_VERBS = ("device", "disk", "guest", "policy")

    def commands(self):
        found = []
        for name in self.names():
            if name == "guest":  # one verb, and no list of it
                found.append("guest create")
            elif name in self.WITH_VERBS:
                found += [f"{name} {verb}" for verb in self.names(name)]
            else:
                found.append(name)
        self.assertGreater(len(found), 40)
        return found

    def testItsHelpHasTheOneForm(self):
        for command in self.commands():
            with self.subTest(command):
                text = self.tell(*command.split(), "--help")
                self.assertRegex(text, f"^usage: troupe {command.split()[0]} ")
                options = re.findall(r"(?m)^  (--[a-z-]+)", text.split("\noptions:\n")[1])
                self.assertIn("--json", options)
                self.assertIn("--help", options)
                self.assertRegex(text, r"(?s)\nexit codes: .*\bdocs/errors.md\s+explains")
                example = re.search(r"\nexample:\n    (\S.*)\n\n", text)[1]
                # Of what stands in its own words.
                own = example.split(" -- ")[0].split(" | ")[0]
                for option in re.findall(r"--[a-z-]+", own):
                    self.assertIn(option, options)
                self.assertLessEqual(max(map(len, text.splitlines())), WIDTH, text)
                self.assertEqual(self.tell("help", *command.split()), text)

    def testWhatHelpCallsTheUsualIsSoInTheConfiguration(self):
        """Defaults that --help of `run` names are those a configuration is completed with."""
        text = re.sub(r"\s+", " ", self.tell("run", "--help"))
        config = json.loads(self.tell("run", "--kernel", "k", "--print-config"))
        for option, said in (("cpus", "1"), ("memory", "512M"), ("serial", "stdio"), ("rng", "on"),
                             ("jail", "on"), ("on-reboot", "restart"), ("record-limit", "256M"),
                             ("cmdline", "console=ttyS0")):
            with self.subTest(option):
                self.assertEqual(str(config[option]), said)
                ours = text.split(f" --{option} ")[1].split(" --")[0]
                self.assertRegex(ours, rf"{re.escape(said)},? unless given")

    def testIsInTheManualWithItsOptions(self):
        with open("docs/man/troupe.1") as file:
            manual = re.sub(r"\\f[BRPI]", "", file.read()).replace("\\-", "-").replace("\\(dq", '"')
        said = re.sub(r"(?m)^\.[A-Z]+ ?", "", manual)
        for command in self.commands():
            with self.subTest(command):
                name = command.split()[-1]
                self.assertRegex(said, rf"(?<![\w-]){re.escape(name)}(?![\w-])")
                for option in re.findall(r"(?m)^  (--[a-z-]+)", self.tell(*command.split(), "--help")):
                    self.assertRegex(said, rf"(?<![\w-]){option}(?![\w-])", f"{command} {option}")

    def testSpeaksJsonAndNothingElse(self):
        examples = {name[2:].replace("_", " ").replace("0", "-"): getattr(self, name)
                    for name in dir(self) if name.startswith("a_")}
        commands = self.commands()
        self.assertEqual(sorted(examples), sorted(commands), "a command without an example here")
        for command in commands:
            with self.subTest(command):
                examples[command](*command.split(), "--json")

    def said(self, *words, expect=0, stdin=b"", stream="out"):
        """The objects that a command printed, one a line or all of its output."""
        process = self.folder.start(*words, stdin=subprocess.PIPE)
        out, err = process.communicate(stdin, timeout=120)
        self.assertEqual(process.returncode, expect, (out, err))
        text = out if stream == "out" else err
        self.assertNotEqual(text, b"")
        try:
            return [json.loads(text)]
        except json.JSONDecodeError:
            return [json.loads(line) for line in text.splitlines()]

    def one(self, *words, **more):
        found = self.said(*words, **more)
        self.assertEqual(len(found), 1, found)
        return found[0]

    def vm(self, *options, words="idle"):
        """A VM of `troupe run`."""
        name = self.folder.vm(f"vm{len(os.listdir(self.folder.file('guest')))}")
        process = self.folder.start(
            "run", "--kernel", self.folder.payload, "--memory", "64M", "--cmdline", words, "--name",
            name, "--serial", f"file={self.folder.file('guest/' + name)}", *options)
        self.addCleanup(process.communicate)
        self.addCleanup(process.terminate)
        self.folder.status(name)
        return name

    # An example of each command; 0 stands for a dash.

    def a_run(self, *words):
        name = self.folder.vm("run")
        options = ("--kernel", self.folder.payload, "--memory", "64M", "--name", name)
        lines = self.said(*words, *options, "--cmdline", "end=poweroff", stream="err")
        # Beside these, messages: what a jail lacks on this host, say.
        self.assertEqual([line for line in lines if "message" not in line][0],
                         {"name": name, "state": "running"})
        self.assertEqual(lines[-1], {"exitCode": 0, "reason": ""})
        failed = self.said(*words, *options, "--initrd", "/nowhere", expect=2, stream="err")
        self.assertEqual(failed[-1]["exitCode"], 2)
        self.assertRegex(failed[-1]["reason"], "^TRP-cfg-018: ")
        failed = self.said(*words, *options, "--cpus", "0", expect=2, stream="err")
        self.assertRegex(failed[0]["message"], "^TRP-cfg-013: ")

    def a_serve(self, *words):
        path = self.folder.file("guest/other")
        process = self.folder.start(*words, "--socket", path)
        self.assertEqual(json.loads(process.stdout.readline()), {"socket": path})
        process.terminate()
        out, err = process.communicate(timeout=60)
        self.assertRegex(json.loads(out)["ended"], "SIGTERM")
        self.assertEqual(err, b"")

    def a_launch(self, *words):
        lines = self.said(*words, self.bundle("leaving", "end=poweroff"), "--socket", self.socket)
        self.assertEqual(lines[0]["cid"], 3)
        self.assertEqual((lines[1]["name"], lines[1]["exitCode"]), (lines[0]["name"], 0))

    def heard(self, *words):
        name = self.guest()
        process = self.folder.start(*words, name)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        begun = json.loads(process.stdout.readline())
        self.assertEqual(begun, {"name": name, "attached": words[0]})
        heard = b""
        while b"payload" not in heard:
            heard += base64.b64decode(json.loads(process.stdout.readline())["base64"])
        self.tell("stop", "--force", name)
        lines = [json.loads(line) for line in process.communicate(timeout=60)[0].splitlines()]
        self.assertEqual(lines[-1], {"ended": "closed"})

    def a_serial(self, *words):
        self.heard(*words)

    def a_console(self, *words):
        name = self.guest()
        process = self.folder.start(*words, name)
        self.assertEqual(json.loads(process.stdout.readline()),
                         {"name": name, "attached": "console"})
        self.tell("stop", "--force", name)
        lines = process.communicate(timeout=60)[0].splitlines()
        self.assertEqual(json.loads(lines[-1]), {"ended": "closed"})

    def a_socat(self, *words):
        # Nothing in this guest listens.
        code, _, err = self.folder.run(*words, self.guest(), "22", "--socket", self.socket)
        self.assertEqual(code, 2)
        self.assertIn("TRP-rlm-045: ", err)

    def a_rpc(self, *words):
        answer = self.one(*words, "--socket", self.socket,
                          stdin=b'{"id": 7, "on": 0, "call": "list"}\n')
        self.assertEqual(answer["id"], 7)
        # Of cron, say: there is nothing to read, and no loop that could watch it.
        code, out, err = self.folder.run("rpc", "--socket", self.socket,
                                             stdin=subprocess.DEVNULL)
        self.assertEqual((code, out, err), (0, "", ""))

    def a_demo(self, *words):
        told = self.one(*words)
        self.assertEqual((told["passed"], told["exitCode"]), (True, 0))
        self.assertIn(" passed, 0 failed", told["said"])
        self.assertIn("attested", [actor["jail"] for actor in told["actors"]])

    def a_doctor(self, *words):
        self.assertIn("findings", self.one(*words))

    def a_list(self, *words):
        self.guest("listed")
        listed = self.one(*words, "--socket", self.socket)
        self.assertIn("listed", [one["label"] for one in listed])
        found = self.one(*words, "--realms", "--socket", self.socket)
        self.assertEqual([(one["id"], one["label"]) for one in found], [(0, "lab")])
        self.assertIn(listed[0]["name"], self.one(*words, "--names"))
        self.assertEqual(sorted(self.one(*words, "--names", "--socket", self.socket)),
                         sorted(one["name"] for one in listed))

    def a_status(self, *words):
        self.assertEqual(self.one(*words, self.guest())["state"], "running")

    def a_inspect(self, *words):
        name = self.guest()
        self.assertEqual(self.one(*words, name, "jail")["jail"], "on")
        self.assertEqual(set(self.one(*words, name)), {"status", "jail", "graph", "load", "balloon"})
        self.assertEqual(self.one(*words, name, "status/actors/broker/kind"), "broker")

    def a_graph(self, *words):
        self.assertIn("edges", self.one(*words, self.guest()))

    def a_top(self, *words):
        lines = self.said(*words, "--count", "2", "--interval", "0.1", self.guest())
        self.assertEqual(len(lines), 2)

    def a_events(self, *words):
        self.assertEqual(self.said(*words, self.guest())[0]["event"], "started")

    def a_pause(self, *words):
        name = self.guest()
        self.assertEqual(self.one(*words, name), {"name": name, "done": "pause"})

    def a_resume(self, *words):
        name = self.guest()
        self.tell("pause", name)
        self.assertEqual(self.one(*words, name), {"name": name, "done": "resume"})

    def a_reset(self, *words):
        name = self.guest()
        self.assertEqual(self.one(*words, name), {"name": name, "done": "reset"})

    def a_stop(self, *words):
        name = self.guest()
        end = self.one(*words, "--force", name)
        self.assertEqual((end["name"], end["exitCode"], end["cause"]), (name, 18, "stopped"))
        self.assertRegex(end["reason"], "stopped through its control socket")

    def a_power0button(self, *words):
        name = self.guest()
        self.assertEqual(self.one(*words, name), {"name": name, "done": "power-button"})

    def a_balloon(self, *words):
        self.assertIn("targetBytes", self.one(*words, self.guest()))

    def a_balloon0stats(self, *words):
        self.assertIn("hasStatistics", self.one(*words, self.guest()))

    def a_net(self, *words):
        name = self.vm("--net", "user")
        self.assertEqual(self.one(*words, name, "link", "down"),
                         {"name": name, "device": "net0", "link": "down"})

    def a_device_replace(self, *words):
        name = self.guest()
        self.assertEqual(self.one(*words, name, "rng0"),
                         {"name": name, "device": "rng0", "replaced": True})

    def a_gc(self, *words):
        self.assertIn("removed", self.one(*words))

    def a_guest_create(self, *words):
        path = self.folder.file("guest/made")
        self.assertEqual(self.one(*words, path, "--kernel", self.folder.payload), {"bundle": path})

    def a_disk_create(self, *words):
        self.one(*words, self.folder.file("guest/disk"), "1M", "--format", "qcow2")

    def a_disk_info(self, *words):
        self.one(*words, self.folder.disk("raw"), "--format", "raw")

    def a_disk_check(self, *words):
        path = self.folder.file("guest/checked")
        self.tell("disk", "create", path, "1M", "--format", "qcow2")
        self.one(*words, path, "--format", "qcow2")

    def a_disk_resize(self, *words):
        self.one(*words, self.folder.disk("small"), "2M", "--format", "raw")
        disk = self.folder.disk("d")
        name = self.vm("--disk", f"{disk},id=d")
        self.assertEqual(self.one(*words, "d", "2M", "--vm", name),
                         {"name": name, "disk": "d", "bytes": 2 << 20})

    def a_replay(self, *words):
        path = self.folder.file("guest/recording")
        self.tell("run", "--kernel", self.folder.payload, "--memory", "64M", "--cmdline",
                  "end=poweroff", "--record", f"rng0={path}")
        told = self.one(*words, path)
        self.assertEqual((told["device"], told["difference"]), ("rng0", None))
        self.assertIn("the recording ends", self.said(*words, path, "--show")[-1]["event"])

    def a_policy_show(self, *words):
        self.assertEqual(self.one(*words, "rng")["actor"], "rng")

    def a_policy_check(self, *words):
        self.assertIsInstance(self.one(*words, "rng"), list)

    def a_policy_diff(self, *words):
        self.assertIn("getrandom", self.one(*words, "rng", "blk")["difference"])

    def a_policy_explain(self, *words):
        self.assertIn("run", [one["stage"] for one in self.one(*words, "rng", "getrandom")])

    def a_policy_budget(self, *words):
        self.assertIsInstance(self.one(*words), list)

    def a_policy_import(self, *words):
        path = self.folder.file("guest/a.policy")
        with open(path, "w") as file:
            file.write("read: 1\n")
        self.assertIn("profile", self.one(*words, path))

    def watched(self, *words):
        return self.one(*words, "--", os.path.join(self.folder.bin, "troupe"), "run", "--kernel",
                        self.folder.payload, "--memory", "64M", "--cmdline", "hello end=poweroff")

    def a_policy_learn(self, *words):
        self.assertEqual(self.watched(*words, "--out", self.folder.file("guest/learned")), [])

    def a_policy_coverage(self, *words):
        self.assertGreater(len(self.watched(*words)), 100)

    def a_completion(self, *words):
        self.assertIn("complete -F", self.one(*words, "bash")["script"])

    def a_version(self, *words):
        self.assertIn("version", self.one(*words))


class Terminal:
    """A program on a pseudo terminal of 80 columns."""

    def __init__(self, command, environment, columns=WIDTH):
        gate, opener = os.pipe()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.close(opener)
            os.read(gate, 1)  # until the terminal is as it is to be, and known
            os.execvpe(command[0], command, environment)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.before = self.flags()
        os.close(gate)
        os.close(opener)
        self.heard = b""

    def type(self, text):
        os.write(self.fd, text)

    def until(self, text, seconds=60):
        """Reads until `text` was said, and returns all up to there."""
        end = time.monotonic() + seconds
        while text not in self.heard:
            if not self.hear(end):
                raise AssertionError(f"never heard {text}: {self.heard}")
        found, self.heard = self.heard.split(text, 1)
        return found

    def hear(self, end):
        """False when it has ended."""
        if not select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]:
            raise AssertionError(f"nothing more is said after {self.heard}")
        try:
            piece = os.read(self.fd, 65536)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            piece = b""
        self.heard += piece
        return bool(piece)

    def rest(self, seconds=60):
        end = time.monotonic() + seconds
        while self.hear(end):
            pass
        return self.heard.decode()

    def end(self):
        """What it exited with."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def flags(self):
        return termios.tcgetattr(self.fd)[:4]

    def close(self):
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


class OnATerminal(Commands):

    def terminal(self, *words):
        terminal = Terminal(self.folder.command(*words), self.folder.environment())
        self.addCleanup(terminal.close)
        return terminal

    def testTablesFit(self):
        name = self.guest("a label that is longer than any terminal is wide " * 4)
        self.guest("short")
        for words in (("list", "--socket", self.socket), ("list", "--realms", "--socket", self.socket), ("status", name),
                      ("inspect", name, "jail"), ("inspect", name), ("graph", name),
                      ("top", name, "--count", "1", "--interval", "0.1"), ("balloon-stats", name)):
            with self.subTest(words):
                terminal = self.terminal(*words)
                text = terminal.rest()
                self.assertEqual(terminal.end(), 0, text)
                rows = [line for line in text.replace("\r", "").splitlines()
                        if re.search(r"\S  +\S", line)]  # of tables
                longest = max(rows, key=len, default="")
                self.assertLessEqual(len(longest), WIDTH, longest)
                self.assertNotEqual(longest, "", text)
                if words == ("list", "--socket", self.socket):
                    self.assertIn("…", text)
                    self.assertIn("short", text)

    def testTheDetachKeyLeavesAndTheGuestGoesOn(self):
        name = self.guest()
        for words in ("serial", "console"):
            with self.subTest(words):
                terminal = self.terminal(words, name)
                if words == "serial":
                    terminal.until(b"payload: end=halt")  # said long before: it is replayed
                # Raw, once it is attached.
                self.until(lambda: terminal.flags() != terminal.before, "the terminal is the guest's")
                terminal.type(b"\x1d")
                terminal.until(b"detached; the guest goes on")
                self.assertEqual(terminal.end(), 0)
                self.assertEqual(terminal.flags(), terminal.before)
                self.assertEqual(self.folder.status(name)["state"], "running")

    def testASignalThatEndsItLeavesTheTerminalAsItWas(self):
        name = self.guest()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            with self.subTest(number.name):
                terminal = self.terminal("serial", name)
                self.until(lambda: terminal.flags() != terminal.before, "the terminal is the guest's")
                os.kill(terminal.pid, number)
                terminal.rest()
                self.assertEqual(terminal.end(), -number)
                self.assertEqual(terminal.flags(), terminal.before)

    def testWhoComesAgainOrBesideIsToldTheSame(self):
        name = self.guest()
        first = self.terminal("serial", name)
        told = first.until(b"payload: end=halt")
        beside = self.terminal("serial", name)
        self.assertEqual(beside.until(b"payload: end=halt"), told)
        first.type(b"\x1d")
        first.until(b"detached")
        again = self.terminal("serial", name)
        self.assertEqual(again.until(b"payload: end=halt"), told)

    def testTheEndOfTheGuestIsTheEndOfItsSerialPort(self):
        name = self.guest()
        terminal = self.terminal("serial", name)
        terminal.until(b"payload: end=halt")
        self.tell("stop", "--force", name)
        terminal.rest()
        self.assertEqual(terminal.end(), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
