#!/usr/bin/env -S python3 -B
"""What `troupe events` tells of a VM, from its start to its end."""

import json
import os
import re
import signal
import socket
import sys

import observed
import report
import taken_over_test

sys.path.insert(0, "vmm/testing")
import tiny_guest

BUTTON = b"\x66\xba\x03\x06\xec\xa8\x01\x74\xf7"  # waits for the power button
PANIC = b"\x66\xba\x05\x05\xb0\x01\xee"      # 1 to pvpanic's port


class Events(observed.Observed):
    def assertNumbered(self, events):
        self.assertEqual([one["sequence"] for one in events], list(range(1, len(events) + 1)))
        times = [one["monotonicNs"] for one in events]
        self.assertEqual(times, sorted(times))

    def testTheLifeOfAVmIsTold(self):
        actors = self.start("idle", "--balloon")
        reader = self.follow()
        self.tell("pause", self.name)
        self.tell("resume", self.name)
        self.tell("balloon", self.name, "32M")
        self.tell("disk", "resize", "disk0", "32M", "--vm", self.name)
        self.tell("reset", self.name)
        os.kill(actors["rng0"]["pid"], signal.SIGKILL)
        events = self.events_until(reader, "device-replaced")
        self.tell("stop", "--force", self.name)
        events += self.events_until(reader, "ended")
        self.assertEqual(reader.wait(60), 0)
        self.assertNumbered(events)
        by_name = {one["event"]: one for one in events}
        self.assertEqual([one["event"] for one in events if one["event"] != "device-died"],
                         ["started", "paused", "resumed", "balloon-changed", "resized", "reset",
                          "device-replaced", "ended"])
        self.assertEqual(by_name["balloon-changed"]["guestBytes"], 32 * observed.MIB)
        self.assertEqual((by_name["resized"]["disk"], by_name["resized"]["bytes"]),
                         ("disk0", 32 * observed.MIB))
        self.assertEqual((by_name["reset"]["cause"], by_name["reset"]["boot"]), ("asked", 1))
        died, replaced = by_name["device-died"], by_name["device-replaced"]
        self.assertEqual((died["device"], died["pid"], died["replaced"]),
                         ("rng0", actors["rng0"]["pid"], True))
        self.assertIn("SIGKILL", died["cause"])
        self.assertEqual((replaced["device"], replaced["restarts"]), ("rng0", 1))
        self.assertEqual((by_name["ended"]["exitCode"], by_name["ended"]["cause"]),
                         (18, "stopped"))
        self.vm.wait(60)

    def testAGuestThatPanicsOrCrashesSaysSo(self):
        for code, event, cause, exit_code in ((PANIC, "guest-panicked", "panic", 21),
                                              (tiny_guest.CRASH, "guest-crashed", "crash", 17)):
            with self.subTest(event):
                kernel = self.tiny(BUTTON + code + tiny_guest.SLEEP)
                self.launch(kernel)
                self.folder.status(self.name)
                reader = self.follow()
                self.events_until(reader, "started")
                self.tell("power-button", self.name)
                told = self.events_until(reader, "reset")
                self.assertEqual([one["event"] for one in told], [event, "reset"])
                self.assertEqual((told[1]["cause"], told[1]["boot"]), (cause, 1))
                self.end()
                self.launch(kernel, "--on-reboot", "exit")
                self.folder.status(self.name)
                reader = self.follow()
                self.tell("power-button", self.name)
                events = self.events_until(reader, "ended")
                self.assertNumbered(events)
                self.assertEqual([one["event"] for one in events], ["started", event, "ended"])
                self.assertEqual((events[-1]["exitCode"], events[-1]["cause"]), (exit_code, event))
                self.assertEqual(reader.wait(60), 0)
                self.end(exit_code)

    def testEveryEndHasItsCause(self):
        power_off = b"\x66\xba\x00\x06\xb0\x34\xee"
        for code, cause, exit_code in ((power_off, "powered-off", 0),
                                       (tiny_guest.RESET, "guest-reset", 16),
                                       (b"", "broker-failed", 20)):
            with self.subTest(cause):
                self.launch(self.tiny(BUTTON + code + tiny_guest.SLEEP), "--on-reboot", "exit")
                actors = self.folder.status(self.name)["actors"]
                reader = self.follow()
                self.events_until(reader, "started")
                if code:
                    self.folder.run("power-button", self.name)  # the VM may end before it answers
                else:
                    os.kill(next(one["pid"] for one in actors if one["name"] == "broker"),
                            signal.SIGKILL)
                *before, ended = self.events_until(reader, "ended")
                self.assertEqual([(one["event"], one["device"]) for one in before],
                                 [] if code else [("device-died", "broker")])
                self.assertEqual((ended["exitCode"], ended["cause"]), (exit_code, cause))
                self.assertEqual(ended["message"] == "", exit_code == 0, ended)
                self.assertEqual(reader.wait(60), 0)
                self.end(exit_code)

    def testAResetOfTheGuestsOwnSaysSo(self):
        self.launch(self.tiny(BUTTON + tiny_guest.RESET))
        self.folder.status(self.name)
        reader = self.follow()
        self.events_until(reader, "started")
        self.tell("power-button", self.name)
        reset, = self.events_until(reader, "reset")
        self.assertEqual((reset["cause"], reset["boot"]), ("guest", 1))
        self.vm.kill()
        self.vm.wait(60)

    def testADeviceThatHangsAndOneThatStaysDownAreTold(self):
        metrics = os.path.join(self.folder.file("guest"), "metrics")
        self.start("idle", "--metrics", metrics)
        reader = self.follow()
        self.events_until(reader, "started")
        pid = next(one["pid"] for one in self.folder.status(self.name)["actors"]
                   if one["name"] == "rng0")
        died = {"down": False}
        while not died["down"]:
            os.kill(pid, signal.SIGSTOP)
            died = self.events_until(reader, "device-died")[-1]
            self.assertEqual((died["device"], died["pid"]), ("rng0", pid))
            self.assertIn("hung (it is stopped) and was killed", died["cause"])
            self.assertNotEqual(died["down"], died["replaced"])
            if died["replaced"]:
                pid = self.events_until(reader, "device-replaced")[-1]["pid"]
        self.assertTrue(self.top("--count", 1)[0]["processes"]["rng0"]["isDown"])
        self.assertRegex(self.tell("top", self.name, "--count", 1), r"(?m)^rng0 .* \d+, down ")
        self.assertEqual(self.down(metrics), {"rng0"})
        # Its driver resets it.
        self.tell("reset", self.name)
        told = self.events_until(reader, "device-replaced")
        self.assertLessEqual({one["event"] for one in told}, {"reset", "device-replaced"})
        while self.down(metrics):
            pass  # who asks too often is told the same again
        self.end()

    def down(self, metrics):
        """The devices that are down, as the metrics say."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(metrics)
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        return set(re.findall(r'troupe_process_down\{[^}]*process="(\w+)"[^}]*\} 1\n', answer.decode()))

    def testALostDeviceIsTheCauseOfTheEnd(self):
        # Where the next frame begins on somebody else's stream no successor knows.
        actors = self.start("idle", "--net", f"fd={self.wire()}")
        reader = self.follow()
        self.events_until(reader, "started")
        os.kill(actors["net0"]["pid"], signal.SIGKILL)
        died, ended = self.events_until(reader, "ended")
        self.assertEqual((died["event"], died["device"], died["replaced"]),
                         ("device-died", "net0", False))
        self.assertEqual((ended["exitCode"], ended["cause"]), (19, "device-lost"))
        self.assertIn("TRP-run-004", ended["message"])
        self.assertEqual(reader.wait(60), 0)
        self.vm.wait(60)

    def testASerialPortThatIsReplacedIsTold(self):
        actors = self.start("idle")
        reader = self.follow()
        self.events_until(reader, "started")
        os.kill(actors["serial"]["pid"], signal.SIGKILL)
        died, replaced = self.events_until(reader, "device-replaced")
        self.assertEqual((died["event"], died["device"], died["replaced"]),
                         ("device-died", "serial", True))
        self.assertEqual((replaced["device"], replaced["restarts"]), ("serial", 1))
        self.vm.kill()
        self.vm.wait(60)

    def testARefusedSystemCallIsTold(self):
        actors = self.start("idle")
        reader = self.follow()
        self.events_until(reader, "started")
        taken_over_test.take_over(actors["rng0"]["pid"])
        refused = self.events_until(reader, "refused-syscall")[-1]
        self.assertEqual((refused["actor"], refused["pid"]), ("rng0", actors["rng0"]["pid"]))
        self.assertIn("getuid", refused["call"])
        self.assertEqual(self.events_until(reader, "device-died")[-1]["device"], "rng0")
        self.vm.kill()
        self.vm.wait(60)

    def testWhatIsKeptIsReadWithoutWaiting(self):
        self.start("idle")
        self.tell("pause", self.name)
        self.tell("resume", self.name)
        for since, names in (((), ["started", "paused", "resumed"]),
                             (("--since", "1"), ["paused", "resumed"]),
                             (("--since", "3"), []),
                             (("--since", "99"), []),
                             (("--since", "1h"), ["started", "paused", "resumed"]),
                             (("--since", "0s"), [])):
            lines = self.tell("events", self.name, *since).splitlines()
            self.assertEqual([json.loads(line)["event"] for line in lines], names, since)
        for wrong in ("x", "5d", "-1", "m", "1.5"):
            code, _, err = self.folder.run("events", self.name, "--since", wrong)
            self.assertEqual((code, err[:20]), (2, "troupe: TRP-obs-002:"), wrong)
        self.end()

    def testEightReadAndANinthIsTurnedAwayUntilOneLeaves(self):
        self.start("idle")
        readers = [self.follow() for _ in range(8)]
        for reader in readers:
            self.events_until(reader, "started")
        code, _, err = self.folder.run("events", self.name)
        self.assertEqual((code, "TRP-obs-003" in err), (2, True), err)
        readers[0].kill()
        readers[0].wait()
        while self.folder.run("events", self.name)[0] != 0:
            pass
        self.tell("pause", self.name)
        self.tell("stop", "--force", self.name)
        for reader in readers[1:]:
            self.assertEqual([one["event"] for one in self.events_until(reader, "ended")],
                             ["paused", "ended"])
            self.assertEqual(reader.wait(60), 0)
        self.vm.wait(60)

    def testAReaderThatIsStuckHoldsNobody(self):
        self.start("idle")
        stuck, other = self.follow(), self.follow()
        for reader in (stuck, other):
            self.events_until(reader, "started")
        stuck.send_signal(signal.SIGSTOP)
        try:
            for _ in range(3):
                self.tell("pause", self.name)
                self.tell("resume", self.name)
            self.end()
            self.assertEqual(len(self.events_until(other, "ended")), 7)
            self.assertEqual(other.wait(60), 0)
        finally:
            stuck.send_signal(signal.SIGCONT)
        _, err = stuck.communicate(timeout=60)
        self.assertIn(stuck.returncode, (0, 1))  # its answer may have come before it was stopped
        if stuck.returncode == 1:
            self.assertIn(b"TRP-obs-005", err)

    def testAReaderOfAVmThatIsKilledIsTold(self):
        self.start("idle")
        reader = self.follow()
        self.events_until(reader, "started")
        self.vm.kill()
        self.vm.wait()
        _, err = reader.communicate(timeout=60)
        self.assertEqual((reader.returncode, b"TRP-obs-005" in err), (1, True), err)

    def testAFrontEndThatDiesCostsAReaderNothing(self):
        self.start("idle")
        reader = self.follow()
        self.events_until(reader, "started")
        front = next(one["pid"] for one in self.folder.status(self.name)["actors"]
                     if one["kind"] == "front")
        os.kill(front, signal.SIGKILL)
        while True:  # until another has taken its place
            code, out, _ = self.folder.run("status", self.name, "--json")
            if code == 0 and front not in [one["pid"] for one in json.loads(out)["actors"]]:
                break
        self.tell("pause", self.name)
        self.assertEqual(self.events_until(reader, "paused")[-1]["sequence"], 2)
        self.end()
        self.assertEqual(reader.wait(60), 0)


if __name__ == "__main__":
    report.main()
