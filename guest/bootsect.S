/*
 * A boot sector that works: loaded at 0x7c00 and entered in real mode, it says so on COM1, enters 32-bit
 * protected mode and from then on counts in every page between 1 and 9 MiB. A page that does not hold what it was left
 * with is reported.
 *
 * Output: "bootsect: real", "bootsect: protected", then "pass" every 64 rounds, or "CORRUPT" and the end.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define COM1 0x3f8
#define COM1_STATUS (COM1 + 5)
#define FIRST 0x100000
#define END 0x900000
#define PAGE 0x1000
#define ROUNDS_A_PASS 64

        .code16
        .globl _start
_start:
        cli
        cld
        ljmp $0, $1f
1:      xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movw $0x7c00, %sp
        movw $say_real, %si
        call put16
        inb $0x92, %al          /* address line 20 */
        orb $2, %al
        outb %al, $0x92
        lgdtl gdt_pointer
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        ljmpl $8, $protected

put16:
        lodsb
        testb %al, %al
        jz 2f
        movb %al, %ah
        movw $COM1_STATUS, %dx
3:      inb %dx, %al
        testb $0x20, %al
        jz 3b
        movb %ah, %al
        movw $COM1, %dx
        outb %al, %dx
        jmp put16
2:      ret

        .code32
protected:
        movl $16, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        movl $0x7c00, %esp
        movl $say_protected, %esi
        call put
        movl $FIRST, %edi       /* memory may hold anything */
        movl $(END - FIRST) / 4, %ecx
        xorl %eax, %eax
        rep stosl
        xorl %ebx, %ebx         /* what all pages hold */
round:
        movl $FIRST, %edi
4:      cmpl %ebx, (%edi)
        jne corrupt
        incl (%edi)
        addl $PAGE, %edi
        cmpl $END, %edi
        jb 4b
        incl %ebx
        testl $ROUNDS_A_PASS - 1, %ebx
        jnz round
        movl $say_pass, %esi
        call put
        jmp round
corrupt:
        movl $say_corrupt, %esi
        call put
5:      hlt
        jmp 5b

put:
        lodsb
        testb %al, %al
        jz 6f
        movb %al, %ah
        movl $COM1_STATUS, %edx
7:      inb %dx, %al
        testb $0x20, %al
        jz 7b
        movb %ah, %al
        movl $COM1, %edx
        outb %al, %dx
        jmp put
6:      ret

say_real:
        .asciz "bootsect: real\n"
say_protected:
        .asciz "bootsect: protected\n"
say_pass:
        .asciz "pass\n"
say_corrupt:
        .asciz "CORRUPT\n"

        .balign 8
gdt:
        .quad 0
        .quad 0x00cf9a000000ffff        /* flat code */
        .quad 0x00cf92000000ffff        /* flat data */
gdt_pointer:
        .word gdt_pointer - gdt - 1
        .long gdt

        .org 510
        .word 0xaa55
