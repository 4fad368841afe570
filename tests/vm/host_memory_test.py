#!/usr/bin/env -S python3 -B
"""Memory of the host's: who may have it, what guest and host see in it, and what becomes of it when
the guest starts anew, a device is replaced, or the file is gone."""

import json
import os
import signal
import struct
import subprocess
import tempfile
import unittest

import machine
import realms
import report

AT = "100000000"  # of the window
SIZE = 64 << 10
HOSTS_WORDS = b"from the host"
GUESTS_WORDS = b"written by the guest\0"


class Window:
    """A file in memory; what the payload's word `window=` finds and leaves there."""

    def __init__(self, user):
        handle, self.path = tempfile.mkstemp(prefix="troupe-window.", dir="/dev/shm")
        os.truncate(handle, SIZE)
        os.pwrite(handle, HOSTS_WORDS, 0)
        if user is not None:
            os.fchown(handle, user, user)
        os.close(handle)

    def bytes(self):
        with open(self.path, "rb") as file:
            return file.read()

    def count(self):
        """How often a guest has looked."""
        return struct.unpack_from("<I", self.bytes(), 32)[0]

    def answered(self):
        return self.bytes()[64:64 + len(GUESTS_WORDS)] == GUESTS_WORDS

    def remove(self):
        if os.path.exists(self.path):
            os.unlink(self.path)


class Tests(realms.Realms):

    def setUp(self):
        super().setUp()
        self.window = Window(self.user())
        self.addCleanup(self.window.remove)

    def permit(self, more=""):
        return f"{self.window.path},at=0x{AT}{more}"

    def guest(self, name, words="end=poweroff", policy="cached", base=AT, size="64k"):
        return self.bundle(name, f"window={AT} {words}",
                           memory=["64M", f"{base},{size},{policy}"])

    def run_vm(self, words, *options):
        """`troupe run`: (exit status, what the guest said, what troupe said)."""
        return self.folder.run("run", "--kernel", self.folder.payload, "--memory", "64M",
                               "--cmdline", f"window={AT} {words}", "--on-reboot", "exit", *options)

    def listening(self, *options):
        """A VM whose guest has looked once and looks again at a `q`: (its process, its name)."""
        name = self.folder.vm("window")
        process = self.folder.start(
            "run", "--name", name, "--kernel", self.folder.payload, "--memory", "64M", "--cmdline",
            f"window={AT} keys=echo", "--on-reboot", "exit", "--host-memory", self.permit(),
            *options, stdin=subprocess.PIPE)
        self.addCleanup(process.kill)
        self.until(lambda: self.window.count() == 1, "the guest has looked")
        return process, name


    def graph(self, name):
        """`troupe graph`, once nobody comes or goes and all is what was asked for."""
        self.until(lambda: self.folder.run("graph", name)[0] == 0, "all is what was asked for")
        return json.loads(self.tell("graph", name, "--json"))


