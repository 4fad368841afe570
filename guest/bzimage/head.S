# The setup header of Linux's boot protocol 2.12 (Documentation/x86/boot.rst), whose 64-bit entry finds
# boot_params in rsi.

    .section .head, "ax"
    .org 0x1f1
    .byte 1                     # sectors of setup, behind the first
    .word 0
    .long kernelUnits           # of 16 bytes
    .word 0, 0, 0
    .word 0xaa55
    .byte 0xeb, 0x6a            # a jump over this header, which says how long it is
    .ascii "HdrS"
    .word 0x20c                 # version
    .long 0
    .word 0, 0
    .byte 0, 1                  # no loader yet; loaded high
    .word 0
    .long 0x100000
    .long 0, 0                  # ramdisk
    .long 0
    .word 0
    .byte 0, 0
    .long 0                     # command line
    .long 0x7fffffff            # where a ramdisk may end
    .long 0x200000              # alignment
    .byte 0, 0                  # cannot be moved
    .word 3                     # has a 64-bit entry, can be above 4 GiB
    .long 2047                  # command line at most
    .long 0
    .quad 0
    .long 0, 0
    .quad 0                     # setup_data
    .quad 0x1000000             # where it lies
    .long initSize
    .long 0, 0

    .section .note.GNU-stack, "", @progbits
