#!/usr/bin/env -S python3 -B
"""Guests of bundles, launched through `troupe serve`: where memory and devices lie, and bundles that
`troupe guest create` makes."""

import json
import os
import re
import shutil
import socket
import struct
import tempfile
import time
import unittest

import machine
import realms

MIB = 1 << 20
GIB = 1 << 30
# Of every guest that has them all.
SLOTS = {"balloon0": "1", "blk0": "2", "blk1": "3", "console0": "4", "net0": "5", "net1": "6",
         "rng0": "7", "vsock0": "8"}
# Guests that print what they are handed.
LINUX_WALK = os.path.realpath("guest/bzimage/walk.bzimage")
VMLINUX_WALK = os.path.realpath("guest/bzimage/walk.vmlinux")
ZIRCON_WALK = os.path.realpath("guest/zircon/walk.zbi")


def device_tree():
    """The smallest there is: a root node without a property."""
    structure = struct.pack(">4I", 1, 0, 2, 9)  # begin, "", end, end of all
    start = 40 + 16
    return struct.pack(">10I", 0xd00dfeed, start + len(structure), start, start + len(structure), 40,
                       17, 16, 0, 0, len(structure)) + bytes(16) + structure


def told(text):
    """What guest/bzimage says: {word: [its values, each as it stands there]}."""
    found = {}
    for line in text.splitlines():
        word, *values = line.split(" ")
        found.setdefault(word, []).append(values)
    return found


