/*
 * Integer expressions, as people type them at the monitor's prompt.
 *
 *     sum   = logic { (+|-) logic }           as in the customary monitor, + and - bind loosest
 *     logic = prod { (&|^|'|') prod }
 *     prod  = unary { (*|/|%) unary }
 *     unary = [+-~] unary | ( sum ) | 'c' | $register | number (decimal, 0x hex, 0 octal)
 *
 * Arithmetic is on 64 bits and wraps.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MONITOR_HMP_EXPR_H
#define MONITOR_HMP_EXPR_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "util/error.h"

/* Look up a register by its name without '$'. False when there is none of that name. */
typedef bool (*HMPRegisterLookup)(const char *name, int64_t *value);

/*
 * hmp_expr_parse:
 * @p: text; moved behind the expression and the spaces after it
 * @lookup: finds registers; NULL when there are none
 * @value: where the value goes
 * @errp: where an error goes
 */
bool hmp_expr_parse(const char **p, HMPRegisterLookup lookup, int64_t *value, Error **errp);

#endif
