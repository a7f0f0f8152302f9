/*
 * The command line of ferry-system-x86_64: QEMU's spelling of the options that Ferry has.
 *
 * Parsing is apart from doing: cmdline_parse() checks everything that can be checked without
 * touching the system and fills a CommandLine; main/ acts on it. One table in cmdline.c says what
 * there is, and -help, the parser and the check of the manual page all read it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_CMDLINE_H
#define SYSTEM_CMDLINE_H

#include <glib.h>
#include <json-c/json.h>
#include <stdbool.h>
#include "system/machine.h"
#include "system/runstate.h"
#include "util/error.h"

/* One -accel (or one element of -machine accel=). */
typedef struct AccelOption {
    char *name;
    struct json_object *opts;   /* key=value pairs after the name, or NULL */
} AccelOption;

/* An option whose text another layer reads: the text, and the option's name for its errors. */
typedef struct TextOption {
    const char *option;         /* "device" */
    char *text;
} TextOption;

typedef struct AddFdOption {
    int fd;
    int64_t set;
    char *opaque;
} AddFdOption;

typedef struct CommandLine {
    Machine machine;            /* type, sizes, kernel */
    GArray *accels;             /* of AccelOption; empty: the default */
    char *cpu_model;
    /* Of TextOption, in the order given. */
    GArray *objects, *chardevs, *blockdevs, *drives, *devices, *globals, *serials;
    GArray *monitors;           /* of TextOption: -mon, -monitor, -qmp, -qmp-pretty */
    GArray *add_fds;            /* of AddFdOption */
    char *qtest, *qtest_log;
    char *incoming;
    char *name, *process_name, *uuid;
    char *pidfile;
    bool stopped;               /* -S */
    bool nodefaults, nographic, daemonize;
    bool no_shutdown, no_reboot;
    bool msg_timestamp, msg_guest_name;
    /* -help, -version, -machine help, ...: text to print on stdout, then exit with status 0. */
    char *print;
} CommandLine;

/*
 * cmdline_parse:
 * @argc: number of elements of @argv, the program's name first
 * @argv: not changed, and not needed afterwards
 *
 * Machine types must be registered. Returns: what was read, with QEMU's defaults for what was not
 * given, to be freed by cmdline_free(); or NULL with @errp set to an error that begins with the
 * option that is wrong.
 */
CommandLine *cmdline_parse(int argc, char **argv, Error **errp);
void cmdline_free(CommandLine *cl);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(CommandLine, cmdline_free)

/* Accelerators for "-accel help" and for checking names, set by main/ before parsing. */
struct AccelClass;
void cmdline_set_accels(const struct AccelClass *const *accels, unsigned n);
/* The one of these that is called @name, or NULL. Every name in CommandLine.accels has one. */
const struct AccelClass *cmdline_accel_find(const char *name);

/* The text of -help; g_free() it. */
char *cmdline_help(void);

/* The options' names in the table, NULL after the last: for the check of the manual page. */
const char *cmdline_option_name(unsigned i);

#endif