class Bundles(realms.Realms):

    def said_by(self, name, end=r"payload: \d+ passed, (\d+) failed", seconds=60):
        """What a guest that idles has said on its serial port, up to `end`."""
        folders = [machine.ROOTS_FOLDER, os.path.join(self.folder.file("run"), "troupe")]
        path, = [path for path in (os.path.join(folder, name + ".serial") for folder in folders)
                 if os.path.exists(path)]
        with socket.socket(socket.AF_UNIX) as serial:
            serial.connect(path)
            serial.settimeout(seconds)
            text = ""
            until = time.monotonic() + seconds
            while not re.search(end, text) and time.monotonic() < until:
                piece = serial.recv(65536)
                if not piece:
                    break
                text += piece.decode(errors="replace")
        self.assertRegex(text, end)
        return text

    def disk(self, bundle, name):
        with open(os.path.join(bundle, name), "wb") as file:
            file.truncate(MIB)

    def launched(self, bundle, *options):
        name, _, _ = self.launch(bundle, "--realm", "lab", *options)
        return name, self.said_by(name)

    def test_every_device_reaches_a_region_of_memory_that_was_placed(self):
        self.serve("--keep", "lab", "--realm-net", "user")
        bundle = self.bundle("regions", "heap=last scratch idle",
                             memory=["64M", "20000000,30000k"], block="/disk.img",
                             **{"default-net": "true"})
        self.disk(bundle, "disk.img")
        _, text = self.launched(bundle)
        self.assertIn("rings and buffers lie from 0x20000000 on", text)
        self.assertRegex(text, r"payload: \d+ passed, 0 failed")
        for device, done in (("balloon0", "inflate"), ("blk0", "verify"), ("console0", "write"),
                             ("net0", "send"), ("rng0", "bytes"), ("vsock0", "refused")):
            self.assertRegex(text, rf"ok +{device} +{done} ")

    def test_a_region_above_4_gib_is_memory_too(self):
        self.serve("--keep", "lab")
        bundle = self.bundle("high", "heap=last scratch idle",
                             memory=["64M", "100000000,32M", "200000000,4k"], block="/disk.img")
        self.disk(bundle, "disk.img")
        bundle_of_one = self.bundle("high-one", "heap=last scratch idle",
                                    memory=["64M", "100000000,32M"], block="/disk.img")
        self.disk(bundle_of_one, "disk.img")
        _, text = self.launched(bundle_of_one)
        self.assertIn("rings and buffers lie from 0x100000000 on", text)
        self.assertRegex(text, r"payload: \d+ passed, 0 failed")
        # The last region is too small for any ring, and is where it was said.
        _, text = self.launched(bundle)
        self.assertIn("rings and buffers lie from 0x200000000 on", text)

    def file(self, bundle, name, content):
        with open(os.path.join(bundle, name), "wb") as file:
            file.write(content)

    def test_a_linux_kernel_is_handed_what_launcher_and_bundle_say(self):
        handle, window = tempfile.mkstemp(prefix="troupe-window.", dir="/dev/shm")
        self.addCleanup(os.unlink, window)
        os.truncate(handle, 8192)
        os.close(handle)
        self.serve("--keep", "lab", "--permit-host-memory", f"{window},at=0x200000000")
        bundle = self.bundle("words", "of the file", ramdisk="/ramdisk",
                             memory=["64M", "20000000,30000k", "100000000,32M",
                                     "200000000,8k,cached"],
                             **{"dtb-overlay": "/tree.dtb", "cmdline-add": ["at last", "stay"]})
        ramdisk, tree = bytes(range(256)), device_tree()
        self.file(bundle, "ramdisk", ramdisk)
        self.file(bundle, "tree.dtb", tree)
        rpc = self.rpc()
        realm = rpc.call(0, "connect", id=0)["realm"]
        for kernel in LINUX_WALK, VMLINUX_WALK:
            with self.subTest(kernel):
                os.unlink(os.path.join(bundle, "kernel"))
                shutil.copy(kernel, os.path.join(bundle, "kernel"))
                guest = rpc.call(realm, "launchInstance", launchInfo={
                    "url": bundle,
                    "guestConfig": {"cmdline": "of the launcher", "cmdlineAdd": ["and", "more"]}})
                name = rpc.call(guest["controller"], "waitForStart")["name"]
                found = told(self.said_by(name, r"(?m)^end$"))
                self.assertEqual(bytes.fromhex(found["cmdline"][0][0]).decode(),
                                 "of the file of the launcher and more at last stay")
                self.assertEqual(bytes.fromhex(found["ramdisk"][0][0]), ramdisk)
                (kind, content), = found["setup_data"]
                self.assertEqual((int(kind, 16), bytes.fromhex(content)), (2, tree))
                ranges = [tuple(int(value, 16) for value in values) for values in found["e820"]]
                self.assertEqual([(start, size) for start, size, kind in ranges if kind == 1],
                                 [(0, 0xa0000), (MIB, 63 * MIB), (0x20000000, 30000 << 10),
                                  (4 * GIB, 32 * MIB)])
                self.assertIn((8 * GIB, 8192, 2), ranges)
                rpc.call(guest["controller"], "stop", force=True)

    def test_a_kernel_is_of_the_kind_that_the_bundle_says(self):
        self.serve()
        kinds = {"linux": LINUX_WALK, "zircon": ZIRCON_WALK}
        for kind in kinds:
            for said in kinds:
                with self.subTest(kind=kind, said=said):
                    bundle = self.bundle(f"{kind}-as-{said}", "x", memory="96M")
                    path = os.path.join(bundle, "guest.cfg")
                    with open(path) as file:
                        config = json.load(file)
                    del config["linux"]
                    with open(path, "w") as file:
                        json.dump({said: "/walk", **config}, file)
                    shutil.copy(kinds[kind], os.path.join(bundle, "walk"))
                    code, out, err = self.folder.run("launch", bundle, "--socket", self.socket)
                    self.assertEqual(code == 0, kind == said, out + err)
                    if kind != said:
                        self.assertRegex(err, "TRP-boot-[0-9]{3}: ")

    def test_a_vm_of_its_own_has_its_devices_in_the_same_order(self):
        code, out, err = self.folder.run(
            "run", "--kernel", self.folder.payload, "--memory", "96M", "--cmdline", "x", "--vsock",
            f"socket={self.folder.file('guest/vsock')}", "--net", "user", "--net", "user",
            "--disk", self.folder.disk("one"), "--disk", self.folder.disk("two"), "--console",
            f"file={self.folder.file('guest/console')}", "--balloon")
        self.assertEqual(code, 0, out + err)
        self.assertEqual(dict(re.findall(r"^ok +(\w+) +start +slot (\d+)", out, re.M)), SLOTS)

    def test_devices_have_the_slots_that_the_realm_gives_every_guest(self):
        self.serve("--keep", "lab", "--realm-net", "user")
        bundle = self.bundle("order", "scratch idle", memory="96M",
                             block=["/one.img", "/two.img,ro"],
                             net="02:00:00:00:00:07", **{"default-net": "true"})
        self.disk(bundle, "one.img")
        self.disk(bundle, "two.img")
        _, text = self.launched(bundle)
        slots = dict(re.findall(r"^ok +(\w+) +start +slot (\d+)", text, re.M))
        self.assertEqual(slots, SLOTS)
        self.assertRegex(text, r'blk0 +id +"block-0"')
        self.assertRegex(text, r'blk1 +id +"block-1"')

    def test_what_was_passed_over_is_said_to_the_launcher(self):
        self.serve("--realm-net", "none")
        bundle = self.bundle("notes", "hello", block="/disk.img,ro,snapshot",
                             **{"default-net": "true"})
        self.disk(bundle, "disk.img")
        path = os.path.join(bundle, "guest.cfg")
        with open(path) as file:
            config = json.load(file)
        del config["virtio-gpu"]
        with open(path, "w") as file:
            json.dump(config, file)
        code, out, err = self.folder.run("launch", bundle, "--json", "--socket", self.socket)
        self.assertEqual(code, 0, err)
        self.assertEqual([set(json.loads(line)) for line in out.splitlines()],
                         [{"name", "realm", "cid"}, {"name", "exitCode", "reason"}])
        self.assertIn("virtio-gpu is off: there is none yet", err)
        self.assertIn('the word "snapshot" of a block device is passed over', err)
        self.assertIn("1 network device(s) are left out", err)

    def test_what_cannot_be_is_refused_with_its_code(self):
        self.serve("--keep", "lab")
        cases = [
            ("TRP-rlm-004", {"memory": ["64M", "C0000000,4k"]}),
            ("TRP-rlm-004", {"memory": "0,64M,cached"}),
            ("TRP-rlm-004", {"interrupt": "33"}),
            ("TRP-rlm-004", {"virtio-gpu": "true"}),
            ("TRP-rlm-004", {"virtio-magma": "true"}),
            ("TRP-rlm-008", {"block": "/../serial"}),
            ("TRP-boot-018", {"dtb-overlay": "/kernel"}),
        ]
        for i, (code, words) in enumerate(cases):
            with self.subTest(code=code, words=words):
                bundle = self.bundle(f"bad-{i}", "idle", **words)
                status, out, err = self.folder.run("launch", bundle, "--realm", "lab", "--socket",
                                                   self.socket)
                self.assertNotEqual(status, 0)
                self.assertIn(code, out + err)

    def test_a_bundle_that_was_made_is_launched(self):
        self.serve("--keep", "lab")
        path = self.folder.file("guest/made")
        code, out, err = self.folder.run(
            "guest", "create", path, "--kernel", self.folder.payload, "--disk",
            self.folder.disk("scratch.img"), "--cmdline", "scratch idle", "--memory", "64M", "--cpus", "1")
        self.assertEqual(code, 0, out + err)
        # How far it is.
        self.assertRegex(err, r"(?m)^  kernel: (\S+) of \1$")
        with open(os.path.join(path, "guest.cfg")) as file:
            self.assertEqual(json.load(file)["linux"], "/kernel")
        _, text = self.launched(path)
        self.assertRegex(text, r"payload: \d+ passed, 0 failed")
        self.assertRegex(text, r"ok +blk0 +verify")

    def test_a_folder_with_something_in_it_is_left_alone(self):
        path = self.folder.file("guest")
        mine = os.path.join(path, "mine")
        with open(mine, "w") as file:
            file.write("mine")
        for place in path, os.path.join(path, "no/where"):
            code, _, err = self.folder.run("guest", "create", place, "--kernel", self.folder.payload)
            self.assertEqual(code, 2, err)
            self.assertIn("TRP-rlm-013: ", err)
        self.assertTrue(os.path.exists(mine))
        missing = os.path.join(path, "new")
        self.tell("guest", "create", missing, "--kernel", "/nonexistent", expect=2)
        self.assertFalse(os.path.exists(missing))


if __name__ == "__main__":
    unittest.main()
