#!/usr/bin/env python3
"""The real troupe-broker, in its jail and attested, boots guests of a few instructions."""

import os
import re
import struct
import subprocess
import tempfile
import unittest

PROBE = "broker/testing/boot_probe"
BROKER = "broker/troupe-broker"
LOAD_ADDRESS = 0x200000


def out(port, value):
    return b"\x66\xba" + struct.pack("<H", port) + b"\xb0" + bytes([value]) + b"\xee"


def say(text):
    return b"".join(out(0x3F8, byte) for byte in text.encode())


POWER_OFF = out(0x600, 0x34)
RESET = out(0x602, 1)
HALT = b"\xf4\xeb\xfd"
CRASH = b"\x0f\x0b"


def pvh_kernel(code):
    """An ELF64 with a PVH note whose one segment is `code`."""
    note = struct.pack("<III", 4, 4, 18) + b"Xen\0" + struct.pack("<I", LOAD_ADDRESS)
    offset = 64 + 2 * 56
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, LOAD_ADDRESS, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 7, offset, LOAD_ADDRESS, LOAD_ADDRESS, len(code),
                       len(code) + 4096, 4096)
    notes = struct.pack("<IIQQQQQQ", 4, 4, offset + len(code), 0, 0, len(note), len(note), 4)
    return header + load + notes + code + note


class BrokerTest(unittest.TestCase):

    def probe(self, kernel, *options):
        with tempfile.NamedTemporaryFile(dir=os.environ.get("TEST_TMPDIR")) as file:
            file.write(kernel)
            file.flush()
            return subprocess.run([PROBE, BROKER, file.name, *options], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, timeout=60, check=False)

    def assert_refused(self, code, kernel, *options):
        result = self.probe(kernel, *options)
        self.assertEqual(result.returncode, 1, result)
        self.assertRegex(result.stderr, re.compile("(^|: )" + code + ": ", re.MULTILINE))

    def test_guest_speaks_and_powers_off(self):
        result = self.probe(pvh_kernel(say("hello\n") + POWER_OFF + HALT), "--cpus", "2")
        self.assertEqual(result.stdout, "hello\nEND poweredOff \n", result.stderr)
        self.assertEqual(result.returncode, 0)

    def test_more_output_than_the_socket_holds_arrives_whole(self):
        # 64 KiB, each byte sent when the transmitter is empty; counted in ecx.
        code = (b"\xb9\x00\x00\x01\x00"                   # mov ecx, 0x10000
                + b"\x66\xba\xfd\x03\xec\xa8\x20\x74\xf7" # until THRE
                + out(0x3F8, ord("x"))
                + b"\x49\x75\xed")                         # dec ecx; jnz
        result = self.probe(pvh_kernel(code + POWER_OFF + HALT))
        self.assertEqual(result.stdout, "x" * 65536 + "END poweredOff \n", result.stderr)

    def test_guest_resets(self):
        result = self.probe(pvh_kernel(RESET + HALT))
        self.assertEqual(result.stdout, "END reset \n", result.stderr)

    def test_guest_crashes(self):
        result = self.probe(pvh_kernel(CRASH))
        self.assertRegex(result.stdout, "^END crashed triple fault on vCPU 0", result.stderr)

    def test_refusals_carry_their_codes(self):
        self.assert_refused("TRP-boot-002", b"")
        self.assert_refused("TRP-boot-004", b"not a kernel")
        self.assert_refused("TRP-boot-007", pvh_kernel(HALT), "--memory", "2")
        self.assert_refused("TRP-cfg-101", pvh_kernel(HALT), "--mask", "avx3")
        self.assert_refused("TRP-cfg-102", pvh_kernel(HALT), "--cpus", "256")
        self.assert_refused("TRP-cfg-103", pvh_kernel(HALT), "--memory", "3")

    def test_most_vcpus(self):
        result = self.probe(pvh_kernel(POWER_OFF + HALT), "--cpus", "255")
        self.assertEqual(result.stdout, "END poweredOff \n", result.stderr)


if __name__ == "__main__":
    unittest.main()
