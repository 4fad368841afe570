#!/usr/bin/env -S python3 -B
"""Realms: `troupe serve` with whole jailed VMs, launched and listed and ended by its commands."""

import contextlib
import json
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import unittest

import machine
import realms

sys.path.insert(0, "vmm/testing")
import tiny_guest

PANIC = b"\x66\xba\x05\x05\xb0\x01\xee" + tiny_guest.SLEEP  # 1 to pvpanic's port


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

    def testWhoOnlyLooksKeepsNoRealmAlive(self):
        self.serve()
        owner, looker = self.rpc(), self.rpc()
        realm = owner.call(0, "create", label="short-lived")["realm"]
        launched = owner.call(realm, "launchInstance",
                              launchInfo={"url": self.bundle("waiting", "end=halt")})
        name = owner.call(launched["controller"], "waitForStart")["name"]
        found = looker.call(0, "connectToGuest", name=name)
        self.assertEqual(found["cid"], launched["cid"])
        # The way to its sockets is no hold on the realm either; it is what `troupe socat` takes.
        looker.call(found["controller"], "getHostVsockEndpoint")
        owner.process.kill()
        end = looker.call(found["controller"], "waitForEnd")["end"]
        self.assertIn("nobody is connected to its realm any more", end["reason"])
        self.assertEqual(looker.call(0, "list")["environments"], [])
        self.assertIn("TRP-rlm-034: ", looker.refused(on=0, call="connectToGuest",
                                                      params={"name": name}))

    def testADiskInUseIsRefusedAndFreeOnesAreTaken(self):
        self.serve("--keep", "lab")
        bundle = self.bundle("with-disk", "end=halt", block="/disk.img,rw")
        with open(os.path.join(bundle, "disk.img"), "wb") as file:
            file.truncate(1 << 20)
        self.launch(bundle, "--realm", "lab")
        code, _, err = self.folder.run("launch", bundle, "--realm", "lab", "--socket", self.socket)
        self.assertEqual(code, 2)
        self.assertIn("TRP-cfg-024: ", err)
        self.assertEqual([one["cid"] for one in self.listed()], [3])

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

    def testWhoWaitsIsToldEveryKindOfEnd(self):
        self.serve()
        rpc = self.rpc()
        realm = rpc.call(0, "create", label="ends")["realm"]

        def launched(name, words, **guest):
            bundle = self.bundle(name, words, **guest)
            with open(os.path.join(bundle, "troupe.json"), "w") as file:
                json.dump({"on-reboot": "exit"}, file)
            if name == "panic":
                with open(os.path.join(bundle, "kernel"), "wb") as file:
                    file.write(tiny_guest.elf(PANIC))
            return rpc.call(realm, "launchInstance", launchInfo={"url": bundle})["controller"]

        def kill(actor):
            def it(guest):
                name = rpc.call(guest, "waitForStart")["name"]
                found, = [one["pid"] for one in self.folder.status(name)["actors"]
                          if one["name"] == actor]
                os.kill(found, signal.SIGKILL)
            return it

        def nothing(guest):
            pass

        for name, words, code, reason, act in (
                ("off", "end=poweroff", 0, "the guest powered off", nothing),
                ("reset", "end=reset", 16, "asked for a reset", nothing),
                ("crash", "end=crash", 17, "crashed", nothing),
                ("panic", "", 21, "TRP-run-022: ", nothing),
                ("stopped", "end=halt", 18, "stopped through its realm",
                 lambda guest: rpc.call(guest, "stop", force=True)),
                ("broker", "end=halt", 20, "TRP-run-[0-9]+: ", kill("broker")),
                ("absent", "end=halt", 2, "TRP-cfg-018: ", nothing)):
            with self.subTest(name):
                more = {"ramdisk": "/nothing"} if name == "absent" else {}
                guest = launched(name, words, **more)
                # Of several who wait, and of one who comes late.
                waiting = [rpc.send(on=guest, call="waitForEnd", params={}) for _ in range(2)]
                act(guest)
                ends = [rpc.answer(number)["result"]["end"] for number in waiting]
                ends.append(rpc.call(guest, "waitForEnd")["end"])
                self.assertEqual(ends, ends[:1] * 3)
                self.assertEqual(ends[0].get("exitCode", 0), code, ends[0])
                self.assertRegex(ends[0]["reason"], reason)

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
        for call in "connectToInstance", "connectToBalloon":
            self.assertIn("TRP-rlm-034: ",
                          rpc.refused(on=realm["realm"], call=call, params={"cid": 3}))

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

    def testAPortOfTheHostsIsFreeWhenItsEndpointIsDroppedAndInEachRealm(self):
        self.serve()
        rpc = self.rpc()
        realms_ = [rpc.call(0, "create", label=label)["realm"] for label in ("one", "two")]
        endpoints = [rpc.call(realm, "getHostVsockEndpoint")["endpoint"] for realm in realms_]
        for endpoint in endpoints:
            self.assertEqual(rpc.call(endpoint, "listen", port=22, acceptor="x")["status"], "ok")
        other = rpc.call(realms_[0], "getHostVsockEndpoint")["endpoint"]
        listen = lambda: rpc.call(other, "listen", port=22, acceptor="x")["status"]
        self.assertEqual(listen(), "alreadyBound")
        rpc.ask(drop=endpoints[0])
        self.until(lambda: listen() == "ok", "the port is free")

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
        self.until(lambda: rpc.call(balloon, "getMemStats")["status"] == "ok", "the guest tells")
        # Those of many who ask at once; of whom eight may wait at a time.
        asked = [rpc.send(on=balloon, call="getMemStats", params={}) for _ in range(40)]
        told = {rpc.answer(number)["result"]["status"] for number in asked}
        self.assertIn("ok", told)
        self.assertLessEqual(told, {"ok", "shouldWait"})
        self.assertLessEqual(rpc.call(balloon, "getNumPages")["currentNumPages"], 16384)
        # One without statistics.
        bundle = self.bundle("silent", "end=halt")
        with open(os.path.join(bundle, "troupe.json"), "w") as file:
            json.dump({"balloon": {"stats": False}}, file)
        launched = rpc.call(realm, "launchInstance", launchInfo={"url": bundle})
        rpc.call(launched["controller"], "waitForStart")
        balloon = rpc.call(realm, "connectToBalloon", cid=launched["cid"])["controller"]
        self.assertEqual(rpc.call(balloon, "getMemStats")["status"], "notSupported")

    def heard(self, rpc, socket, words):
        """What comes out of a serial port or console, until `words` have."""
        said = b""
        while words not in said:
            piece = rpc.read(socket)
            self.assertNotEqual(piece, b"", said)
            said += piece
        return said.decode(errors="replace")

    def testAGuestHasTheFilesAndFoldersThatItsLauncherHandsOver(self):
        self.serve()
        rpc = self.rpc()
        realm = rpc.call(0, "create", label="x")["realm"]
        bundle, granted = (self.bundle(name, "idle") for name in ("empty", "granted"))
        os.unlink(os.path.join(bundle, "kernel"))
        for name, size in ("ours", 1 << 20), ("handed", 2 << 20):
            with open(os.path.join(granted, name), "wb") as file:
                file.truncate(size)
        folder = rpc.ask(open=granted)["handle"]
        file = rpc.ask(open=os.path.join(granted, "handed"), write=True)["handle"]

        def launch(kernel, grants):
            return rpc.call(realm, "launchInstance", launchInfo={
                "url": bundle, "label": "with files",
                "guestConfig": {"kernel": {"value": "linux"}, "kernelPath": kernel, "blockDevices": [
                    {"path": "/mine/ours", "format": "raw", "mode": "readOnly"}]},
                "flatNamespace": grants,
                "blockDevices": [{"id": "by hand", "mode": "readWrite", "format": "raw",
                                  "file": file}]})["controller"]

        mine = {"paths": ["/mine"], "directories": [folder]}
        guest = launch("/mine/kernel", mine)
        said = self.heard(rpc, rpc.call(guest, "getSerial")["socket"], b" failed")
        self.assertRegex(said, r', 0 failed')
        self.assertRegex(said, r'blk0 +id +"block-0"')
        self.assertRegex(said, r'blk0 +read-only ')
        self.assertRegex(said, r'blk1 +id +"by hand"')
        rpc.call(guest, "stop", force=True)
        for kernel, grants, code in (("/mine/kernel", {}, "TRP-cfg-018"),
                                     (os.path.join(granted, "kernel"), mine, "TRP-cfg-018"),
                                     ("/mine/../granted/kernel", mine, "TRP-rlm-008"),
                                     ("/mine/kernel", {"paths": ["mine"], "directories": [folder]},
                                      "TRP-rlm-009"),
                                     ("/mine/kernel", {"paths": ["/mine"], "directories": [file]},
                                      "TRP-rlm-009")):
            with self.subTest(kernel=kernel, grants=grants):
                end = rpc.call(launch(kernel, grants), "waitForEnd")["end"]
                self.assertEqual(end["exitCode"], 2)
                self.assertIn(code + ": ", end["reason"])

    def testAGuestIsReachedByEverybodyOfItsRealm(self):
        self.serve()
        owner, other = self.rpc(), self.rpc()
        made = owner.call(0, "create", label="shared")
        launched = owner.call(made["realm"], "launchInstance", launchInfo={
            "url": self.bundle("idle", "idle"), "label": "the one"})
        mine = launched["controller"]
        name = owner.call(mine, "waitForStart")["name"]
        instances = [{"cid": launched["cid"], "label": "the one"}]
        self.assertEqual(other.call(0, "list")["environments"],
                         [{"id": made["id"], "label": "shared", "instances": instances}])
        realm = other.call(0, "connect", id=made["id"])["realm"]
        self.assertEqual(other.call(realm, "listInstances")["instances"], instances)
        theirs = other.call(realm, "connectToInstance", cid=launched["cid"])["controller"]
        self.assertEqual(other.call(theirs, "waitForStart")["name"], name)
        # Both hear all that the guest has said.
        for rpc, guest in (owner, mine), (other, theirs):
            self.heard(rpc, rpc.call(guest, "getSerial")["socket"], b", 0 failed")
            self.assertIn("payload", self.heard(rpc, rpc.call(guest, "getConsole")["socket"], b"\n"))
        other.call(theirs, "pause")
        self.folder.status(name, state="paused")
        owner.call(mine, "resume")
        self.folder.status(name, state="running")
        # The guest lives as long as somebody holds its realm, whoever made it.
        owner.process.kill()
        owner.process.wait()
        self.assertEqual([one["cid"] for one in self.listed()], [launched["cid"]])
        other.call(theirs, "stop", force=True)
        self.assertEqual(other.call(theirs, "waitForEnd")["end"]["exitCode"], 18)
        self.assertEqual(other.call(realm, "listInstances"), {"instances": []})

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


