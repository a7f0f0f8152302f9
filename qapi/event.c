/*
 * One hook between floors: generated code knows no monitor, and the monitor sits floors above.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qapi/event.h"

#include <stddef.h>

static QapiEventEmitter *the_emitter;
static void *the_opaque;

void qapi_event_set_emitter(QapiEventEmitter *emitter, void *opaque)
{
    the_emitter = emitter;
    the_opaque = opaque;
}

void qapi_event_emit(const char *name, struct json_object *data)
{
    if (the_emitter) {
        the_emitter(name, data, the_opaque);
    } else {
        json_object_put(data);
    }
}
