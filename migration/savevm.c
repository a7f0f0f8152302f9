/*
 * The registry of sections, and writing a migration stream from it.
 *
 * A stream is the header and configuration; START, PARTs and END of each live section, interleaved;
 * a FULL section for each device; EOF; and the JSON description of the devices' bytes. Device
 * sections are first written to memory under the big lock and sent after it is dropped, so a slow
 * peer never holds the machine's lock.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/savevm-internal.h"

#include <json-c/json.h>
#include <string.h>
#include "io/channel-buffer.h"
#include "system/bql.h"
#include "util/bswap.h"

GPtrArray *savevm_entries;

SaveStateEntry *savevm_find(const char *idstr, uint32_t instance_id)
{
    SAVEVM_FOREACH(entry) {
        if (entry->instance_id == instance_id && strcmp(entry->idstr, idstr) == 0) {
            return entry;
        }
    }
    return NULL;
}

static SaveStateEntry *savevm_add(const char *idstr, uint32_t instance_id, Error **errp)
{
    size_t len = strlen(idstr);

    if (len < 1 || len > 255) {
        error_setg(errp, "section name '%s' must have 1 to 255 bytes", idstr);
        return NULL;
    }
    if (savevm_find(idstr, instance_id)) {
        error_setg(errp, "section '%s' (instance %u) exists already", idstr, instance_id);
        return NULL;
    }
    if (!savevm_entries) {
        savevm_entries = g_ptr_array_new_with_free_func(g_free);
    }
    SaveStateEntry *entry = g_new0(SaveStateEntry, 1);
    memcpy(entry->idstr, idstr, len);
    entry->instance_id = instance_id;
    g_ptr_array_add(savevm_entries, entry);
    return entry;
}

int vmstate_register(const char *idstr, uint32_t instance_id, const VMStateDescription *vmsd,
                     void *opaque, Error **errp)
{
    SaveStateEntry *entry = savevm_add(idstr, instance_id, errp);

    if (!entry) {
        return -1;
    }
    entry->vmsd = vmsd;
    entry->version_id = vmsd->version_id;
    entry->opaque = opaque;
    return 0;
}

void vmstate_unregister(const VMStateDescription *vmsd, void *opaque)
{
    for (unsigned i = 0; savevm_entries && i < savevm_entries->len; i++) {
        SaveStateEntry *entry = g_ptr_array_index(savevm_entries, i);
        if (entry->vmsd == vmsd && entry->opaque == opaque) {
            g_ptr_array_remove_index(savevm_entries, i);
            return;
        }
    }
}

void savevm_register_live(const char *idstr, uint32_t instance_id, uint32_t version,
                          const SaveVMHandlers *handlers, void *opaque)
{
    SaveStateEntry *entry = savevm_add(idstr, instance_id, &error_abort);

    entry->version_id = version;
    entry->handlers = handlers;
    entry->opaque = opaque;
}

static void put_section_start(MigrationFile *f, uint8_t type, const SaveStateEntry *entry)
{
    mfile_put_u8(f, type);
    mfile_put_be32(f, entry->section_id);
    mfile_put_counted_string(f, entry->idstr);
    mfile_put_be32(f, entry->instance_id);
    mfile_put_be32(f, entry->version_id);
}

static void put_footer(MigrationFile *f, const SaveStateEntry *entry)
{
    mfile_put_u8(f, MIG_SECTION_FOOTER);
    mfile_put_be32(f, entry->section_id);
}

void savevm_command(MigrationFile *f, uint16_t command, const void *data, uint16_t len)
{
    mfile_put_u8(f, MIG_COMMAND);
    mfile_put_be16(f, command);
    mfile_put_be16(f, len);
    mfile_put_buffer(f, data, len);
}

int savevm_prepare(MigrationContext *ctx, Error **errp)
{
    uint32_t id = 0;

    SAVEVM_FOREACH(entry) {
        entry->section_id = id++;
        entry->prepared = false;
    }
    SAVEVM_FOREACH(entry) {
        if (!entry->handlers) {
            continue;
        }
        entry->prepared = true;
        if (entry->handlers->save_prepare &&
            entry->handlers->save_prepare(entry->opaque, ctx, errp) < 0) {
            return -1;
        }
    }
    return 0;
}

int savevm_header(MigrationContext *ctx, Error **errp)
{
    MigrationFile *f = ctx->main_file;
    g_autofree ConfigurationState *config = g_new(ConfigurationState, 1);

    bool seekable = migration_channels_seekable(ctx->channels);

    ctx->stream_offset = seekable ? mfile_offset(f) : 0;
    mfile_put_be32(f, seekable ? MIG_FILE_INCOMPLETE : MIG_FILE_MAGIC);
    mfile_put_be32(f, MIG_FILE_VERSION);
    configuration_init(config, &ctx->opts);
    mfile_put_u8(f, MIG_CONFIGURATION);
    if (vmstate_save_state(f, &vmstate_configuration, config, NULL, errp) < 0) {
        return -1;
    }
    if (!seekable) {
        return mfile_check(f, errp);
    }
    /*
     * What the place held before may be a whole save: that it is none any more must be certain
     * before anything of it is overwritten.
     */
    return mfile_flush(f, errp) < 0 ? -1 : migration_channels_flush(ctx->channels, errp);
}