class OfOneVm(Tests):

    def testGuestAndHostSeeTheSame(self):
        code, out, err = self.run_vm("scratch", "--host-memory", self.permit(), "--disk",
                                     self.folder.disk("a"))
        self.assertEqual(code, 0, out + err)
        self.assertIn(" 0 failed", out)
        self.assertRegex(out, r"ok +window0 +map +0x100000000 is no RAM")
        self.assertRegex(out, r'ok +window0 +seen +"from the host", time 1')
        # A device is told by its driver to put something there: the device has no such memory.
        self.assertRegex(out, r"ok +blk0 +no window +device status 0x4f")
        self.assertTrue(self.window.answered())
        self.assertEqual(self.window.count(), 1)

    def testAPartOfAFileIsAllThatAGuestReaches(self):
        code, out, err = self.run_vm("", "--host-memory", self.permit(",offset=32K,size=4096"))
        self.assertEqual(code, 0, out + err)
        found = self.window.bytes()
        self.assertEqual(found[32768 + 64:][:len(GUESTS_WORDS)], GUESTS_WORDS)
        self.assertEqual(found[:32768], HOSTS_WORDS + bytes(32768 - len(HOSTS_WORDS)))
        self.assertEqual(found[36864:], bytes(SIZE - 36864))

    def testAGuestThatStartsAnewFindsItAsItWas(self):
        name = self.folder.vm("anew")
        process = self.folder.start(
            "run", "--name", name, "--kernel", self.folder.payload, "--memory", "64M", "--cmdline",
            f"window={AT} end=reset", "--host-memory", self.permit())
        self.addCleanup(process.kill)
        self.until(lambda: self.window.count() >= 3, "the guest has started three times")
        self.assertTrue(self.window.bytes().startswith(HOSTS_WORDS))
        self.tell("stop", "--force", name)
        process.communicate(timeout=60)

    def testItOutlivesTheProcessesOfDevices(self):
        process, name = self.listening("--console", f"file={self.folder.file('guest/console')}")
        pids = {actor["name"]: actor["pid"] for actor in self.folder.status(name)["actors"]}

        def restarts():
            actors = self.folder.status(name)["actors"]
            return {actor["name"]: int(actor.get("restarts", 0)) for actor in actors
                    if not actor.get("isSpare")}

        for device in "rng0", "console0":
            os.kill(pids[device], signal.SIGKILL)
        self.until(lambda: restarts()["rng0"] == 1 and restarts()["console0"] == 1,
                   "both have successors")
        self.graph(name)
        out, err = process.communicate(b"q", timeout=60)
        self.assertEqual(process.returncode, 0, err)
        self.assertRegex(out.decode(), r'ok +window0 +seen +"from the host", time 2')

    def testAFileThatBecomesShorterEndsTheVmWithTheReason(self):
        process, _ = self.listening()
        os.truncate(self.window.path, 0)
        out, err = process.communicate(b"q", timeout=60)
        self.assertEqual(process.returncode, 20, (out, err))
        self.assertIn(b"TRP-run-026: ", err)

    def testAFileThatIsRemovedStaysWithItsGuest(self):
        process, _ = self.listening()
        self.window.remove()
        out, err = process.communicate(b"q", timeout=60)
        self.assertEqual(process.returncode, 0, err)
        self.assertRegex(out.decode(), r'ok +window0 +seen +"from the host", time 2')

    def testTheGraphShowsWhoMapsItAndThatNobodyHoldsIt(self):
        process, name = self.listening()
        graph = self.graph(name)
        leading = [(edge["from"], edge["what"], edge["asked"]) for edge in graph["edges"]
                   if edge["to"] == self.window.path]
        self.assertEqual(leading, [("broker", "maps 64 KiB", True)])
        for one in graph["processes"]:
            for fd in one["fds"]:
                self.assertNotIn(self.window.path, (fd["found"], fd["leadsTo"]))
        self.assertIn(f"64 KiB of {self.window.path}, read and write",
                      self.tell("inspect", name, "jail"))
        process.communicate(b"q", timeout=60)

    def testWhatCannotBeIsRefused(self):
        path = self.window.path
        for code, value in (("TRP-rlm-060", f"{path}"), ("TRP-rlm-060", f"{path},at=0xc0000000"),
                            ("TRP-rlm-060", f"{path},at=0xbffffc000,size=64K"),
                            ("TRP-rlm-061", f"{path},at=0x{AT},size=128K"),
                            ("TRP-rlm-061", f"{path},at=0x{AT},device"),
                            ("TRP-rlm-061", f"/dev/zero,at=0x{AT},size=4096"),
                            ("TRP-rlm-061", f"/dev/null,at=0x{AT},size=4096,device"),
                            ("TRP-cfg-018", f"{path}.none,at=0x{AT}"),
                            ("TRP-cfg-019", f"/dev/shm,at=0x{AT}"),
                            ("TRP-cfg-106", f"{path},at=0x1000000")):  # RAM is there
            with self.subTest(value):
                status, out, err = self.run_vm("", "--host-memory", value)
                self.assertEqual(status, 2, out + err)
                self.assertIn(f"{code}: ", err)
        # The same bytes at two addresses are one guest's, and shared all the same.
        status, _, err = self.run_vm("", "--host-memory", self.permit(), "--host-memory",
                                     f"{path},at=0x200000000")
        self.assertEqual(status, 2, err)
        self.assertIn("TRP-rlm-063: ", err)
        self.assertEqual(self.window.count(), 0)