class Refusals(realms.Realms):
    """What is refused in words, with a code (docs/errors.md)."""

    def refused(self, code, rpc, on, call, **params):
        said = rpc.refused(on=on, call=call, params=params)
        self.assertTrue(said.startswith(code + ": "), said)

    def testWhatAGuestDoesNotHaveAndWhatItWasNoMore(self):
        self.serve()
        rpc = self.rpc()
        realm = rpc.call(0, "create", label="x")["realm"]
        bare = self.bundle("bare", "end=halt", **{"virtio-console": "false", "virtio-vsock": "false",
                                                  "virtio-balloon": "false"})
        launched = rpc.call(realm, "launchInstance", launchInfo={"url": bare})
        guest = launched["controller"]
        rpc.call(guest, "waitForStart")
        self.refused("TRP-rlm-036", rpc, guest, "getConsole")
        self.refused("TRP-rlm-044", rpc, guest, "getHostVsockEndpoint")
        balloon = rpc.call(realm, "connectToBalloon", cid=launched["cid"])["controller"]
        for call, params in (("getNumPages", {}), ("getMemStats", {}),
                             ("requestNumPages", {"requestedNumPages": 1})):
            with self.subTest(call):
                self.assertRegex(rpc.refused(on=balloon, call=call, params=params),
                                 "TRP-[a-z]+-[0-9]{3}: ")
        rpc.call(guest, "stop", force=True)
        for call in "pause", "resume", "getSerial", "waitForStart":
            with self.subTest(call):
                self.assertRegex(rpc.refused(on=guest, call=call, params={}),
                                 "TRP-rlm-035: |stopped through its realm")
        self.refused("TRP-rlm-035", rpc, guest, "pause")
        self.refused("TRP-rlm-035", rpc, balloon, "getNumPages")
        self.refused("TRP-rlm-034", rpc, realm, "connectToInstance", cid=launched["cid"])

    def testTextsAndCapabilitiesThatCannotBe(self):
        self.serve()
        rpc = self.rpc()
        realm = rpc.call(0, "create", label="x")["realm"]
        url = self.bundle("waiting", "end=halt")
        for label in "x" * 256, "a\nb", "\x7f":
            with self.subTest(label):
                self.refused("TRP-rlm-037", rpc, realm, "launchInstance",
                             launchInfo={"url": url, "label": label})
                self.refused("TRP-rlm-037", rpc, 0, "create", label=label)
        folder = rpc.ask(open="/")["handle"]
        self.refused("TRP-rlm-037", rpc, realm, "launchInstance", launchInfo={
            "url": url, "flatNamespace": {"paths": ["/x"] * 17, "directories": [folder] * 17}})
        self.refused("TRP-rlm-011", rpc, 0, "create", label="y", net="bridge")
        # A script's own language need not be written in ASCII, however it writes it.
        rpc.call(0, "create", label="é€😀")
        self.assertIn("é€😀", [one["label"] for one in rpc.call(0, "list")["environments"]])
        for line in {}, {"on": 0}, {"on": -1, "call": "list"}, {"open": "/nowhere"}:
            self.assertIn("TRP-rlm-043: ", rpc.refused(**line))

    def testThereAreOnlySoManyRealms(self):
        self.serve("--keep", "lab")
        rpc = self.rpc()
        for _ in range(255):
            rpc.call(0, "create", label="x")
        self.refused("TRP-rlm-032", rpc, 0, "create", label="one more")
        rpc.ask(drop=1)
        self.until(lambda: "result" in rpc.ask(mayFail=True, on=0, call="create",
                                               params={"label": "another"}), "one has gone")

    def testADaemonThatIsNotThereAndOneThatCannotBe(self):
        missing = self.folder.file("guest/nothing")
        for words in ("launch", self.bundle("waiting", "end=halt"), "--socket", missing), ("list", "--socket", missing), \
                ("rpc", "--socket", missing):
            code, _, err = self.folder.run(*words)
            self.assertEqual(code, 2, err)
            self.assertIn("TRP-rlm-039: ", err)
        self.serve()
        code, _, err = self.folder.run("serve", "--socket", self.socket)
        self.assertEqual(code, 2, err)
        self.assertIn("TRP-rlm-040: ", err)


