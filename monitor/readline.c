/*
 * The terminal's screen is never read, so the editor remembers what it has drawn: after every key
 * the part of the line that differs is drawn again, with nothing but "cursor left", "cursor right"
 * and "clear to the end of the line", which every terminal knows. Text typed at the end of the line
 * is a plain echo, so that a program that reads the output sees what a person would.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include "monitor/readline.h"

typedef enum { KEY_PLAIN, KEY_ESC, KEY_CSI, KEY_SS3 } KeyState;

struct ReadLine {
    const ReadLineOps *ops;
    void *opaque;
    char *prompt;
    bool active;

    GString *line;
    size_t cursor;              /* byte in line */
    GString *drawn;             /* what the terminal shows of it */
    size_t drawn_cursor;

    KeyState key;
    unsigned key_number;        /* N of ESC [ N ~ */
    bool after_cr;              /* a line feed now belongs to the carriage return before it */
    char utf8[4];               /* a character that is not complete yet */
    unsigned utf8_have, utf8_want;

    GPtrArray *history;
    guint history_at;           /* == history->len: the new line */
    char *saved;                /* the new line while the history is looked at */
};

/* ---- completions ---- */

void completions_init(Completions *c, const char *word)
{
    c->words = g_ptr_array_new_with_free_func(g_free);
    c->word = g_strdup(word);
}

void completions_clear(Completions *c)
{
    g_ptr_array_free(c->words, TRUE);
    g_free(c->word);
}

void completions_add(Completions *c, const char *word)
{
    if (!g_str_has_prefix(word, c->word)) {
        return;
    }
    for (guint i = 0; i < c->words->len; i++) {
        if (!strcmp(c->words->pdata[i], word)) {
            return;
        }
    }
    g_ptr_array_add(c->words, g_strdup(word));
}

/* ---- drawing ---- */

static void put(ReadLine *rl, const char *text)
{
    rl->ops->write(rl->opaque, text);
}

/* Characters between two bytes; what is not UTF-8 counts byte by byte. */
static size_t columns(const char *s, size_t from, size_t to)
{
    size_t n = 0;

    for (size_t i = from; i < to; i++) {
        n += ((unsigned char)s[i] & 0xc0) != 0x80;
    }
    return n;
}

static void move_columns(ReadLine *rl, size_t n, const char *sequence)
{
    g_autoptr(GString) out = g_string_new(NULL);

    while (n--) {
        g_string_append(out, sequence);
    }
    if (out->len) {
        put(rl, out->str);
    }
}

static void cursor_to(ReadLine *rl, size_t to)
{
    size_t from = rl->drawn_cursor;

    if (to < from) {
        move_columns(rl, columns(rl->drawn->str, to, from), "\033[D");
    } else {
        move_columns(rl, columns(rl->drawn->str, from, to), "\033[C");
    }
    rl->drawn_cursor = to;
}

static size_t common_prefix(const GString *a, const GString *b)
{
    size_t n = 0;

    while (n < a->len && n < b->len && a->str[n] == b->str[n]) {
        n++;
    }
    /* Not within a character. */
    while (n > 0 && n < a->len && ((unsigned char)a->str[n] & 0xc0) == 0x80) {
        n--;
    }
    return n;
}

static void redraw(ReadLine *rl)
{
    size_t same = common_prefix(rl->line, rl->drawn);

    if (same < rl->drawn->len || same < rl->line->len) {
        cursor_to(rl, same);
        if (same < rl->line->len) {
            put(rl, rl->line->str + same);
        }
        if (columns(rl->drawn->str, same, rl->drawn->len) >
            columns(rl->line->str, same, rl->line->len)) {
            put(rl, "\033[K");
        }
        g_string_assign(rl->drawn, rl->line->str);
        rl->drawn_cursor = rl->drawn->len;
    }
    cursor_to(rl, rl->cursor);
}

void readline_show(ReadLine *rl)
{
    put(rl, rl->prompt);
    g_string_truncate(rl->drawn, 0);
    rl->drawn_cursor = 0;
    redraw(rl);
}

/* ---- the line ---- */

ReadLine *readline_new(const char *prompt, const ReadLineOps *ops, void *opaque)
{
    ReadLine *rl = g_new0(ReadLine, 1);

    rl->ops = ops;
    rl->opaque = opaque;
    rl->prompt = g_strdup(prompt);
    rl->line = g_string_new(NULL);
    rl->drawn = g_string_new(NULL);
    rl->history = g_ptr_array_new_with_free_func(g_free);
    return rl;
}

void readline_free(ReadLine *rl)
{
    if (!rl) {
        return;
    }
    g_free(rl->prompt);
    g_string_free(rl->line, TRUE);
    g_string_free(rl->drawn, TRUE);
    g_ptr_array_free(rl->history, TRUE);
    g_free(rl->saved);
    g_free(rl);
}

bool readline_active(const ReadLine *rl)
{
    return rl->active;
}

