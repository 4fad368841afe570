#!/usr/bin/env -S python3 -B
"""In level 1: memory of the host's that the build machine may not have. Huge pages, the memory of a
PCI device (a piece of memory that QEMU shows as one, ivshmem), /dev/mem, a DAX device, files of
overlayfs; and a file that becomes shorter under a guest of an unmodified KVM. One guest is Linux. A UIO device is not
tried: QEMU has none whose driver shows memory (that of uio_pci_generic shows none).

usage: host_memory_checks.py FOLDER-OF-PROGRAMS PAYLOAD"""

import contextlib
import glob
import mmap
import os
import shutil
import struct
import subprocess
import sys
import unittest
import uuid

from lost import SHUTDOWN, give_up

PROGRAMS, PAYLOAD = sys.argv[1:3]
LINUX_INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
echo "MAP $($b grep -i -- '-1000fffff : Reserved' /proc/iomem)"
echo "READ $($b devmem 0x100000000 32)"
$b devmem 0x100000040 32 0x600dcafe
$b poweroff -f
"""
AT = "0x100000000"
MIB = 1 << 20
HOSTS_WORDS = b"from the host"
GUESTS_WORDS = b"written by the guest\0"


def command(*values, words=""):
    options = [word for value in values for word in ("--host-memory", value)]
    return [os.path.join(PROGRAMS, "troupe"), "run", "--kernel", PAYLOAD, "--memory", "64M",
            "--rng", "off", "--on-reboot", "exit", "--cmdline", f"window={AT[2:]} {words}", *options]


def run(*values):
    found = subprocess.run(command(*values), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, timeout=120)
    out, err = found.stdout.decode(), found.stderr.decode()
    if SHUTDOWN.search(err):
        give_up(out + err, "the payload")
    return found.returncode, out, err


def ivshmem():
    """The folder in /sys of QEMU's device that is nothing but memory."""
    for path in glob.glob("/sys/bus/pci/devices/*"):
        with open(path + "/vendor") as vendor, open(path + "/device") as device:
            if (vendor.read().strip(), device.read().strip()) == ("0x1af4", "0x1110"):
                return path
    raise AssertionError("QEMU has no ivshmem device")


def dax():
    """A DAX device: of the memory that `memmap=...!...` of payload_checks.sh set aside."""
    for module in "nvdimm/libnvdimm", "nvdimm/nd_e820", "dax/device_dax", "dax/dax_pmem":
        subprocess.check_call(["/bin/busybox", "insmod",
                               os.path.join(os.environ["LAB_MODULES"], f"drivers/{module}.ko")])
    bus = "/sys/bus/nd"
    region, = glob.glob(f"{bus}/devices/region*")
    namespace, = glob.glob(f"{bus}/devices/namespace*")
    with open(f"{region}/dax_seed") as file:
        seed = file.read().strip()
    for path, words in ((f"devices/{seed}/mode", "ram"), (f"devices/{seed}/align", str(2 * MIB)),
                        (f"devices/{seed}/uuid", str(uuid.uuid4())),
                        (f"devices/{seed}/namespace", os.path.basename(namespace)),
                        ("drivers/dax_pmem/bind", seed)):
        with open(f"{bus}/{path}", "w") as file:
            file.write(words)
    found, = glob.glob("/dev/dax*")
    return found


@contextlib.contextmanager
def mapped(path, size, offset=0):
    with open(path, "r+b", buffering=0) as file:
        with mmap.mmap(file.fileno(), size, offset=offset) as memory:
            yield memory


