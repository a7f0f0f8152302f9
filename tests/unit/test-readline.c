/*
 * Keys go in, and a small terminal at the other end shows what a person would see: the tests
 * compare its screen, not the bytes.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include "monitor/readline.h"

#define COLUMNS 200

/* One line of a terminal; a line feed begins a new one and keeps the old one in @above. */
typedef struct Terminal {
    gunichar cells[COLUMNS];
    int cursor, used;
    GString *above;
    int bells;
    GPtrArray *executed;
    ReadLine *rl;
} Terminal;

static char *terminal_line(Terminal *t)
{
    return g_ucs4_to_utf8(t->cells, t->used, NULL, NULL, NULL);
}

static void terminal_put(Terminal *t, gunichar c)
{
    if (c == '\n') {
        g_autofree char *line = terminal_line(t);
        g_string_append_printf(t->above, "%s\n", line);
        t->cursor = t->used = 0;
    } else if (c == '\a') {
        t->bells++;
    } else {
        g_assert_cmpint(t->cursor, <, COLUMNS);
        t->cells[t->cursor++] = c;
        t->used = MAX(t->used, t->cursor);
    }
}

static void terminal_write(void *opaque, const char *text)
{
    Terminal *t = opaque;

    g_assert_true(g_utf8_validate(text, -1, NULL));
    while (*text) {
        if (g_str_has_prefix(text, "\033[D")) {
            g_assert_cmpint(t->cursor--, >, 0);
            text += 3;
        } else if (g_str_has_prefix(text, "\033[C")) {
            g_assert_cmpint(t->cursor++, <, t->used);
            text += 3;
        } else if (g_str_has_prefix(text, "\033[K")) {
            t->used = t->cursor;
            text += 3;
        } else {
            terminal_put(t, g_utf8_get_char(text));
            text = g_utf8_next_char(text);
        }
    }
}

static void execute(void *opaque, const char *line)
{
    Terminal *t = opaque;

    g_ptr_array_add(t->executed, g_strdup(line));
    readline_start(t->rl);
}

static void complete(void *opaque, const char *line, Completions *c)
{
    if (g_str_has_prefix(line, "info ")) {
        completions_add(c, "status");
        completions_add(c, "stats");
        completions_add(c, "version");
        completions_add(c, "/dir/");
    } else {
        completions_add(c, "info");
    }
}

static const ReadLineOps ops = { terminal_write, execute, complete };

static void setup(Terminal *t, gconstpointer data)
{
    memset(t, 0, sizeof(*t));
    t->above = g_string_new(NULL);
    t->executed = g_ptr_array_new_with_free_func(g_free);
    t->rl = readline_new("> ", &ops, t);
    readline_start(t->rl);
}

static void teardown(Terminal *t, gconstpointer data)
{
    readline_free(t->rl);
    g_ptr_array_free(t->executed, TRUE);
    g_string_free(t->above, TRUE);
}

static void type(Terminal *t, const char *keys)
{
    for (; *keys; keys++) {
        readline_feed(t->rl, *keys);
    }
}

/* The line shows @expect, and the cursor is @column characters behind the prompt. */
static void expect(Terminal *t, const char *expect, int column)
{
    g_autofree char *line = terminal_line(t);
    g_autofree char *want = g_strconcat("> ", expect, NULL);

    g_assert_cmpstr(line, ==, want);
    g_assert_cmpint(t->cursor, ==, 2 + column);
}

#define LEFT "\033[D"
#define RIGHT "\033[C"
#define UP "\033[A"
#define DOWN "\033OB"

static void test_edit(Terminal *t, gconstpointer data)
{
    type(t, "stats");
    expect(t, "stats", 5);
    type(t, LEFT LEFT "X");
    expect(t, "staXts", 4);
    type(t, "\177");
    expect(t, "stats", 3);
    type(t, RIGHT "\033[3~");
    expect(t, "stat", 4);
    type(t, "\001in\005!");
    expect(t, "instat!", 7);
    type(t, "\033[H\033[C\013");
    expect(t, "i", 1);
    type(t, "nfo  status\027");
    expect(t, "info  ", 6);
    type(t, "\025");
    expect(t, "", 0);
    type(t, "\002\006\004\010\033[1;5Cx\033[F");
    expect(t, "x", 1);
}

