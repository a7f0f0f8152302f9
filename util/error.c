/*
 * Error objects and the one place that prints them.
 *
 * An Error is immutable but for what is prepended or hinted; there is no reference counting, the
 * pointer is the ownership.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct Error {
    ErrorClass cls;
    char *msg;
    GString *hint;
};

Error *error_abort;

static gint report_timestamps;
static char *report_guest_name;

static void error_setv(Error **errp, ErrorClass cls, int err, const char *fmt, va_list ap)
{
    if (!errp) {
        return;
    }
    g_assert(*errp == NULL);

    Error *e = g_new0(Error, 1);
    e->cls = cls;
    e->msg = g_strdup_vprintf(fmt, ap);
    if (err) {
        char *with_reason = g_strdup_printf("%s: %s", e->msg, g_strerror(err));
        g_free(e->msg);
        e->msg = with_reason;
    }
    if (errp == &error_abort) {
        fprintf(stderr, "%s: unexpected error: %s\n", g_get_prgname() ?: "ferry", e->msg);
        abort();
    }
    *errp = e;
}

void error_setg(Error **errp, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    error_setv(errp, ERROR_CLASS_GENERIC, 0, fmt, ap);
    va_end(ap);
}

void error_setg_errno(Error **errp, int err, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    error_setv(errp, ERROR_CLASS_GENERIC, err, fmt, ap);
    va_end(ap);
}

void error_set(Error **errp, ErrorClass cls, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    error_setv(errp, cls, 0, fmt, ap);
    va_end(ap);
}

void error_prepend(Error **errp, const char *fmt, ...)
{
    if (!errp || !*errp) {
        return;
    }

    va_list ap;
    va_start(ap, fmt);
    g_autofree char *before = g_strdup_vprintf(fmt, ap);
    va_end(ap);

    char *whole = g_strconcat(before, (*errp)->msg, NULL);
    g_free((*errp)->msg);
    (*errp)->msg = whole;
}

void error_append_hint(Error **errp, const char *fmt, ...)
{
    if (!errp || !*errp) {
        return;
    }
    if (!(*errp)->hint) {
        (*errp)->hint = g_string_new(NULL);
    }

    va_list ap;
    va_start(ap, fmt);
    g_string_append_vprintf((*errp)->hint, fmt, ap);
    va_end(ap);
}

void error_propagate(Error **errp, Error *err)
{
    if (!err) {
        return;
    }
    if (errp == &error_abort) {
        fprintf(stderr, "%s: unexpected error: %s\n", g_get_prgname() ?: "ferry", err->msg);
        abort();
    }
    if (errp && !*errp) {
        *errp = err;
    } else {
        error_free(err);
    }
}

Error *error_copy(const Error *err)
{
    if (!err) {
        return NULL;
    }
    Error *copy = g_new0(Error, 1);
    copy->cls = err->cls;
    copy->msg = g_strdup(err->msg);
    copy->hint = err->hint ? g_string_new(err->hint->str) : NULL;
    return copy;
}

const char *error_get_pretty(const Error *err)
{
    return err->msg;
}

ErrorClass error_get_class(const Error *err)
{
    return err->cls;
}

const char *error_class_name(ErrorClass cls)
{
    switch (cls) {
    case ERROR_CLASS_COMMAND_NOT_FOUND:
        return "CommandNotFound";
    case ERROR_CLASS_DEVICE_NOT_FOUND:
        return "DeviceNotFound";
    case ERROR_CLASS_DEVICE_NOT_ACTIVE:
        return "DeviceNotActive";
    case ERROR_CLASS_KVM_MISSING_CAP:
        return "KVMMissingCap";
    case ERROR_CLASS_GENERIC:
        break;
    }
    return "GenericError";
}

void error_free(Error *err)
{
    if (!err) {
        return;
    }
    g_free(err->msg);
    if (err->hint) {
        g_string_free(err->hint, TRUE);
    }
    g_free(err);
}

/* One write(2) a report, so that lines of several threads do not mix. */
static void report(const char *kind, const char *text, const char *after)
{
    g_autoptr(GString) line = g_string_new(NULL);

    if (g_atomic_int_get(&report_timestamps)) {
        g_autoptr(GDateTime) now = g_date_time_new_now_utc();
        g_autofree char *stamp = g_date_time_format(now, "%Y-%m-%dT%H:%M:%S");
        g_string_append_printf(line, "%s.%06dZ ", stamp, g_date_time_get_microsecond(now));
    }
    if (report_guest_name) {
        g_string_append_printf(line, "%s ", report_guest_name);
    }
    g_string_append_printf(line, "%s: %s%s\n", g_get_prgname() ?: "ferry", kind, text);
    if (after) {
        g_string_append(line, after);
    }
    fwrite(line->str, 1, line->len, stderr);
    fflush(stderr);
}

void error_report_err(Error *err)
{
    report("", err->msg, err->hint ? err->hint->str : NULL);
    error_free(err);
}

void error_report(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    report("", text, NULL);
}

void warn_report(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    report("warning: ", text, NULL);
}

void error_set_timestamps(bool enable)
{
    g_atomic_int_set(&report_timestamps, enable);
}

void error_set_guest_name(const char *name)
{
    g_free(report_guest_name);
    report_guest_name = g_strdup(name);
}
