"""Reads and makes Zircon boot images, for tests of the loader, with which it shares nothing."""

import struct

HEADER = struct.Struct("<8I")  # type, length, extra, flags, two of zero, magic, checksum
BOOT = int.from_bytes(b"BOOT", "little")
KERNEL = int.from_bytes(b"KRNL", "little")
ITEM_MAGIC = 0xb5781729
BOOT_MAGIC = 0x868cf7e6
VERSION = 0x10000
NO_CHECKSUM = 0x4a87e8d6


def name_of(kind):
    return kind.to_bytes(4, "little").decode("latin-1")


def header(kind, length, extra=0):
    return HEADER.pack(kind, length, extra, VERSION, 0, 0, ITEM_MAGIC, NO_CHECKSUM)


def item(name, payload):
    kind = int.from_bytes(name, "little")
    return header(kind, len(payload)) + payload + bytes(-len(payload) % 8)


def container(items):
    return header(BOOT, len(items), BOOT_MAGIC) + items


def items_of(image):
    """[(name, payload)] of a container; ValueError for anything that is not as it has to be."""
    kind, length, extra, flags, _, _, magic, _ = HEADER.unpack_from(image)
    if (kind, extra, magic) != (BOOT, BOOT_MAGIC, ITEM_MAGIC) or not flags & VERSION:
        raise ValueError("no container")
    if HEADER.size + length > len(image):
        raise ValueError("longer than its file")
    rest = image[HEADER.size:HEADER.size + length]
    found = []
    while rest:
        if len(rest) < HEADER.size:
            raise ValueError("a header is cut")
        kind, length, _, flags, _, _, magic, _ = HEADER.unpack_from(rest)
        if magic != ITEM_MAGIC or not flags & VERSION:
            raise ValueError("no item")
        padded = length + -length % 8
        if HEADER.size + padded > len(rest):
            raise ValueError("an item is longer than its container")
        found.append((name_of(kind), rest[HEADER.size:HEADER.size + length]))
        rest = rest[HEADER.size + padded:]
    return found
