"""Ends VMs amid their writes to qcow2 images, and looks at what is left.

A guest (guest/payload, bench=durability) writes numbered blocks, flushes, and says which are flushed.
SIGKILL ends the disk's process or the whole VM at a random moment. Then `qemu-img check` may find leaks
and nothing else, and each sector must hold what was flushed there last, or what was sent there later.
"""

import contextlib
import fcntl
import json
import os
import random
import re
import signal
import struct
import subprocess
import time

import machine

SECTOR = 512
MIB = 1 << 20
STRIDE = 0x9E3779B1
WORD = (1 << 64) - 1
DISK_BYTES = 8 * MIB
PROFILE = "devices/blk/blk.profile"
LIVES = 5  # of one image, each of which begins with what the one before left

# name, options of `qemu-img create`, what else is special
VARIANTS = [
    ("64k", "", ""),
    ("4k", "cluster_size=4k", ""),
    ("512", "cluster_size=512", ""),
    ("version 2", "compat=0.10,cluster_size=4k", ""),
    ("lazy", "lazy_refcounts=on,cluster_size=4k", "lazy"),
    ("backing", "", "backing"),
    ("backing, 4k", "cluster_size=4k", "backing"),
    ("snapshots", "cluster_size=16k", "snapshots"),
]
VICTIMS = ("the VM", "the disk's process")


