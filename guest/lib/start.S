/*
 * The way from a loader into ring 3.
 *
 * There are three ways in and one way on. pvh_start is the PVH entry (32-bit protected mode, no paging,
 * EBX holds the address of the start info); start64 is e_entry (long mode with everything mapped one
 * to one, RBX may hold the address of a start info); ap_trampoline is where the other processors wake
 * up in real mode. All meet in `common`, which gives the processor its tables and stack and drops to
 * ring 3 with IOPL 3: `in` and `out` work there, and nothing of the guest's real work is done in ring 0,
 * because a KVM without hardware virtualisation emulates ring 0 instruction by instruction. For the same
 * reason SYSEXIT is the first choice to get there: such a KVM has no IRETQ between rings; where the
 * processor has no SYSEXIT in long mode the #UD handler takes the other way.
 *
 * Page tables are assembled, not computed: 64 GiB in 2 MiB pages, and the rest of 512 GiB in 1 GiB
 * pages, which only a processor that has them may touch (see memmap.c). The user bit is set throughout.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define KERNEL_CS       0x18
#define KERNEL_DS       0x20
#define USER_CS         0x3b
#define USER_DS         0x43
#define TSS_BASE        0x48

#define CR4_VALUE       0x620           /* PAE, OSFXSR, OSXMMEXCPT */
#define CR0_VALUE       0x80050033      /* PG, AM, WP, NE, ET, MP, PE */
#define EFER_LME        0x100
#define MSR_EFER        0xc0000080
#define MSR_SYSENTER_CS 0x174
#define RFLAGS_IOPL3    0x3002

#define CPUS_MAX        16
#define STACK_BYTES     0x4000
#define STACK0_BYTES    0x1000

    .section .note.Xen, "a", @note
    .align 4
    .long 4, 8, 18                      /* name size, value size, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad pvh_start

    .text
    .code32
    .globl pvh_start
pvh_start:
    cli
    cld
    lgdt gdt_pointer
    mov $CR4_VALUE, %eax
    mov %eax, %cr4
    mov $page_pml4, %eax
    mov %eax, %cr3
    mov $MSR_EFER, %ecx
    xor %edx, %edx
    mov $EFER_LME, %eax
    wrmsr
    mov $CR0_VALUE, %eax
    mov %eax, %cr0
    ljmp $KERNEL_CS, $bsp

    .code64
    .globl start64
start64:
    cli
    cld
    lgdt gdt_pointer
    mov $page_pml4, %eax
    mov %rax, %cr3
    mov $CR4_VALUE, %eax
    mov %rax, %cr4
bsp:
    mov %rbx, start_info_address
    xor %edi, %edi
    jmp common

ap_start64:
    mov $1, %edi
    lock xaddl %edi, processors_started
    cmp $CPUS_MAX, %edi
    jb common
park:
    hlt
    jmp park

/* EDI: the processor's number, 0 for the first. */
common:
    mov $USER_DS, %eax
    mov %eax, %ds
    mov %eax, %es
    xor %eax, %eax
    mov %eax, %ss
    mov %eax, %fs
    mov %eax, %gs
    lea 1(%rdi), %eax
    imul $STACK0_BYTES, %eax, %esp
    add $stacks0, %rsp
    push %rdi
    sub $8, %rsp
    call tables_setup
    add $8, %rsp
    pop %rdi
    lidt idt_pointer
    mov %edi, %eax
    shl $4, %eax
    add $TSS_BASE, %eax
    ltr %ax

    /* RDX: where to go, RCX: its stack, as SYSEXIT takes them; EDI is the argument. */
    mov $MSR_SYSENTER_CS, %ecx
    xor %edx, %edx
    mov $KERNEL_CS, %eax
    wrmsr
    lea 1(%rdi), %eax
    imul $STACK_BYTES, %eax, %ecx
    add $stacks - 8, %rcx
    mov $ring3_main, %edx
    cmpb $0, sysexit_usable
    je ring3_by_iret
    push $RFLAGS_IOPL3
    popfq
sysexit_instruction:
    .byte 0x48, 0x0f, 0x35              /* with REX.W: to 64-bit code */

ring3_by_iret:
    push $USER_DS
    push %rcx
    push $RFLAGS_IOPL3
    push $USER_CS
    push %rdx
    iretq

/* The first processor copies this below 1 MiB (smp.c). */
    .code16
    .globl ap_trampoline, ap_trampoline_end
ap_trampoline:
    cli
    mov %cs, %ax
    mov %ax, %ds
    lgdtl ap_gdt_pointer - ap_trampoline
    mov $CR4_VALUE, %eax
    mov %eax, %cr4
    mov $page_pml4, %eax
    mov %eax, %cr3
    mov $MSR_EFER, %ecx
    xor %edx, %edx
    mov $EFER_LME, %eax
    wrmsr
    mov $CR0_VALUE, %eax
    mov %eax, %cr0
    ljmpl $KERNEL_CS, $ap_start64
    .align 4
ap_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
ap_trampoline_end:

/*
 * Exceptions: a stub each that makes the frames look alike (a zero where the processor pushes no error
 * code) and names the vector.
 */
    .code64
    .align 16
    .globl exception_stubs
exception_stubs:
    .set vector, 0
    .rept 32
    .align 16
    .if vector == 6
    jmp invalid_opcode
    .else
    .ifeq (vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
    pushq $0
    .endif
    pushq $vector
    jmp exception
    .endif
    .set vector, vector + 1
    .endr

invalid_opcode:
    cmpq $sysexit_instruction, (%rsp)
    je ring3_by_iret
    push $0
    push $6
exception:
    push %rax
    push %rbx
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %rbp
    mov %rsp, %rdi
    and $-16, %rsp
    call exception_report
1:  pause
    jmp 1b

    .data
    .align 16
    .globl gdt, gdt_tss
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff            /* 0x08 32-bit code */
    .quad 0x00cf93000000ffff            /* 0x10 data */
    .quad 0x00af9b000000ffff            /* 0x18 KERNEL_CS */
    .quad 0x00cf93000000ffff            /* 0x20 KERNEL_DS */
    .quad 0                             /* 0x28 */
    .quad 0                             /* 0x30 */
    .quad 0x00affb000000ffff            /* 0x38 USER_CS: KERNEL_CS + 32, as SYSEXIT wants it */
    .quad 0x00cff3000000ffff            /* 0x40 USER_DS */
gdt_tss:
    .fill CPUS_MAX * 2, 8, 0            /* 0x48 a TSS for each processor, by tables_setup() */
gdt_end:
    .align 8
    .word 0, 0, 0
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
    .align 8
    .word 0, 0, 0
idt_pointer:
    .word 32 * 16 - 1
    .quad idt
    .globl processors_started, start_info_address
    .align 8
start_info_address:
    .quad 0
processors_started:
    .long 1

    .align 4096
page_pml4:
    .quad page_pdpt + 7
    .fill 511, 8, 0
page_pdpt:
    .set index, 0
    .rept 64
    .quad page_pd + index * 4096 + 7
    .set index, index + 1
    .endr
    .rept 448
    .quad (index << 30) + 0x87
    .set index, index + 1
    .endr
page_pd:
    .set index, 0
    .rept 64 * 512
    .quad (index << 21) + 0x87
    .set index, index + 1
    .endr

    .bss
    .align 16
    .globl stacks0
stacks0:
    .skip CPUS_MAX * STACK0_BYTES
stacks:
    .skip CPUS_MAX * STACK_BYTES
    .section .note.GNU-stack, "", @progbits
