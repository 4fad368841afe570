#!/usr/bin/env python3
"""`troupe disk`: what it makes and says, beside qemu-img; and everything a user gets wrong."""

import fcntl
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.getcwd(), "vmm/testing"))
from program import DYING_ACTOR, ProgramTest

F_OFD_SETLK = 37
RUDE_TOOL = os.path.join(os.getcwd(), "vmm/testing/rude_disk_tool")


def contents(path):
    with open(path, "rb") as file:
        return file.read()


class DiskCommand(ProgramTest):
    def disk(self, *words, **more):
        return self.run_troupe("disk", *words, cwd=self.folder, **more)

    def done(self, *words, **more):
        result = self.disk(*words, **more)
        self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)
        return result.stdout

    def told(self, *words):
        return json.loads(self.done(*words, "--json"))

    def qemu(self, *words, check=True):
        return subprocess.run(words, check=check, cwd=self.folder, capture_output=True, text=True,
                              timeout=60)

    def qemu_info(self, name, format="qcow2"):
        return json.loads(self.qemu("qemu-img", "info", "-f", format, "--output=json", name).stdout)

    def sound(self, name):
        self.qemu("qemu-img", "check", "-q", "-f", "qcow2", name)

    def files(self):
        return sorted(name for name in os.listdir(self.folder) if name != "bin")

    # What is made

    def testRawDisks(self):
        self.done("create", "a.raw", "20M")
        self.assertEqual(os.stat(self.path("a.raw")).st_size, 20 << 20)
        self.assertEqual(os.stat(self.path("a.raw")).st_blocks, 0)
        self.assertEqual(os.stat(self.path("a.raw")).st_mode & 0o777, 0o644)
        info = self.told("info", "a.raw", "--format", "raw")
        self.assertEqual((info["format"], info["virtualBytes"]), ("raw", 20 << 20))

    def testImagesWithEachOption(self):
        for name, words, expected in [
                ("plain", [], {"cluster-size": 65536}),
                ("small", ["--cluster-size", "512"], {"cluster-size": 512}),
                ("large", ["--cluster-size=2M"], {"cluster-size": 2 << 20}),
                ("lazy", ["--lazy-refcounts"], {"cluster-size": 65536})]:
            with self.subTest(name):
                self.done("create", name, "1G", "--format", "qcow2", *words)
                self.sound(name)
                qemu = self.qemu_info(name)
                self.assertEqual(qemu["virtual-size"], 1 << 30)
                self.assertEqual(qemu["cluster-size"], expected["cluster-size"])
                self.assertEqual(qemu["format-specific"]["data"]["lazy-refcounts"], name == "lazy")
                ours = self.told("info", name, "--format", "qcow2")
                self.assertEqual(ours["virtualBytes"], 1 << 30)
                self.assertEqual(ours["image"]["clusterBytes"], expected["cluster-size"])
                self.assertEqual(ours["image"]["features"], ["lazy-refcounts"] * (name == "lazy"))
                self.qemu("qemu-io", "-f", "qcow2", "-c", "write -P 9 512M 1M", name)
                self.sound(name)

    def testOverlays(self):
        self.qemu("qemu-img", "create", "-q", "base.raw", "3M")
        self.qemu("qemu-io", "-f", "raw", "-c", "write -P 7 1M 1M", "base.raw")
        said = self.done("create", "mid.qcow2", "--format", "qcow2", "--backing", "base.raw:raw")
        self.assertIn("--disk mid.qcow2,format=qcow2,backing=base.raw:raw", said)
        self.done("create", "top.qcow2", "--format", "qcow2", "--backing", "mid.qcow2:qcow2",
                  "--backing", "base.raw:raw")
        os.mkdir(self.path("far"))
        told = self.told("create", "far/far.qcow2", "5M", "--format", "qcow2", "--backing",
                         "base.raw:raw")
        self.assertEqual(told["backing"], [self.path("base.raw") + ":raw"])
        for name, size in [("mid.qcow2", 3), ("top.qcow2", 3), ("far/far.qcow2", 5)]:
            self.sound(name)
            self.assertEqual(self.qemu_info(name)["virtual-size"], size << 20)
        for name in "mid.qcow2", "top.qcow2":
            self.qemu("qemu-img", "compare", "-f", "qcow2", "-F", "raw", name, "base.raw")
        self.qemu("qemu-io", "-f", "qcow2", "-c", "read -P 7 1M 1M", "-c", "read -P 0 3M 2M",
                  "far/far.qcow2")
        info = self.told("info", "top.qcow2", "--format", "qcow2", "--backing", "mid.qcow2:qcow2",
                         "--backing", "base.raw:raw")
        self.assertEqual(info["image"]["backing"],
                         {"name": "mid.qcow2", "format": "qcow2", "checked": True})
        # Only those that were named were looked at, whether they are there or not.
        for _ in range(3):
            info = self.told("info", "top.qcow2", "--format", "qcow2")
            self.assertFalse(info["image"]["backing"]["checked"])
        os.remove(self.path("mid.qcow2"))
        info = self.told("info", "top.qcow2", "--format", "qcow2")
        self.assertFalse(info["image"]["backing"]["checked"])

    def testABackingFileWithAnOddEndAndACommaInItsName(self):
        self.file("a:b,c.raw", size=1000)
        said = self.done("create", "top", "--format=qcow2", "--backing", "a:b,c.raw:raw")
        self.assertIn("a:b,,c.raw:raw", said)
        self.assertEqual(self.qemu_info("top")["virtual-size"], 1024)
        self.assertEqual(self.qemu_info("top")["backing-filename"], self.path("a:b,c.raw"))
        self.qemu("qemu-io", "-f", "qcow2", "-c", "read -P 0 0 1024", "top")

    def testNothingIsReplacedUnasked(self):
        self.file("a", b"precious")
        self.assertError(self.disk("create", "a", "1M"), 2, "TRP-disk-003", '"a"', "--force")
        self.assertEqual(contents(self.path("a")), b"precious")
        self.done("create", "a", "1M", "--force")
        self.assertEqual(os.stat(self.path("a")).st_size, 1 << 20)
        self.assertEqual(self.files(), ["a"])

    def testNothingIsLeftBehind(self):
        base = self.file("base", size=1 << 20)
        before = self.files()
        self.assertError(self.disk("create", "new", "--format=qcow2", "--backing", "base:qcow2"), 2,
                         "TRP-blk-020", "new")
        self.assertError(self.disk("create", "new", "1T", "--format=qcow2", "--cluster-size", "512"),
                         2, "TRP-disk-101")
        long = "/" + "./" * 600 + base
        self.assertError(self.disk("create", "new", "--format=qcow2", "--backing", long + ":raw"), 2,
                         "TRP-disk-004", "1023")
        self.assertError(self.disk("create", "missing/new", "1M"), 2, "TRP-disk-004", "missing/new",
                         "ENOENT")
        self.assertError(self.disk("create", "/proc/new", "1M"), 2, "TRP-disk-004")
        self.assertEqual(self.files(), before)

    def testAFullFileSystem(self):
        script = ('mount -t tmpfs -o size=64k none "$1" && cd "$1" && '
                  '"$2" disk create new 100G --format qcow2 --cluster-size 2M; s=$?; ls -A; exit $s')
        os.mkdir(self.path("small"))
        result = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", self.path("small"), self.troupe], stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=60)
        self.assertEqual((result.returncode, result.stdout), (2, ""), result.stderr)
        self.assertIn("TRP-disk-102", result.stderr)

    # What is checked

    def image(self, name="a", size="16M", *words):
        self.qemu("qemu-img", "create", "-q", "-f", "qcow2", *words, name, size)
        self.qemu("qemu-io", "-f", "qcow2", "-c", "write -P 3 0 2M", name)
        return self.path(name)

    def patch(self, path, offset, value):
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(value)

    def word(self, path, offset):
        with open(path, "rb") as file:
            file.seek(offset)
            return struct.unpack(">Q", file.read(8))[0]

    def expectAsQemu(self, name, code):
        before = contents(self.path(name))
        result = self.disk("check", name, "--format", "qcow2", "--json")
        self.assertEqual((result.returncode, result.stderr), (code, ""))
        self.assertEqual(contents(self.path(name)), before, "a check writes nothing")
        ours = json.loads(result.stdout)
        qemu = json.loads(self.qemu("qemu-img", "check", "-f", "qcow2", "--output=json", name,
                                    check=False).stdout)
        self.assertEqual(int(ours["errors"]), qemu.get("corruptions", 0))
        self.assertEqual(int(ours["leaks"]), qemu.get("leaks", 0))
        self.assertEqual(int(ours["totalClusters"]), qemu["total-clusters"])
        self.assertEqual(int(ours["allocatedClusters"]), qemu.get("allocated-clusters", 0))
        self.assertEqual(int(ours["endOffset"]), qemu["image-end-offset"])
        return ours

    def testASoundImage(self):
        self.image()
        self.expectAsQemu("a", 0)
        self.assertIn("no errors and no leaks; 32 of 256 clusters are allocated",
                      self.done("check", "a", "--format", "qcow2"))

    def testErrorsAndLeaks(self):
        path = self.image()
        block = self.word(path, self.word(path, 48))
        self.patch(path, block + 2 * 10, b"\0\2")
        self.patch(path, block + 2 * 60, b"\0\1")
        self.patch(path, block + 2 * 12, b"\0\0")
        ours = self.expectAsQemu("a", 6)
        self.assertIn({"flaw": "counted-too-low", "offset": 12 << 16, "counted": 0, "used": 1},
                      ours["findings"])
        result = self.disk("check", "a", "--format", "qcow2", "--repair", "leaks")
        self.assertEqual(result.returncode, 6)
        self.assertIn("nothing was repaired", result.stdout)
        self.expectAsQemu("a", 6)

    def testLeaksAreGivenBack(self):
        path = self.image()
        block = self.word(path, self.word(path, 48))
        with open(path, "r+b") as file:
            file.truncate(64 << 16)
        self.patch(path, block + 2 * 60, b"\0\1\0\1")
        self.expectAsQemu("a", 7)
        told = self.disk("check", "a", "--format", "qcow2", "--repair", "leaks")
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertIn("2 leaked clusters were given back", told.stdout)
        self.sound("a")
        self.qemu("qemu-io", "-f", "qcow2", "-c", "read -P 3 0 2M", "a")

    def testAnImageThatWasNotClosed(self):
        path = self.image("a", "16M", "-o", "lazy_refcounts=on")
        block = self.word(path, self.word(path, 48))
        self.patch(path, block + 2 * 10, b"\0\0")
        self.patch(path, 72, struct.pack(">Q", 1))
        result = self.disk("check", "a", "--format", "qcow2", "--repair", "leaks")
        self.assertEqual(result.returncode, 6)
        self.assertIn("it was not closed", result.stdout)
        self.done("resize", "a", "17M", "--format", "qcow2")
        self.expectAsQemu("a", 0)

    def testADamagedMapping(self):
        path = self.image()
        table = self.word(path, self.word(path, 40)) & 0x00fffffffffffe00
        self.patch(path, table, struct.pack(">Q", 1 << 63 | 1 << 40))
        self.expectAsQemu("a", 6)

    # What is shown

    def testInfo(self):
        self.image("a", "16M", "-o", "lazy_refcounts=on,compression_type=zstd")
        self.qemu("qemu-img", "snapshot", "-c", "one", "a")
        info = self.told("info", "a", "--format", "qcow2")
        image = info["image"]
        self.assertEqual((image["version"], image["compression"], image["snapshots"]), (3, "zstd", 1))
        self.assertEqual(int(info["allocatedBytes"]), os.stat(self.path("a")).st_blocks * 512)
        self.assertEqual((image["dirty"], image["corrupt"]), (False, False))
        self.assertNotIn("backing", image)
        self.file("base", size=1 << 20)
        self.assertError(self.disk("info", "a", "--format", "qcow2", "--backing", "base:raw"), 2,
                         "TRP-blk-024", "no backing file")
        self.patch(self.path("a"), 72, struct.pack(">Q", 1 | 2 | 8))
        image = self.told("info", "a", "--format", "qcow2")["image"]
        self.assertEqual((image["dirty"], image["corrupt"]), (True, True))

    def testAHostileNameIsShownHarmless(self):
        self.file("base", size=1 << 20)
        self.qemu("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base", "a")
        path = self.path("a")
        at = self.word(path, 8)
        self.patch(path, at, b"\x1b]0\xff")
        before = contents(path)
        shown = self.done("info", "a", "--format", "qcow2")
        self.assertIn('"\\x1b]0\\xff"', shown)
        self.assertNotIn("\x1b", shown)
        told = self.told("info", "a", "--format", "qcow2")["image"]["backing"]
        self.assertEqual((told["name"], told["checked"]), ("\\x1b]0\\xff", False))
        self.assertError(self.disk("info", "a", "--format", "qcow2", "--backing", "base:raw"), 2,
                         "TRP-blk-024")
        self.assertEqual(contents(path), before)

    # What is resized

    def testResize(self):
        self.done("create", "a.raw", "1M")
        self.assertIn("1M -> 4M", self.done("resize", "a.raw", "4M", "--format", "raw"))
        self.assertError(self.disk("resize", "a.raw", "2M", "--format", "raw"), 2, "TRP-disk-005",
                         "--shrink")
        self.done("resize", "a.raw", "2M", "--format", "raw", "--shrink")
        self.assertEqual(os.stat(self.path("a.raw")).st_size, 2 << 20)
        self.image("b", "16M", "-o", "cluster_size=4k")
        told = self.told("resize", "b", "8G", "--format", "qcow2")
        self.assertEqual((told["bytesBefore"], told["virtualBytes"]), (16 << 20, 8 << 30))
        self.assertEqual(self.qemu_info("b")["virtual-size"], 8 << 30)
        self.sound("b")
        self.qemu("qemu-io", "-f", "qcow2", "-c", "read -P 3 0 2M", "-c", "read -P 0 2M 14M",
                  "-c", "write -P 4 8191M 1M", "b")
        self.sound("b")
        self.assertError(self.disk("resize", "b", "1G", "--format", "qcow2"), 2, "TRP-disk-103")
        self.assertError(self.disk("resize", "b", "9G", "--format", "qcow2", "--shrink"), 2,
                         "TRP-disk-005")

    def testAnOverlayThatGrowsShowsNothingOfItsBase(self):
        self.qemu("qemu-img", "create", "-q", "base.raw", "4M")
        self.qemu("qemu-io", "-f", "raw", "-c", "write -P 7 0 4M", "base.raw")
        self.done("create", "top", "1M", "--format=qcow2", "--backing", "base.raw:raw")
        self.done("resize", "top", "4M", "--format=qcow2", "--backing", "base.raw:raw")
        self.sound("top")
        self.qemu("qemu-io", "-f", "qcow2", "-c", "read -P 7 0 1M", "-c", "read -P 0 1M 3M", "top")

    # What is refused

    def testADiskInUse(self):
        path = self.image()
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        with open(path, "r+b") as user:
            fcntl.fcntl(user, F_OFD_SETLK, lock)
            for words in (["info", "a", "--format=qcow2"], ["check", "a", "--format=qcow2"],
                          ["resize", "a", "1G", "--format=qcow2"], ["create", "a", "1M", "--force"],
                          ["create", "b", "--format=qcow2", "--backing", "a:qcow2"]):
                with self.subTest(words):
                    self.assertError(self.disk(*words), 2, "TRP-cfg-024", '"a"')
        self.assertEqual(self.files(), ["a"])

    def testBadWords(self):
        self.image()
        self.file("r", size=1024)
        for words, code, *parts in [
                ([], "TRP-cfg-004", "create, info, check, resize"),
                (["mend"], "TRP-cfg-001", "mend"),
                (["chek"], "TRP-cfg-001", "did you mean check?"),
                (["create"], "TRP-cfg-004"),
                (["create", "x"], "TRP-cfg-004", '"x"'),
                (["create", "x", "1M", "2M"], "TRP-cfg-004", "2M"),
                (["create", "", "1M"], "TRP-disk-004"),
                (["create", "x/", "1M"], "TRP-disk-004"),
                (["create", "x", "0"], "TRP-disk-002", '"0"'),
                (["create", "x", "1000"], "TRP-disk-002", "1024"),
                (["create", "x", "-1"], "TRP-cfg-002"),
                (["create", "x", "lots"], "TRP-disk-002", "lots"),
                (["create", "x", "99999999T"], "TRP-disk-002"),
                (["create", "x", "1M", "--format", "vmdk"], "TRP-cfg-006", "vmdk", "raw or qcow2"),
                (["create", "x", "1M", "--format", "qcow"], "TRP-cfg-006", "did you mean qcow2?"),
                (["create", "x", "1M", "--cluster-size", "64K"], "TRP-disk-008", "--cluster-size"),
                (["create", "x", "1M", "--lazy-refcounts"], "TRP-disk-008", "--lazy-refcounts"),
                (["create", "x", "1M", "--backing", "r:raw"], "TRP-disk-008", "--format qcow2"),
                (["create", "x", "1M", "--format=qcow2", "--cluster-size", "3K"], "TRP-disk-007", "3K"),
                (["create", "x", "1M", "--format=qcow2", "--cluster-size", "4M"], "TRP-disk-007"),
                (["create", "x", "--format=qcow2", "--backing", "r"], "TRP-cfg-014", '"r"'),
                (["create", "x", "--format=qcow2", "--backing", "r:vmdk"], "TRP-cfg-014"),
                (["create", "x", "--format=qcow2", "--backing", "none:raw"], "TRP-cfg-018", "none"),
                (["create", "x", "--format=qcow2", "--backing", "r:raw", "--backing", "a:qcow2"],
                 "TRP-cfg-014", "comes too many"),
                (["create", "x", "--format=qcow2", "--backing", "a:qcow2", "--backing", "a:qcow2"],
                 "TRP-cfg-035"),
                (["create", "x", "--format=qcow2", "--backing", "a:raw"] + ["--backing=r:raw"] * 8,
                 "TRP-cfg-014"),
                (["info", "a"], "TRP-disk-001", "never guessed"),
                (["check", "a"], "TRP-disk-001"),
                (["resize", "a", "1G"], "TRP-disk-001"),
                (["info"], "TRP-cfg-004"),
                (["info", "none", "--format=raw"], "TRP-cfg-018", "none"),
                (["info", ".", "--format=raw"], "TRP-cfg-019"),
                (["info", "r", "--format=qcow2"], "TRP-blk-020"),
                (["info", "r", "--format=raw", "--backing", "a:qcow2"], "TRP-disk-008"),
                (["check", "r", "--format=raw"], "TRP-disk-008", "raw"),
                (["check", "a", "--format=qcow2", "--repair", "all"], "TRP-cfg-006", "leaks"),
                (["check", "a", "b", "--format=qcow2"], "TRP-cfg-004"),
                (["resize", "a", "--format=qcow2"], "TRP-cfg-004"),
                (["resize", "r", "1001", "--format=raw"], "TRP-disk-002"),
                (["info", "a", "--format=raw", "--format=raw"], "TRP-cfg-005"),
                (["info", "a", "--fromat=raw"], "TRP-cfg-002", "did you mean --format?")]:
            with self.subTest(words):
                self.assertError(self.disk(*words), 2, code, *parts)
        self.assertEqual(self.files(), ["a", "r"])

    def testHelp(self):
        self.assertIn("disk", self.run_troupe("--help").stdout)
        for words in ["--help"], ["create", "--help"], ["info", "-h"], ["check", "--help"], \
                ["resize", "--help"]:
            self.assertIn("usage: troupe disk", self.done(*words))

    # The process that reads the image

    def testHostileImagesAreAResultOrAnError(self):
        sound = contents(self.image("a", "4M", "-o", "cluster_size=4k"))
        choice = random.Random(7)
        path = self.path("b")
        for i in range(60):
            changed = bytearray(sound)
            for _ in range(choice.randint(1, 4)):
                at = choice.randrange(4, 112) if choice.random() < .4 \
                    else choice.randrange(0, 8 << 12) & ~7
                word = choice.choice([0, 1, 1 << 62, 1 << 63, (1 << 64) - 1, choice.getrandbits(64),
                                      choice.getrandbits(20) << 9 | 1 << 63])
                changed[at:at + 8] = struct.pack(">Q", word)
            if choice.random() < .1:
                changed = changed[:choice.randrange(1, len(changed))]
            self.file("b", bytes(changed))
            for words in (["info", "b", "--format=qcow2"], ["check", "b", "--format=qcow2"]):
                result = self.disk(*words)
                with self.subTest(i=i, words=words):
                    self.assertIn(result.returncode, (0, 2, 6, 7), result.stderr)
                    self.assertNotIn("TRP-disk-006", result.stderr)
                    self.assertNotIn("\x1b", result.stdout + result.stderr)
                    self.assertEqual(contents(path), bytes(changed))
            result = self.disk("resize", "b", "8M", "--format=qcow2")
            self.assertIn(result.returncode, (0, 2), result.stderr)
            self.assertNotIn("TRP-disk-006", result.stderr)

    def testAProcessThatDies(self):
        self.image()
        program = os.path.join(self.bin, "troupe-devices")
        os.remove(program)
        shutil.copy(DYING_ACTOR, program)
        for words in (["info", "a", "--format=qcow2"], ["check", "a", "--format=qcow2"],
                      ["create", "x", "1M", "--format=qcow2"], ["resize", "a", "1G", "--format=qcow2"]):
            with self.subTest(words):
                self.assertError(self.disk(*words), 1, "TRP-disk-006", "exited with status 3",
                                 "my last words")
        self.assertEqual(self.files(), ["a"])

    def testAProcessThatIsNotItselfAnyMore(self):
        program = os.path.join(self.bin, "troupe-devices")
        os.remove(program)
        shutil.copy(RUDE_TOOL, program)
        for wish, code, words in [
                ("g", "TRP-disk-006", "answered what is no report"),
                ("k", "TRP-disk-006", "answered what it was not asked"),
                ("q", "TRP-disk-006", "ended without an answer"),
                ("x", "TRP-disk-006", "exited with status 6"),
                ("f", "TRP-disk-006", "its jail allows no"),
                ("h", "TRP-disk-006", "gave no sign of life for 20 s")]:
            with self.subTest(wish):
                self.file("a", wish.encode() * 1024)
                self.assertError(self.disk("info", "a", "--format=qcow2"), 1, code, words)


if __name__ == "__main__":
    unittest.main()
