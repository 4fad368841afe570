#!/usr/bin/env -S python3 -B
"""VMs with a network: a tap and passt, as root and as an ordinary user; whatever can be wrong with them."""

import errno
import json
import os
import re
import signal
import socket
import struct
import subprocess
import time
import unittest

import machine

MAC = "52:54:00:0a:0b:0c"

# A network of its own with taps in it, for one command: those of the machine are left alone. USER MODE FOLDER
# COMMAND...: of MODE is the /dev/net/tun it sees.
OWN_NETWORK = """
set -e
mount -t sysfs sysfs /sys
mknod -m "$2" "$3/tun" c 10 200
mount --bind "$3/tun" /dev/net/tun
rm "$3/tun"
ip tuntap add dev theirs mode tap user 4321
ip tuntap add dev ours mode tap user "$1"
ip tuntap add dev tunnel mode tun
ip link set ours up
shift 3
exec "$@"
"""

# Runs a command whose fd 9 is a tap, attached to `ours` with these flags. FLAGS COMMAND...
WITH_A_TAP = """
import fcntl, os, struct, sys
tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tun, 0x400454ca, struct.pack("16sH22x", b"ours", int(sys.argv[1], 16)))
os.dup2(tun, 9)
os.execvp(sys.argv[2], sys.argv[2:])
"""
TAP_WITHOUT_HEADER, TAP = 0x1002, 0x5002  # IFF_TAP, IFF_NO_PI and, of the second one, IFF_VNET_HDR

# A /usr/bin without passt, for one command: of links to what the real one has. FOLDER COMMAND...
NO_PASST = """
set -e
mkdir "$1/real" "$1/shown"
mount --bind /usr/bin "$1/real"
mount -t tmpfs -o mode=755 none "$1/shown"
ln -s "$1"/real/* "$1/shown"
rm "$1"/shown/passt*
mount --bind "$1/shown" /usr/bin
shift
exec "$@"
"""


class NetTest(unittest.TestCase):
    user = None

    def setUp(self):
        self.folder = machine.Folder(self.user)
        self.name = self.folder.vm("net")
        self.addCleanup(self.folder.close)

    def words(self, *words, cmdline="idle"):
        return ["run", "--name", self.name, "--kernel", self.folder.payload, "--memory", "64M",
                "--rng", "off", "--cmdline", cmdline, *words]

    def started(self, *words):
        process = self.folder.start(*self.words(*words))
        self.addCleanup(self.ended, process)
        return process, self.folder.status(self.name)

    def ended(self, process):
        if process.poll() is None:
            self.folder.run("stop", "--force", self.name)
        process.communicate(timeout=20)

    def pid(self, status, name):
        return next(actor["pid"] for actor in status["actors"] if actor["name"] == name)