class HostMemory(unittest.TestCase):

    def meet(self, value, memory):
        """Guest and host find what the other has written."""
        memory[:len(HOSTS_WORDS) + 1] = HOSTS_WORDS + b"\0"
        memory[32:36] = bytes(4)
        memory[64:96] = bytes(32)
        code, out, err = run(value)
        self.assertEqual(code, 0, out + err)
        self.assertIn('"from the host", time 1', out)
        self.assertEqual(struct.unpack("<I", memory[32:36]), (1,))
        self.assertEqual(memory[64:64 + len(GUESTS_WORDS)], GUESTS_WORDS)

    def refused(self, code, value):
        status, out, err = run(value)
        self.assertIn(f"{code}: ", err, out)
        self.assertIn(status, (2, 3))
        print("refused:", err.strip().splitlines()[0], flush=True)

    def test_huge_pages(self):
        with open("/proc/sys/vm/nr_hugepages", "w") as pool:
            pool.write("4")
        os.makedirs("/run/huge", exist_ok=True)
        subprocess.check_call(["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "huge", "/run/huge"])
        path = "/run/huge/window"
        with open(path, "wb") as file:
            file.truncate(4 * MIB)
        with mapped(path, 4 * MIB) as memory:
            self.meet(f"{path},at={AT}", memory)
        self.refused("TRP-rlm-061", f"{path},at={AT},offset=4096,size=2M")
        self.refused("TRP-rlm-061", f"{path},at={AT},size=4096")
        # More than there are: said at the start, and no surprise for the guest.
        with open("/run/huge/large", "wb") as file:
            file.truncate(64 * MIB)
        self.refused("TRP-host-103", f"/run/huge/large,at={AT}")

    def test_the_memory_of_a_device(self):
        folder = ivshmem()
        with open(folder + "/enable", "w") as enable:
            enable.write("1")
        path = folder + "/resource2"
        size = os.stat(path).st_size
        self.assertEqual(size, MIB)
        with mapped(path, size) as memory:
            self.meet(f"{path},at={AT},device", memory)
            self.refused("TRP-rlm-061", f"{path},at={AT}")
            with open(folder + "/resource") as table:
                physical = int(table.read().splitlines()[2].split()[0], 16)
            self.assertEqual(physical % 4096, 0)
            self.meet(f"/dev/mem,at={AT},offset=0x{physical:x},size=64K,device", memory)

    def test_a_dax_device(self):
        """A part of the machine's memory that its kernel was told to leave alone, as a DAX device."""
        path = dax()
        with open(f"/sys/bus/dax/devices/{os.path.basename(path)}/size") as file:
            size = int(file.read())
        with mapped(path, size) as memory:
            self.meet(f"{path},at={AT}", memory)
            self.meet(f"{path},at={AT},offset=4M,size=2M", memory=memoryview(memory)[4 * MIB:])
        self.refused("TRP-rlm-061", f"{path},at={AT},device")
        self.refused("TRP-rlm-061", f"{path},at={AT},size=1M")

    def test_a_file_of_overlayfs(self):
        path = "/var/tmp/troupe-overlaid"
        with open(path, "wb") as file:
            file.truncate(8192)
        self.refused("TRP-rlm-061", f"{path},at={AT}")

    def test_linux(self):
        """An unmodified kernel leaves it alone, and a program there reaches it."""
        root = "/run/root"
        for folder in "bin", "proc", "dev":
            os.makedirs(f"{root}/{folder}")
        shutil.copy("/bin/busybox", f"{root}/bin/busybox")
        with open(f"{root}/init", "w") as file:
            file.write(LINUX_INIT)
        os.chmod(f"{root}/init", 0o755)
        subprocess.check_call("cd /run/root && find . | cpio -o -H newc --quiet > /run/initrd",
                              shell=True)
        path = "/dev/shm/linux"
        with open(path, "wb") as file:
            file.write(HOSTS_WORDS)
            file.truncate(MIB)
        words = [os.path.join(PROGRAMS, "troupe"), "run", "--kernel", os.environ["LAB_KERNEL"],
                 "--initrd", "/run/initrd", "--memory", "256M", "--on-reboot", "exit",
                 "--cmdline", "+quiet panic=-1", "--host-memory", f"{path},at={AT}"]
        try:
            found = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, timeout=120)
        except subprocess.TimeoutExpired:
            give_up("", "Linux: it has not ended within 120 s")
        said = found.stdout.decode(errors="replace")
        if SHUTDOWN.search(said):
            give_up(said, "Linux")
        self.assertEqual(found.returncode, 0, said)
        self.assertRegex(said, r"MAP *[0-9a-f]+-1000fffff : Reserved")
        self.assertIn("READ 0x6D6F7266", said)
        with open(path, "rb") as file:
            self.assertEqual(file.read(13), HOSTS_WORDS)
            file.seek(64)
            self.assertEqual(struct.unpack("<I", file.read(4)), (0x600dcafe,))

    def test_a_file_that_becomes_shorter(self):
        path = "/dev/shm/window"
        with open(path, "wb") as file:
            file.truncate(8192)
        guest = subprocess.Popen(command(f"{path},at={AT}", words="keys=echo"),
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE)
        self.addCleanup(guest.kill)
        said = b""
        while b"keys are echoed" not in said:
            piece = os.read(guest.stdout.fileno(), 4096)
            self.assertNotEqual(piece, b"", said)
            said += piece
        os.truncate(path, 0)
        _, err = guest.communicate(b"q", timeout=120)
        self.assertEqual(guest.returncode, 20, err)
        self.assertIn(b"TRP-run-026: ", err)
        print(err.decode().strip(), flush=True)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