void readline_reset(ReadLine *rl)
{
    rl->active = false;
    rl->key = KEY_PLAIN;
    rl->utf8_have = 0;
    g_string_truncate(rl->line, 0);
    rl->cursor = 0;
    rl->history_at = rl->history->len;
    g_clear_pointer(&rl->saved, g_free);
}

void readline_start(ReadLine *rl)
{
    readline_reset(rl);
    rl->active = true;
    readline_show(rl);
}

static size_t char_before(const ReadLine *rl, size_t at)
{
    if (at == 0) {
        return 0;
    }
    do {
        at--;
    } while (at > 0 && ((unsigned char)rl->line->str[at] & 0xc0) == 0x80);
    return at;
}

static size_t char_after(const ReadLine *rl, size_t at)
{
    if (at >= rl->line->len) {
        return rl->line->len;
    }
    do {
        at++;
    } while (at < rl->line->len && ((unsigned char)rl->line->str[at] & 0xc0) == 0x80);
    return at;
}

static void insert(ReadLine *rl, const char *text, size_t len)
{
    if (rl->line->len + len > READLINE_MAX_BYTES) {
        put(rl, "\a");
        return;
    }
    g_string_insert_len(rl->line, rl->cursor, text, len);
    rl->cursor += len;
}

static void erase(ReadLine *rl, size_t from, size_t to)
{
    g_string_erase(rl->line, from, to - from);
    rl->cursor = from;
}

static size_t word_before(const ReadLine *rl)
{
    size_t at = rl->cursor;

    while (at > 0 && g_ascii_isspace(rl->line->str[at - 1])) {
        at--;
    }
    while (at > 0 && !g_ascii_isspace(rl->line->str[at - 1])) {
        at--;
    }
    return at;
}

static void set_line(ReadLine *rl, const char *text)
{
    g_string_assign(rl->line, text);
    rl->cursor = rl->line->len;
}

/* ---- history ---- */

const char *readline_history(const ReadLine *rl, unsigned n)
{
    return n < rl->history->len ? rl->history->pdata[n] : NULL;
}

static void history_add(ReadLine *rl, const char *line)
{
    if (!*line) {
        return;
    }
    for (guint i = 0; i < rl->history->len; i++) {
        if (!strcmp(rl->history->pdata[i], line)) {
            g_ptr_array_remove_index(rl->history, i);
            break;
        }
    }
    if (rl->history->len == READLINE_HISTORY) {
        g_ptr_array_remove_index(rl->history, 0);
    }
    g_ptr_array_add(rl->history, g_strdup(line));
}

static void history_move(ReadLine *rl, int step)
{
    if ((step < 0 && rl->history_at == 0) ||
        (step > 0 && rl->history_at >= rl->history->len)) {
        return;
    }
    if (rl->history_at == rl->history->len) {
        g_free(rl->saved);
        rl->saved = g_strdup(rl->line->str);
    }
    rl->history_at += step;
    if (rl->history_at < rl->history->len) {
        set_line(rl, rl->history->pdata[rl->history_at]);
    } else {
        set_line(rl, rl->saved ? rl->saved : "");
    }
}

/* ---- completion ---- */

static size_t common_length(const GPtrArray *words)
{
    const char *first = words->pdata[0];
    size_t n = strlen(first);

    for (guint i = 1; i < words->len; i++) {
        const char *w = words->pdata[i];
        size_t k = 0;

        while (k < n && w[k] == first[k]) {
            k++;
        }
        n = k;
    }
    return n;
}

