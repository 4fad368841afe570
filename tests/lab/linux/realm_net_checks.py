#!/usr/bin/env -S python3 -B
"""In level 1, which has bridges: guests of realms on one link have addresses of their own, and the
second that would have the default one is refused, whoever joined the taps.

usage: realm_net_checks.py FOLDER-OF-PROGRAMS PAYLOAD"""

import json
import os
import shutil
import subprocess
import sys
import unittest

PROGRAMS, PAYLOAD = sys.argv[1:3]
TROUPE = os.path.join(PROGRAMS, "troupe")


def shell(line):
    subprocess.check_call(line, shell=True)


def setUpModule():
    for module in "llc/llc", "802/stp", "bridge/bridge":
        path = f"{os.environ['LAB_MODULES']}/net/{module}.ko"
        if os.path.exists(path):
            subprocess.call(["/bin/busybox", "insmod", path])
    shell("ip link add br0 type bridge; ip link add br1 type bridge; ip link set br0 up")
    for tap, bridge in ("j0", "br1"), ("j1", "br1"), ("j2", "br0"), ("s0", None), ("s1", None):
        shell(f"ip tuntap add dev {tap} mode tap")
        if bridge is not None:
            shell(f"ip link set {tap} master {bridge}")


class RealmNet(unittest.TestCase):

    def serve(self, net):
        socket = f"/run/{self.id().rpartition('.')[2]}"
        daemon = subprocess.Popen([TROUPE, "serve", "--socket", socket, "--keep", "lab",
                                   "--realm-net", net], stderr=subprocess.PIPE)
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.terminate)
        self.assertIn(b"realms are served at", daemon.stderr.readline())
        return socket

    def launch(self, socket, mac=None):
        """What `troupe launch` ends with, and says."""
        bundle = f"{socket}.{mac}"
        os.makedirs(bundle, exist_ok=True)
        shutil.copy(PAYLOAD, bundle + "/kernel")
        config = {"linux": "/kernel", "memory": "64M", "cpus": "1", "cmdline": "end=halt"}
        if mac is not None:
            config.update({"net": mac, "default-net": "false"})
        with open(bundle + "/guest.cfg", "w") as file:
            json.dump(config, file)
        found = subprocess.run([TROUPE, "launch", bundle, "--realm", "lab", "--socket", socket],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, timeout=120)
        return found.returncode, found.stdout.decode()

    def oneOfALink(self, net):
        socket = self.serve(net)
        code, said = self.launch(socket)
        self.assertEqual(code, 0, said)
        code, said = self.launch(socket)
        self.assertEqual(code, 2, said)
        self.assertIn("TRP-rlm-012: ", said)
        code, said = self.launch(socket, "02:00:00:00:00:07")
        self.assertEqual(code, 0, said)

    def test_of_a_bridge(self):
        self.oneOfALink("bridge=br0")

    def test_of_taps_that_were_put_into_one_bridge(self):
        self.oneOfALink("tap-prefix=j")

    def test_taps_of_their_own_may_have_the_same(self):
        socket = self.serve("tap-prefix=s")
        for _ in range(2):
            code, said = self.launch(socket)
            self.assertEqual(code, 0, said)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