class OfRealms(Tests):

    def refused(self, code, bundle, *options):
        status, out, err = self.folder.run("launch", bundle, "--socket", self.socket, *options)
        self.assertEqual(status, 2, out + err)
        self.assertIn(f"{code}: ", err)

    def testAGuestHasWhatIsPermittedAndNothingElse(self):
        self.serve("--permit-host-memory", self.permit())
        self.refused("TRP-rlm-062", self.guest("device", policy="device"))
        self.refused("TRP-rlm-062", self.guest("more", size="68k"))
        self.refused("TRP-rlm-062", self.guest("beside", base="200000000"))
        self.assertEqual(self.window.count(), 0)
        self.tell("launch", self.guest("all"), "--socket", self.socket)
        self.assertEqual(self.window.count(), 1)
        self.assertTrue(self.window.answered())
        self.tell("launch", self.guest("part", size="4k"), "--socket", self.socket)
        self.assertEqual(self.window.count(), 2)

    def testALauncherAsksForItToo(self):
        self.serve("--permit-host-memory", self.permit())
        bundle = self.bundle("plain", f"window={AT}")
        self.tell("launch", bundle, "--socket", self.socket, "--memory", f"{AT},64k,cached")
        self.assertEqual(self.window.count(), 1)
        self.refused("TRP-rlm-062", bundle, "--memory", f"{AT},64k,device")

    def testWithoutAPermissionNobodyHasIt(self):
        daemon = self.serve("--permit-host-memory", self.permit())
        self.tell("launch", self.guest("one"), "--socket", self.socket)
        daemon.terminate()
        daemon.wait()
        self.serve()
        self.refused("TRP-rlm-062", self.guest("one"))
        self.assertEqual(self.window.count(), 1)

    def testAPermittedFileThatIsGoneIsRefusedAndTheDaemonGoesOn(self):
        daemon = self.serve("--permit-host-memory", self.permit())
        os.truncate(self.window.path, 4096)
        self.refused("TRP-rlm-061", self.guest("one"))
        self.window.remove()
        self.refused("TRP-cfg-018", self.guest("one"))
        self.tell("launch", self.bundle("other", "hello"), "--socket", self.socket)
        self.assertIsNone(daemon.poll())

    def testARealmThatWantsNoneGetsNone(self):
        self.serve("--permit-host-memory", self.permit())
        rpc = self.rpc()
        for none, code in (True, 2), (False, 0):
            realm = rpc.call(0, "create", label="x", noHostMemory=none)["realm"]
            launched = rpc.call(realm, "launchInstance", launchInfo={"url": self.guest("one")})
            end = rpc.call(launched["controller"], "waitForEnd")["end"]
            self.assertEqual(end.get("exitCode", 0), code, end)
            if none:
                self.assertIn("TRP-rlm-062: ", end["reason"])

    def testItIsOneGuestsUnlessItIsShared(self):
        self.serve("--keep", "lab", "--permit-host-memory", self.permit())
        name, _, _ = self.launch(self.guest("first", "end=halt"), "--realm", "lab")
        self.refused("TRP-rlm-063", self.guest("second"))
        # Nor does a VM of another daemon, or of none.
        status, _, err = self.run_vm("", "--host-memory", self.permit())
        self.assertEqual(status, 2, err)
        self.assertIn("TRP-rlm-063: ", err)
        self.tell("stop", "--force", name)
        self.until(lambda: self.listed() == [], "the first one has ended")
        self.tell("launch", self.guest("second"), "--socket", self.socket)

    def testGuestsThatShareItSeeWhatTheOthersSay(self):
        self.serve("--keep", "lab", "--permit-host-memory", self.permit(",shared"))
        self.launch(self.guest("first", "end=halt"), "--realm", "lab")
        self.until(lambda: self.window.count() == 1, "the first one has looked")
        self.launch(self.guest("second", "end=halt"), "--realm", "lab")
        self.until(lambda: self.window.count() == 2, "the second has looked")
        status, _, err = self.run_vm("", "--host-memory", self.permit())
        self.assertEqual(status, 2, err)
        self.assertIn("TRP-rlm-063: ", err)

    def testWhatCannotBePermittedIsSaidAtTheStart(self):
        for code, options in (
                ("TRP-rlm-060", [self.window.path]),
                ("TRP-rlm-060", [self.permit(), f"{self.window.path},at=0x10000f000"]),
                ("TRP-rlm-061", [f"/dev/zero,at=0x{AT},size=4096"]),
                ("TRP-cfg-018", [f"/dev/shm/there-is-none,at=0x{AT}"])):
            with self.subTest(options):
                words = [word for one in options for word in ("--permit-host-memory", one)]
                status, out, err = self.folder.run("serve", "--socket", self.socket, *words)
                self.assertEqual(status, 2, out + err)
                self.assertIn(f"{code}: ", err)


class OfOneVmAsOrdinaryUser(OfOneVm):

    def user(self):
        return machine.ORDINARY_USER


if __name__ == "__main__":
    report.main()
