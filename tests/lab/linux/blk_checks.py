"""Works disks of every kind from unmodified Debian Linux, inside the lab, and checks them outside.

usage: blk_checks.py BIN_DIR INITRD ROOT_DISK raw|images    (linux_run.py says what the first are)

The guest's side is guest_blk_init: one boot with all disks of a part. It prints its checks; the exit
status is 0 when none failed.
"""

import hashlib
import json
import os
import re
import subprocess
import sys

from linux_run import Run, check, finish

MIB = 1 << 20
SIZE = 32 * MIB
GROWN = 2 * SIZE


def sh(*words):
    """What a command prints, which must succeed."""
    ended = subprocess.run(words, capture_output=True, text=True)
    if ended.returncode != 0:
        raise AssertionError(f"{' '.join(words)}: {ended.returncode}: {ended.stdout}{ended.stderr}")
    return ended.stdout


def make_ext4(path):
    """An ext4 in blocks of 4096 bytes on a disk with sectors of as many: O_DIRECT needs a real one."""
    for module in ("drivers/block/loop", "fs/mbcache", "fs/jbd2/jbd2", "fs/ext4/ext4"):
        file = os.path.join(os.environ["LAB_MODULES"], f"{module}.ko")
        if os.path.exists(file):
            sh("/bin/busybox", "insmod", file)
    os.mkdir(path)
    sh("truncate", "-s", "192M", f"{path}.disk")
    device = sh("losetup", "--find", "--show", "--sector-size", "4096", f"{path}.disk").strip()
    sh("mkfs.ext4", "-q", "-b", "4096", device)
    sh("mount", device, path)
    return path


