#!/usr/bin/env -S python3 -B
"""What is seen of a running VM: its load, its events, its metrics."""

import json
import os
import pty
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import unittest

import machine
import report
import taken_over_test

try:
    from prometheus_client import parser as prometheus
except ImportError as error:
    raise SystemExit("Debian's python3-prometheus-client is missing: tools/install") from error

sys.path.insert(0, "vmm/testing")
import tiny_guest

MIB = 1 << 20
BUTTON = b"\x66\xba\x03\x06\xec\xa8\x01\x74\xf7"  # waits for the power button
PANIC = b"\x66\xba\x05\x05\xb0\x01\xee"      # 1 to pvpanic's port
# Writes and flushes for ever.
WRITING = "bench=durability scratch count=2000000000 seed=5 size=4096 depth=32 mode=irq"


class Observed(unittest.TestCase):
    user = None
    handed = ()  # fds that the VM inherits

    def setUp(self):
        self.folder = machine.Folder(self.user)
        self.addCleanup(self.folder.close)
        self.name = self.folder.vm("seen")
        self.serial = self.folder.file("guest/serial")

    def launch(self, kernel, *options):
        self.vm = self.folder.start("run", "--name", self.name, "--kernel", kernel, "--memory",
                                    "64M", "--serial", f"file={self.serial}", *options,
                                    pass_fds=self.handed)
        self.addCleanup(self.vm.kill)

    def start(self, cmdline, *options):
        """The actors of a VM that runs."""
        self.launch(self.folder.payload, "--cmdline", cmdline, "--disk",
                    self.folder.disk("disk", 8 * MIB), *options)
        return {actor["name"]: actor for actor in self.folder.status(self.name)["actors"]}

    def wire(self):
        """The number of an open socket, for a network that leads nowhere."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        self.handed = (theirs.fileno(),)
        return theirs.fileno()

    def tiny(self, code):
        path = self.folder.file("tiny")
        with open(path, "wb") as file:
            file.write(tiny_guest.elf(code))
        os.chmod(path, 0o644)
        return path

    def tell(self, *words):
        code, out, err = self.folder.run(*words)
        self.assertEqual(code, 0, out + err)
        return out

    def top(self, *words):
        """The samples of `troupe top`, each with its processes by name."""
        samples = [json.loads(line) for line in
                   self.tell("top", self.name, "--json", *words).splitlines()]
        for sample in samples:
            sample["processes"] = {one["name"]: one for one in sample["processes"]}
        return samples

    def until_blk_works(self):
        while True:
            blk = self.top("--count", 1, "--interval", "0.1")[0]["processes"]["blk0"]
            if blk["queues"] and blk["queues"][0]["requests"] > 100:
                return blk

    def follow(self, *words):
        reader = self.folder.start("events", self.name, "--follow", *words)
        self.addCleanup(reader.kill)
        return reader

    def events_until(self, reader, name):
        """The events of a reader up to the first of this name."""
        events = []
        for line in iter(reader.stdout.readline, b""):
            events.append(json.loads(line))
            if events[-1]["event"] == name:
                return events
        self.fail(f"no {name} among {events}: {reader.stderr.read()}")

    def end(self, code=18):
        if code == 18:
            self.tell("stop", "--force", self.name)
        out, err = self.vm.communicate(timeout=120)
        self.assertEqual(self.vm.returncode, code, err)
        self.assertEqual(self.folder.left_over(), [])
        return err.decode(errors="replace")


class Top(Observed):
    def testEveryProcessAndEveryVcpuIsThere(self):
        actors = self.start(WRITING, "--cpus", "2", "--balloon")
        self.until_blk_works()
        first, second = self.top("--count", 2, "--interval", "0.3")
        self.assertEqual(second["state"], "running")
        self.assertGreater(second["monotonicNs"], first["monotonicNs"])
        self.assertGreaterEqual(second["intervalNs"], 300_000_000)
        processes = second["processes"]
        self.assertLessEqual({"troupe", "front", *actors}, set(processes))
        if self.user is None:
            self.assertEqual(processes["troupe"]["pid"], self.vm.pid)
        for name, actor in actors.items():
            self.assertEqual(processes[name]["pid"], actor["pid"])
        for name, one in processes.items():
            self.assertGreater(one["privateBytes"], 4096, name)
            self.assertLess(one["privateBytes"], 32 * MIB, name)
            self.assertGreater(one["cpuNs"], 0, name)
        self.assertEqual([one["name"] for one in processes["broker"]["threads"]], ["vp-0", "vp-1"])
        self.assertGreater(sum(one["cpuNs"] for one in processes["broker"]["threads"]), 0)
        self.end()

    def testQueuesCountWhatPassesThem(self):
        self.start(WRITING)
        before = self.until_blk_works()["queues"][0]
        sample = self.top("--count", 1, "--interval", "0.5")[0]
        blk = sample["processes"]["blk0"]
        after = blk["queues"][0]
        for name in ("requests", "fromGuestBytes", "toGuestBytes", "waitNs"):
            self.assertGreater(after[name], before[name], name)
        self.assertEqual(after["errors"], 0)
        # Blocks of 4 KiB and flushes, each with a header and a status byte.
        self.assertLessEqual(after["fromGuestBytes"], after["requests"] * (4096 + 16))
        self.assertGreaterEqual(after["fromGuestBytes"], after["requests"] * 16)
        self.assertEqual(after["toGuestBytes"], after["requests"])
        self.assertLessEqual(after["inFlight"], 256)
        # One of 16 is timed, but while one is, no other.
        timed = sum(after["waits"])
        self.assertLessEqual(timed, after["requests"] // 16 + 1)
        self.assertGreater(timed, 0)
        self.assertGreater(blk["requestsPerSecond"], 0)
        self.assertGreater(blk["bytesPerSecond"], blk["requestsPerSecond"])
        self.end()

    def testEveryDeviceCounts(self):
        self.start("idle", "--balloon", "--console", f"file={self.folder.file('guest/console')}",
                   "--vsock", "cid=4100000003", "--net", f"fd={self.wire()}")
        wanted = {"balloon0", "blk0", "console0", "net0", "rng0", "vsock0"}
        until = time.monotonic() + 60
        while True:
            processes = self.top("--count", 1, "--interval", "0.1")[0]["processes"]
            counting = {name for name, one in processes.items()
                        if any(queue["requests"] + queue["inFlight"] for queue in one["queues"])}
            if counting == wanted:
                break
            self.assertLess(time.monotonic(), until, counting)
        self.end()

    def testCountersGoOnWithTheNextProcess(self):
        actors = self.start(WRITING)
        before = self.until_blk_works()["queues"][0]["requests"]
        reader = self.follow()
        os.kill(actors["blk0"]["pid"], signal.SIGKILL)
        self.events_until(reader, "device-replaced")
        blk = self.top("--count", 1, "--interval", "0.1")[0]["processes"]["blk0"]
        self.assertEqual(blk["restarts"], 1)
        self.assertNotEqual(blk["pid"], actors["blk0"]["pid"])
        self.assertGreaterEqual(blk["queues"][0]["requests"], before)
        while True:
            later = self.top("--count", 1, "--interval", "0.1")[0]["processes"]["blk0"]
            if later["queues"][0]["requests"] > blk["queues"][0]["requests"]:
                break
        self.end()

    def testATableForEachSampleAndOnATerminalOneThatIsRefreshed(self):
        self.start("idle")
        text = self.tell("top", self.name, "--count", 2, "--interval", "0.1")
        self.assertEqual(len(re.findall(r"(?m)^PROCESS +PID +CPU% +MEMORY +REQ/S ", text)), 2)
        self.assertEqual(len(re.findall(r"(?m)^blk0 ", text)), 2)
        self.assertEqual(len(re.findall(r"(?m)^  vp-0 ", text)), 2)
        self.assertNotIn("\x1b", text)
        master, slave = pty.openpty()
        top = subprocess.Popen(self.folder.command("top", self.name, "--count", 2, "--interval",
                                                   "0.1"), env=self.folder.environment(),
                               stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.PIPE)
        os.close(slave)
        shown = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        os.close(master)
        self.assertEqual(top.wait(), 0)
        self.assertEqual(shown.count(b"\x1b[H\x1b[2J"), 2)
        self.end()

    def testItEndsWithTheVm(self):
        self.start("idle")
        top = self.folder.start("top", self.name, "--interval", "0.1", "--json")
        self.addCleanup(top.kill)
        top.stdout.readline()
        self.end()
        out, err = top.communicate(timeout=60)
        self.assertEqual((top.returncode, err), (0, b""))
        for line in out.splitlines():
            json.loads(line)

    def testWrongOptionsAreErrors(self):
        for words in (("--interval", "0"), ("--interval", "x"), ("--interval", "nan"),
                      ("--interval", "3601"), ("--count", "0"), ("--count", "-1")):
            code, _, err = self.folder.run("top", "any", *words)
            self.assertEqual((code, err[:20]), (2, "troupe: TRP-obs-001:"), words)


class Events(Observed):
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
        self.assertEqual(by_name["balloon-changed"]["guestBytes"], 32 * MIB)
        self.assertEqual((by_name["resized"]["disk"], by_name["resized"]["bytes"]),
                         ("disk0", 32 * MIB))
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


class Metrics(Observed):
    def setUp(self):
        super().setUp()
        self.socket = os.path.join(self.folder.file("guest"), "metrics")

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.connect(self.socket)
        return client

    def ask(self, request):
        with self.connect() as client:
            client.sendall(request)
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        return answer

    def get(self):
        head, body = self.ask(b"GET /metrics HTTP/1.1\r\nHost: vm\r\n\r\n").split(b"\r\n\r\n", 1)
        self.assertTrue(head.startswith(b"HTTP/1.1 200 OK\r\n"), head)
        self.assertIn(f"Content-Length: {len(body)}".encode(), head)
        families = {}
        for family in prometheus.text_string_to_metric_families(body.decode()):
            self.assertNotIn(family.name, families)
            families[family.name] = family
        return families

    def value(self, families, family, sample=None, **labels):
        found = [one.value for one in families[family].samples
                 if one.name == (sample or one.name) and
                 all(one.labels.get(key) == value for key, value in labels.items())]
        self.assertEqual(len(found), 1, (family, sample, labels))
        return found[0]

    def testPrometheusReadsThem(self):
        actors = self.start(WRITING, "--metrics", self.socket, "--balloon")
        mode = os.stat(self.socket).st_mode
        self.assertEqual((stat.S_ISSOCK(mode), stat.S_IMODE(mode)), (True, 0o600))
        before = self.until_blk_works()["queues"][0]["requests"]
        families = self.get()
        for name, family in families.items():
            self.assertRegex(name, r"^troupe_[a-z_]+$")
            self.assertTrue(family.documentation, name)
            self.assertIn(family.type, ("counter", "gauge", "histogram"), name)
            for one in family.samples:
                self.assertEqual(one.labels["vm"], self.name)
                # Names of counters end so, of others not.
                self.assertEqual(one.name.endswith("_total"), family.type == "counter", one.name)
        self.assertEqual(self.value(families, "troupe_state", state="running"), 1)
        self.assertEqual(self.value(families, "troupe_memory_bytes"), 64 * MIB)
        self.assertGreaterEqual(self.value(families, "troupe_queue_requests", device="blk0",
                                           queue="0"), before)
        count = self.value(families, "troupe_queue_wait_seconds",
                           "troupe_queue_wait_seconds_count", device="blk0", queue="0")
        self.assertGreater(count, 0)
        self.assertEqual(self.value(families, "troupe_queue_wait_seconds",
                                    "troupe_queue_wait_seconds_bucket", device="blk0", queue="0",
                                    le="+Inf"), count)
        self.assertLessEqual({"troupe", *actors}, {
            one.labels["process"] for one in families["troupe_process_cpu_seconds"].samples})
        self.assertGreater(self.value(families, "troupe_vcpu_cpu_seconds", vcpu="vp-0"), 0)
        # Another time it has counted on.
        while self.value(self.get(), "troupe_queue_requests", device="blk0", queue="0") <= before:
            pass
        self.end()
        self.assertFalse(os.path.exists(self.socket))

    def testCurlGetsThem(self):
        self.start("idle", "--metrics", self.socket)
        curl = shutil.which("curl")
        if curl is None:
            raise AssertionError("Debian's curl is missing: tools/install")
        text = subprocess.run([curl, "-sSf", "--unix-socket", self.socket, "http://vm/metrics"],
                              check=True, capture_output=True, text=True).stdout
        self.assertIn(f'troupe_state{{vm="{self.name}",state="running"}} 1\n', text)
        self.end()

    def testWhateverClientsDoTheVmAndItsControlSocketGoOn(self):
        self.start("idle", "--metrics", self.socket)
        silent = [self.connect() for _ in range(40)]  # of whom four are served
        for request in (b"\0" * 100000, b"GET " + b"x" * 100000, b"POST / HTTP/1.1\r\n\r\n"):
            client = self.connect()
            silent.append(client)
            try:
                client.sendall(request)
            except OSError:
                pass
        for _ in range(3):
            self.tell("status", self.name)
        for client in silent:
            client.close()
        self.assertEqual(self.value(self.get(), "troupe_state", state="running"), 1)
        for request, status in ((b"GET /other HTTP/1.1\r\n\r\n", b"404"),
                                (b"PUT /metrics HTTP/1.1\r\n\r\n", b"405"),
                                (b"nonsense\r\n\r\n", b"400")):
            self.assertEqual(self.ask(request).split()[1], status)
        self.end()

    def testFourScrapersAtOnceAreAnswered(self):
        self.start("idle", "--metrics", self.socket)
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(len(self.get())))
                   for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(answers), 8)
        self.end()

    def testASocketThatCannotBeMadeIsAnError(self):
        with open(self.socket, "w"):
            pass
        self.launch(self.folder.payload, "--metrics", self.socket)
        _, err = self.vm.communicate(timeout=60)
        self.assertEqual((self.vm.returncode, b"TRP-obs-004" in err), (2, True), err)
        code, _, err = self.folder.run("run", "--kernel", self.folder.payload, "--metrics", "")
        self.assertEqual((code, "TRP-cfg-003" in err), (2, True), err)


class ObservedAsOrdinaryUser(Top):
    user = machine.ORDINARY_USER


if __name__ == "__main__":
    report.main()
