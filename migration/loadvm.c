/*
 * Reading a migration stream: every element is checked against what may come at that point, before
 * anything acts on it.
 *
 * Live sections (RAM) load without the big lock. A device's section loads under it; when its bytes
 * have not arrived yet the MigrationFile drops the lock while it waits. At the end every section
 * that this machine has must have been there, else a machine would run with a device half reset.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/savevm-internal.h"

#include <string.h>
#include "migration/incoming.h"
#include "system/bql.h"
#include "util/bswap.h"

/* The description of a machine with a thousand devices is far below this. */
#define VMDESC_MAX_BYTES (64u << 20)

static int load_header(MigrationContext *ctx, Error **errp)
{
    MigrationFile *f = ctx->main_file;
    uint32_t magic = mfile_get_be32(f);
    uint32_t version = mfile_get_be32(f);

    if (mfile_check(f, errp) < 0) {
        error_prepend(errp, "reading the stream's header: ");
        return -1;
    }
    if (magic == MIG_FILE_INCOMPLETE) {
        error_setg(errp, "the %s is incomplete: the migration that wrote it did not finish",
                   migration_channels_describe(ctx->channels));
        return -1;
    }
    if (magic != MIG_FILE_MAGIC) {
        error_setg(errp, "not a migration stream: it begins with 0x%08x instead of 0x%08x", magic,
                   MIG_FILE_MAGIC);
        return -1;
    }
    if (version != MIG_FILE_VERSION) {
        error_setg(errp, "the stream has format version %u, only version %u can be loaded", version,
                   MIG_FILE_VERSION);
        return -1;
    }
    return 0;
}

static int load_configuration(MigrationContext *ctx, Error **errp)
{
    MigrationFile *f = ctx->main_file;
    g_autofree ConfigurationState *config = g_new(ConfigurationState, 1);
    uint8_t type = mfile_get_u8(f);

    if (mfile_check(f, errp) < 0) {
        error_prepend(errp, "reading the configuration section: ");
        return -1;
    }
    if (type != MIG_CONFIGURATION) {
        error_setg(errp, "the stream has no configuration section: 0x%02x in its place", type);
        return -1;
    }
    configuration_init(config, &ctx->opts);
    if (vmstate_load_state(f, &vmstate_configuration, config, 1, errp) < 0) {
        error_prepend(errp, "configuration section: ");
        return -1;
    }
    return 0;
}

static int load_footer(MigrationFile *f, const SaveStateEntry *entry, Error **errp)
{
    uint8_t marker = mfile_get_u8(f);
    uint32_t id = mfile_get_be32(f);

    if (mfile_check(f, errp) < 0) {
        return -1;
    }
    if (marker != MIG_SECTION_FOOTER || id != entry->section_id) {
        error_setg(errp, "its data do not end where the stream says: 0x%02x and id %u instead of "
                   "0x%02x and id %u", marker, id, MIG_SECTION_FOOTER, entry->section_id);
        return -1;
    }
    return 0;
}

/* The data of a section and its footer. */
static int load_section_data(MigrationContext *ctx, SaveStateEntry *entry, uint32_t version,
                             Error **errp)
{
    MigrationFile *f = ctx->main_file;
    int ret;

    if (entry->vmsd) {
        bql_lock();
        ret = vmstate_load_state(f, entry->vmsd, entry->opaque, version, errp);
        bql_unlock();
    } else {
        ret = entry->handlers->load_state(entry->opaque, f, version, errp);
    }
    if (ret < 0 || load_footer(f, entry, errp) < 0) {
        error_prepend(errp, "section '%s' (instance %u): ", entry->idstr, entry->instance_id);
        return -1;
    }
    return 0;
}

static SaveStateEntry *find_by_id(uint32_t section_id)
{
    SAVEVM_FOREACH(entry) {
        if (entry->load_seen && entry->section_id == section_id) {
            return entry;
        }
    }
    return NULL;
}

