#!/usr/bin/env -S python3 -B
"""A guest that writes nonsense to every register it finds, on a whole jailed VM with real KVM.

Whatever it writes, no process of the VM dies of it: neither of its filter nor of a bug. The guest
ends by switching itself off, which proves that its vCPU was never stuck either.
"""

import struct
import unittest

import machine
import report

LOAD_ADDRESS = 0x200000
BARS = 0xC0000000
BAR_SIZE = 0x8000
ECAM = 0xE0000000


def imm(value):
    return struct.pack("<I", value & 0xFFFFFFFF)


# 32-bit code. esi: state of the random numbers; ebp: rounds left; eax: the last random number.
RANDOM = (b"\x69\xf6" + imm(1664525)      # imul esi, esi, 1664525
          + b"\x81\xc6" + imm(1013904223) # add esi, 1013904223
          + b"\x89\xf0\xc1\xc8\x0b")      # mov eax, esi; ror eax, 11


def place(base, mask):
    """edi = base + (a random number & mask)."""
    return RANDOM + b"\x89\xc7\x81\xe7" + imm(mask) + b"\x81\xc7" + imm(base)


def put(width):
    """A random number to [edi]."""
    return RANDOM + {1: b"\x88\x07", 2: b"\x66\x89\x07", 4: b"\x89\x07"}[width]


def put_value(value, width, offset=0):
    """`value` to [edi + offset]."""
    offset = struct.pack("<I", offset)
    opcode = {1: b"\xc6\x87", 2: b"\x66\xc7\x87", 4: b"\xc7\x87"}[width]
    return opcode + offset + value.to_bytes(width, "little")


def function_base():
    """edi = the start of BAR 0 of one of the first four functions, where firmware left it."""
    return place(BARS, 0x18000)


def out(port, value):
    return b"\x66\xba" + struct.pack("<H", port) + b"\xb0" + bytes([value]) + b"\xee"


def negotiate():
    """Starts a device with its queues wherever they were put, as a driver does."""
    code = function_base()
    for status in (0, 1, 3):
        code += put_value(status, 1, 0x14)
    code += put_value(1, 4, 0x08) + put_value(1, 4, 0x0C)  # VERSION_1
    code += put_value(0x0B, 1, 0x14)
    for queue in (0, 1):
        code += put_value(queue, 2, 0x16)
        for register in (0x20, 0x28, 0x30):
            # The queue lies above the code, the upper half of its address is 0.
            code += (RANDOM + b"\x25" + imm(0x3FFFF0) + b"\x05" + imm(0x1000000)  # and; add eax
                     + b"\x89\x87" + imm(register) + put_value(0, 4, register + 4))
        code += put_value(1, 2, 0x1C)
    return code + put_value(0x0F, 1, 0x14)


# What one round may do, each as likely as the others.
ACTIONS = [
    place(BARS, 0x1FFFF) + put(1),
    place(BARS, 0x1FFFF) + put(2),
    place(BARS, 0x1FFFF) + put(4),
    place(BARS, 0x1FFFF) + b"\x8b\x07",                          # mov eax, [edi]
    function_base() + put_value(0, 1, 0x14),                     # reset
    function_base() + RANDOM + b"\x24\x8f\x88\x87" + imm(0x14),  # any status
    function_base() + put_value(0, 2, 0x3000),                   # notify
    function_base() + b"\x81\xc7" + imm(0x4000)                  # a word of the MSI-X table
    + RANDOM + b"\x25\x3c\x00\x00\x00\x01\xc7" + put(4),
    function_base() + put_value(0xFEE00000, 4, 0x4000) + put_value(0, 4, 0x400C),
    place(ECAM, 0x3FFFF) + put(4),                               # any register of any function
    place(ECAM, 0x38000) + put_value(0x0006, 2, 0x04),           # memory and bus master on
    place(ECAM, 0x38000) + put_value(0x0000, 2, 0x04),           # and off
    # The BAR of slot 1 to 4 back to where it was, or onto its neighbour's.
    place(ECAM + 0x8000, 0x18000) + b"\x89\xf8\x25" + imm(0x18000) + b"\x05" + imm(BARS)
    + b"\x89\x47\x10",
    place(ECAM + 0x8000, 0x18000) + put_value(BARS, 4, 0x10),
    place(ECAM, 0x38000) + b"\xc6\x47\x43\x80",                  # MSI-X on, at 0x42 of each
    place(ECAM, 0x38000) + b"\xc6\x47\x43\x00",
    RANDOM + b"\x0d\x00\x00\x00\x80\x66\xba\xf8\x0c\xef"         # CF8h
    + RANDOM + b"\x66\xba\xfc\x0c\xef\xed",                      # CFCh, written and read
    RANDOM + b"\x25\x07\x00\x00\x00\x05\xf8\x03\x00\x00\x89\xc2\x89\xf0\xee\xec",  # the 16550
    negotiate(),
    negotiate(),
]


def storm(seed, rounds):
    """An ELF64 with a PVH note that does `rounds` of ACTIONS and switches itself off."""
    body = RANDOM + b"\x31\xd2\xb9" + imm(len(ACTIONS)) + b"\xf7\xf1"  # edx = which action
    done = []
    choices = b""
    for index, action in enumerate(ACTIONS):
        # cmp edx, index; jne over; action; jmp end
        choices += b"\x83\xfa" + bytes([index]) + b"\x0f\x85" + imm(len(action) + 5) + action
        choices += b"\xe9" + imm(0)
        done.append(len(choices))
    for end in done:
        choices = choices[:end - 4] + imm(len(choices) - end) + choices[end:]
    body += choices + b"\x4d"                                    # dec ebp
    code = b"\xbe" + imm(seed) + b"\xbd" + imm(rounds) + body
    code += b"\x0f\x85" + imm(-(len(body) + 6))                  # jnz
    code += out(0x600, 0x34) + b"\xf4\xeb\xfd"

    note = struct.pack("<III", 4, 4, 18) + b"Xen\0" + struct.pack("<I", LOAD_ADDRESS)
    offset = 64 + 2 * 56
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, LOAD_ADDRESS, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 7, offset, LOAD_ADDRESS, LOAD_ADDRESS, len(code),
                       len(code) + 4096, 4096)
    notes = struct.pack("<IIQQQQQQ", 4, 4, offset + len(code), 0, 0, len(note), len(note), 4)
    return header + load + notes + code + note


class Storm(unittest.TestCase):

    def setUp(self):
        self.folder = machine.Folder()
        self.addCleanup(self.folder.close)

    def testNoNonsenseInAnyRegisterEndsAProcess(self):
        for seed in range(1, 4):
            with self.subTest(seed):
                kernel = self.folder.file(f"storm{seed}")
                with open(kernel, "wb") as file:
                    file.write(storm(seed, 10000))
                code, out_text, err = self.folder.run(
                    "run", "--kernel", kernel, "--memory", "64M",
                    "--disk", self.folder.disk(f"a{seed}"), "--disk", self.folder.disk(f"b{seed}"),
                    "--console", f"file={self.folder.file('guest/console')}",
                    "--serial", f"file={self.folder.file('guest/serial')}", seconds=60)
                self.assertEqual(code, 0, out_text + err)
        self.assertEqual(self.folder.left_over(), [])


if __name__ == "__main__":
    report.main()
