#!/usr/bin/env -S python3 -B
"""VMs beyond the plain one: consoles on terminals, many disks, several at once, no jail."""

import fcntl
import json
import os
import pty
import re
import socket
import struct
import subprocess
import termios
import threading
import time
import tty
import unittest

import machine
import report

MOST_DISKS = 28


def read_until(fd, pattern, seconds=20):
    """What `fd` gives, up to a match of `pattern`."""
    text = b""
    until = time.monotonic() + seconds
    os.set_blocking(fd, False)
    while not re.search(pattern, text):
        if time.monotonic() > until:
            raise AssertionError(f"no {pattern} in {text}")
        try:
            text += os.read(fd, 4096)
        except (BlockingIOError, OSError):
            time.sleep(0.01)
    return text


class Variety(unittest.TestCase):
    def setUp(self):
        self.folder = machine.Folder()
        self.addCleanup(self.folder.close)
        self.name = self.folder.vm("vm")
        self.kernel = ["--kernel", self.folder.payload, "--memory", "64M"]

    def finish(self, process, status):
        out, err = process.communicate(timeout=20)
        self.assertEqual(process.returncode, status, (out, err))
        self.assertEqual(self.folder.left_over(), [])
        return (err or b"").decode()

    def testANewSizeOfTheTerminalReachesTheGuest(self):
        ours, theirs = pty.openpty()
        tty.setraw(theirs)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 80, 0, 0))
        process = subprocess.Popen(
            self.folder.command("run", *self.kernel, "--name", self.name, "--cmdline",
                                "keys=console", "--serial",
                                f"file={self.folder.file('run/serial')}",
                                "--console", "stdio"),
            env=self.folder.environment(), stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(theirs)
        try:
            read_until(ours, rb"hello from the virtio console\n.*hello from the virtio console\n"
                       .replace(rb"\n", rb"\s*"))
            os.write(ours, b"s")
            read_until(ours, rb"80x25;")
            fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 43, 132, 0, 0))
            until = time.monotonic() + 10
            seen = b""
            while b"132x43;" not in seen and time.monotonic() < until:
                os.write(ours, b"s")
                seen = read_until(ours, rb"\d+x\d+;")
            self.assertIn(b"132x43;", seen)
            os.write(ours, b"q")
            os.remove(self.folder.file("run/serial"))
            self.finish(process, 0)
        finally:
            process.kill()
            process.wait()
            os.close(ours)

    def testAConsoleOnAPty(self):
        process = self.folder.start("run", *self.kernel, "--name", self.name, "--cmdline",
                                    "keys=console", "--console", "pty")
        try:
            self.folder.status(self.name)
            said = read_until(process.stderr.fileno(), rb"console hvc0 is /dev/pts/\d+\n")
            path = re.search(rb"/dev/pts/\d+", said).group(0)
            terminal = os.open(path, os.O_RDWR | os.O_NOCTTY)
            read_until(terminal, rb"hello from the virtio console")
            os.write(terminal, b"echo")
            read_until(terminal, rb"echo")
            os.write(terminal, b"q")
            os.close(terminal)
            self.finish(process, 0)
        finally:
            process.kill()
            process.wait()

    def testTheGuestReachesASocketOfTheHost(self):
        path = self.folder.file("guest/v")
        server = socket.socket(socket.AF_UNIX)
        server.bind(f"{path}_52")
        os.chmod(f"{path}_52", 0o777)
        server.listen()

        def echo():
            stream = server.accept()[0]
            stream.sendall(stream.recv(100))
            stream.recv(1)
            stream.close()

        thread = threading.Thread(target=echo, daemon=True)
        thread.start()
        code, out, err = self.folder.run("run", *self.kernel, "--cmdline", "", "--vsock",
                                         f"cid={self.folder.cid()},socket={path}")
        self.assertEqual(code, 0, out + err)
        self.assertRegex(out, rf"(?m)^ok +vsock0 +cid +{self.folder.cid()}")
        self.assertRegex(out, r"(?m)^ok +vsock0 +refused ")
        self.assertRegex(out, r"(?m)^ok +vsock0 +echo +21 bytes")
        thread.join(timeout=20)
        self.assertFalse(thread.is_alive(), "the host's socket has not seen the VM's end")
        self.assertFalse(os.path.exists(path))
        self.assertEqual(self.folder.left_over(), [])

    def testSeveralConsoles(self):
        """Each port on something else; the payload says what it is told of each."""
        path, log = self.folder.file("run/console"), self.folder.file("guest/log")
        process = self.folder.start(
            "run", *self.kernel, "--name", self.name, "--cmdline", "idle",
            "--console", f"socket={path}", "--console", "pty,size=80x25,name=second",
            "--console", f"file={log},port,name=org.example.log", "--serial",
            f"file={self.folder.file('guest/serial')}")
        try:
            actors = [actor["kind"] for actor in self.folder.status(self.name)["actors"]]
            self.assertEqual(actors.count("console"), 1, actors)
            said = read_until(process.stderr.fileno(), rb"console hvc1 is /dev/pts/\d+\n")
            terminal = os.open(re.search(rb"/dev/pts/\d+", said).group(0), os.O_RDWR | os.O_NOCTTY)
            read_until(terminal, rb"hello from port 1\n")
            os.close(terminal)
            until = time.monotonic() + 20
            serial = ""
            while " failed" not in serial and time.monotonic() < until:
                with open(self.folder.file("guest/serial")) as file:
                    serial = file.read()
            self.assertRegex(serial, r"(?m)^ok +console0 +ports +3$")
            self.assertRegex(serial, r"(?m)^ok +console0 +port +1, console, named second$")
            self.assertRegex(serial, r"(?m)^ok +console0 +port +2, plain, named org.example.log$")
            self.assertIn(" 0 failed", serial)
            with open(log) as file:
                self.assertIn("hello from port 2\n", file.read())
            with socket.socket(socket.AF_UNIX) as late:  # all was said before it came
                late.connect(path)
                late.settimeout(10)
                text = b""
                while text.count(b"\n") < 3:
                    piece = late.recv(4096)
                    self.assertNotEqual(piece, b"", text)
                    text += piece
            self.assertIn(b"hello from port 0\n", text)
            self.folder.run("stop", "--force", self.name)
            self.finish(process, 18)
        finally:
            process.kill()
            process.wait()

    def testAsManyDisksAsThereArePlaces(self):
        disks = []
        for index in range(MOST_DISKS):
            disks += ["--disk", self.folder.disk(f"disk{index}", size=65536)]
        console = f"file={self.folder.file('guest/console')}"
        code, out, err = self.folder.run("run", *self.kernel, "--cmdline", "", *disks,
                                         "--console", console)
        self.assertEqual(code, 0, out + err)
        self.assertIn(" 0 failed", out)
        self.assertRegex(out, rf"(?m)^ok +blk{MOST_DISKS - 1} +read ")
        self.assertRegex(out, r"(?m)^ok +rng0 +bytes ")
        self.assertEqual(self.folder.left_over(), [])

    def testEveryOneOfAsManyDisksIsShown(self):
        words = ["--serial", f"file={self.folder.file('guest/serial')}"]
        for index in range(MOST_DISKS):
            words += ["--disk", self.folder.disk(f"disk{index}", size=65536)]
        process = self.folder.start("run", *self.kernel, "--name", self.name, "--cmdline", "idle",
                                    *words)
        try:
            self.folder.status(self.name)
            disks = {f"blk{index}" for index in range(MOST_DISKS)}
            for command, members in ((("inspect", self.name, "jail"), "actors"),
                                     (("graph", self.name), "processes"),
                                     (("inspect", self.name, "load"), "processes")):
                with self.subTest(command):
                    code, out, err = self.folder.run(*command, "--json")
                    self.assertEqual(code, 0, out + err)
                    self.assertLessEqual(disks, {one["name"] for one in json.loads(out)[members]})
            self.folder.run("stop", "--force", self.name)
            self.finish(process, 18)
        finally:
            process.kill()
            process.wait()

    def testSeveralAtOnceKnowNothingOfEachOther(self):
        names = [self.folder.vm(f"vm{index}") for index in range(4)]
        processes = {}
        try:
            for name in names:
                processes[name] = self.folder.start(
                    "run", *self.kernel, "--name", name, "--cmdline", "idle", "--disk",
                    self.folder.disk(name))
            pids = [actor["pid"] for name in names for actor in self.folder.status(name)["actors"]]
            self.assertEqual(len(pids), len(set(pids)))
            listed = json.loads(self.folder.run("list", "--json")[1])
            self.assertEqual(sorted(vm["name"] for vm in listed
                                    if vm["name"] in names), names)
            spaces = [os.readlink(f"/proc/{pid}/ns/user") for pid in pids]
            self.assertEqual(len(spaces), len(set(spaces)))
            self.folder.run("stop", "--force", names[1])
            processes[names[1]].communicate(timeout=20)
            for name in (names[0], *names[2:]):
                self.assertEqual(self.folder.status(name)["state"], "running")
        finally:
            for name, process in processes.items():
                process.terminate()
                process.communicate(timeout=20)
        self.assertEqual([process.returncode for process in processes.values()], [18] * 4)
        self.assertEqual(self.folder.left_over(), [])

    def testWithoutAJailItWorksAndSaysSo(self):
        process = self.folder.start("run", *self.kernel, "--name", self.name, "--cmdline", "idle",
                                    "--jail", "off")
        status = self.folder.status(self.name)
        self.assertEqual({actor["jail"] for actor in status["actors"]}, {"off"})
        with open(f"/proc/{status['actors'][0]['pid']}/status") as file:
            self.assertIn("Seccomp:\t0", file.read())
        self.folder.run("stop", "--force", self.name)
        self.assertIn("no actor is jailed", self.finish(process, 18))


if __name__ == "__main__":
    report.main()
