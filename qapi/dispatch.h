/*
 * From a QMP request to a QMP response, without any knowledge of sessions.
 *
 * A request is `{"execute": NAME, "arguments": {...}, "id": any}`; "exec-oob" may stand for
 * "execute". Who calls decides which list of commands a session may use (the one for capability
 * negotiation or the full one), in which thread a request runs, and what to do with the response.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef QAPI_DISPATCH_H
#define QAPI_DISPATCH_H

#include <json-c/json.h>

#include "util/error.h"

typedef enum QmpCommandOptions {
    QCO_NO_OPTIONS = 0,
    QCO_NO_SUCCESS_RESP = 1 << 0,   /* answers nothing when it succeeds */
    QCO_ALLOW_OOB = 1 << 1,         /* may run out of band, in a monitor's own thread */
    QCO_ALLOW_PRECONFIG = 1 << 2,   /* may run before the machine exists */
} QmpCommandOptions;

/*
 * Runs a command: unmarshals @args (an object, borrowed), calls the handler, and stores what it
 * returns in *@ret, the caller's own. *@ret stays NULL when the command returns nothing.
 */
typedef void QmpCommandFunc(struct json_object *args, struct json_object **ret, Error **errp);

typedef struct QmpCommand {
    const char *name;
    QmpCommandFunc *fn;
    QmpCommandOptions options;
    bool enabled;
    const char *disable_reason;     /* why not enabled, for the message; or NULL */
} QmpCommand;

/* Commands by name. Filled while the program starts, only read afterwards. */
typedef struct QmpCommandList {
    GHashTable *by_name;            /* of QmpCommand, owned */
    GPtrArray *in_order;            /* of QmpCommand, borrowed */
} QmpCommandList;

/* An empty list; destroy frees what was added, not the list itself. */
void qmp_command_list_init(QmpCommandList *cmds);
void qmp_command_list_destroy(QmpCommandList *cmds);

/* Add a command, enabled. @name is kept, not copied; it must be new in the list. */
void qmp_register_command(QmpCommandList *cmds, const char *name, QmpCommandFunc *fn,
                          QmpCommandOptions options);
/* Returns: the command or NULL. */
const QmpCommand *qmp_find_command(const QmpCommandList *cmds, const char *name);
/*
 * Refuse a command from now on, with @reason (kept, not copied; or NULL) in the message; or allow
 * it again. The command must exist.
 */
void qmp_disable_command(QmpCommandList *cmds, const char *name, const char *reason);
void qmp_enable_command(QmpCommandList *cmds, const char *name);
/* Call @fn for each command in order of registration. */
void qmp_for_each_command(const QmpCommandList *cmds,
                          void (*fn)(const QmpCommand *cmd, void *opaque), void *opaque);

/*
 * Whether a command may run now; false with @errp set when not. Called after the request was
 * found well-formed and the command known and enabled.
 */
typedef bool QmpCommandFilter(const QmpCommand *cmd, void *opaque, Error **errp);

/* A request taken apart. All is borrowed from the request. */
typedef struct QmpRequest {
    const char *name;
    struct json_object *args;       /* NULL when the request has none */
    bool oob;                       /* "exec-oob" */
} QmpRequest;

/*
 * Check the form of @request; @allow_oob says whether "exec-oob" is a known member.
 *
 * Returns: true with *@parsed filled in, false with @errp set.
 */
bool qmp_parse_request(struct json_object *request, bool allow_oob, QmpRequest *parsed,
                       Error **errp);

/* Whether @request is an object with "exec-oob" and without "execute". */
bool qmp_is_oob(struct json_object *request);

/*
 * qmp_dispatch:
 * @cmds: the commands that the session may use
 * @request: any JSON value, borrowed
 * @allow_oob: whether the session negotiated out-of-band execution
 * @filter: a last say of the caller, or NULL; @opaque is for it
 *
 * Runs the command in the calling thread.
 *
 * Returns: a new response with "return" or "error", and the request's "id" when it has one; or
 * NULL when the command succeeded and gives no success response.
 */
struct json_object *qmp_dispatch(const QmpCommandList *cmds, struct json_object *request,
                                 bool allow_oob, QmpCommandFilter *filter, void *opaque);

/*
 * Run one command that has been found already, for callers that build the arguments themselves
 * (HMP, the command line). @args may be NULL for none. No check of availability is made.
 *
 * Returns: what the command returned, an empty object when that is nothing; NULL with @errp set on
 * failure.
 */
struct json_object *qmp_dispatch_one(const QmpCommand *cmd, struct json_object *args,
                                     Error **errp);

/* A response `{"error": {"class", "desc"}}`; @err is borrowed. */
struct json_object *qmp_error_response(const Error *err);

#endif
