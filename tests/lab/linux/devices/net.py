"""The network: a tap with offloads and two pairs of queues, captured, and `--net user` through passt."""

import hashlib
import http.server
import json
import os
import socket
import struct
import subprocess
import threading
import time

from device_part import Part

HOST, GUEST = "10.1.0.1", "10.1.0.2"
MAC = "52:54:00:00:00:01"
BIG = os.urandom(1 << 20)


def sh(*words):
    ended = subprocess.run(words, capture_output=True, text=True)
    if ended.returncode != 0:
        raise AssertionError(f"{' '.join(words)}: {ended.returncode}: {ended.stdout}{ended.stderr}")
    return ended.stdout


def load_module(name):
    file = os.path.join(os.environ["LAB_MODULES"], f"{name}.ko")
    if os.path.exists(file):
        subprocess.run(["/bin/busybox", "insmod", file], capture_output=True)


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(BIG)))
        self.end_headers()
        self.wfile.write(BIG)

    def log_message(self, *_):
        pass


def frames_of(path):
    """The lengths and both addresses of the frames in a capture."""
    with open(path, "rb") as file:
        data = file.read()
    magic, = struct.unpack_from("<I", data)
    assert magic in (0xa1b2c3d4, 0xa1b23c4d), f"no pcap: {magic:#x}"
    assert struct.unpack_from("<I", data, 20)[0] == 1, "not Ethernet"
    frames, at = [], 24
    while at + 16 <= len(data):
        kept, length = struct.unpack_from("<II", data, at + 8)
        frames.append((length, data[at + 16:at + 22].hex(":"), data[at + 22:at + 28].hex(":")))
        at += 16 + kept
    assert at == len(data), "the last frame is not whole"
    return frames


class Net(Part):
    CPUS = 2
    port = 5210

    def options(self):
        load_module("drivers/net/veth")
        sh("ip", "tuntap", "add", "dev", "tap0", "mode", "tap", "user", str(self.user), "vnet_hdr",
           "multi_queue")
        sh("ip", "link", "set", "tap0", "mtu", "9000", "up")
        sh("ip", "addr", "add", f"{HOST}/24", "dev", "tap0")
        # What passt takes for the host's way to the world.
        sh("ip", "link", "add", "world", "type", "veth", "peer", "name", "far")
        sh("ip", "addr", "add", "192.0.2.2/24", "dev", "world")
        sh("ip", "link", "set", "far", "up")
        sh("ip", "link", "set", "world", "up")
        sh("ip", "route", "add", "default", "via", "192.0.2.1", "dev", "world")
        os.chmod("/dev/net/tun", 0o666)
        self.capture = os.path.join(self.folder, "net.pcap")
        return ["--net", f"tap=tap0,mac={MAC},queues=2,pcap={self.capture}",
                "--net", "user,hostfwd=tcp:18080:80"]

    def during(self):
        self.wait("ping")
        pinged = subprocess.run(["ping", "-c", "5", "-i", "0.2", "-W", "5", GUEST],
                                capture_output=True, text=True)
        self.check("the host's ping is answered", pinged.returncode == 0, pinged.stdout)
        print(pinged.stdout.splitlines()[-1])
        self.reply("ok" if pinged.returncode == 0 else "the host had no answer")
        self.announces()
        self.helper_is_as_told()
        self.serve("send", "from the guest")
        self.wait("receive")
        client = subprocess.run(["iperf3", "-c", GUEST, "-p", "5202", "-J", "-t", "2", "-P", "4"],
                                capture_output=True, timeout=90)
        self.reply("ok " + self.told("to the guest", client.stdout)
                   if client.returncode == 0 else "iperf3 failed")
        self.serve("reverse", "to the guest, at its own asking")
        self.wait("user")
        web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        threading.Thread(target=web.serve_forever, daemon=True).start()
        self.reply(f"{web.server_port} {hashlib.md5(BIG).hexdigest()}")
        self.serve("user_send", "through passt")
        self.serve("user_receive", "back through passt")
        self.wait("forward")
        self.reply(self.forwarded())

    def announces(self):
        """A guest that is asked to tells its neighbours where it is: by ARP, of its own address."""
        of_itself = socket.inet_aton(GUEST)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as wire:
            wire.bind(("tap0", 0))
            wire.settimeout(60)
            said = self.run.troupe("net", self.run.name, "net0", "announce")
            self.check("troupe net announce", said.returncode == 0, said.stderr)
            try:
                while True:
                    frame = wire.recv(2048)
                    if frame[28:32] == frame[38:42] == of_itself:
                        break
                yes = frame[6:12].hex(":") == MAC
            except TimeoutError:
                yes = False
        self.check("the guest announces itself when it is asked to", yes)

    def serve(self, step, direction):
        """One iperf3 of the guest's, which connects here."""
        self.wait(step)
        self.port += 1
        server = subprocess.Popen(["iperf3", "-s", "-1", "-J", "-p", str(self.port)],
                                  stdout=subprocess.PIPE)
        time.sleep(1)  # it says nothing when it listens
        self.reply(str(self.port))
        self.told(direction, server.communicate(timeout=90)[0])

    def told(self, direction, text):
        end = json.loads(text).get("end", {})
        rate = max(end.get(side, {}).get("bits_per_second", 0)
                   for side in ("sum_received", "sum_sent"))
        self.check(f"iperf3 {direction} moved data", rate > 0, text[-500:])
        told = f"{rate / 1e6:.0f} Mbit/s {direction}"
        print(told, flush=True)
        return told

    def helper_is_as_told(self):
        """passt is there, is not root's, and sees no file."""
        pid = self.pid("passt1")
        self.check("passt's root is empty", os.listdir(f"/proc/{pid}/root") == [])
        same = os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
        self.check("passt has the host's network", same)
        net = self.pid("net1")
        other = os.readlink(f"/proc/{net}/ns/net") != os.readlink("/proc/self/ns/net")
        self.check("the device itself has none", other)
        self.check("passt is an ordinary user's", os.stat(f"/proc/{pid}").st_uid in (0, self.user))

    def forwarded(self):
        try:
            with socket.create_connection(("127.0.0.1", 18080), timeout=30) as connection:
                connection.sendall(b"hello from the host\n")
                connection.shutdown(socket.SHUT_WR)
                heard = b""
                while piece := connection.recv(4096):
                    heard += piece
        except OSError as error:
            return repr(error)
        return "ok" if heard == b"hello from the guest\n" else f"heard {heard!r}"

    def after(self):
        frames = frames_of(self.capture)
        print(f"{len(frames)} frames captured, the longest {max(f[0] for f in frames)}")
        mode = os.stat(self.capture).st_mode & 0o777
        self.check("the capture is its owner's alone", mode == 0o600, oct(mode))
        for name, place in (("from the guest", 2), ("to the guest", 1)):
            long = [f for f in frames if f[place] == MAC and f[0] > 9100]
            self.check(f"segments {name} passed whole", bool(long), f"{len(frames)} frames")