def make_filled(path):
    """A file all of whose blocks exist, none like another."""
    piece = os.urandom(MIB)
    with open(path, "wb") as file:
        for i in range(SIZE // MIB):
            file.write(piece[i:] + piece[:i])
    return path


def allocated(path):
    return os.stat(path).st_blocks * 512


def md5_of(path):
    digest = hashlib.md5()
    with open(path, "rb") as file:
        while block := file.read(MIB):
            digest.update(block)
    return digest.hexdigest()


class Kind:
    """One disk of the guest: its file, the words of --disk, and what lsblk -t shall say of it."""

    def __init__(self, name, path, words, sector, grain):
        self.name, self.path, self.words = name, path, words
        self.sector, self.grain = sector, grain
        self.before, self.content = allocated(path), md5_of(path)
        self.image, self.volatile = "format=qcow2" in words, "volatile" in words

    def option(self):
        return f"{self.path},{self.words}"

    def data_in_second_half(self):
        """How many bytes of the disk's second half take up room in its file."""
        if self.image:
            pieces = json.loads(sh("qemu-img", "map", "-f", "qcow2", "--output=json", self.path))
            return sum(piece["length"] for piece in pieces
                       if piece["start"] >= SIZE // 2 and piece["data"])
        with open(self.path, "rb") as file:
            try:
                return SIZE - os.lseek(file.fileno(), SIZE // 2, os.SEEK_DATA)
            except OSError:  # ENXIO: there is none
                return 0

    def as_raw(self):
        """A file that holds what the disk holds, as QEMU reads it."""
        if not self.image:
            return self.path
        raw = f"/tmp/{self.name}.raw"
        sh("qemu-img", "convert", "-f", "qcow2", "-O", "raw", self.path, raw)
        return raw


def check_topology(kind, disk, saw):
    # Alignment, least and best size, physical and logical block, grain and greatest discard.
    topology = f"0 4096 0 4096 {kind.sector} {kind.grain} 1G"
    check(f"{kind.name}: lsblk -t shows the host's blocks", saw(f"topology_{disk}") == topology,
          f"{saw(f'topology_{disk}')}, not {topology}")


def check_unchanged(kind):
    check(f"{kind.name}: its file is what it was",
          md5_of(kind.path) == kind.content and allocated(kind.path) == kind.before)


def check_kind(kind, disk, saw):
    held = kind.data_in_second_half()
    check(f"{kind.name}: the discarded half takes up no room", held == 0, f"{held} bytes are there")
    if kind.name != "overlay":  # which had nothing to give back
        after = allocated(kind.path)
        check(f"{kind.name}: its file has shrunk", after < kind.before - SIZE * 3 // 8,
              f"{kind.before} bytes before, {after} after")
    if kind.image:
        said = subprocess.run(["qemu-img", "check", "-f", "qcow2", kind.path], capture_output=True,
                              text=True)
        check(f"{kind.name}: qemu-img check finds nothing", said.returncode == 0,
              said.stdout + said.stderr)
    raw = kind.as_raw()
    check(f"{kind.name}: QEMU's tools read what the guest read", md5_of(raw) == saw(f"md5_{disk}"),
          f"{md5_of(raw)} for {saw(f'md5_{disk}')}")
    fsck = subprocess.run(["e2fsck", "-fn", raw], capture_output=True, text=True)
    check(f"{kind.name}: e2fsck finds nothing", fsck.returncode == 0, fsck.stdout + fsck.stderr)
    data = subprocess.run(["debugfs", "-R", "cat /data", raw], capture_output=True).stdout
    check(f"{kind.name}: the guest's file is there",
          hashlib.md5(data).hexdigest() == saw(f"file_{disk}"), f"{len(data)} bytes")


def grow(run, name, disk):
    """Makes the disk larger when the guest waits for it."""
    check(f"{name}: the guest waits", run.wait_for(f"WAITING FOR {disk}", seconds=400))
    resized = run.troupe("disk", "resize", name, str(GROWN), "--vm", run.name)
    check(f"{name}: troupe disk resize says so", resized.returncode == 0, resized.stderr)


def check_grown(path, image, disk, saw):
    if image:
        sh("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, "/tmp/grown")
        path = "/tmp/grown"
    with open(path, "rb") as file:
        file.seek(GROWN - MIB)
        end = hashlib.md5(file.read()).hexdigest()
    check("grows: holds what the guest wrote to its new end",
          os.path.getsize(path) == GROWN and end == saw(f"end_{disk}"), end)


def make_raw():
    """Raw files, one with O_DIRECT, and one whose file system is full after 8 MiB; another will grow."""
    make_filled(f"{memory}/raw")
    sh("cp", f"{memory}/raw", f"{ext4}/direct")
    kinds = [
        Kind("raw", f"{memory}/raw", "queues=2", 512, "512B"),
        Kind("direct", f"{ext4}/direct", "direct,queues=2", 4096, "4K"),
    ]
    os.mkdir("/tmp/full")
    sh("mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", "/tmp/full")
    sh("truncate", "-s", str(SIZE), "/tmp/full/disk")
    sh("truncate", "-s", str(SIZE), f"{ext4}/grows")
    return kinds, f"{ext4}/grows,id=grows", "/tmp/full/disk"


def make_images():
    """qcow2: full, above a raw file, and one that forgets what is written; an empty one will grow."""
    base = make_filled(f"{ext4}/base")
    sh("qemu-img", "convert", "-f", "raw", "-O", "qcow2", base, f"{ext4}/image")
    sh("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, "-u", f"{ext4}/overlay",
       str(SIZE))
    sh("cp", f"{ext4}/image", f"{memory}/volatile")
    kinds = [
        Kind("image", f"{ext4}/image", "format=qcow2,queues=2", 512, "64K"),
        Kind("overlay", f"{ext4}/overlay", f"format=qcow2,backing={base}:raw,queues=2", 512, "64K"),
        Kind("volatile", f"{memory}/volatile", "volatile,format=qcow2,queues=2", 512, "4K"),
    ]
    sh("qemu-img", "create", "-q", "-f", "qcow2", f"{ext4}/grows", str(SIZE))
    return kinds, f"{ext4}/grows,format=qcow2,id=grows", None


sh("dmesg", "--console-off")
memory, ext4 = "/tmp/memory", make_ext4("/tmp/ext4")
os.mkdir(memory)
part = sys.argv[4]
kinds, grows, full = {"raw": make_raw, "images": make_images}[part]()

disks = [f"vd{chr(ord('b') + number)}" for number in range(len(kinds) + 2)]
words = f"disks={','.join(disks[:len(kinds)])} grows={disks[len(kinds)]}:{GROWN}"
options = [kind.option() for kind in kinds] + [grows]
if full:
    words += f" full={disks[-1]}"
    options.append(full)
# fio keeps 32 MiB for each of its jobs.
run = Run(part, cpus=2, memory="512M", words=words,
          extra=[word for option in options for word in ("--disk", option)])
grow(run, "grows", disks[len(kinds)])
serial = run.finish(status=0, seconds=480)
for line in re.findall(r"(?:FIO|WORK).*", serial):
    print(line)


def saw(name):
    found = re.findall(rf"SAW {name} (.*)", serial)
    return found[0].strip() if found else ""


for kind, disk in zip(kinds, disks):
    check_topology(kind, disk, saw)
    if kind.volatile:
        check_unchanged(kind)
    else:
        check_kind(kind, disk, saw)
check_grown(f"{ext4}/grows", "qcow2" in grows, disks[len(kinds)], saw)
finish()
