/*
 * The qtest server: a test drives the machine's memory, ports, interrupt lines and clock over a
 * character device, one command a line, one answer a line. QEMU's protocol:
 *
 *     readb|readw|readl|readq ADDR            OK VALUE
 *     writeb|writew|writel|writeq ADDR VALUE  OK
 *     read ADDR SIZE                          OK 0xHEX
 *     write ADDR SIZE 0xHEX                   OK      (short data is filled with zeroes)
 *     b64read ADDR SIZE, b64write ADDR SIZE DATA, memset ADDR SIZE BYTE
 *     inb|inw|inl PORT                        OK VALUE
 *     outb|outw|outl PORT VALUE               OK
 *     irq_intercept_in|irq_intercept_out PATH OK, and from then on "IRQ raise N" and "IRQ lower N"
 *     set_irq_in PATH NAME N LEVEL            OK
 *     clock_step [NS], clock_set NS           OK NS
 *     endianness                              OK little
 *
 * There is one set of interrupt lines, so the paths and names of the IRQ commands are not looked
 * at. A command that is wrong is answered by FAIL and the reason. Works with every accelerator, but
 * only the qtest one lets nobody else touch the machine.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_QTEST_H
#define SYSTEM_QTEST_H

#include <stdint.h>
#include "util/error.h"

/* No longer line, and no longer read, is served. */
#define QTEST_LINE_MAX (64u * 1024 * 1024)

/*
 * qtest_server_init:
 * @device: a character device in the short syntax of -serial
 * @log: file for the protocol's log; NULL for standard error, "none" for no log
 *
 * Once, on the main thread. Returns: 0, or -1 with @errp set.
 */
int qtest_server_init(const char *device, const char *log, Error **errp);
/* At exit. */
void qtest_server_cleanup(void);

/* The virtual clock as clock_step and clock_set left it, in ns; starts at 0. */
int64_t qtest_clock_ns(void);

#endif
