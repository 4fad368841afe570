#!/usr/bin/env python3
"""Whatever a user gets wrong: one clear error, the documented exit code, nothing left behind."""

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.getcwd(), "vmm/testing"))
import tiny_guest
from program import DYING_ACTOR, ProgramTest, run_folder

F_OFD_SETLK = 37


class BadInput(ProgramTest):
    def setUp(self):
        super().setUp()
        self.kernel = self.file("kernel", tiny_guest.elf(tiny_guest.SLEEP))

    def runVm(self, *words, kernel=None, **more):
        return self.run_troupe("run", "--kernel", kernel or self.kernel, "--name", self.name,
                               "--serial", f"file={self.path('serial')}", *words, **more)

    def testKernel(self):
        cases = [
            ("a missing file", self.path("missing"), "TRP-cfg-018"),
            ("an empty file", self.file("empty"), "TRP-cfg-020"),
            ("a folder", self.folder, "TRP-cfg-019"),
            ("a device", "/dev/zero", "TRP-cfg-019"),
            ("bigger than RAM", self.file("big", size=600 << 20), "TRP-cfg-021"),
            ("text", self.file("text", b"I am no kernel\n" * 100), "TRP-boot-"),
            ("a script of one byte", self.file("byte", b"#"), "TRP-boot-"),
            ("truncated", self.file("cut", tiny_guest.elf(tiny_guest.SLEEP)[:0x1000]), "TRP-boot-"),
            ("half a header", self.file("half", tiny_guest.elf(tiny_guest.SLEEP)[:40]), "TRP-boot-"),
            ("zeros", self.file("zeros", size=1 << 20), "TRP-boot-"),
        ]
        for what, path, code in cases:
            with self.subTest(what):
                result = self.runVm(kernel=path)
                if code.endswith("-"):
                    code = result.stderr[len("troupe: "):].split(":")[0] \
                        if result.stderr.startswith("troupe: " + code) else code
                self.assertError(result, 2, code, path)

    def testAKernelOnlyAnotherUserMayRead(self):
        os.chmod(self.kernel, 0)
        result = subprocess.run(
            ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", self.troupe, "run",
             "--kernel", self.kernel], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            env={"XDG_RUNTIME_DIR": self.folder}, timeout=60)
        self.assertError(result, 2, "TRP-cfg-018", self.kernel, "permission denied (EACCES)")

    def testInitrd(self):
        for what, path, code in [("missing", self.path("missing"), "TRP-cfg-018"),
                                 ("empty", self.file("empty"), "TRP-cfg-020"),
                                 ("a folder", self.folder, "TRP-cfg-019"),
                                 ("bigger than RAM", self.file("big", size=600 << 20),
                                  "TRP-cfg-021")]:
            with self.subTest(what):
                self.assertError(self.runVm("--initrd", path), 2, code, path)

    def testMemory(self):
        for size, code in [("0", "012"), ("1", "012"), ("3M", "012"), ("lots", "012"),
                           ("64T", "030")]:
            with self.subTest(size):
                self.assertError(self.runVm("--memory", size), 2, f"TRP-cfg-{code}")

    def testCpus(self):
        for count in ["0", "10000", "256", "-1", "many"]:
            with self.subTest(count):
                self.assertError(self.runVm("--cpus", count), 2, "TRP-cfg-013", count)

    def testDisk(self):
        for what, disk, code in [
                ("0 bytes", self.file("zero"), "TRP-cfg-022"),
                ("no multiple of 512", self.file("odd", size=1000), "TRP-cfg-022"),
                ("missing", self.path("missing"), "TRP-cfg-018"),
                ("a folder", self.folder, "TRP-cfg-019"),
                ("a device that is no disk", "/dev/null", "TRP-cfg-019"),
                ("a part without its value", self.path("good") + ",id=", "TRP-cfg-014"),
                ("an unknown part", self.file("good", size=1024) + ",wr", "TRP-cfg-014"),
                ("another format", self.path("good") + ",format=vmdk", "TRP-cfg-006")]:
            with self.subTest(what):
                self.assertError(self.runVm("--disk", disk), 2, code, disk.split(",")[0])

    def testTheSameDiskTwice(self):
        disk = self.file("disk", size=1024)
        os.link(disk, self.path("other-name"))
        self.assertError(self.runVm("--disk", disk, "--disk", disk + ",id=b"), 2, "TRP-cfg-023", disk)
        self.assertError(self.runVm("--disk", disk + ",ro", "--disk", self.path("other-name")), 2,
                         "TRP-cfg-023", disk, "other-name")

    def testMoreDisksThanThereArePlaces(self):
        disks = []
        for index in range(29):
            disks += ["--disk", self.file(f"disk{index}", size=1024)]
        self.assertError(self.runVm(*disks), 2, "TRP-cfg-029", "29", "28")

    def testMoreDevicesThanSlots(self):
        words = []
        for index in range(28):
            words += ["--disk", self.file(f"disk{index}", size=1024)]
        self.assertError(self.runVm(*words, "--console", "pty", "--balloon", "--vsock", "cid=99"), 2,
                         "TRP-cfg-038", "32 devices", "31")

    def testALongCommandLine(self):
        self.assertError(self.runVm("--cmdline", "x" * 2048), 2, "TRP-cfg-031", "2047")

    def testCpuMask(self):
        self.assertError(self.runVm("--cpu-mask", "avx2,nosuchfeature"), 2, "TRP-cfg-101",
                         "nosuchfeature")
        self.assertError(self.runVm("--cpu-mask", "AVX2"), 2, "TRP-cfg-032", "AVX2")

    def testNames(self):
        for name in ("a/b", "..", "-x", "x" * 65, "a b", "ä"):
            with self.subTest(name):
                result = self.run_troupe("run", "--kernel", self.kernel, f"--name={name}")
                self.assertError(result, 2, "TRP-cfg-017")

    def testRunFolder(self):
        """Only an ordinary user's is looked for in XDG_RUNTIME_DIR."""
        for what, folder, code in [("missing", self.path("missing"), "TRP-host-004"),
                                   ("not writable", "/sys", "TRP-host-004"),
                                   ("not one's own", self.path("foreign"), "TRP-host-005")]:
            os.makedirs(self.path("foreign/troupe"), exist_ok=True)
            with self.subTest(what):
                result = subprocess.run(
                    ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", self.troupe,
                     "list"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                    env={"XDG_RUNTIME_DIR": folder}, timeout=60)
                self.assertError(result, 3, code, folder)

    def testStandardOutputThatTakesNothing(self):
        with open("/dev/full", "wb") as full:
            result = subprocess.run([self.troupe, "--help"], stdin=subprocess.DEVNULL, stdout=full,
                                    stderr=subprocess.PIPE, text=True, timeout=60)
        self.assertError(result, 3, "TRP-host-010", "ENOSPC")

    def testALimitThatIsTooLow(self):
        result = subprocess.run(
            ["prlimit", "--nofile=512:512", "setpriv", "--bounding-set=-sys_resource",
             self.troupe, "run", "--kernel", self.kernel, "--name", self.name, "--serial",
             f"file={self.path('serial')}"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        self.assertError(result, 4, "TRP-jail-005", "ulimit -Hn")
        result = subprocess.run(["prlimit", "--nofile=512:512", self.troupe, "doctor"],
                                stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                timeout=60)
        self.assertError(result, 3, "TRP-host-009")
        self.assertRegex(result.stdout, r"open files +MISSING +at most 512; the broker needs \d+")

    def testADiskInUseElsewhere(self):
        disk = self.file("disk", size=1024)
        with open(disk, "r+b") as user:
            lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            fcntl.fcntl(user, F_OFD_SETLK, lock)
            self.assertError(self.runVm("--disk", disk), 2, "TRP-cfg-024", disk)
            self.assertError(self.runVm("--disk", disk + ",ro"), 2, "TRP-cfg-024", disk)

    def testConsoles(self):
        self.assertError(self.run_troupe("run", "--kernel", self.kernel, "--console", "stdio"), 2,
                         "TRP-cfg-016")
        self.assertError(self.runVm("--console", "file=" + self.folder), 2, "TRP-cfg-025")
        self.assertError(self.runVm("--console", "socket=" + self.kernel), 2, "TRP-cfg-026")
        self.assertError(self.runVm("--console", "socket=/tmp/" + "x" * 200), 2, "TRP-cfg-026")
        self.assertTrue(os.path.isfile(self.kernel), "what was in the socket's place is left alone")
        taken = self.path("taken")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(taken)
            listener.listen()
            self.assertError(self.runVm("--console", "pty", "--console", "socket=" + taken), 2,
                             "TRP-cfg-026", "another program listens", taken)
        self.assertError(self.runVm("--console", "socket=a", "--console", "socket=a"), 2,
                         "TRP-cfg-026", "the same socket")
        self.assertError(self.runVm("--console", "stdio", "--console", "stdio"), 2, "TRP-cfg-016")
        self.assertError(self.runVm("--console", "tty"), 2, "TRP-con-010", "did you mean pty?")
        self.assertError(self.runVm("--console", "pty,size=80"), 2, "TRP-con-010", "80x25")
        self.assertError(self.runVm("--console", "pty,name=a/b"), 2, "TRP-con-011")
        self.assertError(self.runVm("--console", "pty,name=a", "--console", "file=f,name=a"), 2,
                         "TRP-con-011", "the same name")
        self.assertError(self.runVm(*["--console", "pty"] * 9), 2, "TRP-con-012", "at most 8")
        text = self.file("console.json", b'{"kernel": "k", "console": "pty"}')
        self.assertError(self.run_troupe("run", text), 2, "TRP-cfg-010", "expects a list")

    def testVsock(self):
        for words, code in [(",", "001"), ("sokcet=v", "001"), ("socket=", "001"), ("cid=2", "002"),
                            ("cid=4294967295", "002"), ("cid=x", "002"), ("forward=22", "001"),
                            ("forward=ssh:v", "001"), ("socket=/tmp/" + "x" * 92, "004"),
                            ("forward=22:/tmp/" + "x" * 103, "004"),
                            ("forward=22:v,forward=23:v", "004")]:
            with self.subTest(words):
                self.assertError(self.runVm("--vsock", words), 2, "TRP-vsk-" + code)
        self.assertError(self.runVm("--vsock", "socket=" + self.kernel), 2, "TRP-vsk-005", self.kernel)
        self.assertTrue(os.path.isfile(self.kernel), "what was in the socket's place is left alone")
        self.assertError(self.runVm("--vsock", "socket=" + self.path("no/where")), 2, "TRP-vsk-005")
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(self.path("taken"))
        listening.listen()
        self.assertError(self.runVm("--vsock", "forward=22:" + self.path("taken")), 2, "TRP-vsk-005",
                         "another program listens")
        listening.close()

    def testAPortThatCannotBeForwarded(self):
        tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        for one in (tcp, udp):
            self.addCleanup(one.close)
            one.bind(("127.0.0.1", 0))
        tcp.listen()
        taken, used = tcp.getsockname()[1], udp.getsockname()[1]
        for forward, words in [
                (f"tcp:{taken}:80", (f"TCP port {taken}", "address already in use", "ss -tlnp")),
                (f"tcp:127.0.0.1:{taken}:80", (f"TCP port {taken}", "ss -tlnp")),
                (f"udp:{used}:53", (f"UDP port {used}", "ss -ulnp")),
                ("tcp:192.0.2.1:8080:80", ("TCP port 8080", "EADDRNOTAVAIL", "ip address")),
                ("tcp:1:80", ("TCP port 1 ", "privileged", "ip_unprivileged_port_start=1"))]:
            with self.subTest(forward):
                self.assertError(self.runVm("--net", f"user,hostfwd={forward}"), 2, "TRP-net-013",
                                 f"hostfwd={forward}", *words)

    def testAStartThatFailsLeavesNoFileOfItsOwn(self):
        text = self.file("text", b"I am no kernel\n" * 100)
        for _ in range(2):  # nor is the second try refused for the first one's
            result = self.runVm("--record", "rng0=" + self.path("rec"), kernel=text)
            self.assertError(result, 2, "TRP-boot-004")
            self.assertFalse(os.path.exists(self.path("rec")))

    def testASlipInABalloonIsNoFile(self):
        self.assertError(self.runVm("--balloon", "stat"), 2, "TRP-cfg-006", '"stat"',
                         "did you mean stats?")
        self.assertError(self.runVm("--balloon", "maybe"), 2, "TRP-cfg-006", '"maybe"')

    def testConfigurationFile(self):
        for what, path, code in [
                ("missing", self.path("missing.json"), "TRP-cfg-007"),
                ("a folder", self.folder, "TRP-cfg-007"),
                ("empty", self.file("empty.json"), "TRP-cfg-007"),
                ("no JSON", self.file("text.json", b"kernel = x"), "TRP-cfg-008"),
                ("a kernel", self.kernel, "TRP-cfg-008"),
                ("unknown key", self.file("key.json", b'{"kernal": "x"}'), "TRP-cfg-009"),
                ("wrong type", self.file("type.json", b'{"cpus": "2"}'), "TRP-cfg-010")]:
            with self.subTest(what):
                self.assertError(self.run_troupe("run", path), 2, code, path)

    def testCommandsAndOptions(self):
        self.assertError(self.run_troupe(), 2, "TRP-cfg-001")
        self.assertError(self.run_troupe("rnu"), 2, "TRP-cfg-001", "did you mean run?")
        self.assertError(self.run_troupe("run", "--kernle", "x"), 2, "TRP-cfg-002",
                         "did you mean --kernel?")
        self.assertError(self.run_troupe("run"), 2, "TRP-cfg-011")
        self.assertError(self.run_troupe("--run"), 2, "TRP-cfg-001", "did you mean run?")
        self.assertError(self.run_troupe("run", "a.json", "b.json"), 2, "TRP-cfg-004", "b.json")
        self.assertError(self.run_troupe("stop", "nobody"), 2, "TRP-cfg-028", "nobody")
        self.assertError(self.run_troupe("status"), 2, "TRP-cfg-004")

    def testNoKvm(self):
        script = 'mount -t tmpfs none /dev && exec "$@"'
        result = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh",
             self.troupe, "run", "--kernel", self.kernel, "--serial", f"file={self.path('serial')}"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        self.assertError(result, 3, "TRP-host-001", "/dev/kvm", "see: ")

    def testAKvmThatCannotBeOpened(self):
        for script, code in [
                ("mount -t tmpfs none /dev && mkdir /dev/kvm", "TRP-host-003"),
                ("mount --bind /dev/kvm /dev/kvm && mount -o remount,bind,nodev /dev/kvm",
                 "TRP-host-002")]:
            with self.subTest(code):
                result = subprocess.run(
                    ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
                     script + ' && exec "$@"', "sh", self.troupe, "run", "--kernel", self.kernel,
                     "--serial", f"file={self.path('serial')}"],
                    stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
                self.assertError(result, 3, code, "/dev/kvm", "see: ")

    def testNoPseudoTerminals(self):
        result = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
             'mount -t tmpfs none /dev && exec "$@"', "sh", self.troupe, "run", "--kernel",
             self.kernel, "--serial", f"file={self.path('serial')}", "--console", "pty"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        self.assertError(result, 3, "TRP-host-007", "--console")

    def testAControlSocketThatIsNone(self):
        self.run_troupe("list")  # makes the run-time folder
        path = os.path.join(run_folder(), self.name + ".sock")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(path)
            try:
                result = self.run_troupe("status", self.name)
            finally:
                os.unlink(path)
        self.assertError(result, 3, "TRP-host-008", path)

    def testProgramsThatSomebodyStartsByHand(self):
        for program, code in [("troupe-broker", "TRP-int-103"), ("troupe-front", "TRP-int-103"),
                              ("troupe-devices", "TRP-int-102")]:
            with self.subTest(program):
                result = subprocess.run([os.path.join(self.bin, program)], capture_output=True,
                                        stdin=subprocess.DEVNULL, text=True, timeout=60)
                self.assertNotEqual(result.returncode, 0)
                self.assertIn(code + ": ", result.stderr)

    def testAMissingProgram(self):
        os.remove(os.path.join(self.bin, "troupe-broker"))
        self.assertError(self.runVm(), 3, "TRP-host-006", "troupe-broker")

    def testAnActorThatDiesAtItsStart(self):
        for program, actor in [("troupe-broker", "broker"), ("troupe-devices", "")]:
            with self.subTest(program):
                shutil.copy(os.path.join(self.bin, program), self.path("kept"))
                os.remove(os.path.join(self.bin, program))
                shutil.copy(DYING_ACTOR, os.path.join(self.bin, program))
                result = self.runVm("--disk", self.file("disk", size=1024))
                self.assertError(result, 5, "TRP-run-001", actor, "exited with status 3",
                                 "1. my last words")
                self.assertNotIn("\x1b", result.stderr)
                self.assertNotIn("\x07", result.stderr)
                os.remove(os.path.join(self.bin, program))
                shutil.move(self.path("kept"), os.path.join(self.bin, program))

    def testAProgramThatIsNone(self):
        os.remove(os.path.join(self.bin, "troupe-devices"))
        with open(os.path.join(self.bin, "troupe-devices"), "wb") as file:
            file.write(b"not a program")
        os.chmod(os.path.join(self.bin, "troupe-devices"), 0o755)
        result = self.runVm()
        self.assertEqual(result.returncode, 4, result.stderr)
        self.assertTrue(result.stderr.startswith("troupe: TRP-jail-"), result.stderr)
        self.assertNothingLeft()

    def testPrintConfigRoundTrips(self):
        words = ["--kernel", self.kernel, "--cmdline", "+quiet ä", "--cpus", "2", "--memory", "1G",
                 "--disk", self.file("a,b", size=512).replace(",", ",,") + ",ro,id=x",
                 "--console", "pty", "--console", "socket=c,,d,name=agent,port,replay=off",
                 "--serial", "file=s", "--cpu-mask", "avx2,avx",
                 "--vsock", "cid=7,socket=a,,b,forward=22:ssh,forward=80:c:d"]
        first = self.run_troupe("run", *words, "--print-config")
        self.assertEqual(first.returncode, 0, first.stderr)
        config = self.file("c.json", first.stdout.encode())
        second = self.run_troupe("run", config, "--print-config")
        self.assertEqual(second.stdout, first.stdout)
        self.assertEqual(json.loads(first.stdout)["cmdline"], "console=ttyS0 quiet ä")
        self.assertEqual(json.loads(first.stdout)["vsock"],
                         {"cid": 7, "socket": "a,b", "forward": ["22:ssh", "80:c:d"]})
        changed = self.run_troupe("run", config, "--cpus", "3", "--disk", self.kernel,
                                  "--print-config")
        self.assertEqual(json.loads(changed.stdout)["cpus"], 3)
        self.assertEqual([disk["path"] for disk in json.loads(changed.stdout)["disk"]],
                         [self.path("a,b"), self.kernel])

    def testHelpEverywhere(self):
        for words in [["--help"], ["help"], ["help", "disk", "create"]] + [[verb, "--help"] for verb in
                                               "run demo doctor list status stop version".split()]:
            with self.subTest(words):
                result = self.run_troupe(*words)
                self.assertEqual((result.returncode, result.stderr), (0, ""))
                self.assertIn("usage: troupe", result.stdout)


if __name__ == "__main__":
    unittest.main()
