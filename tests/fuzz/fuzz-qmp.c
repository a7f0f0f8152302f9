/*
 * Fuzzing what a QMP client sends: bytes into the JSON stream, values into requests, arguments into
 * the types of the schema, and query commands through the dispatcher to the end.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "monitor/json-stream.h"
#include "util/json-writer.h"
#include "qapi/clone-visitor.h"
#include "qapi/dispatch.h"
#include "qapi/json-input-visitor.h"
#include "qapi/json-output-visitor.h"
#include "qapi/qapi-init-commands.h"
#include "qapi/qapi-visit-block-core.h"
#include "qapi/qapi-visit-char.h"
#include "qapi/qapi-visit-migration.h"
#include "qapi/qapi-visit-qom.h"
#include "system/bql.h"
#include "system/main-loop.h"
#include "tests/fuzz/fuzz.h"

/* A value that was accepted must come out, be copied and be freed. */
#define TRY_TYPE(type, obj) do { \
    type *value_ = NULL; \
    Error *err_ = NULL; \
    Visitor *in_ = json_input_visitor_new(obj); \
    if (visit_type_##type(in_, NULL, &value_, &err_)) { \
        struct json_object *out_ = NULL; \
        Visitor *v_ = json_output_visitor_new(&out_); \
        type *copy_ = QAPI_CLONE(type, value_); \
        visit_type_##type(v_, NULL, &copy_, &error_abort); \
        visit_complete(v_, &out_); \
        visit_free(v_); \
        json_object_put(out_); \
        qapi_free_##type(copy_); \
    } \
    visit_free(in_); \
    qapi_free_##type(value_); \
    error_free(err_); \
} while (0)

static QmpCommandList commands;

/* Commands that only look. Others do what they are told: to the fuzzer's host. */
static bool only_queries(const QmpCommand *cmd, void *opaque, Error **errp)
{
    if (g_str_has_prefix(cmd->name, "query-")) {
        return true;
    }
    error_setg(errp, "not here");
    return false;
}

static void try_value(struct json_object *value)
{
    struct json_object *response = qmp_dispatch(&commands, value, true, only_queries, NULL);
    struct json_object *args = NULL;

    json_object_put(response);
    if (!value || !json_object_is_type(value, json_type_object)) {
        return;
    }
    if (!json_object_object_get_ex(value, "arguments", &args)) {
        args = value;
    }
    TRY_TYPE(BlockdevOptions, args);
    TRY_TYPE(ObjectOptions, args);
    TRY_TYPE(ChardevBackend, args);
    TRY_TYPE(MigrationChannel, args);
    TRY_TYPE(MigrationConfig, args);
    TRY_TYPE(SocketAddress, args);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_process_init();
    main_loop_init();
    bql_lock();
    qmp_command_list_init(&commands);
    qmp_init_marshal(&commands);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(JSONStream) stream = json_stream_new();

    while (size > 0) {
        struct json_object *value = NULL;
        Error *err = NULL;
        size_t used = 0;
        JSONStreamResult result =
            json_stream_feed(stream, (const char *)data, size, &used, &value, &err);

        g_assert(used <= size && (used > 0 || result != JSON_STREAM_MORE));
        if (result == JSON_STREAM_VALUE) {
            try_value(value);
            json_object_put(value);
        }
        error_free(err);
        data += used;
        size -= used;
    }
    return 0;
}