static void test_utf8(Terminal *t, gconstpointer data)
{
    type(t, "aä€😀z");
    expect(t, "aä€😀z", 5);
    type(t, LEFT LEFT "\177");
    expect(t, "aä😀z", 2);
    type(t, "\xc3x\xff\x80");
    expect(t, "aäx😀z", 3);
    type(t, "\r");
    g_assert_cmpstr(t->executed->pdata[0], ==, "aäx😀z");
}

static void test_lines(Terminal *t, gconstpointer data)
{
    type(t, "one\rtwo\r\n\nthree\n");
    g_assert_cmpuint(t->executed->len, ==, 4);
    g_assert_cmpstr(t->executed->pdata[0], ==, "one");
    g_assert_cmpstr(t->executed->pdata[1], ==, "two");
    g_assert_cmpstr(t->executed->pdata[2], ==, "");
    g_assert_cmpstr(t->executed->pdata[3], ==, "three");
    g_assert_cmpstr(t->above->str, ==, "> one\n> two\n> \n> three\n");
    type(t, "gone\003");
    expect(t, "", 0);
    g_assert_cmpuint(t->executed->len, ==, 4);
}

static void test_history(Terminal *t, gconstpointer data)
{
    type(t, "one\rtwo\rthree\rone\r");
    g_assert_cmpstr(readline_history(t->rl, 0), ==, "two");
    g_assert_cmpstr(readline_history(t->rl, 2), ==, "one");
    g_assert_null(readline_history(t->rl, 3));
    type(t, "new" UP);
    expect(t, "one", 3);
    type(t, UP "\020\020\020");
    expect(t, "two", 3);
    type(t, DOWN);
    expect(t, "three", 5);
    type(t, "\016" DOWN DOWN);
    expect(t, "new", 3);
    for (int i = 0; i < 2 * READLINE_HISTORY; i++) {
        g_autofree char *line = g_strdup_printf("\025line%d\r", i);
        type(t, line);
    }
    g_assert_cmpstr(readline_history(t->rl, 0), ==, "line64");
    g_assert_null(readline_history(t->rl, READLINE_HISTORY));
}

static void test_complete(Terminal *t, gconstpointer data)
{
    type(t, "i\t");
    expect(t, "info ", 5);
    type(t, "s\t");
    expect(t, "info stat", 9);
    type(t, "\t");
    g_assert_cmpstr(t->above->str, ==, "> info stat\nstats   status\n");
    expect(t, "info stat", 9);
    type(t, "u\t");
    expect(t, "info status ", 12);
    type(t, "\027/\t");
    expect(t, "info /dir/", 10);
    type(t, "\027nothing\t");
    expect(t, "info nothing", 12);
}

static void test_limit(Terminal *t, gconstpointer data)
{
    g_autofree char *line = g_strnfill(150, 'x');

    /* What is above the screen's width is not drawn in this test: the limit is reached unseen. */
    type(t, line);
    g_assert_cmpint(t->bells, ==, 0);
    expect(t, line, 150);
    type(t, "\r");
    g_assert_cmpstr(t->executed->pdata[0], ==, line);
}

static int bells;

static void count_bells(void *opaque, const char *text)
{
    bells += !strcmp(text, "\a");
}

static void test_too_long(void)
{
    static const ReadLineOps quiet = { count_bells, execute, complete };
    ReadLine *rl = readline_new("> ", &quiet, NULL);

    readline_start(rl);
    for (int i = 0; i < READLINE_MAX_BYTES; i++) {
        readline_feed(rl, 'x');
    }
    g_assert_cmpint(bells, ==, 0);
    readline_feed(rl, 'x');
    g_assert_cmpint(bells, ==, 1);
    readline_free(rl);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, fn) g_test_add("/readline/" name, Terminal, NULL, setup, fn, teardown)
    ADD("edit", test_edit);
    ADD("utf8", test_utf8);
    ADD("lines", test_lines);
    ADD("history", test_history);
    ADD("complete", test_complete);
    ADD("limit", test_limit);
    g_test_add_func("/readline/too-long", test_too_long);
    return g_test_run();
}
