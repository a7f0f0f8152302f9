/*
 * What the files of the guest library share with each other and with start.S; not for guests.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef GUEST_LIB_INTERNAL_H
#define GUEST_LIB_INTERNAL_H

#include <stdint.h>

/* start.S: how many processors have come up, the first included. */
extern uint32_t processors_started;

/* The registers as start.S pushes them for an exception, lowest address first. */
typedef struct ExceptionFrame {
    uint64_t rbp, rdi, rsi, rdx, rcx, rbx, rax;
    uint64_t vector, error_code, rip, cs, rflags, rsp, ss;
} ExceptionFrame;

/* Called from start.S in ring 0: TSS of processor @cpu, and on the first the IDT. */
void tables_setup(unsigned cpu);
/* Called from start.S in ring 0: say what happened, and end the machine. */
void exception_report(const ExceptionFrame *frame);
/* Where start.S leaves ring 0 for. */
void ring3_main(unsigned cpu);
/* A processor other than the first, for good. */
void ap_main(unsigned cpu);

#endif
