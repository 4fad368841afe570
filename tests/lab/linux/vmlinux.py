#!/usr/bin/env python3
"""The kernel inside of a bzImage: an ELF file, `vmlinux`. Outside of the lab, where it takes three seconds.

usage: vmlinux.py BZIMAGE > VMLINUX
"""

import lzma
import struct
import sys


def lz4_block(source):
    """What one block of LZ4 holds."""
    out, at = bytearray(), 0

    def longer(length):
        nonlocal at
        while True:
            byte = source[at]
            at += 1
            length += byte
            if byte != 255:
                return length

    while at < len(source):
        token = source[at]
        at += 1
        literals = token >> 4 if token >> 4 != 15 else longer(15)
        out += source[at:at + literals]
        at += literals
        if at >= len(source):
            break
        offset = source[at] | source[at + 1] << 8
        at += 2
        length = (token & 15 if token & 15 != 15 else longer(15)) + 4
        piece = bytes(out[len(out) - offset:][:length])
        out += (piece * (length // len(piece) + 1))[:length]
    return out


def lz4(source):
    """What a file of LZ4's older form holds, as kernels are packed with."""
    out, at = bytearray(), 4
    while at + 4 <= len(source):
        size, = struct.unpack_from("<I", source, at)
        at += 4
        if at + size > len(source):
            break  # the length of it all, which Linux adds
        out += lz4_block(source[at:at + size])
        at += size
    return bytes(out)


def vmlinux_of(image):
    """The ELF file that the bzImage `image`, bytes, unpacks when it starts."""
    setup = ((image[0x1f1] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    packed = image[setup + offset:setup + offset + length]
    if packed.startswith(b"\x02\x21\x4c\x18"):
        return lz4(packed)
    if packed.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(packed)
    raise ValueError(f"a kernel that is packed in another way: {packed[:6]}")


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        sys.stdout.buffer.write(vmlinux_of(file.read()))
