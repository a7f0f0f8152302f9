/*
 * Events on their way from generated qapi_event_send_X() to whoever delivers them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef QAPI_EVENT_H
#define QAPI_EVENT_H

#include <json-c/json.h>

/*
 * Delivers an event. Called in the thread that sent it, any thread, with any locks held: it must
 * not block on the big lock and must not send events. @data is NULL or an object, and becomes the
 * emitter's own; @name is a string constant of the schema.
 */
typedef void QapiEventEmitter(const char *name, struct json_object *data, void *opaque);

/* Set the one emitter, before other threads exist; NULL drops events, as at program start. */
void qapi_event_set_emitter(QapiEventEmitter *emitter, void *opaque);

/* Send event @name with @data (NULL or an object, taken over). Any thread. */
void qapi_event_emit(const char *name, struct json_object *data);

#endif
