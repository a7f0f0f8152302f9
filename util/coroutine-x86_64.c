/*
 * From one stack to another: push what a function must preserve (System V ABI: rbx, rbp, r12 to
 * r15, the control bits of SSE and x87), exchange the stack pointer, pop the same from the other
 * stack.
 *
 * A saved stack, from its pointer upwards:
 *
 *     0   mxcsr (4 bytes), x87 control word (2), 2 unused
 *     8   r15  r14  r13  r12  rbx  rbp
 *     56  the address to go on at
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/coroutine-internal.h"

#include <stdint.h>

#ifndef __x86_64__
#error "coroutines know how to switch stacks on x86-64 only"
#endif

__asm__(
    "    .text\n"
    "    .p2align 4\n"
    "    .globl  coroutine_switch\n"
    "    .hidden coroutine_switch\n"
    "    .type   coroutine_switch, @function\n"
    "coroutine_switch:\n"
    "    pushq   %rbp\n"
    "    pushq   %rbx\n"
    "    pushq   %r12\n"
    "    pushq   %r13\n"
    "    pushq   %r14\n"
    "    pushq   %r15\n"
    "    subq    $8, %rsp\n"
    "    stmxcsr (%rsp)\n"
    "    fnstcw  4(%rsp)\n"
    "    movq    %rsp, (%rdi)\n"
    "    movq    %rsi, %rsp\n"
    "    ldmxcsr (%rsp)\n"
    "    fldcw   4(%rsp)\n"
    "    addq    $8, %rsp\n"
    "    popq    %r15\n"
    "    popq    %r14\n"
    "    popq    %r13\n"
    "    popq    %r12\n"
    "    popq    %rbx\n"
    "    popq    %rbp\n"
    "    popq    %rcx\n"        /* a ret here would always be mispredicted */
    "    jmpq    *%rcx\n"
    "    .size   coroutine_switch, . - coroutine_switch\n"

    /* Where a new stack begins: nobody is below, so a debugger's backtrace ends here. */
    "    .p2align 4\n"
    "    .type   coroutine_first, @function\n"
    "coroutine_first:\n"
    "    .cfi_startproc\n"
    "    .cfi_undefined rip\n"
    "    movq    %rbx, %rdi\n"
    "    callq   *%r12\n"
    "    ud2\n"
    "    .cfi_endproc\n"
    "    .size   coroutine_first, . - coroutine_first\n"
);

extern void coroutine_first(void) __asm__("coroutine_first");

void *coroutine_first_frame(void *top, void (*fn)(void *arg), void *arg)
{
    uint64_t *frame = (uint64_t *)((uintptr_t)top & ~(uintptr_t)15) - 8;
    uint32_t mxcsr;
    uint16_t control;

    __asm__("stmxcsr %0" : "=m" (mxcsr));
    __asm__("fnstcw %0" : "=m" (control));
    frame[0] = mxcsr | (uint64_t)control << 32;
    frame[1] = frame[2] = frame[3] = 0;
    frame[4] = (uintptr_t)fn;
    frame[5] = (uintptr_t)arg;
    frame[6] = 0;
    frame[7] = (uintptr_t)coroutine_first;
    return frame;
}
