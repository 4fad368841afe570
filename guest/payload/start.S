# From the PVH entry point to ring 3, and the few gates back into ring 0.
#
# Some hosts interpret every instruction of guest ring 0 and run ring 3 natively, so ring 0 holds the
# least that works: tables are laid out by the assembler and the linker, or filled in from ring 3.

# The ELF note that says where to enter in 32-bit protected mode, paging off, ebx = start info.
    .section .note.Xen, "a", @note
    .balign 4
    .long 4                 # size of the name
    .long 8                 # size of the value; QEMU reads eight bytes in a 64-bit ELF
    .long 18                # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad start

    .text
    .code32
    .globl start
start:
    movw $0x3f8, %dx        # the earliest sign of life; the rest of the word comes from ring 3
    movb $'p', %al
    outb %al, %dx
    movl %ebx, %edi         # first argument of payloadMain
    lgdt gdtPointer
    movl $0x20, %eax        # PAE
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx  # EFER
    movl $0x100, %eax       # LME
    xorl %edx, %edx
    wrmsr
    movl $0x80000011, %eax  # PG, ET, PE
    movl %eax, %cr0
    ljmp $0x08, $longMode

    .code64
longMode:
    lidt idtPointer
    movl $0x20, %eax
    ltr %ax
    movl $ring3Frame, %esp
    iretq

# The gates: ring 3 points the table at one of them and says int3, the cheapest way in that hosts with
# an interpreted ring 0 know (they refuse "int n").

# rdi = the local APIC's EOI register: sleeps until an interrupt. Ring 3 runs with interrupts off, so
# they are taken here only; the handlers below drop their own frame, go back to the gate's and return
# straight to ring 3. What arrived earlier is pending, and ends the hlt at once.
    .globl waitGate
waitGate:
    sti
    hlt
    iretq

# An edge-triggered interrupt (MSI, MSI-X).
    .globl messageInterrupt
messageInterrupt:
    movl $0, (%rdi)
    movl $ring0Stack - 40, %esp
    iretq

# A level-triggered interrupt: ring 3 quiets the device, then ends the interrupt itself.
    .globl levelInterrupt
levelInterrupt:
    movl $ring0Stack - 40, %esp
    iretq

# The local APIC's timer.
    .globl timerInterrupt
timerInterrupt:
    incl timerTicks
    movl $0, (%rdi)
    movl $ring0Stack - 40, %esp
    iretq

# With the registers of wrmsr.
    .globl wrmsrGate
wrmsrGate:
    wrmsr
    iretq

# Stops the processor for good.
    .globl haltGate
haltGate:
    cli
1:  hlt
    jmp 1b

# Exceptions end in faulted(vector, error, rip, cr2), in ring 3.
    .set vector, 0
    .balign 16
    .globl exceptionStubs
exceptionStubs:
    .rept 32
    .balign 16
    .if (vector != 8) && (vector < 10 || vector > 14) && (vector != 17) && (vector != 21)
    pushq $0
    .endif
    pushq $vector
    jmp exception
    .set vector, vector + 1
    .endr

exception:
    popq %rdi
    popq %rsi
    popq %rdx
    movq %cr2, %rcx
    movl $faultFrame, %esp
    iretq

    .data
    .balign 8
gdt:
    .quad 0
    .quad 0x00209a0000000000    # 0x08: ring 0, 64-bit code
    .quad 0x0000f20000000000    # 0x10: ring 3 data
    .quad 0x0020fa0000000000    # 0x18: ring 3, 64-bit code
    .quad TSS_DESCRIPTOR        # 0x20: the linker script puts it together
    .quad 0
gdtPointer:
    .short gdtPointer - gdt - 1
    .quad gdt
idtPointer:
    .short 256 * 16 - 1
    .quad idt

    .balign 8
ring3Frame:
    .quad payloadMain
    .quad 0x1b
    .quad 0x3002            # IOPL 3, interrupts off
    .quad ring3Stack - 8    # as if called
    .quad 0x13
faultFrame:
    .quad faulted
    .quad 0x1b
    .quad 0x3002
    .quad faultStack - 8
    .quad 0x13

# The last of .data, so that the bitmap of ports may follow in .bss. It is all zeroes: some hosts look
# at it even with IOPL 3.
    .section .data.tss, "aw"
    .balign 8
    .globl tss
tss:
    .long 0
    .quad ring0Stack
    .fill 90, 1, 0
    .short 104
    .section .bss.ports, "aw", @nobits
    .skip 8192
    .skip 8                 # the processor reads a byte beyond

# The first GiB, mapped one to one in 2 MiB pages that ring 3 may use; mapThrough() adds the rest.
    .section .data.pages, "aw"
    .balign 4096
    .globl pml4
pml4:
    .quad pdpt + 0x27
    .fill 511, 8, 0
pdpt:
    .quad pd + 0x27
    .fill 511, 8, 0
pd:
    .set page, 0
    .rept 512
    .quad page + 0xe7
    .set page, page + 0x200000
    .endr

    .bss
    .balign 4096
    .globl idt
idt:
    .skip 4096
    .skip 4096
ring0Stack:
    .skip 4096
faultStack:
    .skip 32768
ring3Stack:

    .section .note.GNU-stack, "", @progbits
