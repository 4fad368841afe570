#!/usr/bin/env -S python3 -B
"""Guests of bundles, launched through `troupe serve`: where memory and devices lie, and bundles that
`troupe guest create` makes."""

import json
import os
import re
import socket
import time
import unittest

import machine
import realms

MIB = 1 << 20


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
        self.serve("--keep", "lab")
        bundle = self.bundle("regions", "heap=last scratch idle",
                             memory=["64M", "20000000,30000k"], block="/disk.img")
        self.disk(bundle, "disk.img")
        _, text = self.launched(bundle)
        self.assertIn("rings and buffers lie from 0x20000000 on", text)
        self.assertRegex(text, r"payload: \d+ passed, 0 failed")
        for device in ("balloon0", "blk0", "console0", "rng0", "vsock0"):
            self.assertRegex(text, rf"ok +{device} ", text)

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

    def test_devices_have_the_slots_that_the_realm_gives_every_guest(self):
        self.serve("--keep", "lab", "--realm-net", "user")
        bundle = self.bundle("order", "scratch idle", memory="96M",
                             block=["/one.img", "/two.img,ro"],
                             net="02:00:00:00:00:07", **{"default-net": "true"})
        self.disk(bundle, "one.img")
        self.disk(bundle, "two.img")
        _, text = self.launched(bundle)
        slots = dict(re.findall(r"^ok +(\w+) +start +slot (\d+)", text, re.M))
        self.assertEqual(slots, {"balloon0": "1", "blk0": "2", "blk1": "3", "console0": "4",
                                 "net0": "5", "net1": "6", "rng0": "7", "vsock0": "8"})
        self.assertRegex(text, r'blk0 +id +"block-0"')
        self.assertRegex(text, r'blk1 +id +"block-1"')

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
        self.tell("guest", "create", path, "--kernel", self.folder.payload, "--disk",
                  self.folder.disk("scratch.img"), "--cmdline", "scratch idle", "--memory", "64M",
                  "--cpus", "1")
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
        said = self.tell("guest", "create", path, "--kernel", self.folder.payload, expect=2)
        self.assertTrue(os.path.exists(mine), said)
        missing = os.path.join(path, "new")
        self.tell("guest", "create", missing, "--kernel", "/nonexistent", expect=2)
        self.assertFalse(os.path.exists(missing))


if __name__ == "__main__":
    unittest.main()
