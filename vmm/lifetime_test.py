#!/usr/bin/env python3
"""How a VM's life ends, each way with its own exit code and nothing left behind."""

import json
import os
import pty
import select
import shutil
import signal
import socket
import stat
import subprocess
import termios
import time
import sys
import unittest

sys.path.insert(0, os.path.join(os.getcwd(), "vmm/testing"))
import tiny_guest
from program import NOTES, ProgramTest, run_folder


class Lifetime(ProgramTest):
    def setUp(self):
        super().setUp()
        self.sleeper = self.file("sleeper", tiny_guest.elf(tiny_guest.SLEEP))

    def finish(self, process, timeout=10):
        stdout, stderr = process.communicate(timeout=timeout)
        return process.returncode, NOTES.sub("", stderr)

    def testAResetOfTheGuest(self):
        result = self.run_troupe("run", "--kernel", self.file("k", tiny_guest.elf(tiny_guest.RESET)),
                                 "--name", self.name, "--on-reboot", "exit", "--serial", "file=" + self.path("serial"))
        self.assertEqual(result.returncode, 16, result.stderr)
        self.assertIn("asked for a reset", result.stderr)

    def testACrashOfTheGuest(self):
        result = self.run_troupe("run", "--kernel", self.file("k", tiny_guest.elf(tiny_guest.CRASH)),
                                 "--name", self.name, "--on-reboot", "exit", "--serial", "file=" + self.path("serial"))
        self.assertError(result, 17, "TRP-run-006")

    def testSignalsStop(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            with self.subTest(number):
                process = self.start(self.sleeper)
                process.send_signal(number)
                code, stderr = self.finish(process)
                self.assertEqual(code, 18, stderr)
                self.assertIn(signal.Signals(number).name, stderr)
                self.assertNothingLeft()

    def testTroupeStopStops(self):
        process = self.start(self.sleeper)
        self.assertEqual(self.run_troupe("stop", "--force", self.name).returncode, 0)
        code, stderr = self.finish(process)
        self.assertEqual(code, 18, stderr)

    def testListAndStatusShowIt(self):
        process = self.start(self.sleeper, "--disk", self.file("disk", size=1 << 20))
        listed = json.loads(self.run_troupe("list", "--json").stdout)
        mine = [vm for vm in listed if vm["name"] == self.name]
        self.assertEqual(len(mine), 1)
        self.assertEqual(mine[0]["pid"], process.pid)
        status = json.loads(self.run_troupe("status", self.name, "--json").stdout)
        kinds = sorted(actor["kind"] for actor in status["actors"])
        self.assertEqual(kinds, ["blk", "broker", "front", "rng", "serial"])
        self.assertTrue(all(actor["jail"] == "attested" for actor in status["actors"]), status)
        shown = self.run_troupe("status", self.name).stdout
        self.assertIn(self.name, shown)
        # Whatever this host lacks stands in both.
        for layer in status.get("missing", []):
            self.assertIn(layer, shown)
        self.assertEqual("missing on this host" in shown, bool(status.get("missing")), status)

    def testANameIsTaken(self):
        self.start(self.sleeper)
        result = self.run_troupe("run", "--kernel", self.sleeper, "--name", self.name, "--serial",
                                 "file=" + self.path("other"))
        self.assertEqual(result.returncode, 2)
        self.assertTrue(result.stderr.startswith("troupe: TRP-cfg-027: "), result.stderr)

    def testASerialPortThatIsLostTooOften(self):
        process = self.start(self.sleeper, "--disk", self.file("disk", size=1 << 20))
        killed = None
        until = time.monotonic() + 50
        while process.poll() is None:
            self.assertLess(time.monotonic(), until)
            status = self.run_troupe("status", self.name, "--json")
            if status.returncode != 0:
                continue
            serial = [actor for actor in json.loads(status.stdout)["actors"] if actor["name"] == "serial"][0]
            if serial["pid"] != killed and not serial["isStarting"]:
                killed = serial["pid"]
                os.kill(killed, signal.SIGKILL)
        code, stderr = self.finish(process)
        self.assertEqual(code, 19, stderr)
        self.assertEqual(stderr.count("was killed by SIGKILL (signal 9); another process takes its place"), 10, stderr)
        self.assertRegex(stderr, r"(?m)^troupe: TRP-run-004: .* lost serial .*SIGKILL")
        self.assertNothingLeft()

    def testADeviceThatDiesIsReplaced(self):
        process = self.start(self.sleeper, "--disk", self.file("disk", size=1 << 20), "--disk",
                             self.file("other", size=1 << 20) + ",volatile", "--console",
                             "file=" + self.path("console"), "--balloon", "--vsock",
                             f"cid={self.cid},socket={self.path('vsock')}")
        for actor in ("balloon0", "blk0", "blk1", "console0", "rng0", "serial", "vsock0"):
            with self.subTest(actor):
                first = self.actors()[actor]
                os.kill(first, signal.SIGKILL)
                until = time.monotonic() + 20
                while self.actors()[actor] == first:
                    self.assertLess(time.monotonic(), until)
                    time.sleep(0.01)
                shown = self.run_troupe("status", self.name).stdout
                self.assertRegex(shown, rf"(?m)^{actor} .* attested +1(, replacing)?$")
        # The last one may still be on its way into its place, which is waited for.
        graph = self.run_troupe("graph", self.name)
        self.assertEqual(graph.returncode, 0, graph.stdout)
        process.terminate()
        code, stderr = self.finish(process)
        self.assertEqual(code, 18, stderr)
        self.assertRegex(stderr, r'blk0 \(.*\) was killed by .*SIGKILL.*; another process takes its place')
        self.assertNothingLeft()

    def playRefusedDevices(self):
        os.remove(os.path.join(self.bin, "troupe-devices"))
        shutil.copy("devices/refused_devices", os.path.join(self.bin, "troupe-devices"))

    def testARefusedSystemCallWhileTheGuestRuns(self):
        self.playRefusedDevices()
        process = self.start("guest/payload/payload.elf")
        # Its successors do the same, until it is left down. Its guest waits for it, and is not waited for.
        until = time.monotonic() + 50
        while ", down" not in self.run_troupe("status", self.name).stdout:
            self.assertLess(time.monotonic(), until)
            time.sleep(0.01)
        process.terminate()
        code, stderr = self.finish(process)
        self.assertEqual(code, 18, stderr)
        for words in (
                "TRP-run-009: rng0 (the random number generator) died",
                "1. in stage run it called fcntl(rpc (3), F_GETFL, 0x0)",
                "see: devices/rng/rng.profile",
                'add to devices/rng/rng.profile, run: rule { syscall: "fcntl" fd: "rpc" '
                'arg { index: 1 value: "F_GETFL" } reason: "..." }'):
            self.assertEqual(stderr.count(words), 3, stderr)
        self.assertIn("it stays down until its driver resets it", stderr)

    def testARefusedSystemCallAtTheStart(self):
        self.playRefusedDevices()
        result = self.run_troupe("run", "--kernel", self.sleeper, "--name", self.name, "--serial",
                                 "file=" + self.path("serial"), "--console",
                                 "file=" + self.path("console"))
        self.assertError(result, 5, "TRP-run-009", "console0 (the virtio console) died before",
                         "1. in stage start it called socket(AF_INET, SOCK_STREAM, 0)",
                         "devices/console/console.profile, start: rule {")

    def testARefusedSystemCallOfTheBroker(self):
        os.remove(os.path.join(self.bin, "troupe-broker"))
        shutil.copy("devices/refused_devices", os.path.join(self.bin, "troupe-broker"))
        result = self.run_troupe("run", "--kernel", self.sleeper, "--name", self.name, "--serial",
                                 "file=" + self.path("serial"))
        self.assertError(result, 5, "TRP-run-009", "broker died before the guest ran",
                         "broker/broker.profile, start: rule {")

    def testWithoutJailsNothingIsRefused(self):
        self.playRefusedDevices()
        process = self.start(self.sleeper, "--jail", "off")
        self.assertEqual(self.run_troupe("stop", "--force", self.name).returncode, 0)
        self.assertEqual(self.finish(process)[0], 18)

    def testALostBroker(self):
        process = self.start(self.sleeper, "--disk", self.file("disk", size=1 << 20))
        os.kill(self.actors()["broker"], signal.SIGKILL)
        code, stderr = self.finish(process)
        self.assertEqual(code, 20, stderr)
        self.assertTrue(stderr.startswith("troupe: TRP-run-005: "), stderr)

    def testKillOfTroupeEndsEverything(self):
        process = self.start(self.sleeper)
        self.assertGreaterEqual(len(self.processes()), 4)
        process.kill()
        self.finish(process)
        deadline = time.time() + 2
        while self.processes() and time.time() < deadline:
            time.sleep(0.02)
        self.assertEqual(self.processes(), [])
        # Its socket and lock stay until somebody looks.
        self.run_troupe("list")
        self.assertNothingLeft()

    def testTheFrontEndSurvivesGarbage(self):
        process = self.start(self.sleeper)
        front = self.actors()["front"]
        path = os.path.join(run_folder(), self.name + ".sock")
        garbage = [b"\xff" * 4096, b"GET / HTTP/1.1\r\n\r\n", bytes(1 << 16),
                   b"\x00\x00\x00\x00\xff\xff\xff\x7f" + bytes(64), os.urandom(1 << 16)]
        for index, noise in enumerate(garbage * 8):
            with self.subTest(index), socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                client.settimeout(5)
                try:
                    client.sendall(noise)
                except OSError:
                    pass
        self.assertEqual(self.actors()["front"], front)
        self.assertIsNone(process.poll())

    def testALostFrontEndIsReplaced(self):
        process = self.start(self.sleeper)
        first = self.actors()["front"]
        os.kill(first, signal.SIGKILL)
        deadline = time.time() + 10
        while time.time() < deadline:
            result = self.run_troupe("status", self.name, "--json")
            if result.returncode == 0:
                break
        self.assertNotEqual(self.actors()["front"], first)
        self.assertIsNone(process.poll())

    def testWhoComesWhenEveryPlaceIsTakenIsServedWhenOneIsFree(self):
        self.start(self.sleeper)
        path = os.path.join(run_folder(), self.name + ".sock")
        idle = []
        for _ in range(16):
            client = socket.socket(socket.AF_UNIX)
            self.addCleanup(client.close)
            client.connect(path)
            idle.append(client)
            if len(idle) == 15:
                self.assertEqual(self.run_troupe("status", self.name).returncode, 0)
        late = subprocess.Popen([self.troupe, "status", self.name], stdout=subprocess.DEVNULL)
        self.started.append(late)
        with self.assertRaises(subprocess.TimeoutExpired):
            late.wait(timeout=0.5)
        idle[0].close()
        self.assertEqual(late.wait(timeout=30), 0)

    def testTheSocketIsPrivate(self):
        self.start(self.sleeper)
        path = os.path.join(run_folder(), self.name + ".sock")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        self.assertEqual(os.stat(run_folder()).st_mode & 0o777, 0o700)

    def onTerminal(self, *words):
        """`troupe run` on a terminal of its own: the process and the terminal's other side."""
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [self.troupe, "run", "--kernel", self.sleeper, "--memory", "64M", "--name", self.name,
             *words], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: __import__("fcntl").ioctl(0, termios.TIOCSCTTY, 0))
        self.started.append(process)
        deadline = time.time() + 10
        while time.time() < deadline:
            status = self.run_troupe("status", self.name, "--json")
            if status.returncode == 0 and json.loads(status.stdout)["state"] == "running":
                break
        return process, master, slave

    def testTheDetachKeyStopsAndTheTerminalIsRestored(self):
        process, master, slave = self.onTerminal()
        # The guest has the terminal: no echo, no line editing, Ctrl-C is a byte.
        self.assertFalse(termios.tcgetattr(slave)[3] & (termios.ECHO | termios.ICANON | termios.ISIG))
        os.write(master, b"\x1d")
        self.assertEqual(process.wait(timeout=10), 18)
        modes = termios.tcgetattr(slave)[3]
        self.assertEqual(modes & termios.ECHO, termios.ECHO)
        self.assertEqual(modes & termios.ICANON, termios.ICANON)
        os.close(master)
        os.close(slave)

    def testTheTerminalIsRestoredAfterADeath(self):
        process, master, slave = self.onTerminal()
        os.kill(self.actors()["broker"], signal.SIGKILL)
        self.assertEqual(process.wait(timeout=10), 20)
        self.assertTrue(termios.tcgetattr(slave)[3] & termios.ECHO)
        os.close(master)
        os.close(slave)
        self.assertNothingLeft()

    def testTheTerminalIsTheGuestsStillWhenItsActorIsReplaced(self):
        process, master, slave = self.onTerminal()
        first = self.actors()["serial"]
        os.kill(first, signal.SIGKILL)
        until = time.monotonic() + 20
        while self.actors()["serial"] == first:
            self.assertLess(time.monotonic(), until)
        self.assertFalse(termios.tcgetattr(slave)[3] & (termios.ECHO | termios.ICANON | termios.ISIG))
        os.write(master, b"\x1d")
        self.assertEqual(process.wait(timeout=10), 18)
        self.assertTrue(termios.tcgetattr(slave)[3] & termios.ECHO)
        os.close(master)
        os.close(slave)

    def testSocketsOfConsolesAreRemoved(self):
        process = self.start(self.sleeper, "--console", "socket=" + self.path("console.sock"))
        self.assertTrue(os.path.exists(self.path("console.sock")))
        process.terminate()
        self.finish(process)
        self.assertFalse(os.path.exists(self.path("console.sock")))

    def awaitNobodyAt(self, path):
        """The actors of a killed `troupe` end a moment after it."""
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with socket.socket(socket.AF_UNIX) as client:
                try:
                    client.connect(path)
                except ConnectionRefusedError:
                    return
            time.sleep(0.05)
        self.fail(f"somebody listens at {path}")

    def testSocketsAndCidOfTheSocketDeviceAreGivenBack(self):
        words = ["--vsock", f"cid={self.cid},socket={self.path('v')},forward=22:{self.path('ssh')}"]
        process = self.start(self.sleeper, *words)
        self.assertIn("vsock0", self.actors())
        result = self.run_troupe("run", "--kernel", self.sleeper, "--serial", "file=" + self.path("other"),
                                 "--vsock", f"cid={self.cid}")
        self.assertEqual(result.returncode, 2)
        self.assertTrue(result.stderr.startswith("troupe: TRP-vsk-003: "), result.stderr)
        self.assertTrue(stat.S_ISSOCK(os.stat(self.path("v")).st_mode))
        self.assertEqual(os.stat(self.path("ssh")).st_mode & 0o777, 0o600)
        # What a VM leaves that is killed is taken over by the next.
        process.kill()
        process.wait(10)
        self.awaitNobodyAt(self.path("v"))
        process = self.start(self.sleeper, *words)
        process.terminate()
        self.finish(process)
        for left in ("v", "ssh"):
            self.assertFalse(os.path.exists(self.path(left)))

    def testASlowReaderDoesNotHoldTheEnd(self):
        talker = self.file("talker", tiny_guest.elf(tiny_guest.TALK))
        read, write = os.pipe()
        process = subprocess.Popen(
            [self.troupe, "run", "--kernel", talker, "--memory", "64M", "--name", self.name],
            stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE)
        self.started.append(process)
        until = time.monotonic() + 30
        while select.select([], [write], [], 0)[1]:  # there is room in the pipe
            self.assertLess(time.monotonic(), until)
            time.sleep(0.01)
        os.close(write)
        process.terminate()
        self.assertEqual(process.wait(timeout=10), 18)
        os.close(read)

    def testDemoTellsWhatItDid(self):
        result = self.run_troupe("demo")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("powered off", result.stdout)
        self.assertIn(" 0 failed", result.stdout)
        self.assertNotIn("It wrote 0 KiB", result.stdout)
        told = result.stdout.split("troupe demo: ")[2]
        for actor in ("broker", "serial", "blk0", "console0", "rng0"):
            self.assertRegex(told, rf"(?m)^{actor} .* \d+ +attested$")

    def testDemoSaysWhenAJailIsOff(self):
        result = self.run_troupe("demo", "--jail", "off")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("without jails", result.stdout)
        self.assertNotIn("attested", result.stdout)

    def testDemoFailsWhenItsGuestFindsAFault(self):
        # A word it does not understand counts as a check that failed.
        result = self.run_troupe("demo", "--cmdline", "scratch=nonsense")
        self.assertIn(", 1 failed", result.stdout)
        self.assertError(result, 1, "TRP-run-008", "FAIL")

    def testDoctorFindsThisHostFit(self):
        result = self.run_troupe("doctor", "--json")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        findings = json.loads(result.stdout)["findings"]
        self.assertIn("KVM", [finding["name"] for finding in findings])


if __name__ == "__main__":
    unittest.main()
