#!/usr/bin/env -S python3 -B
"""Realms: `troupe serve` with whole jailed VMs, launched and listed and ended by its commands."""

import contextlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import unittest

import machine
import realms


class Daemon(realms.Realms):

    def testAGuestIsLaunchedListedAndStopped(self):
        daemon = self.serve("--keep", "lab")
        bundle = self.bundle("waiting", "end=halt")
        name, realm, cid = self.launch(bundle, "--realm", "lab", "--label", "first")
        self.assertEqual((realm, cid), (0, 3))
        self.assertEqual(self.launch(bundle, "--realm", "0")[2], 4)
        listed = self.listed()
        self.assertEqual([(one["name"], one["realm"], one["cid"], one["label"], one["state"])
                          for one in listed],
                         [(name, "lab", 3, "first", "running"),
                          (listed[1]["name"], "lab", 4, bundle, "running")])
        status = self.folder.status(name)
        self.assertEqual(status["pid"], daemon.pid)
        self.assertTrue(all(actor["jail"] == "attested" for actor in status["actors"]), status)
        self.tell("stop", "--force", name)
        self.until(lambda: [one["cid"] for one in self.listed()] == [4], "the other one is alone")
        # A number is nobody else's for as long as the realm lives.
        self.assertEqual(self.launch(bundle, "--realm", "lab")[2], 5)

    def testTheLastConnectionOfARealmEndsItsGuestsAndNoOthers(self):
        self.serve("--keep", "lab")
        bundle = self.bundle("waiting", "end=halt")
        kept, _, _ = self.launch(bundle, "--realm", "lab")
        own = self.folder.start("launch", bundle, "--json", "--socket", self.socket)
        self.addCleanup(own.kill)
        said = json.loads(own.stdout.readline())
        self.assertEqual(said["realm"], 1)
        # Another one in the same realm.
        beside, _, cid = self.launch(bundle, "--realm", "1")
        self.assertEqual(cid, 4)
        self.assertEqual(len(self.listed()), 3)
        own.kill()
        own.wait()
        self.until(lambda: [one["name"] for one in self.listed()] == [kept],
                   "the guests of the realm have ended")
        code, _, err = self.folder.run("launch", bundle, "--realm", "1", "--socket", self.socket)
        self.assertEqual(code, 2)
        self.assertIn("TRP-rlm-033: ", err)

    def testALaunchThatFailsSaysWhyAndItsNumberIsGone(self):
        self.serve("--keep", "lab")
        empty = self.bundle("empty", "end=poweroff")
        os.truncate(os.path.join(empty, "kernel"), 0)
        code, out, err = self.folder.run("launch", empty, "--realm", "lab", "--socket", self.socket)
        self.assertEqual((code, out), (2, ""), err)
        self.assertRegex(err, "TRP-[a-z]+-[0-9]{3}: ")
        self.assertEqual(self.listed(), [])
        self.assertEqual(self.launch(self.bundle("good", "end=halt"), "--realm", "lab")[2], 4)

    def testAGuestThatPowersOffEndsItsLaunch(self):
        self.serve()
        for words, code in ("end=poweroff", 0), ("end=crash", 17):
            with self.subTest(words):
                found = self.folder.run("launch", self.bundle(words, words), "--socket", self.socket)
                self.assertEqual(found[0], code, found)
        self.assertEqual(self.listed(), [])

    def testWhenTheDaemonEndsNothingStays(self):
        for number in signal.SIGTERM, signal.SIGKILL:
            with self.subTest(number):
                daemon = self.serve("--keep", "lab")
                bundle = self.bundle("waiting", "end=halt")
                self.launch(bundle, "--realm", "lab")
                self.launch(bundle, "--realm", "lab")
                names = [one["name"] for one in self.listed()]
                processes = realms.descendants(daemon.pid)
                self.assertGreater(len(processes), 8)
                daemon.send_signal(number)
                daemon.communicate(timeout=60)
                self.until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in processes),
                           "all have ended")
                self.tell("gc")
                run = (machine.ROOTS_FOLDER if os.geteuid() == 0
                       else self.folder.file("run/troupe"))
                left = [file for file in os.listdir(run)
                        if file.startswith(tuple(name + "." for name in names))]
                self.assertEqual(left, [])

    def testManyRequestsOfAScriptAndWhatTheyRefuse(self):
        self.serve()
        rpc = self.rpc()
        refused = rpc.refused(on=0, call="connect", params={"id": 7})
        self.assertIn("TRP-rlm-033: ", refused)
        for wrong in ({"on": 9, "call": "list"}, {"on": 0, "call": "lst"}, {}, {"read": 0},
                      {"on": 0, "call": "create", "params": {"lable": "x"}},
                      {"on": 0, "call": "create", "params": {"label": "x" * 256}}):
            with self.subTest(wrong):
                self.assertRegex(rpc.refused(**wrong), "TRP-[a-z]+-[0-9]{3}: ")
        realm = rpc.call(0, "create", label="one")
        self.assertEqual(rpc.call(0, "list")["environments"],
                         [{"id": realm["id"], "label": "one", "instances": []}])
        self.assertIn("TRP-rlm-034: ",
                      rpc.refused(on=realm["realm"], call="connectToInstance", params={"cid": 3}))

    def testAGuestReachesAProgramOfTheHostAndNobodyElse(self):
        self.serve()
        rpc = self.rpc()
        realm = rpc.call(0, "create", label="sockets")["realm"]
        endpoint = rpc.call(realm, "getHostVsockEndpoint")["endpoint"]
        self.assertEqual(rpc.call(endpoint, "listen", port=52, acceptor="echo")["status"], "ok")
        self.assertEqual(rpc.call(endpoint, "listen", port=52, acceptor="late")["status"],
                         "alreadyBound")
        launched = rpc.call(realm, "launchInstance",
                            launchInfo={"url": self.bundle("waiting", "end=halt")})
        guest = launched["controller"]
        accepted = rpc.event()
        self.assertEqual((accepted["accepted"], accepted["srcCid"], accepted["port"]),
                         ("echo", launched["cid"], 52))
        rpc.write(accepted["handle"], rpc.read(accepted["handle"]))
        serial = rpc.call(guest, "getSerial")["socket"]
        heard = b""
        while b"vsock0    echo" not in heard:
            piece = rpc.read(serial)
            self.assertNotEqual(piece, b"", heard)
            heard += piece
        self.assertIn(b"ok    vsock0    cid           3", heard)
        self.assertRegex(heard, rb"ok    vsock0    echo")
        # Nobody listens in this guest; the host and an unknown guest are not reached at all.
        for cid in launched["cid"], 2, 99:
            one, other = rpc.ask(pair=True)["handles"]
            self.assertEqual(rpc.call(endpoint, "connect", cid=cid, port=22, socket=other)["status"],
                             "connectionRefused")
            rpc.ask(drop=one)
            rpc.ask(drop=other)
        code, _, err = self.folder.run("socat", rpc.call(guest, "waitForStart")["name"], "22",
                                       "--socket", self.socket)
        self.assertEqual(code, 2)
        self.assertIn("TRP-rlm-045: ", err)
        rpc.call(guest, "stop", force=True)
        self.assertEqual(rpc.call(guest, "waitForEnd")["end"]["exitCode"], 18)

    def testABalloonIsMovedAndHasBounds(self):
        self.serve()
        rpc = self.rpc()
        realm = rpc.call(0, "create", label="balloons")["realm"]
        launched = rpc.call(realm, "launchInstance",
                            launchInfo={"url": self.bundle("waiting", "end=halt")})
        name = rpc.call(launched["controller"], "waitForStart")["name"]
        balloon = rpc.call(realm, "connectToBalloon", cid=launched["cid"])["controller"]
        rpc.call(balloon, "requestNumPages", requestedNumPages=4096)
        status = json.loads(self.tell("balloon", name, "--json"))
        self.assertEqual(int(status["targetBytes"]), 16 << 20)
        refused = rpc.refused(on=balloon, call="requestNumPages",
                              params={"requestedNumPages": (64 << 20) // 4096 + 1})
        self.assertIn("TRP-rlm-042: ", refused)
        self.assertIn(rpc.call(balloon, "getMemStats")["status"],
                      ("ok", "notSupported", "shouldWait"))
        self.assertLessEqual(rpc.call(balloon, "getNumPages")["currentNumPages"], 16384)

    def testTheExampleOfAScriptRuns(self):
        self.serve()
        found = subprocess.run(
            [os.path.realpath("client/example/guest.py"), self.bundle("waiting", "end=halt"),
             self.socket],
            env=dict(self.folder.environment(),
                     PATH=self.folder.bin + ":" + os.environ["PATH"]),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        self.assertEqual(found.returncode, 0, found.stdout)
        self.assertIn("runs with cid 3", found.stdout)
        self.assertIn("was stopped through its realm", found.stdout)

    def testTheExampleOfAProgramRuns(self):
        self.serve()
        found = subprocess.run(
            [os.path.realpath("client/example/guest"), self.bundle("waiting", "end=halt"),
             self.socket],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        self.assertEqual(found.returncode, 0, found.stdout)
        self.assertIn("payload: end=halt", found.stdout)

    def testASerialPortIsReadFromItsBeginning(self):
        self.serve("--keep", "lab")
        name, _, _ = self.launch(self.bundle("waiting", "end=halt"), "--realm", "lab")
        process = self.folder.start("serial", name, stdin=subprocess.PIPE)
        self.addCleanup(process.kill)
        said = b""
        while b"payload: end=halt" not in said:
            piece = os.read(process.stdout.fileno(), 4096)
            self.assertNotEqual(piece, b"", said)
            said += piece
        process.kill()
        process.communicate()


class Hostile(realms.Realms):
    """Clients that say anything at all: the daemon and other clients' realms go on."""

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.connect(self.socket)
        self.addCleanup(client.close)
        return client

    def spare(self, client):
        """Reads until the daemon has hung up."""
        client.settimeout(60)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while client.recv(65536):
                pass

    def testWhateverIsSaidOthersGoOn(self):
        daemon = self.serve("--keep", "lab")
        name, _, _ = self.launch(self.bundle("waiting", "end=halt"), "--realm", "lab")
        random.seed(5)
        words = lambda *numbers: b"".join(struct.pack("<Q", number) for number in numbers)
        cases = {
            "nothing": b"",
            "noise": random.randbytes(4096),
            "much noise": random.randbytes(1 << 20),
            "many segments": struct.pack("<II", 0x7fffffff, 1),
            "a long segment": struct.pack("<II", 0, 0x10000000),
            "zeroes": bytes(1 << 16),
            "a pointer out of the message": struct.pack("<II", 0, 1) + words(0xfffffffc),
            "a far pointer to nowhere": struct.pack("<II", 0, 1) + words(0xfffffffffffffffa),
            "half a message": struct.pack("<II", 0, 100) + bytes(80),
        }
        for what, bytes_ in cases.items():
            with self.subTest(what):
                client = self.connect()
                with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                    client.sendall(bytes_)
                    client.shutdown(socket.SHUT_WR)
                self.spare(client)
        self.assertIsNone(daemon.poll())
        self.assertEqual([one["name"] for one in self.listed()], [name])
        self.assertEqual(self.folder.status(name)["state"], "running")

    def testAClientThatOnlyConnectsOrLeavesAtOnceCostsNothingForLong(self):
        daemon = self.serve()
        for _ in range(100):
            self.connect().close()
        self.until(lambda: "troupe-realm-fro" not in children(daemon.pid), "all have been let go")
        self.assertEqual(self.listed(), [])

    def testFilesThatAreNoDisksAreRefused(self):
        self.serve()
        rpc = self.rpc()
        realm = rpc.call(0, "create", label="x")["realm"]
        bundle = self.bundle("waiting", "end=halt")
        one, _ = rpc.ask(pair=True)["handles"]
        for handle in one, rpc.ask(open="/dev/null")["handle"], rpc.ask(open="/")["handle"]:
            launched = rpc.call(realm, "launchInstance", launchInfo={
                "url": bundle,
                "blockDevices": [{"id": "a", "mode": "readOnly", "format": "raw", "file": handle}]})
            end = rpc.call(launched["controller"], "waitForEnd")["end"]
            self.assertEqual(end["exitCode"], 2)
            self.assertRegex(end["reason"], "TRP-(rlm-010|cfg-019): ")
        # A capability that is no file at all.
        refused = rpc.refused(on=realm, call="launchInstance", params={"launchInfo": {
            "url": bundle,
            "blockDevices": [{"id": "a", "mode": "readOnly", "format": "raw", "file": realm}]}})
        self.assertRegex(refused, "TRP-")
        self.assertEqual(rpc.call(0, "listGuests")["guests"], [])

    def testOneThatHoldsTooMuchIsToldSoAndCanGoOn(self):
        self.serve()
        rpc = self.rpc()
        realm = rpc.call(0, "create", label="x")["realm"]
        held = []
        while len(held) < 10000:
            answer = rpc.ask(on=realm, call="getHostVsockEndpoint", mayFail=True)
            if "error" in answer:
                break
            held.append(answer["result"]["endpoint"])
        self.assertEqual(len(held), 511)
        self.assertIn("holds 512 capabilities", answer["error"])
        # More often than there may be realms: of one that it could not hold nothing stays.
        for _ in range(300):
            refused = rpc.refused(on=0, call="create", params={"label": "y"})
            self.assertIn("holds 512 capabilities", refused)
        self.assertEqual([one["label"] for one in rpc.call(0, "list")["environments"]], ["x"])
        rpc.ask(drop=held[0])
        self.until(lambda: "result" in rpc.ask(on=realm, call="getHostVsockEndpoint", mayFail=True),
                   "there is room again")


def children(pid):
    """Names of the processes whose parent this is."""
    names = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{entry}/stat") as file:
                name, rest = file.read().split("(", 1)[1].rsplit(")", 1)
            if int(rest.split()[1]) == pid and rest.split()[0] != "Z":
                names.append(name)
    return names


if __name__ == "__main__":
    unittest.main(verbosity=2)
