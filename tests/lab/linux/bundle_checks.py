"""Launches a Debian bundle with `troupe serve` and `troupe launch`, inside the lab, and checks what its
guest has: two regions of memory, a device tree, a disk of its own, and that it powers off when asked. Then
with the kernel as an ELF file.

usage: bundle_checks.py BIN_DIR BUNDLE    (BUNDLE is copied: what the guest writes is gone afterwards)

The exit status is 0 when no check failed, 75 when the emulated processor lost the guest.
"""

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

from lost import LOST

bin_dir, source = (os.path.abspath(path) for path in sys.argv[1:3])
failures = 0


def check(name, passed, why=""):
    global failures
    failures += not passed
    print(f"{'ok  ' if passed else 'FAIL'} {name}" + ("" if passed else f": {why}"), flush=True)


def device_tree():
    """The smallest there is: a root node without a property."""
    structure = struct.pack(">4I", 1, 0, 2, 9)  # begin, "", end, end of all
    reserved = bytes(16)
    start = 40 + len(reserved)
    size = start + len(structure)
    return struct.pack(">10I", 0xd00dfeed, size, start, size, 40, 17, 16, 0, 0,
                       len(structure)) + reserved + structure


class Serial:
    """The guest's serial port, where a shell is."""

    def __init__(self, path):
        self.text = ""
        self.line = socket.socket(socket.AF_UNIX)
        self.line.connect(path)

    def until(self, words, seconds=150):
        """Whether `words` came; what came before them is dropped."""
        end = time.monotonic() + seconds
        while words not in self.text:
            self.line.settimeout(max(0.1, end - time.monotonic()))
            try:
                piece = self.line.recv(65536)
            except TimeoutError:
                return False
            if not piece:
                return False
            self.text += piece.decode(errors="replace")
        return True

    def ask(self, command):
        """What the shell's `command` prints."""
        self.text = ""
        # The words are put together by the shell, so that their echo is none of them.
        self.line.sendall(f"echo be''gin; {command}; echo e''nd\n".encode())
        if not self.until("begin") or not self.until("end\r"):
            return "(no answer) " + self.text[-300:]
        return self.text.partition("begin")[2].partition("end\r")[0].strip()


folder = tempfile.mkdtemp(prefix="bundle.")
bundle = os.path.join(folder, "debian")
shutil.copytree(source, bundle)
tree = device_tree()
with open(os.path.join(bundle, "tree.dtb"), "wb") as file:
    file.write(tree)
with open(os.path.join(bundle, "guest.cfg")) as file:
    config = json.load(file)
# One CPU and few words: each more is one more that the emulated processor may lose.
config.update({"dtb-overlay": "/tree.dtb", "memory": ["256M", "40000000,32M"], "cpus": "1",
               "cmdline-add": "quiet panic=-1"})
with open(os.path.join(bundle, "guest.cfg"), "w") as file:
    json.dump(config, file)

troupe = os.path.join(bin_dir, "troupe")
environment = dict(os.environ, XDG_RUNTIME_DIR=os.path.join(folder, "run"))
os.mkdir(environment["XDG_RUNTIME_DIR"], 0o700)
at = os.path.join(folder, "realms")
daemon = subprocess.Popen([troupe, "serve", "--socket", at, "--keep", "lab", "--realm-net", "none"],
                          env=environment, stderr=subprocess.PIPE, text=True)
print(daemon.stderr.readline(), end="", flush=True)


def tell(*words):
    return subprocess.run([troupe, *words], env=environment, capture_output=True, text=True)


launched = tell("launch", bundle, "--realm", "lab", "--json", "--socket", at)
check("the bundle is launched", launched.returncode == 0, launched.stderr)
if launched.returncode == 0:
    name = json.loads(launched.stdout)["name"]
    serial = Serial(f"/run/troupe/{name}.serial")
    up = serial.until("The guest is up.")
    check("its guest comes up", up, serial.text[-2000:])
    if not up:
        daemon.kill()
        sys.exit(LOST if "triple fault" in serial.text or not serial.text else 1)
    serial.until("# ")
    serial.ask("dmesg -n 1")  # no words of the kernel between those of the shell
    memory = serial.ask("grep 'System RAM' /proc/iomem")
    check("a region that was placed is memory", "40000000-41ffffff" in memory, memory)
    kind = serial.ask("cat /sys/kernel/boot_params/setup_data/0/type")
    check("a device tree is setup_data of type 2", kind == "0x2", kind)
    size = serial.ask("wc -c < /sys/kernel/boot_params/setup_data/0/data")
    check("it is there as a whole", size == str(len(tree)), f"{size}, not {len(tree)}")
    disk = serial.ask("cat /sys/block/vda/serial")
    check("its disk is the bundle's", disk == "block-0", disk)
    written = serial.ask("dd if=/dev/urandom of=/data bs=1M count=40 2>/dev/null; sync; "
                         "echo 3 > /proc/sys/vm/drop_caches; wc -c < /data")
    check("it reads what it wrote", written == str(40 << 20), written)
    stopped = tell("stop", name)
    check("it powers off when its button is pressed", stopped.returncode == 0, stopped.stderr)

# The same kernel unpacked.
config["linux"] = "/vmlinux"
with open(os.path.join(bundle, "guest.cfg"), "w") as file:
    json.dump(config, file)
launched = tell("launch", bundle, "--realm", "lab", "--json", "--socket", at)
check("a bundle with a vmlinux is launched", launched.returncode == 0, launched.stderr)
if launched.returncode == 0:
    name = json.loads(launched.stdout)["name"]
    serial = Serial(f"/run/troupe/{name}.serial")
    up = serial.until("The guest is up.")
    check("its guest comes up", up, serial.text[-2000:])
    if not up and ("triple fault" in serial.text or not serial.text):
        daemon.kill()
        sys.exit(LOST)
    stopped = tell("stop", "--force", name)
    check("it is ended", stopped.returncode == 0, stopped.stderr)
daemon.terminate()
daemon.wait()
print(f"{failures} failed", flush=True)
sys.exit(1 if failures else 0)