def sector_of(seed, number, sector):
    """What the guest writes to a sector."""
    total = (((number * 0x9E3779B97F4A7C15 & WORD) ^ sector) + seed) & WORD
    return struct.pack("<4Q", seed, number, sector, total) * (SECTOR // 32)


def wrong_sectors(before, after, written, flushed):
    """The sectors of `after` that hold neither what they must nor what they may.

    `written`: (seed, bytes of a block, places); `flushed`: the number up to which blocks are stable.
    """
    seed, size, places = written
    each = size // SECTOR
    last = {1 + number * STRIDE % places: number
            for number in range(max(1, flushed - places + 1), flushed + 1)}
    wrong = []
    for sector in range(len(after) // SECTOR):
        found = after[sector * SECTOR:(sector + 1) * SECTOR]
        number = last.get(sector // each)
        must = (sector_of(seed, number, sector) if number else
                before[sector * SECTOR:(sector + 1) * SECTOR])
        if found == must:
            continue
        number = struct.unpack_from("<Q", found, 8)[0]
        may = (number > flushed and 1 + number * STRIDE % places == sector // each
               and found == sector_of(seed, number, sector))
        if not may:
            wrong.append(sector)
    return wrong


def processes_below(pid):
    """{pid: command} of the children of a process."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
            if parent == pid:
                with open(f"/proc/{entry}/cmdline") as file:
                    found[int(entry)] = file.read().split("\0")[0]
        except OSError:
            continue
    return found


def is_alive(pid):
    """Whether a process may still do something. One whose parent died can be a zombie for long."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state = file.read().rpartition(")")[2].split()[0]
        return state not in "ZX" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


class Image:
    """A qcow2 image, and what its disk held when it was looked at last."""

    def __init__(self, folder, name, variant, rng):
        self.name, options, self.special = variant
        self.path = os.path.join(folder, name)
        self.words = f"{self.path},format=qcow2"
        self.bytes = bytes(DISK_BYTES)
        create = ["create", "-q", "-f", "qcow2", *(["-o", options] if options else [])]
        if self.special == "backing":
            self.bytes = rng.randbytes(DISK_BYTES)
            base = f"{self.path}.base"
            with open(base, "wb") as file:
                file.write(self.bytes)
            create += ["-F", "raw", "-b", base]
            self.words += f",backing={base}:raw"
        qemu_img(*create, self.path, str(DISK_BYTES))

    def unused(self):
        """Whether nobody has it locked. The kernel may still end requests of a process that has gone."""
        with open(self.path, "r+b") as file:
            everything = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            try:
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, everything)
            except BlockingIOError:
                return False
        return True

    def look(self):
        """The bytes of its disk now."""
        raw = f"{self.path}.raw"
        qemu_img("convert", "-f", "qcow2", "-O", "raw", self.path, raw)
        with open(raw, "rb") as file:
            content = file.read()
        os.unlink(raw)
        return content

    def errors(self):
        """What qemu-img finds that is worse than a leak, and the number of leaks."""
        ended = subprocess.run(["qemu-img", "check", "-f", "qcow2", "--output=json", self.path],
                               capture_output=True, text=True)
        if ended.returncode not in (0, 3):
            return f"qemu-img check ends with {ended.returncode}: {ended.stdout}{ended.stderr}", 0
        return "", json.loads(ended.stdout).get("leaks", 0)


def qemu_img(*words):
    ended = subprocess.run(["qemu-img", *words], capture_output=True, text=True)
    if ended.returncode != 0:
        raise AssertionError(f"qemu-img {' '.join(words)}: {ended.stderr}")


class Killer:
    """Kills again and again. `step()` is one life of an image: None, or what was wrong."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.folder = machine.Folder()
        self.name = self.folder.vm("durability")
        # Files in memory and files on a disk are served in different ways.
        self.places = [os.path.join(place, os.path.basename(self.folder.path))
                       for place in ("/dev/shm", "/var/tmp")]
        for place in self.places:
            os.mkdir(place)
        self.kills = self.flushed = self.leaked = self.later = 0
        self.image = None
        self.lives = 0

    def close(self):
        # A killed VM leaves its name behind, which the next one of that name removes.
        self.folder.run("run", "--name", self.name, "--kernel", self.folder.payload, "--memory",
                        "64M", "--cmdline", "hello")
        for place in self.places:
            subprocess.run(["rm", "-rf", place], check=True)
        self.folder.close()

    def step(self):
        if self.image is None or self.lives == LIVES:
            self.clear()
            self.image = Image(self.rng.choice(self.places), f"image{self.kills}",
                               VARIANTS[self.kills // LIVES % len(VARIANTS)], self.rng)
            self.lives = 0
        image, victim = self.image, VICTIMS[self.kills % 2]
        self.lives += 1
        self.kills += 1
        if image.special == "snapshots":
            qemu_img("snapshot", "-c", f"life{self.lives}", image.path)
        size = self.rng.choice((512, 2048, 4096, 16384, 65536))
        depth = self.rng.randint(1, 32)
        words = f"seed={self.kills} size={size} depth={depth} mode={self.rng.choice(('poll', 'irq'))}"
        try:
            why = self.live_and_die(image, victim, size, words)
        except Exception as error:  # one life's trouble is told, and the next ones go on
            why = repr(error)
        if why is None:
            return None
        self.image = None  # what is left of it stays where it is
        return (f"kill {self.kills} ({victim}), life {self.lives} of {image.path} ({image.name}), "
                f"{words}: {why}")

    def clear(self):
        if self.image is not None:
            for end in ("", ".base"):
                if os.path.exists(self.image.path + end):
                    os.unlink(self.image.path + end)

    def live_and_die(self, image, victim, size, words):
        serial = self.folder.file("guest/serial")
        open(serial, "w").close()
        direct = ",direct" if "/var/tmp" in image.path and self.rng.random() < 0.5 else ""
        profiles = self.unreplaced() if victim == VICTIMS[1] else []
        vm = self.folder.start("run", "--name", self.name, "--kernel", self.folder.payload,
                               "--memory", "64M", "--serial", f"file={serial}", "--cmdline",
                               f"bench=durability scratch count=2000000000 {words}",
                               "--disk", image.words + direct, *profiles)
        said = self.kill(vm, victim, image, serial)
        if "durability: " not in said:
            return f"the guest did not begin to write: {said}"
        flushed = int(([0] + [line.split()[1] for line in said.split("\n")[:-1]
                              if line.startswith("flushed ")])[-1])
        return self.inspect(image, (self.kills, size, int(said.split("durability: ")[1].split()[0])),
                            flushed)

    def unreplaced(self):
        """Options with which a disk's process that dies takes its VM with it."""
        folder = self.folder.file("profiles")
        copy = os.path.join(folder, PROFILE)
        if not os.path.exists(copy):
            os.makedirs(os.path.dirname(copy))
            root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
            with open(os.path.join(root, PROFILE)) as file:
                text, count = re.subn(r"restart \{[^}]*\}", "restart { policy: NEVER }", file.read())
            assert count == 1, PROFILE
            with open(copy, "w") as file:
                file.write(text)
        return ["--profile-dir", folder]

    def kill(self, vm, victim, image, serial):
        """Ends the VM some time after its guest began to write; what the guest said until then."""
        def said():
            with open(serial) as file:
                return file.read()

        until = time.monotonic() + 60
        while "places\n" not in said() and vm.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        actors = processes_below(vm.pid)
        # Often amid the first allocations.
        time.sleep(self.rng.choice((0.003, 0.03, 0.1, 0.4)) * self.rng.random())
        expected = {-signal.SIGKILL if victim == VICTIMS[0] else 19}
        if self.rng.random() < 0.2:  # amid an orderly end, or just after it
            expected.add(18)
            vm.terminate()
            time.sleep(0.01 * self.rng.random())
        if victim == VICTIMS[0]:
            vm.kill()
        else:
            pid, = [pid for pid, name in actors.items() if name == "troupe-blk"]
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            err = vm.communicate(timeout=60)[1].decode(errors="replace")
        except subprocess.TimeoutExpired:
            vm.kill()
            raise AssertionError(f"troupe did not end after {victim} was killed")
        if vm.returncode not in expected:
            raise AssertionError(f"troupe ended with {vm.returncode}, not {expected}: {err}")
        while any(is_alive(pid) for pid in actors) or not image.unused():
            if time.monotonic() > until:
                raise AssertionError(f"somebody still has the image: {actors}")
            time.sleep(0.002)
        return said()

    def inspect(self, image, written, flushed):
        if image.special == "lazy":
            # Its counts may be wrong while its dirty bit is set; to open it mends them.
            code, out, err = self.folder.run("run", "--name", self.name, "--kernel",
                                             self.folder.payload, "--memory", "64M", "--cmdline",
                                             "hello", "--disk", image.words)
            if code != 0:
                return f"it cannot be opened again: {out}{err}"
        errors, leaks = image.errors()
        if errors:
            return errors
        after = image.look()
        wrong = wrong_sectors(image.bytes, after, written, flushed)
        if wrong:
            return f"{len(wrong)} sectors are wrong, flushed were {flushed} blocks: {wrong[:8]}"
        self.flushed += flushed
        self.leaked += leaks > 0
        blocks = (struct.unpack_from("<2Q", after, at) for at in range(0, DISK_BYTES, written[1]))
        self.later += any(seed == written[0] and number > flushed for seed, number in blocks)
        image.bytes = after
        return None

    def summary(self):
        return (f"{self.flushed} blocks were flushed, {self.leaked} times clusters leaked, "
                f"{self.later} times later writes were there too")