static int load_section_start(MigrationContext *ctx, bool full, Error **errp)
{
    MigrationFile *f = ctx->main_file;
    char idstr[256];
    uint32_t section_id = mfile_get_be32(f);
    bool have_name = mfile_get_counted_string(f, idstr);
    uint32_t instance_id = mfile_get_be32(f);
    uint32_t version = mfile_get_be32(f);

    if (mfile_check(f, errp) < 0) {
        return -1;
    }
    g_autofree char *shown = g_strescape(have_name ? idstr : "", NULL);
    SaveStateEntry *entry = have_name ? savevm_find(idstr, instance_id) : NULL;
    if (!entry) {
        error_setg(errp, "the stream has a section '%s' (instance %u) that this machine has not",
                   shown, instance_id);
        return -1;
    }
    if (entry->load_seen) {
        error_setg(errp, "section '%s' (instance %u) comes twice", shown, instance_id);
        return -1;
    }
    if (find_by_id(section_id)) {
        error_setg(errp, "section '%s' (instance %u) has id %u, which another section has", shown,
                   instance_id, section_id);
        return -1;
    }
    if (full != (entry->vmsd != NULL)) {
        error_setg(errp, "section '%s' (instance %u) is sent %s", shown, instance_id,
                   full ? "at once but comes in parts" : "in parts but comes at once");
        return -1;
    }
    if (version > entry->version_id) {
        error_setg(errp, "section '%s' (instance %u) has version %u, at most %u can be loaded",
                   shown, instance_id, version, entry->version_id);
        return -1;
    }
    entry->load_seen = true;
    entry->load_ended = full;
    entry->section_id = section_id;
    return load_section_data(ctx, entry, version, errp);
}

static int load_section_part(MigrationContext *ctx, bool end, Error **errp)
{
    MigrationFile *f = ctx->main_file;
    uint32_t section_id = mfile_get_be32(f);

    if (mfile_check(f, errp) < 0) {
        return -1;
    }
    SaveStateEntry *entry = find_by_id(section_id);
    if (!entry || entry->vmsd || entry->load_ended) {
        error_setg(errp, "the stream continues section id %u, which %s", section_id,
                   entry ? "has ended" : "was not started");
        return -1;
    }
    entry->load_ended = end;
    return load_section_data(ctx, entry, entry->version_id, errp);
}

static int load_command(MigrationContext *ctx, Error **errp)
{
    MigrationFile *f = ctx->main_file;
    uint16_t command = mfile_get_be16(f);
    uint16_t len = mfile_get_be16(f);
    uint8_t data[4];

    if (mfile_check(f, errp) < 0) {
        return -1;
    }
    switch (command) {
    case MIG_CMD_OPEN_RETURN_PATH:
        if (len != 0) {
            break;
        }
        return incoming_open_return_path(ctx, errp);
    case MIG_CMD_PING:
        if (len != sizeof(data)) {
            break;
        }
        mfile_get_buffer(f, data, sizeof(data));
        if (mfile_check(f, errp) < 0) {
            return -1;
        }
        return incoming_send_pong(ldl_be_p(data), errp);
    case MIG_CMD_SWITCHOVER_START:
        if (len != 0) {
            break;
        }
        return 0;
    case MIG_CMD_POSTCOPY_ADVISE ... MIG_CMD_PACKAGED:
    case MIG_CMD_POSTCOPY_RESUME:
        error_setg(errp, "the source wants postcopy (command %u), which is not supported", command);
        return -1;
    default:
        error_setg(errp, "the stream has a command %u, which is not known", command);
        return -1;
    }
    error_setg(errp, "command %u in the stream has %u bytes of data", command, len);
    return -1;
}

