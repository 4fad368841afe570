# Where a boot protocol enters in 64-bit mode, with what it hands over in rsi: walk(rsi) on a stack.

    .section .entry, "ax"
    .globl start
start:
    movq $stackTop, %rsp
    movq %rsi, %rdi
    call walk
1:  cli
    hlt
    jmp 1b

    .bss
    .balign 16
    .skip 16384
stackTop:

    .section .note.GNU-stack, "", @progbits