int savevm_setup(MigrationContext *ctx, Error **errp)
{
    MigrationFile *f = ctx->main_file;

    SAVEVM_FOREACH(entry) {
        if (!entry->handlers) {
            continue;
        }
        put_section_start(f, MIG_SECTION_START, entry);
        if (entry->handlers->save_setup &&
            entry->handlers->save_setup(entry->opaque, f, errp) < 0) {
            return -1;
        }
        put_footer(f, entry);
    }
    return mfile_flush(f, errp);
}

int savevm_iterate(MigrationContext *ctx, Error **errp)
{
    MigrationFile *f = ctx->main_file;
    int all_done = 1;

    SAVEVM_FOREACH(entry) {
        if (!entry->handlers || !entry->handlers->save_iterate) {
            continue;
        }
        mfile_put_u8(f, MIG_SECTION_PART);
        mfile_put_be32(f, entry->section_id);
        int done = entry->handlers->save_iterate(entry->opaque, f, errp);
        if (done < 0) {
            return -1;
        }
        all_done &= done;
        put_footer(f, entry);
    }
    return mfile_check(f, errp) < 0 ? -1 : all_done;
}

int savevm_pending(MigrationContext *ctx, bool exact, uint64_t *bytes, Error **errp)
{
    *bytes = 0;
    SAVEVM_FOREACH(entry) {
        uint64_t part = 0;
        if (entry->handlers && entry->handlers->state_pending &&
            entry->handlers->state_pending(entry->opaque, exact, &part, errp) < 0) {
            return -1;
        }
        *bytes += part;
    }
    return 0;
}

int savevm_complete_live(MigrationContext *ctx, Error **errp)
{
    MigrationFile *f = ctx->main_file;

    SAVEVM_FOREACH(entry) {
        if (!entry->handlers) {
            continue;
        }
        mfile_put_u8(f, MIG_SECTION_END);
        mfile_put_be32(f, entry->section_id);
        if (entry->handlers->save_complete &&
            entry->handlers->save_complete(entry->opaque, f, errp) < 0) {
            return -1;
        }
        put_footer(f, entry);
    }
    return mfile_check(f, errp);
}

/* One FULL section into @f, described in the array @devices. */
static int save_device(MigrationFile *f, SaveStateEntry *entry, struct json_object *devices,
                       Error **errp)
{
    struct json_object *desc = json_object_new_object();

    json_object_object_add(desc, "name", json_object_new_string(entry->idstr));
    json_object_object_add(desc, "instance_id", json_object_new_int64(entry->instance_id));
    json_object_array_add(devices, desc);

    put_section_start(f, MIG_SECTION_FULL, entry);
    if (vmstate_save_state(f, entry->vmsd, entry->opaque, desc, errp) < 0) {
        error_prepend(errp, "saving section '%s' (instance %u): ", entry->idstr,
                      entry->instance_id);
        return -1;
    }
    put_footer(f, entry);
    return mfile_check(f, errp);
}

