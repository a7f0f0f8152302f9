/*
 * Interrupt lines: a device's level goes to the accelerator's interrupt controller, and a copy to
 * the qtest server while it listens.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/irq.h"

#include "system/accel.h"

#define IRQ_LINES 24

static IRQInterceptor irq_interceptor;

void irq_set(unsigned gsi, bool level)
{
    const AccelClass *accel = accel_current();

    g_assert(gsi < IRQ_LINES);
    if (accel && accel->set_irq) {
        accel->set_irq(gsi, level);
    }
    if (irq_interceptor) {
        irq_interceptor(gsi, level);
    }
}

void irq_set_interceptor(IRQInterceptor interceptor)
{
    irq_interceptor = interceptor;
}
