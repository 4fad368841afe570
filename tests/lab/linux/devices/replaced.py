"""Devices whose processes are killed every second under a working guest, whose programs notice nothing."""

import hashlib
import os
import re
import signal
import socket
import subprocess
import time

from device_part import Part

MIB = 1 << 20
SIZE = 32 * MIB
KILLS = 20
DELAY_MS = 100  # of a write to the slow disk, which then lands after the death of the process that asked for it
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__)))))
KILLED = {"blk": "devices/blk/blk.profile", "net": "devices/net/net.profile",
          "rng": "devices/rng/rng.profile"}
HOST, GUEST = "10.2.0.1", "10.2.0.2"
PIECE = os.urandom(64 << 10)


def sh(*words):
    ended = subprocess.run(words, capture_output=True, text=True)
    if ended.returncode != 0:
        raise AssertionError(f"{' '.join(words)}: {ended.returncode}: {ended.stdout}{ended.stderr}")
    return ended.stdout


class Replaced(Part):
    def options(self):
        plain, image, volatile = (os.path.join(self.folder, name)
                                  for name in ("plain", "image", "volatile"))
        sh("truncate", "-s", str(SIZE), plain)
        for path in (image, volatile):
            sh("qemu-img", "create", "-q", "-f", "qcow2", path, str(SIZE))
        for path in (plain, image, volatile):
            os.chown(path, self.user, self.user)
        self.files = {"plain": plain, "slow": self.make_slow(), "image": image}
        with open(volatile, "rb") as file:
            self.volatile, self.untouched = volatile, file.read()
        sh("ip", "tuntap", "add", "dev", "tap2", "mode", "tap", "user", str(self.user), "vnet_hdr")
        sh("ip", "link", "set", "tap2", "up")
        sh("ip", "addr", "add", f"{HOST}/24", "dev", "tap2")
        os.chmod("/dev/net/tun", 0o666)
        return ["--profile-dir", self.make_profiles(), "--net", "tap=tap2",
                "--disk", f"{plain},queues=2,serial=plain",
                "--disk", f"{self.files['slow']},direct,queues=2,serial=slow",
                "--disk", f"{image},format=qcow2,queues=2,serial=image",
                "--disk", f"{volatile},volatile,format=qcow2,queues=2,serial=volatile"]

    def make_slow(self):
        for module in ("drivers/block/loop", "drivers/md/dm-mod", "drivers/md/dm-delay"):
            file = os.path.join(os.environ["LAB_MODULES"], f"{module}.ko")
            if os.path.exists(file):
                subprocess.run(["/bin/busybox", "insmod", file], capture_output=True)
        sh("truncate", "-s", str(SIZE), "/run/behind")
        behind = sh("losetup", "--find", "--show", "/run/behind").strip()
        os.environ["DM_DISABLE_UDEV"] = "1"  # it makes its nodes itself
        sh("dmsetup", "create", "slow", "--table",
           f"0 {SIZE // 512} delay {behind} 0 0 {behind} 0 {DELAY_MS}")
        os.chmod("/dev/mapper/slow", 0o666)
        return "/dev/mapper/slow"

    def make_profiles(self):
        """Those of the devices, which may be replaced as often as they are killed here."""
        folder = os.path.join(self.folder, "profiles")
        for path in KILLED.values():
            copy = os.path.join(folder, path)
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            with open(os.path.join(SOURCE, path), encoding="utf-8") as file:
                text, count = re.subn(r"restart \{[^}]*\}",
                                      "restart { policy: ALWAYS restarts: 1000 seconds: 1 }", file.read())
            assert count == 1, path
            with open(copy, "w", encoding="utf-8") as file:
                file.write(text)
        return folder

    def victims(self):
        return [actor for actor in self.run.status()["actors"]
                if re.sub(r"\d+$", "", actor["name"]) in KILLED]

    def during(self):
        self.wait("working")
        killed, sent = {}, hashlib.md5()
        stream = self.connect()
        for _ in range(KILLS):
            time.sleep(1)
            stream.sendall(PIECE)
            sent.update(PIECE)
            for actor in self.victims():
                try:
                    os.kill(actor["pid"], signal.SIGKILL)
                except ProcessLookupError:
                    continue  # between two processes
                killed[actor["name"]] = killed.get(actor["name"], 0) + 1
        stream.shutdown(socket.SHUT_WR)
        self.reply(sent.hexdigest())
        told = self.wait("rounds")
        print(f"killed: {killed}; {told}")
        replaced = {actor["name"]: actor["restarts"] for actor in self.victims()}
        self.check("each was killed, and replaced as often", replaced == killed and
                   min(killed.values()) >= KILLS // 2, f"{replaced} for {killed}")

    def connect(self):
        until = time.monotonic() + 60
        while True:
            try:
                return socket.create_connection((GUEST, 7000), timeout=120)
            except ConnectionRefusedError:  # it does not listen yet
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def after(self):
        said = subprocess.run(["qemu-img", "check", "-f", "qcow2", self.files["image"]],
                              capture_output=True, text=True)
        # 3: clusters leaked, of a process that died between taking one and using it.
        self.check("qemu-img check finds nothing worse than leaks", said.returncode in (0, 3),
                   said.stdout + said.stderr)
        raw = os.path.join(self.folder, "raw")
        sh("qemu-img", "convert", "-f", "qcow2", "-O", "raw", self.files["image"], raw)
        for name, path in {**self.files, "image": raw}.items():
            fsck = subprocess.run(["e2fsck", "-fn", path], capture_output=True, text=True)
            self.check(f"{name}: e2fsck finds nothing", fsck.returncode == 0, fsck.stdout + fsck.stderr)
            data = subprocess.run(["debugfs", "-R", "cat /data", path], capture_output=True).stdout
            self.check(f"{name}: the guest's file is there",
                       hashlib.md5(data).hexdigest() == self.saw(f"file_{name}"), f"{len(data)} bytes")
        with open(self.volatile, "rb") as file:
            self.check("volatile: its file is what it was", file.read() == self.untouched)