class UserNetwork(NetTest):
    def testTheGuestFindsItsCard(self):
        code, out, err = self.folder.run(
            *self.words("--net", f"user,mac={MAC}", cmdline="end=verdict"))
        self.assertEqual(code, 0, out + err)
        self.assertIn("ok    net0      send ", out)

    def testPasstAloneHasTheHostsNetwork(self):
        _, status = self.started("--net", "user")
        own = os.readlink("/proc/self/ns/net")
        reached = [actor["name"] for actor in status["actors"] if actor["name"] != "front"
                   and os.readlink(f"/proc/{actor['pid']}/ns/net") == own]
        self.assertEqual(reached, ["passt0"])

    def testEveryJailIsAsItsProfileSays(self):
        self.started("--net", "user")
        code, out, err = self.folder.run("inspect", self.name, "jail")
        self.assertEqual(code, 0, out + err)
        self.assertRegex(out, r"passt0, pid \d+, vmm/passt/passt.profile")
        self.assertRegex(out, r"net namespace +\d+, the host's")

    def testADeadHelperIsReplacedTogetherWithItsDevice(self):
        self.deathOf("passt0")

    def testADeadDeviceIsReplacedTogetherWithItsHelper(self):
        self.deathOf("net0")

    def deathOf(self, who):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process, status = self.started("--net", f"user,hostfwd=tcp:127.0.0.1:{port}:80")
        before = {name: self.pid(status, name) for name in ("net0", "passt0")}
        os.kill(before[who], signal.SIGKILL)
        until = time.monotonic() + 60
        while True:
            status = self.folder.status(self.name)
            after = {actor["name"]: actor for actor in status["actors"]}
            if all(name in after and after[name]["pid"] != pid for name, pid in before.items()):
                break
            self.assertIsNone(process.poll(), "the VM ended")
            self.assertLess(time.monotonic(), until, status)
            time.sleep(0.05)
        self.assertEqual(after["net0"]["restarts"], 1)
        # The new one listens, too, as soon as it is there.
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=10).close()
                break
            except ConnectionRefusedError:
                self.assertLess(time.monotonic(), until)
                time.sleep(0.05)
        # passt closes its own sandbox as it likes.
        for look in (("inspect", self.name, "jail"), ("graph", self.name)):
            while True:
                code, out, err = self.folder.run(*look)
                if code == 0:
                    break
                if process.poll() is not None:
                    self.fail(process.communicate()[1].decode())
                self.assertLess(time.monotonic(), until, out + err)
                time.sleep(0.1)

    def testATakenPortIsAnErrorBeforeTheGuestRuns(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            code, out, err = self.folder.run(
                *self.words("--net", f"user,hostfwd=tcp:127.0.0.1:{port}:80"))
        self.assertEqual(code, 2, out + err)
        self.assertRegex(err, fr"TRP-net-013: .*TCP port {port} of this machine .*EADDRINUSE")

    def testAForwardedPortIsOpen(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.started("--net", f"user,hostfwd=tcp:127.0.0.1:{port}:80")
        # The guest has no answer, but somebody listens.
        socket.create_connection(("127.0.0.1", port), timeout=10).close()

    def testAForwardedPortOfUdpIsTaken(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.started("--net", f"user,hostfwd=udp:127.0.0.1:{port}:53")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            with self.assertRaises(OSError) as refused:
                other.bind(("127.0.0.1", port))
        self.assertEqual(refused.exception.errno, errno.EADDRINUSE)

    def testNothingIsLeftBehind(self):
        process, status = self.started("--net", "user")
        helper = self.pid(status, "passt0")
        self.folder.run("stop", "--force", self.name)
        process.communicate(timeout=20)
        self.assertFalse(os.path.exists(f"/proc/{helper}"))
        self.assertEqual(self.folder.left_over(), [])

    def testFramesAreCaptured(self):
        path = os.path.join(self.folder.file("guest"), "net.pcap")
        code, out, err = self.folder.run(
            *self.words("--net", f"user,mac={MAC},pcap={path}", cmdline="end=verdict"))
        self.assertEqual(code, 0, out + err)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        with open(path, "rb") as file:
            data = file.read()
        self.assertEqual(struct.unpack_from("<I", data, 20)[0], 1, "Ethernet")
        sources = re.findall(bytes.fromhex(MAC.replace(":", "")) + b"\x88\xb5", data)
        self.assertEqual(len(sources), 1, "the payload's one frame")

    def testTheConfigurationIsReadBack(self):
        code, printed, err = self.folder.run(
            *self.words("--net", "user,hostfwd=tcp:8080:80", "--net", "tap=t,queues=2"),
            "--print-config")
        self.assertEqual(code, 0, err)
        nets = json.loads(printed)["net"]
        self.assertEqual(nets[0]["hostfwd"], ["tcp:8080:80"])
        self.assertEqual(nets[1]["queues"], 2)
        self.assertRegex(nets[1]["mac"], "^..(:..){5}$")
        path = self.folder.file("vm.json")
        with open(path, "w") as file:
            file.write(printed)
        code, again, err = self.folder.run("run", path, "--print-config")
        self.assertEqual((code, again), (0, printed), err)


class Cable(NetTest):
    """`troupe net`, with this test at the other end of the cable."""

    def setUp(self):
        super().setUp()
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(self.ours.close)
        self.ours.setblocking(False)
        words = self.words("--net", f"fd={theirs.fileno()}",
                           cmdline="bench=net op=send frame=60 depth=16 count=100000 rounds=100000 mode=irq")
        self.process = self.folder.start(*words, pass_fds=[theirs.fileno()])
        theirs.close()
        self.addCleanup(self.ended, self.process)
        self.until_frames()

    def frames(self):
        """How many have come since this was last asked, a thousand at most."""
        for count in range(1000):
            try:
                self.ours.recv(2048)
            except BlockingIOError:
                return count
        return 1000

    def until_frames(self):
        until = time.monotonic() + 60
        while not self.frames():
            self.assertIsNone(self.process.poll(), "the VM ended")
            self.assertLess(time.monotonic(), until, "no frame of the guest's comes")
            time.sleep(0.01)

    def net(self, *words):
        code, out, err = self.folder.run("net", self.name, *words)
        self.assertEqual(code, 0, out + err)
        return out

    def assertUnplugged(self):
        """What was on its way may still come, a ring and a socket full; the guest would send thousands."""
        came = 0
        for _ in range(50):
            time.sleep(0.02)
            came += self.frames()
        self.assertLess(came, 1000)

    def testAnUnpluggedCableCarriesNothing(self):
        self.assertEqual(self.net("link", "down"), f"{self.name}: net0's link is down\n")
        self.assertUnplugged()
        self.assertEqual(self.net("net0", "link", "up"), f"{self.name}: net0's link is up\n")
        self.until_frames()

    def testItStaysUnpluggedWhenItsDeviceIsReplaced(self):
        self.net("link", "down")
        before = self.pid(self.folder.status(self.name), "net0")
        os.kill(before, signal.SIGKILL)
        until = time.monotonic() + 60
        while True:
            actor, = (a for a in self.folder.status(self.name)["actors"] if a["name"] == "net0")
            if actor["restarts"] == 1 and actor["jail"] != "starting":
                break
            self.assertLess(time.monotonic(), until)
            time.sleep(0.02)
        self.assertUnplugged()
        self.net("link", "up")
        self.until_frames()

    def testItsGuestIsAskedToAnnounceItself(self):
        self.assertEqual(self.net("announce"), f"{self.name}: net0 is asked to announce itself\n")
        self.until_frames()

    def testWhatCannotBeDoneIsRefused(self):
        for words, code in ((["link"], "TRP-net-010"), (["link", "left"], "TRP-net-010"), ([], "TRP-net-010"),
                            (["announce", "it"], "TRP-net-010"), (["net1", "announce"], "TRP-net-011")):
            got, out, err = self.folder.run("net", self.name, *words)
            self.assertEqual(got, 2, out + err)
            self.assertRegex(err, f"^troupe: {code}: ")
        self.assertIn("its devices are net0", err)


class UserNetworkAsUser(UserNetwork):
    user = machine.ORDINARY_USER


class NoPasst(NetTest):
    """A machine on which nobody has installed it."""

    def run_without(self, *words):
        mapped = [] if os.geteuid() == 0 else ["--map-root-user"]
        command = ["unshare", *mapped, "--mount", "sh", "-c", NO_PASST, "sh", self.folder.path,
                   *self.folder.command(*words)]
        done = subprocess.run(command, env=self.folder.environment(), stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=60, text=True, errors="replace")
        return done.returncode, done.stdout, done.stderr

    def testAUserNetworkIsRefusedWithTheCommandThatInstallsIt(self):
        code, out, err = self.run_without(*self.words("--net", "user"))
        self.assertEqual((code, out), (3, ""), err)
        self.assertRegex(err, "^troupe: TRP-net-009: --net user: /usr/bin/passt cannot be opened: "
                              "no such file or directory")
        self.assertRegex(err, "(?m)^ +mend: sudo apt install passt$")
        self.assertEqual(self.folder.left_over(), [])

    def testDoctorSaysSoBeforehand(self):
        _, out, err = self.run_without("doctor")
        self.assertRegex(out + err, "--net user cannot be used: /usr/bin/passt: ")
        self.assertIn("sudo apt install passt", out + err)


class NoPasstAsUser(NoPasst):
    user = machine.ORDINARY_USER


@unittest.skipIf(os.geteuid() != 0, "root alone makes taps")
class Taps(NetTest):
    def run_in_own_network(self, *words, tun_mode=0o666, flags=None):
        inner = self.folder.command(*self.words(*words, cmdline="end=verdict"))
        if flags is not None:
            inner = ["/usr/bin/python3", "-c", WITH_A_TAP, f"{flags:x}", *inner]
        command = ["unshare", "-m", "-n", "sh", "-c",
                   OWN_NETWORK, "sh", str(self.user or 0), f"{tun_mode:o}", self.folder.path,
                   *inner]
        done = subprocess.run(command, env=self.folder.environment(), stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=60, errors="replace")
        return done.returncode, done.stdout, done.stderr

    def testATapServes(self):
        code, out, err = self.run_in_own_network("--net", "tap=ours")
        self.assertEqual(code, 0, out + err)
        self.assertIn("ok    net0      send ", out)

    def testATapThatIsHandedOverServes(self):
        code, out, err = self.run_in_own_network("--net", "fd=9", flags=TAP)
        self.assertEqual(code, 0, out + err)
        self.assertIn("ok    net0      send ", out)

    def assertRefused(self, words, code, text, status=3, **more):
        got, out, err = self.run_in_own_network("--net", words, **more)
        self.assertEqual(got, status, out + err)
        self.assertRegex(err, f"^troupe: {code}: --net {re.escape(words)}: .*{text}")
        self.assertIn("see: ", err)

    def testATapWithoutHeadersIsRefused(self):
        got, out, err = self.run_in_own_network("--net", "fd=9", flags=TAP_WITHOUT_HEADER)
        self.assertNotEqual(got, 0, out)
        self.assertRegex(err, "^troupe: TRP-net-[0-9]+: .* has to be opened with IFF_VNET_HDR")

    def testWhatIsNoTapIsRefusedWithTheCommandThatMakesOne(self):
        self.assertRefused("tap=none", "TRP-net-004", "no interface")
        self.assertRefused("tap=lo", "TRP-net-006", "is no tap")
        self.assertRefused("tap=tunnel", "TRP-net-006", "is a tun interface")


class TapsAsUser(Taps):
    user = machine.ORDINARY_USER

    def testAnotherUsersTapIsRefused(self):
        self.assertRefused("tap=theirs", "TRP-net-005", "is not yours")

    def testNoRightToTunIsSaid(self):
        self.assertRefused("tap=ours", "TRP-net-005", "you may not open /dev/net/tun",
                           tun_mode=0o600)


if __name__ == "__main__":
    unittest.main(verbosity=2)
