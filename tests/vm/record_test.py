#!/usr/bin/env -S python3 -B
"""What a device sees in a VM is recorded, and a device process does the same again without one."""

import os
import random
import re
import signal
import socket
import stat
import struct
import subprocess
import threading
import time
import unittest

import durability
import machine
import report

SEED = os.path.realpath("tests/fuzz/seed_from_recording")
WITH_A_BUG = os.path.realpath("devices/devices_with_a_bug")
DEVICES = ("blk0", "blk1", "console0", "rng0")

HOST_IP = bytes((10, 99, 0, 1))
VIRTIO_HEADER = 12


class Recorded(unittest.TestCase):
    def setUp(self):
        self.folder = machine.Folder()
        self.addCleanup(self.folder.close)
        self.name = self.folder.vm("recorded")
        self.serial = self.folder.file("guest/serial")

    def file(self, device):
        return self.folder.file(f"{device}.rec")

    def start(self, cmdline, *options, **given):
        open(self.serial, "w").close()
        process = self.folder.start(
            "run", "--name", self.name, "--kernel", self.folder.payload, "--memory", "64M",
            "--serial", f"file={self.serial}", "--cmdline", cmdline, *options, **given)
        self.addCleanup(process.kill)
        return process

    def said(self):
        with open(self.serial) as file:
            return file.read()

    def end(self, process, code=0):
        _, err = process.communicate(timeout=120)
        err = err.decode(errors="replace")
        self.assertEqual(process.returncode, code, err + self.said()[-1000:])
        self.assertEqual(self.folder.left_over(), [])
        return err

    def record(self, cmdline="scratch", devices=DEVICES, options=()):
        """A VM with two disks, a console and a generator, those of `devices` recorded."""
        records = [f"--record={device}={self.file(device)}" for device in devices]
        vm = self.start(cmdline, "--disk", self.folder.disk("a", 4 << 20), "--disk",
                        self.folder.disk("b", 1 << 20) + ",ro", "--console",
                        f"file={self.folder.file('guest/console')}", *records, *options)
        return self.end(vm)

    def replay(self, device, *options):
        return self.folder.run("replay", *options, self.file(device))

    def shown(self, device):
        code, out, err = self.replay(device, "--show")
        self.assertEqual(code, 0, err)
        return out.splitlines()

    def testDoesTheSameAgain(self):
        self.record()
        self.assertIn(" 0 failed", self.said())
        for device in DEVICES:
            with self.subTest(device):
                code, out, err = self.replay(device)
                self.assertEqual((code, err), (0, ""), out)
                self.assertIn("no difference", out)
                self.assertNotIn("not followed", out)
                answered = sum(" is answered with " in line for line in self.shown(device))
                self.assertGreater(answered, 0)
                self.assertIn(f" {answered} chains", out)
                self.assertEqual(self.shown(device)[-1].split("  ")[-1], "the recording ends")

    def echo(self, path):
        """Somebody who says back what the guest says to its port 52."""
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.bind(path + "_52")
        listening.listen(8)

        def serve():
            while True:
                try:
                    client, _ = listening.accept()
                    with client:
                        while part := client.recv(65536):
                            client.sendall(part)
                except OSError:
                    return
        threading.Thread(target=serve, daemon=True).start()

    def neighbour(self):
        """The guest's end of a cable, at whose other end questions for an address are answered."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)

        def serve():
            try:
                while frame := ours.recv(2048):
                    self.frames.append(frame)
                    if struct.unpack_from(">H", frame, 12)[0] != 0x0806:
                        continue
                    mac = bytes((2, 0, 0, 0, 0, 1))
                    ours.send(frame[6:12] + mac + frame[12:20] + b"\0\2" + mac + HOST_IP
                              + frame[22:32] + bytes(18))
            except OSError:
                return
        self.frames = []
        threading.Thread(target=serve, daemon=True).start()
        return theirs

    def recordHosts(self, cmdline="idle", options=()):
        """A VM whose card, sockets and balloon are recorded, up to its guest's own verdict."""
        path = self.folder.file("sock")
        self.echo(path)
        wire = self.neighbour()
        devices = ("net0", "vsock0", "balloon0")
        vm = self.start(cmdline, "--net", f"fd={wire.fileno()}", "--balloon", "stats",
                        "--vsock", f"cid={self.folder.cid()},socket={path}",
                        *(f"--record={device}={self.file(device)}" for device in devices),
                        *options, pass_fds=[wire.fileno()])
        self.until(vm, " 0 failed")
        return vm, path

    def until(self, vm, words):
        until = time.monotonic() + 100
        while words not in self.said():
            self.assertIsNone(vm.poll(), self.said())
            self.assertLess(time.monotonic(), until, self.said())
            time.sleep(0.01)

    def assertSameAgain(self, device):
        code, out, err = self.replay(device)
        self.assertEqual((code, err), (0, ""), out)
        self.assertIn("no difference", out)
        self.assertNotIn("not followed", out)
        return out

    def testDoesTheSameAgainWithWhatTheHostSaid(self):
        vm, path = self.recordHosts()
        self.assertRegex(self.said(), r"ok +vsock0 +echo")
        # Asked for by the host: a report, a target, another client.
        for words in (("balloon", self.name, "16M"), ("balloon", self.name)):
            code, out, err = self.folder.run(*words)
            self.assertEqual(code, 0, out + err)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(b"CONNECT 99\n")
            client.settimeout(60)
            self.assertEqual(client.recv(100), b"", "nobody listens in the guest")
        code, out, err = self.folder.run("net", self.name, "link", "down")
        self.assertEqual(code, 0, out + err)
        vm.terminate()
        self.end(vm, 18)
        for device, doing in (("net0", "put out"), ("vsock0", "connect"), ("balloon0", "give back")):
            with self.subTest(device):
                self.assertSameAgain(device)
                self.assertTrue(any(f"is to {doing}" in line for line in self.shown(device)))

    def testFramesThatCameComeAgain(self):
        wire = self.neighbour()
        vm = self.start("bench=net op=trip count=300 rounds=1 mode=irq", "--net",
                        f"fd={wire.fileno()}", f"--record=net0={self.file('net0')}",
                        pass_fds=[wire.fileno()])
        self.end(vm)
        self.assertIn("op=trip", self.said())
        came = sum("is to take input" in line for line in self.shown("net0"))
        self.assertGreaterEqual(came, 300)
        self.assertSameAgain("net0")
        code, _, err = self.replay("net0", "--binary", WITH_A_BUG)
        self.assertEqual(code, 8, err)
        first = next(line for line in self.shown("net0")
                     if re.search("of queue 0 is answered with (?!0 )", line))
        self.assertIn(f"event {first.split()[0]} of ", err)
        self.assertRegex(err, r"the used length was \d+ and is \d+")

    def testARebuiltDeviceThatErrsBesideItsHostIsFoundAtItsMistake(self):
        vm, _ = self.recordHosts()
        vm.terminate()
        self.end(vm, 18)
        for device, what in (("vsock0", "what was written for the guest had"),
                             ("balloon0", "the number of bytes was")):
            with self.subTest(device):
                code, _, err = self.replay(device, "--binary", WITH_A_BUG)
                self.assertEqual(code, 8, err)
                self.assertIn("TRP-rec-008", err)
                self.assertIn(what, err)

    def assertSeeds(self, device):
        """Inputs of whole operations, and requests among them."""
        inputs = self.folder.file(f"inputs-{device}")
        os.mkdir(inputs)
        subprocess.run([SEED, device[:-1], self.file(device), inputs], check=True,
                       stdout=subprocess.DEVNULL)
        kinds = set()
        for name in os.listdir(inputs):
            with open(os.path.join(inputs, name), "rb") as file:
                content = file.read()
            self.assertEqual(len(content) % 16, 0)
            self.assertLessEqual(len(content), 1024)
            kinds.update(content[::16])
        features, request, publish, kick = 0, 3, 4, 6  # tests/fuzz/op.h
        self.assertLessEqual({features, request, publish, kick}, kinds)
        return kinds

    def testIsInputForTheDevicesFuzzTarget(self):
        self.record(devices=("blk0", "rng0", "console0"))
        for device in ("blk0", "rng0", "console0"):
            with self.subTest(device):
                self.assertSeeds(device)
        self.assertNotEqual(subprocess.run([SEED, "rng", self.file("blk0"), self.folder.path],
                                           stderr=subprocess.DEVNULL).returncode, 0)

    def testIsInputWithWhatTheHostSaid(self):
        vm, _ = self.recordHosts()
        vm.terminate()
        self.end(vm, 18)
        event = 8
        for device in ("net0", "vsock0", "balloon0"):
            with self.subTest(device):
                kinds = self.assertSeeds(device)
                # The neighbours of the card said nothing, and a balloon's host has no event.
                if device == "vsock0":
                    self.assertIn(event, kinds)

    def jailed(self, parent, name):
        """The pid of the child of that name, once it has closed its jail and runs."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            for pid, its in durability.processes_below(parent.pid).items():
                with open(f"/proc/{pid}/status") as file:
                    status = file.read()
                if its == name and "Seccomp:\t2" in status:
                    return pid
            time.sleep(0.005)
        self.fail(f"there is no {name}")

    def testTheFileIsReadInAJail(self):
        self.record("bench=blk count=4000 size=4096 depth=8", ("blk0",))
        # Nobody takes what is shown, so it goes on for as long as this looks.
        shows = self.folder.start("replay", "--show", self.file("blk0"))
        self.addCleanup(shows.kill)
        reader = self.jailed(shows, "troupe-replayer")
        self.assertEqual(shows.stdout.read(2), b"1 ")
        self.assertEqual(os.listdir(f"/proc/{reader}/root/"), [])
        held = [os.readlink(f"/proc/{reader}/fd/{fd}") for fd in os.listdir(f"/proc/{reader}/fd")]
        files = [name for name in held if name.startswith("/") and not name.startswith("/memfd:")]
        self.assertIn(self.file("blk0"), files)
        # Its program is the other.
        self.assertLessEqual(len(files), 2, files)
        os.kill(reader, signal.SIGKILL)
        out, err = shows.communicate(timeout=100)
        self.assertEqual(shows.returncode, 1, err)
        self.assertIn(b"TRP-rec-010", err)
        self.assertNotIn(b"the recording ends", out)

    def testARebuiltDeviceThatErrsIsFoundAtItsMistake(self):
        self.record(devices=("blk0",))
        # A read behind the disk's end stores its status, and counts none of the bytes before it.
        first = next(line for line in self.shown("blk0") if line.endswith("answered with 0 bytes"))
        code, _, err = self.replay("blk0", "--binary", WITH_A_BUG)
        self.assertEqual(code, 8, err)
        self.assertIn("TRP-rec-008", err)
        self.assertIn(f"event {first.split()[0]} of ", err)
        self.assertIn("the used length was 0 and is 1", err)

    def testARecordingIsItsUsersAloneAndANewFile(self):
        os.umask(0)
        self.record(devices=("rng0",))
        self.assertEqual(stat.S_IMODE(os.stat(self.file("rng0")).st_mode), 0o600)
        vm = self.start("hello", f"--record=rng0={self.file('rng0')}")
        self.assertIn("TRP-rec-002", self.end(vm, 2))

    def testEndsAtItsLimitAndTheVmGoesOn(self):
        said = self.record("bench=blk count=20000 size=4096 depth=8", ("blk0",),
                           ("--record-limit=1M",))
        self.assertIn("TRP-rec-005", said)
        self.assertNotIn("FAIL", self.said())
        self.assertLessEqual(os.stat(self.file("blk0")).st_size, (1 << 20) + 4096)
        code, out, err = self.replay("blk0")
        self.assertEqual((code, err), (0, ""), out)
        self.assertIn("no difference", out)

    def recorder(self, vm):
        """The pid of the process that writes the file."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            for pid, name in durability.processes_below(vm.pid).items():
                if name == "troupe-recorder":
                    return pid
            time.sleep(0.005)
        self.fail("nobody writes a recording")

    def testAWriterThatIsStuckOrKilledHarmsNobody(self):
        for blow in (signal.SIGSTOP, signal.SIGKILL):
            with self.subTest(blow.name):
                file = self.folder.file(blow.name)
                vm = self.start("bench=durability scratch count=2000000000 seed=7 size=4096 depth=8",
                                "--disk", self.folder.disk(blow.name, 8 << 20),
                                f"--record=blk0={file}", "--record-limit=16M")
                self.folder.status(self.name)
                os.kill(self.recorder(vm), blow)
                before = self.said().count("flushed ")
                # More than the memory of the recording holds.
                until = time.monotonic() + 100
                while self.said().count("flushed ") < before + 700:
                    self.assertIsNone(vm.poll(), self.said()[-500:])
                    self.assertLess(time.monotonic(), until, "the guest waits for ever")
                    time.sleep(0.005)
                self.assertNotIn("FAIL", self.said())
                vm.terminate()
                said = self.end(vm, 18)
                if blow == signal.SIGKILL:
                    self.assertIn("TRP-rec-004", said)
                else:
                    self.assertIn("could not be written to its end", said)

    def testAFullFileSystemHarmsNobody(self):
        mount = self.folder.file("full")
        os.mkdir(mount)
        try:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", mount], check=True)
        except (OSError, subprocess.CalledProcessError):
            # An ordinary user fills his own.
            self.skipTest("only root mounts a small file system")
        self.addCleanup(subprocess.run, ["umount", "-l", mount], check=True)
        file = os.path.join(mount, "blk0.rec")
        vm = self.start("bench=blk count=20000 size=4096 depth=8", "--disk",
                        self.folder.disk("d", 1 << 20), f"--record=blk0={file}")
        said = self.end(vm)
        self.assertIn("TRP-rec-004", said)
        self.assertNotIn("FAIL", self.said())

    def testADeviceThatIsReplacedIsRecordedOn(self):
        vm = self.start("idle", f"--record=rng0={self.file('rng0')}")
        until = time.monotonic() + 60
        while " 0 failed" not in self.said():
            self.assertLess(time.monotonic(), until, self.said())
            time.sleep(0.005)
        before = self.folder.status(self.name)
        pid = next(actor["pid"] for actor in before["actors"] if actor["name"] == "rng0")
        os.kill(pid, signal.SIGKILL)
        while True:
            actors = self.folder.status(self.name)["actors"]
            now = next((actor for actor in actors if actor["name"] == "rng0"), None)
            if now is not None and now["restarts"] == 1:
                break
            self.assertLess(time.monotonic(), until)
            time.sleep(0.005)
        vm.terminate()
        self.end(vm, 18)
        code, out, err = self.replay("rng0")
        self.assertEqual((code, err), (0, ""), out)
        self.assertIn("not followed to its end: another process took the device's place", out)

    def testItsJailAndItsGraphAreAsAskedFor(self):
        vm = self.start("idle", f"--record=rng0={self.file('rng0')}")
        self.folder.status(self.name)
        for command in (("graph", self.name), ("inspect", self.name, "jail")):
            code, out, err = self.folder.run(*command)
            self.assertEqual(code, 0, out + err)
            self.assertIn("recorder0", out)
        vm.terminate()
        self.end(vm, 18)

    def testWhatIsNoRecordingIsRefused(self):
        self.record(devices=("blk0",))
        with open(self.file("blk0"), "rb") as file:
            sound = file.read()
        rng = random.Random(7)
        broken = [b"", b"\0" * 8, b"\xff" * 4096, sound[:5], sound[:100]]
        for _ in range(24):
            spoiled = bytearray(sound)
            for _ in range(rng.randrange(1, 4)):
                at = rng.randrange(min(len(spoiled), rng.choice((256, 4096, 1 << 20))))
                spoiled[at] ^= 1 << rng.randrange(8)
            broken.append(bytes(spoiled[:rng.choice((len(spoiled), rng.randrange(len(spoiled))))]))
        for index, content in enumerate(broken):
            path = self.folder.file(f"broken{index}.rec")
            with open(path, "wb") as file:
                file.write(content)
            code, out, err = self.folder.run("replay", path, seconds=100)
            self.assertIn(code, (0, 2, 8), f"{index}: {out} {err}")
            self.assertEqual(len(re.findall(r"TRP-", err)), 0 if code == 0 else 1,
                             f"{index}: {err}")
            self.assertIn("TRP-rec-00" if code else "no difference", err + out)
            # What cannot come is not waited for.
            self.assertNotIn("for a minute", err)

    def testBadWordsAreRefusedWithTheirCode(self):
        for code, words in (
                ("TRP-rec-001", ["--record=blk0"]),
                ("TRP-rec-001", ["--record==x"]),
                ("TRP-rec-009", ["--record=blk7=x"]),
                ("TRP-rec-009", ["--record=serial=x"]),
                ("TRP-rec-003", ["--record=rng0=x", "--record-limit=1K"]),
                ("TRP-cfg-005", ["--record=rng0=x", "--record=rng0=y"]),
                ("TRP-rec-002", ["--record=rng0=/nowhere/x"])):
            with self.subTest(words):
                self.assertIn(code, self.end(self.start("hello", *words), 2))
        # Nor is a recording left behind that another one was in the way of.
        first = self.file("rng0")
        said = self.end(self.start("hello", "--disk", self.folder.disk("d", 1 << 20),
                                   f"--record=rng0={first}", "--record=blk0=/nowhere/x"), 2)
        self.assertIn("TRP-rec-002", said)
        self.assertFalse(os.path.exists(first))


if __name__ == "__main__":
    report.main()