/* Read and drop the JSON description: it is for tools, but the stream is whole only with it. */
static int load_vmdescription(MigrationContext *ctx, Error **errp)
{
    MigrationFile *f = ctx->main_file;
    uint8_t type = mfile_get_u8(f);
    uint32_t left = mfile_get_be32(f);
    uint8_t dropped[4096];

    if (mfile_check(f, errp) == 0 && type != MIG_VMDESCRIPTION) {
        error_setg(errp, "the stream goes on with 0x%02x after its end", type);
        return -1;
    }
    if (left > VMDESC_MAX_BYTES) {
        error_setg(errp, "the stream's description has %u bytes, at most %u are accepted", left,
                   VMDESC_MAX_BYTES);
        return -1;
    }
    while (left && !mfile_has_error(f)) {
        left -= mfile_get_buffer(f, dropped, MIN(left, sizeof(dropped)));
    }
    if (mfile_check(f, errp) < 0) {
        error_prepend(errp, "reading the stream's description: ");
        return -1;
    }
    return 0;
}

static int load_sections(MigrationContext *ctx, Error **errp)
{
    MigrationFile *f = ctx->main_file;

    for (;;) {
        if (migration_context_cancelled(ctx)) {
            error_setg(errp, "the migration was cancelled");
            return -1;
        }
        uint8_t type = mfile_get_u8(f);
        int ret;

        if (mfile_check(f, errp) < 0) {
            return -1;
        }
        switch (type) {
        case MIG_EOF:
            return 0;
        case MIG_SECTION_START:
        case MIG_SECTION_FULL:
            ret = load_section_start(ctx, type == MIG_SECTION_FULL, errp);
            break;
        case MIG_SECTION_PART:
        case MIG_SECTION_END:
            ret = load_section_part(ctx, type == MIG_SECTION_END, errp);
            break;
        case MIG_COMMAND:
            ret = load_command(ctx, errp);
            break;
        default:
            error_setg(errp, "the stream has an element of type 0x%02x, which is not known", type);
            return -1;
        }
        if (ret < 0) {
            return -1;
        }
    }
}

/* Sections that are there only when needed() says so cannot be missed by the loading side. */
static int check_all_loaded(Error **errp)
{
    SAVEVM_FOREACH(entry) {
        bool optional = entry->vmsd && entry->vmsd->needed;
        if (entry->load_seen ? !entry->load_ended : !optional) {
            error_setg(errp, "section '%s' (instance %u) %s in the stream", entry->idstr,
                       entry->instance_id, entry->load_seen ? "has no end" : "is missing");
            return -1;
        }
    }
    return 0;
}

static int prepare_all(MigrationContext *ctx, Error **errp)
{
    SAVEVM_FOREACH(entry) {
        entry->load_seen = entry->load_ended = entry->prepared = false;
    }
    global_state_reset();
    SAVEVM_FOREACH(entry) {
        if (!entry->handlers) {
            continue;
        }
        entry->prepared = true;
        if (entry->handlers->load_prepare &&
            entry->handlers->load_prepare(entry->opaque, ctx, errp) < 0) {
            return -1;
        }
    }
    return 0;
}

static int complete_all(Error **errp)
{
    SAVEVM_FOREACH(entry) {
        if (entry->handlers && entry->handlers->load_complete &&
            entry->handlers->load_complete(entry->opaque, errp) < 0) {
            return -1;
        }
    }
    return 0;
}

static void cleanup_all(void)
{
    SAVEVM_FOREACH(entry) {
        if (entry->prepared && entry->handlers->load_cleanup) {
            entry->handlers->load_cleanup(entry->opaque);
        }
        entry->prepared = false;
    }
}

int loadvm(MigrationContext *ctx, Error **errp)
{
    int ret = -1;

    if (load_header(ctx, errp) == 0 && load_configuration(ctx, errp) == 0 &&
        prepare_all(ctx, errp) == 0 && load_sections(ctx, errp) == 0 &&
        load_vmdescription(ctx, errp) == 0 && check_all_loaded(errp) == 0 &&
        complete_all(errp) == 0) {
        ret = 0;
    }
    cleanup_all();
    return ret;
}
