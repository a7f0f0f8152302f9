/*
 * The configuration section: what both sides must agree on before anything else is looked at. The
 * machine's type always; capabilities that change the format of the stream; the UUID when asked.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/savevm-internal.h"

#include <string.h>
#include "system/identity.h"

/* Capabilities that both sides must have alike, and their names in the stream. */
static const struct {
    MigrationCapability cap;
    const char *wire_name;
} agreed_caps[] = {
    { MIGRATION_CAPABILITY_X_IGNORE_SHARED, "x-ignore-shared" },
    { MIGRATION_CAPABILITY_DIRECT_MAPPED, "mapped-ram" },
};

void configuration_init(ConfigurationState *state, const MigrationOptions *opts)
{
    memset(state, 0, sizeof(*state));
    state->opts = opts;
    g_strlcpy(state->name, identity_machine_type(), sizeof(state->name));
    state->len = strlen(state->name);
    for (unsigned i = 0; i < G_N_ELEMENTS(agreed_caps); i++) {
        if (migration_cap(opts, agreed_caps[i].cap)) {
            unsigned n = state->caps_count++;
            g_strlcpy(state->caps[n].name, agreed_caps[i].wire_name,
                      sizeof(state->caps[n].name));
            state->caps[n].len = strlen(state->caps[n].name);
        }
    }
    state->send_uuid = migration_cap(opts, MIGRATION_CAPABILITY_VALIDATE_UUID);
    identity_uuid(state->uuid);
}

static int put_capability(MigrationFile *f, const void *value, size_t size,
                          const VMStateField *field, Error **errp)
{
    const uint8_t *len = value;

    mfile_put_u8(f, *len);
    mfile_put_buffer(f, len + 1, *len);
    return 0;
}

static int get_capability(MigrationFile *f, void *value, size_t size, const VMStateField *field,
                          Error **errp)
{
    uint8_t *len = value;
    char *name = (char *)value + 1;

    if (!mfile_get_counted_string(f, name)) {
        return mfile_check(f, errp);
    }
    *len = strlen(name);
    return 0;
}

static const VMStateInfo info_capability = {
    .name = "capability", .get = get_capability, .put = put_capability,
};

static bool caps_needed(void *opaque)
{
    return ((ConfigurationState *)opaque)->caps_count > 0;
}

static int caps_pre_load(void *opaque, Error **errp)
{
    ((ConfigurationState *)opaque)->caps_count = 0;
    return 0;
}

static const VMStateDescription vmstate_configuration_caps = {
    .name = "configuration/capabilities",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = caps_needed,
    .pre_load = caps_pre_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(caps_count, ConfigurationState),
        {
            .name = "capabilities",
            .info = &info_capability,
            .flags = VMS_VARRAY,
            .num = G_N_ELEMENTS(((ConfigurationState *)0)->caps),
            .size = sizeof(((ConfigurationState *)0)->caps[0]),
            .offset = offsetof(ConfigurationState, caps),
            .num_offset = offsetof(ConfigurationState, caps_count),
        },
        VMSTATE_END_OF_LIST() },
};

static bool uuid_needed(void *opaque)
{
    return ((ConfigurationState *)opaque)->send_uuid;
}

static int uuid_post_load(void *opaque, int version_id, Error **errp)
{
    ConfigurationState *state = opaque;
    uint8_t own[16];
    char theirs_text[37], own_text[37];

    if (!migration_cap(state->opts, MIGRATION_CAPABILITY_VALIDATE_UUID)) {
        return 0;
    }
    identity_uuid(own);
    if (memcmp(own, state->uuid, sizeof(own)) != 0) {
        identity_uuid_text(state->uuid, theirs_text);
        identity_uuid_text(own, own_text);
        error_setg(errp, "the stream is of the machine with UUID %s, this one has UUID %s",
                   theirs_text, own_text);
        return -1;
    }
    return 0;
}

static const VMStateDescription vmstate_configuration_uuid = {
    .name = "configuration/uuid",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = uuid_needed,
    .post_load = uuid_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8_ARRAY(uuid, ConfigurationState, 16),
        VMSTATE_END_OF_LIST() },
};

static int configuration_pre_load(void *opaque, Error **errp)
{
    ConfigurationState *state = opaque;

    state->len = 0;
    state->caps_count = 0;
    memset(state->name, 0, sizeof(state->name));
    return 0;
}

static bool stream_has_cap(const ConfigurationState *state, const char *name)
{
    for (unsigned i = 0; i < state->caps_count; i++) {
        if (strcmp(state->caps[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static int check_caps(const ConfigurationState *state, Error **errp)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(agreed_caps); i++) {
        bool theirs = stream_has_cap(state, agreed_caps[i].wire_name);
        bool ours = migration_cap(state->opts, agreed_caps[i].cap);
        if (theirs != ours) {
            error_setg(errp, "capability '%s' is %s in the stream but %s here",
                       MigrationCapability_str(agreed_caps[i].cap), theirs ? "on" : "off",
                       ours ? "on" : "off");
            return -1;
        }
    }
    for (unsigned i = 0; i < state->caps_count; i++) {
        bool known = false;
        for (unsigned j = 0; j < G_N_ELEMENTS(agreed_caps); j++) {
            known |= strcmp(state->caps[i].name, agreed_caps[j].wire_name) == 0;
        }
        if (!known) {
            g_autofree char *name = g_strescape(state->caps[i].name, NULL);
            error_setg(errp, "the stream needs capability '%s', which this version lacks", name);
            return -1;
        }
    }
    return 0;
}

static int configuration_post_load(void *opaque, int version_id, Error **errp)
{
    ConfigurationState *state = opaque;
    const char *own = identity_machine_type();

    if (state->len != strlen(own) || memcmp(state->name, own, state->len) != 0) {
        g_autofree char *text = g_strndup(state->name, state->len);
        g_autofree char *theirs = g_strescape(text, NULL);
        error_setg(errp, "Machine type received is '%s' and local is '%s'", theirs, own);
        return -1;
    }
    return check_caps(state, errp);
}

const VMStateDescription vmstate_configuration = {
    .name = "configuration",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_load = configuration_pre_load,
    .post_load = configuration_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(len, ConfigurationState),
        VMSTATE_VBUFFER_UINT32(name, ConfigurationState, len),
        VMSTATE_END_OF_LIST() },
    .subsections = (const VMStateDescription *const[]) {
        &vmstate_configuration_caps,
        &vmstate_configuration_uuid,
        NULL },
};