static int by_name(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void list_words(ReadLine *rl, GPtrArray *words)
{
    size_t width = 0, per_line;

    g_ptr_array_sort(words, by_name);
    for (guint i = 0; i < words->len; i++) {
        width = MAX(width, strlen(words->pdata[i]) + 2);
    }
    per_line = MAX(1, 80 / width);
    put(rl, "\n");
    for (guint i = 0; i < words->len; i++) {
        bool last = (i + 1) % per_line == 0 || i + 1 == words->len;
        g_autofree char *cell =
            g_strdup_printf("%-*s", last ? 0 : (int)width, (char *)words->pdata[i]);
        put(rl, cell);
        if (last) {
            put(rl, "\n");
        }
    }
    readline_show(rl);
}

static void complete(ReadLine *rl)
{
    g_autofree char *before = g_strndup(rl->line->str, rl->cursor);
    size_t begin = rl->cursor, n;
    Completions c;
    const char *first;

    while (begin > 0 && !g_ascii_isspace(before[begin - 1])) {
        begin--;
    }
    completions_init(&c, before + begin);
    rl->ops->complete(rl->opaque, before, &c);
    if (c.words->len) {
        n = common_length(c.words);
        first = c.words->pdata[0];
        if (n > strlen(c.word)) {
            insert(rl, first + strlen(c.word), n - strlen(c.word));
        }
        if (c.words->len == 1) {
            /* A directory or a list goes on, anything else is done. */
            if (n > 0 && first[n - 1] != '/' && first[n - 1] != ',' && first[n - 1] != '=') {
                insert(rl, " ", 1);
            }
        } else if (n == strlen(c.word)) {
            list_words(rl, c.words);
        }
    }
    completions_clear(&c);
}

/* ---- keys ---- */

static void enter(ReadLine *rl)
{
    g_autofree char *line = g_strdup(rl->line->str);

    rl->cursor = rl->line->len;
    redraw(rl);
    put(rl, "\n");
    history_add(rl, line);
    readline_reset(rl);
    rl->ops->execute(rl->opaque, line);
}

static void control_key(ReadLine *rl, char c)
{
    switch (c) {
    case 1:                     /* Ctrl-A */
        rl->cursor = 0;
        break;
    case 2:
        rl->cursor = char_before(rl, rl->cursor);
        break;
    case 3:                     /* Ctrl-C */
        put(rl, "^C\n");
        readline_start(rl);
        break;
    case 4:
        erase(rl, rl->cursor, char_after(rl, rl->cursor));
        break;
    case 5:
        rl->cursor = rl->line->len;
        break;
    case 6:
        rl->cursor = char_after(rl, rl->cursor);
        break;
    case 8:
    case 127:
        erase(rl, char_before(rl, rl->cursor), rl->cursor);
        break;
    case '\t':
        complete(rl);
        break;
    case 11:                    /* Ctrl-K */
        g_string_truncate(rl->line, rl->cursor);
        break;
    case 14:
        history_move(rl, 1);
        break;
    case 16:
        history_move(rl, -1);
        break;
    case 21:                    /* Ctrl-U */
        erase(rl, 0, rl->cursor);
        break;
    case 23:                    /* Ctrl-W */
        erase(rl, word_before(rl), rl->cursor);
        break;
    case 27:
        rl->key = KEY_ESC;
        break;
    default:
        break;
    }
}

static void sequence_key(ReadLine *rl, char c)
{
    switch (c) {
    case 'A':
        history_move(rl, -1);
        break;
    case 'B':
        history_move(rl, 1);
        break;
    case 'C':
        rl->cursor = char_after(rl, rl->cursor);
        break;
    case 'D':
        rl->cursor = char_before(rl, rl->cursor);
        break;
    case 'H':
        rl->cursor = 0;
        break;
    case 'F':
        rl->cursor = rl->line->len;
        break;
    case '~':
        if (rl->key_number == 1 || rl->key_number == 7) {
            rl->cursor = 0;
        } else if (rl->key_number == 4 || rl->key_number == 8) {
            rl->cursor = rl->line->len;
        } else if (rl->key_number == 3) {
            erase(rl, rl->cursor, char_after(rl, rl->cursor));
        }
        break;
    default:
        break;
    }
}

/* A byte of text. A character is inserted when it is complete: the terminal draws no halves. */
static void text_byte(ReadLine *rl, char c)
{
    unsigned char u = c;

    if (u < 0x80) {
        rl->utf8_have = 0;
        insert(rl, &c, 1);
        return;
    }
    if (u >= 0xc2 && u < 0xf5) {
        rl->utf8_want = u < 0xe0 ? 2 : u < 0xf0 ? 3 : 4;
        rl->utf8_have = 0;
    } else if (u >= 0xc0 || rl->utf8_have == 0) {
        rl->utf8_have = 0;
        return;                 /* no character begins like this */
    }
    rl->utf8[rl->utf8_have++] = c;
    if (rl->utf8_have == rl->utf8_want) {
        rl->utf8_have = 0;
        if (g_utf8_validate(rl->utf8, rl->utf8_want, NULL)) {
            insert(rl, rl->utf8, rl->utf8_want);
        }
    }
}

static void feed_key(ReadLine *rl, char c)
{
    unsigned char u = c;

    switch (rl->key) {
    case KEY_ESC:
        rl->key = c == '[' ? KEY_CSI : c == 'O' ? KEY_SS3 : KEY_PLAIN;
        rl->key_number = 0;
        break;
    case KEY_CSI:
        if (g_ascii_isdigit(c)) {
            rl->key_number = MIN(rl->key_number * 10 + (c - '0'), 1000);
            break;
        }
        if (u < 0x40) {
            break;              /* a modifier; the final byte is still to come */
        }
        /* fall through */
    case KEY_SS3:
        rl->key = KEY_PLAIN;
        sequence_key(rl, c);
        break;
    default:
        if (u < 0x20 || u == 127) {
            control_key(rl, c);
        } else {
            text_byte(rl, c);
        }
    }
}

void readline_feed(ReadLine *rl, char c)
{
    if (!rl->active) {
        return;
    }
    if (c == '\n' && rl->after_cr) {
        rl->after_cr = false;
        return;
    }
    rl->after_cr = c == '\r';
    if (rl->key == KEY_PLAIN && (c == '\r' || c == '\n')) {
        enter(rl);
        return;
    }
    feed_key(rl, c);
    redraw(rl);
}
