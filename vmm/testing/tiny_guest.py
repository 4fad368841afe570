"""Kernels of a few bytes: ELF files with a PVH entry, whose code does one thing."""

import struct

LOAD_ADDRESS = 0x100000
PT_LOAD, PT_NOTE = 1, 4
PHYS32_ENTRY = 18  # XEN_ELFNOTE_PHYS32_ENTRY

# 32-bit protected mode, flat, no interrupts, no IDT.
SLEEP = bytes.fromhex("faf4ebfd")  # cli; hlt; jmp to the hlt
RESET = bytes.fromhex("b0fee664f4ebfd")  # mov al, 0xfe; out 0x64, al; hlt for ever
CRASH = bytes.fromhex("0f0b")  # ud2 without an IDT: a triple fault
# Writes "hi\n" to the serial port again and again: mov dx, 0x3f8; then three times mov al, c; out.
TALK = bytes.fromhex("66baf803b068eeb069eeb00aeeebf5")


def elf(code):
    """An ELF kernel that runs `code`."""
    header, phdr = 64, 56
    note = struct.pack("<III4sI", 4, 4, PHYS32_ENTRY, b"Xen\0", LOAD_ADDRESS)
    note_at = header + 2 * phdr
    code_at = 0x1000
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    file = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, LOAD_ADDRESS, header, 0, 0, header, phdr,
                               2, 0, 0, 0)
    file += struct.pack("<IIQQQQQQ", PT_LOAD, 5, code_at, LOAD_ADDRESS, LOAD_ADDRESS, len(code),
                        len(code), 0x1000)
    file += struct.pack("<IIQQQQQQ", PT_NOTE, 4, note_at, 0, 0, len(note), len(note), 4)
    file += note
    return file + bytes(code_at - len(file)) + code
