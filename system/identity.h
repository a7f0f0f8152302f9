/*
 * Who the machine is: its type, name and UUID, as the command line set them, for the monitors and
 * for the migration stream, which compares them. Set once before the machine runs, read by any
 * thread after.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_IDENTITY_H
#define SYSTEM_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>
#include "util/error.h"

/* "microvm"; @type must stay valid. */
void identity_set_machine_type(const char *type);
const char *identity_machine_type(void);

/* -name; NULL when there is none. The name is copied. */
void identity_set_name(const char *name);
const char *identity_name(void);

/* -uuid: 8-4-4-4-12 hexadecimal digits. Returns 0, or -1 with @errp set. */
int identity_set_uuid(const char *text, Error **errp);
/* False when none was given; then @uuid is all zero. Bytes in the order they are written. */
bool identity_uuid(uint8_t uuid[16]);
/* The text form of 16 bytes, into room for 37. */
void identity_uuid_text(const uint8_t uuid[16], char text[37]);

#endif
