# The two headers of a Zircon boot image, whose entry finds its data container in rsi.

    .section .head, "ax"
    .long 0x544f4f42            # "BOOT", the container
    .long containerLength
    .long 0x868cf7e6
    .long 0x00010000            # version
    .long 0, 0
    .long 0xb5781729
    .long 0x4a87e8d6            # no checksum
    .long 0x4c4e524b            # "KRNL", the kernel
    .long kernelLength
    .long 0
    .long 0x00010000
    .long 0, 0
    .long 0xb5781729
    .long 0x4a87e8d6
    .quad start
    .quad reserveLength

    .section .note.GNU-stack, "", @progbits
