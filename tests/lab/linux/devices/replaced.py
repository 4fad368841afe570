"""Devices whose processes are killed every second under a working guest, whose programs notice nothing."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

from device_part import Part

MIB = 1 << 20
SIZE = 32 * MIB
KILLS = 20
DELAY_MS = 100  # of a write to the slow disk, which then lands after the death of the process that asked for it
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__)))))
KILLED = {name: f"devices/{name}/{name}.profile"
          for name in ("balloon", "blk", "console", "net", "rng", "vsock")}
HOST, GUEST = "10.2.0.1", "10.2.0.2"
PIECE = os.urandom(64 << 10)


def sh(*words):
    ended = subprocess.run(words, capture_output=True, text=True)
    if ended.returncode != 0:
        raise AssertionError(f"{' '.join(words)}: {ended.returncode}: {ended.stdout}{ended.stderr}")
    return ended.stdout


class Echoed:
    """Says something to the guest's echo over a socket, again and again, and connects anew when that ends."""

    def __init__(self, path, port):
        self.path, self.port = path, port
        self.answered = self.streams = 0
        self.wrong = ""
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.over.is_set() and not self.wrong:
            try:
                with socket.socket(socket.AF_UNIX) as stream:
                    stream.settimeout(240)
                    stream.connect(self.path)
                    stream.sendall(b"CONNECT %d\n" % self.port)
                    if self.read(stream, 3) == b"OK ":
                        while self.read(stream, 1) not in (b"\n", b""):
                            pass
                        self.streams += 1
                        self.talk(stream)
            except ConnectionError:
                pass  # its end, with the process that carried it
            except TimeoutError:
                self.wrong = "it got no answer for minutes"
            time.sleep(0.02)

    def read(self, stream, size):
        got = b""
        while len(got) < size and (part := stream.recv(size - len(got))):
            got += part
        return got

    def talk(self, stream):
        """Until its end. Not a byte may be another, nor one too many."""
        while not self.over.is_set():
            said = os.urandom(1000)
            stream.sendall(said)
            heard = self.read(stream, len(said))
            if not said.startswith(heard):
                self.wrong = f"{heard[:20]} for {said[:20]}"
            if heard != said:
                return
            self.answered += 1

    def goes_on(self):
        """Whether something is answered that was not said before."""
        before, until = self.answered, time.monotonic() + 240
        while self.answered < before + 2 and not self.wrong and time.monotonic() < until:
            time.sleep(0.1)
        return self.answered >= before + 2


class Replaced(Part):
    CPUS = 2

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
        self.lines, self.sockets = os.path.join(self.folder, "lines"), os.path.join(self.folder, "v")
        return ["--profile-dir", self.make_profiles(), "--net", "tap=tap2",
                "--console", f"socket={self.lines},name=org.example.lines,port",
                "--vsock", f"socket={self.sockets}", "--balloon", "stats",
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
        echoed = Echoed(self.sockets, 7)
        echoed.thread.start()
        for turn in range(KILLS):
            time.sleep(1)
            self.balloon(f"{(496, 480)[turn % 2]}M")
            stream.sendall(PIECE)
            sent.update(PIECE)
            for actor in self.victims():
                try:
                    os.kill(actor["pid"], signal.SIGKILL)
                except ProcessLookupError:
                    continue  # between two processes
                killed[actor["name"]] = killed.get(actor["name"], 0) + 1
        stream.shutdown(socket.SHUT_WR)
        self.check("the balloon holds what it was told last", self.balloon_holds(32))
        self.balloon("512M")
        self.check("and gives it back", self.balloon_holds(0))
        self.check("vsock: streams go on after the last death", echoed.goes_on(), echoed.wrong)
        echoed.over.set()
        echoed.thread.join(timeout=240)
        self.check("vsock: what came back is what was said", not echoed.wrong, echoed.wrong)
        self.check("vsock: streams ended, and others began", echoed.streams > KILLS // 2, echoed.streams)
        self.reply(sent.hexdigest())
        told = self.wait("rounds")
        print(f"killed: {killed}; {told}; {echoed.streams} streams, {echoed.answered} answers")
        count = int(self.wait("lines"))
        wanted = "".join(f"{number}\n" for number in range(1, count + 1)).encode()
        heard = self.listen_to(len(wanted))
        self.check(f"console: {count} lines, each once", count > KILLS and heard == wanted,
                   f"{len(heard)} bytes for {len(wanted)}, at their end {heard[-40:]}")
        self.reply()
        replaced = {actor["name"]: actor["restarts"] for actor in self.victims()}
        self.check("each was killed, and replaced as often", replaced == killed and
                   min(killed.values()) >= KILLS // 2, f"{replaced} for {killed}")

    def balloon(self, *words):
        """`troupe balloon`, once there is a process that answers."""
        until = time.monotonic() + 120
        while True:
            said = self.run.troupe("balloon", self.run.name, *words, "--json")
            if said.returncode == 0:
                return json.loads(said.stdout)
            # One that is being replaced, or has not answered when it was.
            if "TRP-bal-003" not in said.stderr and "is being replaced" not in said.stderr or \
                    time.monotonic() > until:
                raise AssertionError(f"troupe balloon {words}: {said.stderr}")
            time.sleep(0.1)

    def balloon_holds(self, mib):
        until = time.monotonic() + 240
        while (held := int(self.balloon()["actualBytes"])) != mib * MIB and time.monotonic() < until:
            time.sleep(0.5)
        return held == mib * MIB

    def listen_to(self, size):
        """What a late reader of the guest's lines gets, up to so many bytes."""
        with socket.socket(socket.AF_UNIX) as reader:
            reader.settimeout(60)
            reader.connect(self.lines)
            heard = b""
            try:
                while len(heard) < size and (part := reader.recv(65536)):
                    heard += part
                reader.settimeout(1)
                heard += reader.recv(65536)  # nothing more
            except TimeoutError:
                pass
            return heard

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