class Hostile(realms.Realms):
    """Clients that say anything at all: the daemon and other clients' realms go on."""

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.connect(self.socket)
        self.addCleanup(client.close)
        return client

    def isGone(self, client):
        """Whether the daemon hangs up on a client or answers what it asks: for the Manager, by a
        message of five words (rpc.capnp, Bootstrap)."""
        client.settimeout(60)
        one = 1 << 32 | 1 << 48  # a pointer to a struct with a word of data and a pointer
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            client.sendall(struct.pack("<II5Q", 0, 5, one, 8, one, 1, 0))
            return client.recv(65536) == b""
        return True

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
        self.until(lambda: not realms.fronts(daemon.pid), "all have been let go")
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
        # Nor does a guest begin whose controller cannot be held: not even its number is gone.
        launch = {"launchInfo": {"url": self.bundle("waiting", "end=halt")}}
        refused = rpc.refused(on=realm, call="launchInstance", params=launch)
        self.assertIn("holds 512 capabilities", refused)
        self.assertEqual(rpc.call(0, "listGuests")["guests"], [])
        # More often than there may be realms: of one that it could not hold nothing stays.
        for _ in range(300):
            refused = rpc.refused(on=0, call="create", params={"label": "y"})
            self.assertIn("holds 512 capabilities", refused)
        self.assertEqual([one["label"] for one in rpc.call(0, "list")["environments"]], ["x"])
        rpc.ask(drop=held[0])
        self.until(lambda: "result" in rpc.ask(on=realm, call="getHostVsockEndpoint", mayFail=True),
                   "there is room again")
        rpc.ask(drop=held[1])

        def isLaunched():
            answer = rpc.ask(on=realm, call="launchInstance", params=launch, mayFail=True)
            return answer.get("result", {}).get("cid") == 3

        self.until(isLaunched, "a guest is launched, and the first")

    def testADaemonWithoutFilesHangsUpSaysSoOnceAndGoesOn(self):
        daemon = self.serve()
        limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        taken = max(int(fd) for fd in os.listdir(f"/proc/{daemon.pid}/fd"))
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (taken + 1, limits[1]))
        clients = [self.connect() for _ in range(20)]
        self.assertTrue(all(self.isGone(client) for client in clients))
        self.assertIn(b"clients of realms are hung up on: ", daemon.stderr.readline())
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
        # Who comes while it is still hanging up on others is hung up on, too.
        self.until(lambda: not self.isGone(self.connect()), "a client is served")
        self.assertEqual(self.listed(), [])
        daemon.terminate()
        self.assertNotIn(b"hung up", daemon.communicate(timeout=60)[1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
