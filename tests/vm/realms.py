"""A daemon of realms for tests, and guests for it."""

import json
import os
import shutil
import time
import unittest

import machine


class Realms(unittest.TestCase):

    def setUp(self):
        # An own copy of the executables: their processes are known by where those lie.
        self.folder = machine.Folder(user=self.user())
        self.addCleanup(self.folder.close)
        self.socket = self.folder.file("guest/realms")

    def user(self):
        return None

    def serve(self, *options):
        """A daemon, once it listens."""
        daemon = self.folder.start("serve", "--socket", self.socket, *options)
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.terminate)
        said = daemon.stderr.readline()
        self.assertIn(b"realms are served at ", said)
        return daemon

    def bundle(self, name, words, **guest):
        """A folder with the payload as a Linux kernel."""
        path = self.folder.file("guest/" + name)
        if os.path.isdir(path):
            return path
        os.mkdir(path)
        shutil.copy(self.folder.payload, os.path.join(path, "kernel"))
        config = {"linux": "/kernel", "cmdline": words, "memory": "64M", "cpus": "1",
                  "default-net": "false", "virtio-gpu": "false", **guest}
        with open(os.path.join(path, "guest.cfg"), "w") as file:
            json.dump(config, file)
        return path

    def tell(self, *words, expect=0):
        code, out, err = self.folder.run(*words)
        self.assertEqual(code, expect, out + err)
        return out

    def launch(self, bundle, *options):
        """(name, realm, cid) once it runs."""
        said = json.loads(self.tell("launch", bundle, "--json", "--socket", self.socket, *options))
        return said["name"], said["realm"], said["cid"]

    def listed(self):
        return json.loads(self.tell("list", "--json", "--socket", self.socket))

    def until(self, isSo, what, seconds=60):
        end = time.monotonic() + seconds
        while not isSo():
            self.assertLess(time.monotonic(), end, f"never: {what}")
            time.sleep(0.02)
