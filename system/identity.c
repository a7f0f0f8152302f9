/*
 * The machine's type, name and UUID: plain variables with one door.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/identity.h"

#include <glib.h>
#include <string.h>

static const char *machine_type = "none";
static char *machine_name;
static uint8_t machine_uuid[16];
static bool machine_has_uuid;

void identity_set_machine_type(const char *type)
{
    machine_type = type;
}

const char *identity_machine_type(void)
{
    return machine_type;
}

void identity_set_name(const char *name)
{
    g_free(machine_name);
    machine_name = g_strdup(name);
}

const char *identity_name(void)
{
    return machine_name;
}

int identity_set_uuid(const char *text, Error **errp)
{
    uint8_t uuid[16];
    const char *p = text;

    for (unsigned i = 0; i < 16; i++) {
        if ((i == 4 || i == 6 || i == 8 || i == 10) && *p++ != '-') {
            goto bad;
        }
        if (!g_ascii_isxdigit(p[0]) || !g_ascii_isxdigit(p[1])) {
            goto bad;
        }
        uuid[i] = g_ascii_xdigit_value(p[0]) << 4 | g_ascii_xdigit_value(p[1]);
        p += 2;
    }
    if (*p) {
        goto bad;
    }
    memcpy(machine_uuid, uuid, sizeof(uuid));
    machine_has_uuid = true;
    return 0;

bad:
    error_setg(errp, "UUID '%s' is not of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", text);
    return -1;
}

bool identity_uuid(uint8_t uuid[16])
{
    memcpy(uuid, machine_uuid, sizeof(machine_uuid));
    return machine_has_uuid;
}

void identity_uuid_text(const uint8_t uuid[16], char text[37])
{
    char *p = text;

    for (unsigned i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *p++ = '-';
        }
        g_snprintf(p, 3, "%02x", uuid[i]);
        p += 2;
    }
}
