#!/usr/bin/env -S python3 -B
"""A Zircon kernel is handed what its loader promises: each item is printed by the guest and compared
with what a second reader of images makes of the same files."""

import os
import struct
import unittest

import machine
import zircon_image

WALK = os.path.realpath("guest/zircon/walk.zbi")
MIB = 1 << 20
RAM = 1
RESERVED = 2


def told(text):
    """The guest's report: (address of the container, its length, [(name, payload)])."""
    lines = text.splitlines()
    assert lines[-1] == "end", text
    first, address, length = lines[0].split()
    assert first == "container", text
    items = []
    for line in lines[1:-1]:
        word, kind, size, *payload = line.split(" ")
        assert word == "item", text
        payload = bytes.fromhex(payload[0] if payload else "")
        assert len(payload) == int(size, 16), text
        items.append((zircon_image.name_of(int(kind, 16)), payload))
    return int(address, 16), int(length, 16), items


class Zircon(unittest.TestCase):
    def setUp(self):
        self.folder = machine.Folder()
        self.addCleanup(self.folder.close)
        with open(WALK, "rb") as file:
            self.kernel = file.read()

    def file(self, name, content):
        path = self.folder.file(name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def run_kernel(self, content, *words):
        path = self.file("kernel.zbi", content)
        return self.folder.run("run", "--kernel", path, "--rng", "off", "--on-reboot", "exit", *words)

    def test_the_second_reader_finds_the_kernel_alone_in_its_image(self):
        (name, payload), = zircon_image.items_of(self.kernel)
        entry, reserve = struct.unpack_from("<QQ", payload)
        self.assertEqual(name, "KRNL")
        self.assertTrue(MIB + 80 <= entry < MIB + len(self.kernel))
        self.assertGreaterEqual(reserve, 16384)

    def test_every_item_reaches_the_kernel_those_of_the_loader_last(self):
        first = zircon_image.item(b"IARG", b"odd length")
        second = zircon_image.item(b"RDSK", bytes(range(256)))
        items = self.kernel[32:] + first
        image = zircon_image.container(items)
        ramdisk = self.file("ramdisk.zbi", zircon_image.container(second))
        code, out, err = self.run_kernel(image, "--initrd", ramdisk, "--memory", "96M", "--cmdline",
                                         "kernel.serial=legacy")
        self.assertEqual(code, 0, err)
        address, length, found = told(out)
        self.assertEqual(address, 64 * MIB)
        mine = zircon_image.items_of(image)[1:] + zircon_image.items_of(
            zircon_image.container(second))
        self.assertEqual(found[:2], mine)
        self.assertEqual([name for name, _ in found[2:]], ["CMDL", "RSDP", "E820", "UART"])
        added = dict(found[2:])
        self.assertEqual(added["CMDL"], b"kernel.serial=legacy\0")
        self.assertEqual(struct.unpack("<Q", added["RSDP"]), (0xe0000,))
        self.assertEqual(struct.unpack("<QII", added["UART"]), (0x3f8, 0, 4))
        ranges = list(struct.iter_unpack("<QQI", added["E820"]))
        self.assertEqual([(start, size) for start, size, kind in ranges if kind == RAM],
                         [(0, 0xa0000), (MIB, 95 * MIB)])
        self.assertEqual(ranges, sorted(ranges))
        padded = sum(32 + len(payload) + -len(payload) % 8 for _, payload in found)
        self.assertEqual(length, padded)

    def test_memory_of_the_hosts_is_in_its_memory_map_and_no_ram(self):
        window = self.file("window", bytes(8192))
        code, out, err = self.run_kernel(self.kernel, "--memory", "96M", "--host-memory",
                                         f"{window},at=0x100000000")
        self.assertEqual(code, 0, err)
        ranges = list(struct.iter_unpack("<QQI", dict(told(out)[2])["E820"]))
        self.assertEqual([one for one in ranges if one[0] == 1 << 32], [(1 << 32, 8192, RESERVED)])
        self.assertEqual(ranges, sorted(ranges))

    def test_an_image_that_is_none_is_refused_by_its_code(self):
        def changed(offset, form, *values):
            image = bytearray(self.kernel)
            struct.pack_into(form, image, offset, *values)
            return bytes(image)

        cases = [
            ("TRP-boot-003", changed(4, "<I", len(self.kernel)), ()),  # a length past its end
            ("TRP-boot-003", self.kernel[:-8], ()),
            ("TRP-boot-014", changed(32 + 24, "<I", 0), ()),           # the magic of the kernel item
            ("TRP-boot-015", changed(32, "<4s", b"KRN8"), ()),         # another machine's
            ("TRP-boot-016", changed(64, "<Q", MIB), ()),              # an entry in its header
            ("TRP-boot-007", changed(72, "<Q", 1 << 40), ()),          # more reserved than there is
            ("TRP-boot-016", changed(72, "<Q", 63 * MIB), ()),         # reaches its data
            ("TRP-boot-009", self.kernel, ("--memory", "64M")),        # no room for its data
        ]
        for code, image, words in cases:
            with self.subTest(code=code, words=words):
                status, out, err = self.run_kernel(image, *words)
                self.assertNotEqual(status, 0)
                self.assertIn(code, err)


if __name__ == "__main__":
    unittest.main()
