/*
 * Reading of command lines by tables, on getopt_long(3).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tools/img-args.h"

#include <getopt.h>
#include <glib.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "util/cutils.h"
#include "util/error.h"

/* What getopt_long() wants, made from a table. */
typedef struct Parser {
    GString *letters;
    GArray *longs;              /* of struct option */
} Parser;

static const ImgOption help_option = { IMG_OPT_HELP, "help", NULL, "print this help" };

static void parser_add(Parser *p, const ImgOption *o)
{
    if (o->value < 256) {
        g_string_append_c(p->letters, (char)o->value);
        g_string_append(p->letters, o->arg ? ":" : "");
    }
    if (o->name) {
        struct option l = { o->name, o->arg ? required_argument : no_argument, NULL, o->value };

        g_array_append_val(p->longs, l);
    }
}

static Parser *parser_new(const ImgCommand *command)
{
    Parser *p = g_new0(Parser, 1);

    p->letters = g_string_new(":");
    p->longs = g_array_new(true, true, sizeof(struct option));
    parser_add(p, &help_option);
    for (const ImgOption *o = command->options; o->value; o++) {
        parser_add(p, o);
    }
    optind = 0;         /* glibc: begin anew */
    return p;
}

static void parser_free(Parser *p)
{
    g_string_free(p->letters, true);
    g_array_free(p->longs, true);
    g_free(p);
}

static int end_of_options(ImgArgs *args)
{
    parser_free(args->parser);
    args->parser = NULL;
    args->n_operands = args->argc - optind;
    args->operands = args->argv + optind;
    return -1;
}

int img_next_option(ImgArgs *args)
{
    Parser *p = args->parser;
    int value;

    if (args->stop) {
        if (p) {
            end_of_options(args);
        }
        return -1;
    }
    if (!p) {
        p = args->parser = parser_new(args->command);
    }
    value =
        getopt_long(args->argc, args->argv, p->letters->str, (struct option *)p->longs->data, NULL);
    args->arg = optarg;
    switch (value) {
    case -1:
        return end_of_options(args);
    case '?':
        img_usage_error(args, "unrecognized option '%s'", args->argv[optind - 1]);
        return end_of_options(args);
    case ':':
        img_usage_error(args, "missing argument for option '%s'", args->argv[optind - 1]);
        return end_of_options(args);
    case IMG_OPT_HELP:
        img_print_help(args->command);
        args->stop = true;
        args->status = 0;
        return end_of_options(args);
    default:
        return value;
    }
}

int img_usage_error(ImgArgs *args, const char *fmt, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    error_report("%s", text);
    fprintf(stderr, "Try 'ferry-img %s --help' for more information\n", args->command->name);
    args->stop = true;
    args->status = args->command->usage_status ? args->command->usage_status : 1;
    return args->status;
}

static void print_option(const ImgOption *o)
{
    g_autoptr(GString) left = g_string_new("  ");

    if (o->value < 256) {
        g_string_append_printf(left, "-%c", o->value);
    }
    if (o->name) {
        g_string_append_printf(left, "%s--%s", o->value < 256 ? ", " : "", o->name);
    }
    if (o->arg) {
        g_string_append_printf(left, "%s%s", o->name ? "=" : " ", o->arg);
    }
    if (left->len < 26) {
        printf("%-26s%s\n", left->str, o->help);
    } else {
        printf("%s\n%26s%s\n", left->str, "", o->help);
    }
}

void img_print_help(const ImgCommand *command)
{
    printf("Usage: ferry-img %s [OPTION]... %s\n%s.\n\nOptions:\n", command->name,
           command->operands, command->summary);
    for (const ImgOption *o = command->options; o->value; o++) {
        print_option(o);
    }
    print_option(&help_option);
}

bool img_arg_size(ImgArgs *args, const char *what, int64_t min, int64_t max, int64_t *result)
{
    g_autoptr(Error) err = NULL;
    uint64_t size;

    if (!parse_size(args->arg, &size, &err)) {
        img_usage_error(args, "Invalid %s specified: %s", what, error_get_pretty(err));
        return false;
    }
    if (size > INT64_MAX || (int64_t)size < min || (int64_t)size > max) {
        img_usage_error(args, "Invalid %s specified: '%s' is not between %lld and %lld", what,
                        args->arg, (long long)min, (long long)max);
        return false;
    }
    *result = size;
    return true;
}

bool img_arg_number(ImgArgs *args, const char *what, uint64_t min, uint64_t max, uint64_t *result)
{
    g_autoptr(Error) err = NULL;

    if (!parse_uint64_range(args->arg, min, max, result, &err)) {
        img_usage_error(args, "Invalid %s specified: %s", what, error_get_pretty(err));
        return false;
    }
    return true;
}

bool img_arg_output(ImgArgs *args, bool *json)
{
    if (strcmp(args->arg, "json") && strcmp(args->arg, "human")) {
        img_usage_error(args, "--output must be used with human or json as argument.");
        return false;
    }
    *json = args->arg[0] == 'j';
    return true;
}
