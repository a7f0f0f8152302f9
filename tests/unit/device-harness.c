/*
 * Devices are made by the very text that the command line takes, and their state goes through the
 * real vmstate code into memory and back.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "device-harness.h"

#include "io/channel-buffer.h"
#include "migration/migration-file.h"
#include "util/keyval.h"

DeviceState *harness_device(const char *text)
{
    struct json_object *options = keyval_parse(text, "driver", NULL, &error_abort);
    DeviceState *dev = device_add(options, false, &error_abort);

    json_object_put(options);
    return dev;
}

void harness_error_is(Error **err, const char *message)
{
    g_assert_nonnull(*err);
    g_assert_cmpstr(error_get_pretty(*err), ==, message);
    g_clear_pointer(err, error_free);
}

void harness_device_fails(const char *text, const char *message)
{
    char *help = NULL;
    Error *err = NULL;

    g_assert_false(device_add_text(text, &help, &err));
    g_assert_null(help);
    harness_error_is(&err, message);
}

GBytes *harness_save(DeviceState *dev)
{
    g_autoptr(QIOChannel) ioc = QIO_CHANNEL(qio_channel_buffer_new(0));
    g_autoptr(MigrationFile) f = mfile_new_output(ioc);
    const uint8_t *data;
    size_t size;

    g_assert_cmpint(vmstate_save_state(f, dev->klass->vmsd, dev, NULL, &error_abort), ==, 0);
    mfile_flush(f, &error_abort);
    data = qio_channel_buffer_data((QIOChannelBuffer *)ioc, &size);
    return g_bytes_new(data, size);
}

int harness_load(DeviceState *dev, GBytes *state, Error **errp)
{
    size_t size;
    const void *data = g_bytes_get_data(state, &size);
    g_autoptr(QIOChannel) ioc = QIO_CHANNEL(qio_channel_buffer_new(size));
    g_autoptr(MigrationFile) out = mfile_new_output(ioc), in = NULL;

    mfile_put_buffer(out, data, size);
    /* What follows a section in a real stream: not a subsection. */
    mfile_put_u8(out, 0x7e);
    mfile_flush(out, &error_abort);
    mfile_seek(out, 0, &error_abort);
    in = mfile_new_input(ioc);
    return vmstate_load_state(in, dev->klass->vmsd, dev, dev->klass->vmsd->version_id, errp);
}

uint64_t harness_get_uint(DeviceState *dev, const char *property)
{
    struct json_object *value = device_get_json(dev, property, &error_abort);
    uint64_t number = json_object_get_uint64(value);

    json_object_put(value);
    return number;
}

bool harness_get_bool(DeviceState *dev, const char *property)
{
    struct json_object *value = device_get_json(dev, property, &error_abort);
    bool boolean = json_object_get_boolean(value);

    json_object_put(value);
    return boolean;
}

char *harness_get_str(DeviceState *dev, const char *property)
{
    struct json_object *value = device_get_json(dev, property, &error_abort);
    char *string = g_strdup(json_object_get_string(value));

    json_object_put(value);
    return string;
}
