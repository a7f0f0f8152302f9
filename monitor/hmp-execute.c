/*
 * From a line to a handler's call: words choose a command from the table and its sub-tables, the
 * rest is parsed by the command's list of argument types.
 *
 * Completion walks the same path and offers what could stand at the cursor: commands, or what the
 * argument's type allows.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>
#include "monitor/hmp.h"

/* No more file names than this are offered. */
#define COMPLETE_FILES_MAX 1024

const HMPCommand *hmp_find(const HMPCommand *table, const char *name)
{
    for (; table->name; table++) {
        if (!strcmp(name, table->name) || (table->alias && !strcmp(name, table->alias))) {
            return table;
        }
    }
    return NULL;
}

/* The end of the command's name at @p: a '/' begins a format even without a space. */
static const char *name_end(const char *p)
{
    while (*p && *p != '/' && !g_ascii_isspace(*p)) {
        p++;
    }
    return p;
}

static const char *skip_spaces(const char *p)
{
    while (g_ascii_isspace(*p)) {
        p++;
    }
    return p;
}

/* Find the command at the start of *@p and move behind its name. NULL: said so on @mon. */
static const HMPCommand *find_command(Monitor *mon, const char **p)
{
    const char *start = skip_spaces(*p);
    const HMPCommand *table = hmp_commands, *cmd;

    *p = start;
    for (;;) {
        const char *begin = skip_spaces(*p), *end = name_end(begin);
        g_autofree char *name = g_strndup(begin, end - begin);

        cmd = hmp_find(table, name);
        if (!cmd) {
            monitor_printf(mon, "unknown command: '%.*s'\n", (int)(end - start), start);
            return NULL;
        }
        *p = end;
        if (!cmd->sub || !*skip_spaces(end)) {
            return cmd;
        }
        table = cmd->sub;
    }
}

/* The words that led to @cmd, for messages. */
static char *typed_name(const char *line, const char *end)
{
    line = skip_spaces(line);
    return g_strstrip(g_strndup(line, end - line));
}

void hmp_execute(Monitor *mon, const char *line)
{
    const char *p = line;
    const HMPCommand *cmd;
    g_autofree char *name = NULL;
    HMPArgs *args;
    Error *err = NULL;

    if (!*skip_spaces(line) || *skip_spaces(line) == '#') {
        return;
    }
    cmd = find_command(mon, &p);
    if (!cmd) {
        return;
    }
    name = typed_name(line, p);
    args = hmp_args_parse(cmd->name, cmd->args_type, p, hmp_register_lookup, &err);
    if (!args) {
        monitor_printf(mon, "%s\nTry \"help %s\" for more information\n",
                       error_get_pretty(err), name);
        error_free(err);
        return;
    }
    cmd->handler(mon, args);
    json_object_put(args);
}

bool hmp_handle_error(Monitor *mon, Error *err)
{
    if (!err) {
        return false;
    }
    monitor_printf(mon, "Error: %s\n", error_get_pretty(err));
    error_free(err);
    return true;
}

struct json_object *hmp_call_qmp(const char *name, struct json_object *args, Error **errp)
{
    const QmpCommand *cmd = qmp_find_command(&qmp_commands, name);
    struct json_object *ret = NULL;

    if (cmd && cmd->enabled) {
        ret = qmp_dispatch_one(cmd, args, errp);
    } else {
        error_setg(errp, "The command %s has not been found", name);
    }
    json_object_put(args);
    return ret;
}

/* ---- completion ---- */

static void complete_commands(const HMPCommand *table, Completions *c)
{
    for (; table->name; table++) {
        completions_add(c, table->name);
        if (table->alias) {
            completions_add(c, table->alias);
        }
    }
}

static void complete_files(Completions *c)
{
    const char *slash = strrchr(c->word, '/');
    g_autofree char *dir = slash ? g_strndup(c->word, slash - c->word + 1) : g_strdup("");
    DIR *d = opendir(*dir ? dir : ".");
    struct dirent *e;
    unsigned n = 0;

    while (d && n < COMPLETE_FILES_MAX && (e = readdir(d))) {
        g_autofree char *path = g_strconcat(dir, e->d_name, NULL);
        g_autofree char *with_slash = NULL;
        struct stat st;

        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
            !g_str_has_prefix(path, c->word)) {
            continue;
        }
        if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
            with_slash = g_strconcat(path, "/", NULL);
        }
        completions_add(c, with_slash ? with_slash : path);
        n++;
    }
    if (d) {
        closedir(d);
    }
}

static void complete_argument(const HMPCommand *cmd, unsigned n, Completions *c)
{
    if (cmd->complete) {
        cmd->complete(c, n);
        return;
    }
    switch (hmp_args_type(cmd->args_type, n, NULL)) {
    case 'F':
        complete_files(c);
        break;
    case 'b':
        completions_add(c, "on");
        completions_add(c, "off");
        break;
    case 'i':
    case 'l':
        hmp_registers_complete(c);
        break;
    default:
        break;
    }
}

void hmp_complete(const char *line, Completions *c)
{
    const HMPCommand *table = hmp_commands, *cmd = NULL;
    const char *p = line;
    unsigned n = 0;
    bool format = false;

    for (;;) {
        const char *begin = skip_spaces(p), *end = begin;
        g_autofree char *word = NULL;

        while (*end && !g_ascii_isspace(*end)) {
            end++;
        }
        if (!*end) {
            break;              /* the word at the cursor */
        }
        word = g_strndup(begin, end - begin);
        p = end;
        if (!cmd) {
            /* "x/4xw": the format belongs to the name */
            char *slash = strchr(word, '/');

            format = slash != NULL;
            if (slash) {
                *slash = '\0';
            }
            cmd = hmp_find(table, word);
            if (!cmd) {
                return;
            }
            if (cmd->sub) {
                table = cmd->sub;
                cmd = NULL;
            }
        } else if (word[0] != '-' && (word[0] != '/' || format || n > 0)) {
            n++;
        }
    }
    if (!cmd) {
        complete_commands(table, c);
    } else {
        complete_argument(cmd, n, c);
    }
}