/* The configuration section's own description: saved once more, into nothing. */
static struct json_object *describe_configuration(MigrationContext *ctx)
{
    g_autoptr(QIOChannel) null = QIO_CHANNEL(qio_channel_buffer_new(0));
    g_autoptr(MigrationFile) f = mfile_new_output(null);
    g_autofree ConfigurationState *config = g_new(ConfigurationState, 1);
    struct json_object *desc = json_object_new_object();

    configuration_init(config, &ctx->opts);
    vmstate_save_state(f, &vmstate_configuration, config, desc, &error_abort);
    return desc;
}

static int save_all_devices(MigrationContext *ctx, MigrationFile *f, struct json_object *devices,
                            Error **errp)
{
    int ret = 0;

    bql_lock();
    SAVEVM_FOREACH(entry) {
        if (ret == 0 && entry->vmsd &&
            (!entry->vmsd->needed || entry->vmsd->needed(entry->opaque))) {
            ret = save_device(f, entry, devices, errp);
        }
    }
    bql_unlock();
    return ret < 0 ? -1 : mfile_flush(f, errp);
}

int savevm_complete_devices(MigrationContext *ctx, Error **errp)
{
    MigrationFile *f = ctx->main_file;
    g_autoptr(QIOChannel) memory = QIO_CHANNEL(qio_channel_buffer_new(64 * 1024));
    g_autoptr(MigrationFile) buffered = mfile_new_output(memory);
    struct json_object *root = json_object_new_object();
    struct json_object *devices = json_object_new_array();
    int ret;

    json_object_object_add(root, "configuration", describe_configuration(ctx));
    json_object_object_add(root, "page_size", json_object_new_int(4096));
    json_object_object_add(root, "devices", devices);

    ret = save_all_devices(ctx, buffered, devices, errp);
    if (ret == 0) {
        const char *text = json_object_to_json_string_ext(root, JSON_C_TO_STRING_PLAIN |
                                                                JSON_C_TO_STRING_NOSLASHESCAPE);
        size_t len;
        const void *bytes = qio_channel_buffer_data((QIOChannelBuffer *)memory, &len);

        mfile_put_buffer(f, bytes, len);
        mfile_put_u8(f, MIG_EOF);
        mfile_put_u8(f, MIG_VMDESCRIPTION);
        mfile_put_be32(f, strlen(text));
        mfile_put_buffer(f, text, strlen(text));
        ret = mfile_flush(f, errp);
    }
    json_object_put(root);
    return ret;
}

static int write_magic(MigrationContext *ctx, uint32_t magic, Error **errp)
{
    uint8_t bytes[4];

    stl_be_p(bytes, magic);
    return qio_channel_pwrite_all(mfile_channel(ctx->main_file), bytes, sizeof(bytes),
                                  ctx->stream_offset, errp);
}

int savevm_finish(MigrationContext *ctx, Error **errp)
{
    MigrationFile *f = ctx->main_file;

    if (mfile_flush(f, errp) < 0 || migration_channels_finish(ctx->channels, errp) < 0) {
        return -1;
    }
    if (!migration_channels_seekable(ctx->channels)) {
        return 0;
    }
    if (write_magic(ctx, MIG_FILE_MAGIC, errp) == 0 &&
        migration_channels_finish(ctx->channels, errp) == 0) {
        return 0;
    }
    /* The machine goes on here: nobody may start it from a file that looks whole. */
    write_magic(ctx, MIG_FILE_INCOMPLETE, NULL);
    migration_channels_flush(ctx->channels, NULL);
    return -1;
}

void savevm_cleanup(MigrationContext *ctx)
{
    SAVEVM_FOREACH(entry) {
        if (entry->prepared && entry->handlers->save_cleanup) {
            entry->handlers->save_cleanup(entry->opaque);
        }
        entry->prepared = false;
    }
}
