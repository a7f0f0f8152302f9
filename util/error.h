/*
 * Error reporting: an Error object travels from where a thing failed to where it can be told.
 *
 * A function that can fail takes `Error **errp` as its last parameter. The caller passes
 *   - the address of a NULL-initialised `Error *` to receive the error,
 *   - NULL to ignore it,
 *   - &error_abort when failure would be a bug in the program.
 * A function that fails also returns a value that says so (NULL, false or a negative number).
 * A message says what was attempted, on what, and why it failed; it has no final full stop and no
 * newline.
 *
 * Errors are not shared between threads: an Error has one owner at a time.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_ERROR_H
#define UTIL_ERROR_H

#include <glib.h>
#include <stdbool.h>
#include <stdarg.h>

/* The class that a QMP client sees; everything but these two needs is GENERIC. */
typedef enum ErrorClass {
    ERROR_CLASS_GENERIC,
    ERROR_CLASS_COMMAND_NOT_FOUND,
    ERROR_CLASS_DEVICE_NOT_FOUND,
    ERROR_CLASS_DEVICE_NOT_ACTIVE,
    ERROR_CLASS_KVM_MISSING_CAP,
} ErrorClass;

typedef struct Error Error;

/* Pass as errp where failure is impossible unless the program is wrong: prints and aborts. */
extern Error *error_abort;

/* Set *errp to a new error with a printf-style message. *errp must be NULL on entry. */
void error_setg(Error **errp, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* The same, with `: strerror(err)` after the message; @err is an errno value, positive. */
void error_setg_errno(Error **errp, int err, const char *fmt, ...) G_GNUC_PRINTF(3, 4);

/* The same, with an error class other than GENERIC. */
void error_set(Error **errp, ErrorClass cls, const char *fmt, ...) G_GNUC_PRINTF(3, 4);

/* Put text before the message of *errp; nothing happens when errp or *errp is NULL. */
void error_prepend(Error **errp, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/*
 * Add a hint for a person: whole lines with newlines, printed after the message by
 * error_report_err(), never sent over QMP.
 */
void error_append_hint(Error **errp, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/*
 * Move @err to *errp. Frees @err when errp is NULL or *errp is set already (the first error
 * wins); does nothing when @err is NULL. Takes ownership of @err.
 */
void error_propagate(Error **errp, Error *err);

/* A new error with the same class, message and hint; NULL gives NULL. */
Error *error_copy(const Error *err);

/* The message; valid as long as @err is. */
const char *error_get_pretty(const Error *err);
ErrorClass error_get_class(const Error *err);
/* The QMP name of an error class, e.g. "GenericError". */
const char *error_class_name(ErrorClass cls);

/* NULL is allowed. */
void error_free(Error *err);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Error, error_free)

/* Print `PROGRAM: message` (and hint) on stderr and free @err. */
void error_report_err(Error *err);
/* Print `PROGRAM: text` on stderr; the second is for warnings: `PROGRAM: warning: text`. */
void error_report(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
void warn_report(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* With `-msg timestamp=on` each line starts with the time, ISO 8601 with microseconds, UTC. */
void error_set_timestamps(bool enable);
/* With `-msg guest-name=on` each line names the guest; @name is copied, NULL turns it off. */
void error_set_guest_name(const char *name);

#endif
