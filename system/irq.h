/*
 * Interrupt lines, as far as devices see them: a GSI number and a level.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_IRQ_H
#define SYSTEM_IRQ_H

#include <stdbool.h>

/*
 * Set line @gsi (0 to 23) to @level. Goes to the accelerator's interrupt controller, and to the
 * qtest server when it intercepts interrupts. Under the big lock.
 */
void irq_set(unsigned gsi, bool level);

/* The qtest server's interceptor; NULL takes it out. */
typedef void (*IRQInterceptor)(unsigned gsi, bool level);
void irq_set_interceptor(IRQInterceptor interceptor);

#endif
