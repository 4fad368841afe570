"""How one and the same payload guest is started on us and on QEMU 7.2."""

import collections
import os
import shutil
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAYLOAD = os.path.join(ROOT, "bazel-bin/guest/payload/payload.elf")
MEMORY_MIB = 128
MAC = "52:54:00:00:00:02"

# A disk of the guest: `format` is raw or qcow2, `direct` past the page cache.
Disk = collections.namedtuple("Disk", "path format direct queues", defaults=("raw", False, 1))


class Machine:
    """A way to start the payload: `name`, and command() for one set of disks and words."""

    def __init__(self, name):
        self.name = name
        self.folder = tempfile.mkdtemp(prefix="troupe-bench.", dir="/tmp")

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, words, disks=(), devices=True, tap=None, balloon=False, more=()):
        """Starts the guest with each Disk, a card on the fd `tap`, a balloon.

        Its serial output is its stdout.
        """
        command = self.command(words, disks, devices) + (self.card(tap) if tap else [])
        command += (self.balloon if balloon else []) + list(more)
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=[tap] if tap else [],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self.environment(), bufsize=0)

    def environment(self):
        return os.environ


class Troupe(Machine):
    """Ours, jail on, release build."""

    def __init__(self):
        super().__init__("troupe")
        self.executable = os.path.join(ROOT, "bazel-bin/bin/troupe")

    def environment(self):
        return dict(os.environ, XDG_RUNTIME_DIR=self.folder)

    def command(self, words, disks, devices):
        command = [self.executable, "run", "--kernel", PAYLOAD, "--cmdline", words,
                   "--memory", f"{MEMORY_MIB}M", "--serial", "stdio",
                   "--rng", "on" if devices else "off"]
        if devices:
            command += ["--console", f"file={self.folder}/console"]
        for disk in disks:
            command += ["--disk", f"{disk.path},format={disk.format},queues={disk.queues}"
                        + (",direct" if disk.direct else "")]
        return command

    @staticmethod
    def card(tap):
        return ["--net", f"fd={tap},mac={MAC}"]

    balloon = ["--balloon"]
    balloon_words = ""

    def everything(self):
        """The options for all devices that start() does not add."""
        return ["--net", "user", "--vsock", f"socket={self.folder}/vsock", "--balloon"]

    vcpu_thread = "vp-0"
    disk_threads = "blk-q"
    net_threads = "net-q"

    @staticmethod
    def disk_thread_count(disk):
        return disk.queues


class Qemu(Machine):
    """QEMU 7.2 on the same /dev/kvm: `board` is microvm or q35, `io` how it runs its block I/O."""

    IO = {
        "iothread": dict(iothread="poll-max-ns=32768", aio="io_uring"),
        "iothread-threads": dict(iothread="poll-max-ns=32768", aio="threads"),
        "iothread-sleeping": dict(iothread="poll-max-ns=0", aio="io_uring"),
        "main-loop": dict(iothread=None, aio="io_uring"),
    }

    def __init__(self, board="microvm", io="iothread"):
        super().__init__(f"qemu-{board}/{io}")
        self.board, self.io = board, self.IO[io]
        self.disk_threads = "IO iothread0" if self.io["iothread"] else "qemu-system-x86"

    @staticmethod
    def card(tap):
        return ["-netdev", f"tap,id=net,fd={tap},vhost=off",
                "-device", f"virtio-net-pci,netdev=net,disable-legacy=on,mac={MAC},romfile="]

    balloon = ["-device", "virtio-balloon-pci,disable-legacy=on"]
    balloon_words = " intx"  # it has no MSI-X

    vcpu_thread = "CPU 0/KVM"
    net_threads = "qemu-system-x86"

    @staticmethod
    def disk_thread_count(_disk):
        return 1

    def command(self, words, disks, devices):
        command = ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host,-arch-capabilities",
                   "-m", f"{MEMORY_MIB}M", "-smp", "1", "-nodefaults", "-no-user-config",
                   "-display", "none", "-no-reboot", "-name", "bench,debug-threads=on",
                   "-object", f"memory-backend-memfd,id=ram,size={MEMORY_MIB}M,share=on",
                   "-serial", "stdio", "-kernel", PAYLOAD, "-append", words]
        if self.board == "microvm":
            command += ["-M", "microvm,x-option-roms=off,pit=off,pic=off,isa-serial=on,rtc=off,"
                        "pcie=on,acpi=on,memory-backend=ram", "-bios", "/usr/share/qemu/qboot.rom"]
        else:
            command += ["-M", "q35,memory-backend=ram", "-vga", "none"]
        if self.io["iothread"]:
            command += ["-object", f"iothread,id=iothread0,{self.io['iothread']}"]
        for index, disk in enumerate(disks):
            cache = "cache.direct=on" if disk.direct else "cache.direct=off"
            command += ["-drive", f"if=none,id=d{index},file={disk.path},format={disk.format},"
                        f"{cache},aio={self.io['aio']}",
                        "-device", f"virtio-blk-pci,drive=d{index},disable-legacy=on,"
                        f"num-queues={disk.queues}"
                        + (",iothread=iothread0" if self.io["iothread"] else "")]
        if devices:
            command += ["-device", "virtio-rng-pci,disable-legacy=on",
                        "-device", "virtio-serial-pci,disable-legacy=on",
                        "-chardev", f"file,id=con,path={self.folder}/console",
                        "-device", "virtconsole,chardev=con"]
        return command
