/*
 * Which character device goes to what, and QEMU's defaults where nothing was said.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include "chardev/char.h"
#include "main/frontends.h"
#include "system/qtest.h"

static int each(const GArray *texts, int (*fn)(const TextOption *option, Error **errp),
                Error **errp)
{
    for (guint i = 0; i < texts->len; i++) {
        const TextOption *option = &g_array_index(texts, TextOption, i);

        if (fn(option, errp) < 0) {
            error_prepend(errp, "-%s %s: ", option->option, option->text);
            return -1;
        }
    }
    return 0;
}

static int create_chardev(const TextOption *option, Error **errp)
{
    return chardev_new_from_opts(option->text, errp) ? 0 : -1;
}

int frontends_create_chardevs(const CommandLine *cl, Error **errp)
{
    return each(cl->chardevs, create_chardev, errp);
}

int frontends_start(const CommandLine *cl, Error **errp)
{
    return cl->qtest ? qtest_server_init(cl->qtest, cl->qtest_log, errp) : 0;
}

void frontends_cleanup(void)
{
    qtest_server_cleanup();
    chardev_cleanup();
}
