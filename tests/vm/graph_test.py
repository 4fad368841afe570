#!/usr/bin/env -S python3 -B
"""`troupe graph`: what every process of a VM holds, against what its configuration asks for."""

import contextlib
import json
import os
import re
import signal
import time
import unittest

import machine
import report

# mov $32, %eax (dup); mov $3, %edi; syscall; then round and round.
DUPLICATE_RPC = bytes.fromhex("b820000000 bf03000000 0f05 ebfe")
# The same with $292 (dup3), $18 in %esi and O_CLOEXEC in %edx.
RPC_AS_CALL = bytes.fromhex("b824010000 bf03000000 be12000000 ba00000800 0f05 ebfe")


def take_over(pid, code):
    """Makes the main thread of `pid` run `code` when it next wakes from waiting for events."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with open(f"/proc/{pid}/syscall") as file:
            words = file.read().split()
        if words[0] in ("232", "281"):  # epoll_wait or epoll_pwait; the last word is where it goes on
            break
        time.sleep(0.01)
    else:
        raise AssertionError(f"{pid} is not at rest: {words}")
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(int(words[-1], 16))
        memory.write(code)
    # Either ends the wait: the first does nothing, and goes unseen by a process nobody traces.
    for number in (signal.SIGWINCH, signal.SIGSTOP, signal.SIGCONT):
        with contextlib.suppress(ProcessLookupError):  # for what it does it may be ended at once
            os.kill(pid, number)


class Graph(unittest.TestCase):
    user = None

    def setUp(self):
        self.folder = machine.Folder(self.user)
        self.addCleanup(self.folder.close)
        self.name = self.folder.vm("vm")
        self.disks = [self.folder.disk("a"), self.folder.disk("b")]
        self.console = self.folder.file("guest/console")
        self.serial = self.folder.file("guest/serial")

    def start(self, words, *options):
        self.process = self.folder.start(
            "run", "--name", self.name, "--kernel", self.folder.payload, "--memory", "64M",
            "--cmdline", words, "--disk", f"{self.disks[0]},queues=3", "--disk",
            f"{self.disks[1]},ro", "--console", f"file={self.console}", "--serial",
            f"file={self.serial}", *options)
        self.addCleanup(self.process.kill)
        return self.folder.status(self.name)

    def graph(self, *options, expect=0):
        code, out, err = self.folder.run("graph", self.name, *options)
        self.assertEqual(code, expect, out + err)
        return out, err

    def stop(self):
        self.folder.run("stop", "--force", self.name)
        out, err = self.process.communicate(timeout=20)
        self.assertEqual(self.process.returncode, 18, out + err)

    def hear(self, text, times=1):
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if os.path.exists(self.serial):
                with open(self.serial, errors="replace") as file:
                    if file.read().count(text) >= times:
                        return
            time.sleep(0.01)
        self.fail(f"the guest did not say {text!r}")

    def wanted_edges(self, memory="65536 KiB of the guest's, read and write"):
        """The edges that this configuration asks for, and no others."""
        devices = ["blk0", "blk1", "console0", "rng0"]
        ram = ("the guest's RAM", memory)
        edges = {("troupe", "broker", "calls Broker"), ("troupe", "front", "calls FrontEnd"),
                 ("front", "troupe", "calls Vm"), ("front", "clients", "client"),
                 ("broker", "serial", "bytes of the serial port"),
                 ("serial", "broker", "bytes of the serial port"),
                 ("serial", self.serial, "out"), ("console0", self.console, "out"),
                 ("blk0", self.disks[0], "disk"), ("blk1", self.disks[1], "disk"),
                 ("broker", *ram)}
        for device in devices:
            edges |= {("broker", device, "calls Device"), (device, "broker", "calls DeviceHost"),
                      ("broker", device, "notifications"), (device, "broker", "interrupts"),
                      (device, *ram)}
        edges |= {("blk0", "troupe", "witness"), ("blk1", "troupe", "witness")}
        for actor in [*devices, "broker", "serial", "front"]:
            edges.add((actor, "troupe", "log lines"))
        return edges

    def testTheEdgesAreThoseOfTheConfigurationAndNoOthers(self):
        status = self.start("idle")
        self.hear("0 failed")
        graph = json.loads(self.graph("--json")[0])
        edges = [(edge["from"], edge["to"], edge["what"]) for edge in graph["edges"]]
        self.assertEqual(len(set(edges)), len(edges))
        self.assertEqual(set(edges), self.wanted_edges())
        self.assertTrue(all(edge["asked"] for edge in graph["edges"]))
        self.assertEqual(graph.get("extras", []), [])
        pids = {actor["name"]: actor["pid"] for actor in status["actors"]}
        seen = {process["name"]: process["pid"] for process in graph["processes"]}
        del pids["front"], seen["front"]
        self.assertEqual(seen, pids)
        for process in graph["processes"]:
            self.assertEqual(process["restarts"], 0)
            self.assertIn(process["stage"], ("run", "ready"))  # one filter where both are equal
            open_fds = set(map(int, os.listdir(f"/proc/{process['pid']}/fd")))
            shown = set()
            for row in process["fds"]:
                first, _, last = row["numbers"].partition("-")
                shown |= set(range(int(first), int(last or first) + 1))
            if process["name"] != "front":  # whose client has gone
                self.assertEqual(shown & open_fds, open_fds, process["name"])
        self.stop()

    def testForPeopleAndForDot(self):
        self.start("idle")
        text = self.graph()[0]
        self.assertRegex(text, r"(?m)^blk0, pid \d+, devices/blk/blk.profile, filter run, maps \d+ KiB")
        self.assertRegex(text, r"(?m)^  17 +disk +\S+/a +\S+/a *$")
        self.assertIn("All of it is what the configuration asks for.", text)
        dot = self.graph("--dot")[0]
        self.assertTrue(dot.startswith(f'digraph "{self.name}" {{'), dot)
        self.assertRegex(dot, r'(?m)^  "troupe" -> "broker" \[label="calls Broker"\];$')
        self.assertNotIn("red", dot)
        self.stop()

    def testEveryKindOfDeviceIsKnown(self):
        """Helpers of another's, terminals, listening sockets: none is taken for an intruder."""
        socket_path = self.folder.file("run/vsock")
        self.process = self.folder.start(
            "run", "--name", self.name, "--kernel", self.folder.payload, "--memory", "64M",
            "--cmdline", "idle", "--disk", self.disks[0], "--console", "pty", "--serial",
            f"file={self.serial}", "--balloon", "--vsock", f"cid={self.folder.cid()},socket={socket_path}",
            "--net", "user")
        self.addCleanup(self.process.kill)
        self.folder.status(self.name)
        self.hear("passed,")
        edges = {(e["from"], e["to"], e["what"])
                 for e in json.loads(self.graph("--json")[0])["edges"]}
        self.assertLess({("net0", "passt0", "socket"), ("passt0", "the network", "sockets"),
                         ("vsock0", "troupe", "calls Connector"),
                         ("balloon0", "the guest's RAM", "65536 KiB of the guest's, read only")},
                        edges)
        self.assertEqual({who for who, to, _ in edges if to == "the network"}, {"passt0"})
        self.folder.run("reset", self.name)
        self.graph()
        self.stop()

    def testWhileTheGuestStartsAnewAgainAndAgain(self):
        self.start("scratch end=reset")
        for _ in range(25):
            self.graph()
        self.hear("0 failed", times=3)
        self.stop()

    def testWhileDevicesAreReplaced(self):
        """Whoever asks amid a replacement is answered behind it."""
        self.start("idle")
        self.hear("0 failed")
        devices = ("blk0", "console0", "rng0")
        commands = (("graph",), ("graph", "--json"), ("inspect", "jail"), ("top", "--count", "1"))
        for done, command in enumerate(commands):
            for device in devices:
                os.kill(self.serving(device, done), signal.SIGKILL)
                code, out, err = self.folder.run(command[0], self.name, *command[1:])
                self.assertEqual(code, 0, f"{command} {device}: {out}{err}")
        for device in devices:
            self.serving(device, len(commands))
        graph = json.loads(self.graph("--json")[0])
        restarts = {process["name"]: process["restarts"] for process in graph["processes"]}
        self.assertEqual({restarts[device] for device in devices}, {len(commands)})
        self.stop()

    def serving(self, device, restarts):
        """The pid of its process, once it is the one after so many others and serves."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            for actor in self.folder.status(self.name)["actors"]:
                is_it = actor["name"] == device and not actor["isSpare"]
                if is_it and actor["restarts"] == restarts and not actor["isStarting"]:
                    return actor["pid"]
            time.sleep(0.01)
        raise AssertionError(f"{device} is not replaced")

    def testWithoutAJailWhatIsHeldIsComparedAllTheSame(self):
        self.start("idle", "--jail", "off")
        self.assertIn("filter none", self.graph()[0])
        self.stop()

    def testAClientOfAConsoleIsAskedFor(self):
        path = self.folder.file("run/serial.sock")
        self.serial = path
        self.process = self.folder.start(
            "run", "--name", self.name, "--kernel", self.folder.payload, "--memory", "64M",
            "--cmdline", "idle", "--serial", f"socket={path}")
        self.addCleanup(self.process.kill)
        self.folder.status(self.name)
        import socket
        with socket.socket(socket.AF_UNIX) as reader:
            reader.connect(path)
            reader.recv(1)
            edges = json.loads(self.graph("--json")[0])["edges"]
            self.assertIn(("serial", "clients"), {(e["from"], e["to"]) for e in edges})
        self.stop()

    def plant(self, code, *options):
        """Makes rng0 run `code`, and waits until that shows."""
        status = self.start("idle", *options)
        self.hear("0 failed")
        self.graph()
        take_over(next(a["pid"] for a in status["actors"] if a["name"] == "rng0"), code)
        until = time.monotonic() + 10
        while True:
            code, out, err = self.folder.run("graph", self.name)
            if code != 0 or time.monotonic() > until:
                break
        self.assertEqual(code, 4, out + err)
        self.assertIn("TRP-run-025", err)
        self.assertRegex(out, r"(?m)^rng0 .*NOT ASKED FOR *$")
        self.assertIn("color=red", self.graph("--dot", expect=4)[0])
        return out

    def profiles(self, rule=""):
        """rng's, which lets it be in an endless loop, and with `rule` for its last stage."""
        profiles = self.folder.file("guest/profiles")
        os.makedirs(os.path.join(profiles, "devices/rng"))
        with open("devices/rng/rng.profile") as file:
            text = re.sub(r"(?m)^budget.*\n", "", file.read())
        text = re.sub(r"(?m)^run \{", "run { " + rule, text)
        text, count = re.subn(r"restart \{[^}]*\}", "restart { policy: NEVER }", text)
        self.assertEqual(count, 1)
        with open(os.path.join(profiles, "devices/rng/rng.profile"), "w") as file:
            file.write(text)
        return profiles

    def testAnFdThatNobodyAskedForIsMarked(self):
        out = self.plant(DUPLICATE_RPC, "--jail", "off", "--profile-dir", self.profiles())
        self.assertRegex(out, r"1\. rng0 holds fd \d+, for which its profile has no name: socket:")
        self.stop()

    def testAnFdInAnothersPlaceIsMarkedThroughTheJail(self):
        rule = ('rule { syscall: "dup3" fd: "rpc" arg { index: 1 fd: "call" } '
                'arg { index: 2 value: "O_CLOEXEC" } reason: "planted by a test" }')
        out = self.plant(RPC_AS_CALL, "--profile-dir", self.profiles(rule))
        self.assertRegex(out, r"1\. rng0 holds fd 18, for which its profile has no name: socket:")
        self.assertEqual(self.folder.run("inspect", self.name, "jail")[0], 4)
        self.stop()


class GraphAsOrdinaryUser(Graph):
    user = machine.ORDINARY_USER

    # passt lets nobody but root look at what it holds.
    testEveryKindOfDeviceIsKnown = None
    # It is root's test that writes into their memory.
    testAnFdThatNobodyAskedForIsMarked = None
    testAnFdInAnothersPlaceIsMarkedThroughTheJail = None


if __name__ == "__main__":
    report.main()
