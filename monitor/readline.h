/*
 * Line editing for a terminal on the other side of a byte stream.
 *
 * Keys: those of Emacs and of a PC keyboard. Left, right, Home, End, Delete, Backspace, Ctrl-A, B,
 * D, E, F, H, K, U, W move and delete; up, down, Ctrl-P and N walk the history; Tab completes;
 * Ctrl-C drops the line; Return (CR or LF) takes it. UTF-8 passes through; the cursor moves by
 * characters.
 *
 * Lines are at most READLINE_MAX_BYTES long, more input rings the bell. The history keeps the last
 * READLINE_HISTORY lines, none twice.
 *
 * One thread at a time.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MONITOR_READLINE_H
#define MONITOR_READLINE_H

#include <glib.h>
#include <stdbool.h>

#define READLINE_MAX_BYTES 4095
#define READLINE_HISTORY 64

/* What Tab offers. */
typedef struct Completions {
    GPtrArray *words;           /* char *, owned */
    char *word;                 /* the word before the cursor that they complete */
} Completions;

/* @word is copied; clear gives everything back. */
void completions_init(Completions *c, const char *word);
void completions_clear(Completions *c);
/* Offer @word when the word before the cursor begins it. */
void completions_add(Completions *c, const char *word);

typedef struct ReadLineOps {
    /* Send text to the terminal as it is. */
    void (*write)(void *opaque, const char *text);
    /* A line was entered. The prompt is not shown again until readline_start(). */
    void (*execute)(void *opaque, const char *line);
    /* Fill @c (initialised, c->word is set) for the line up to the cursor. */
    void (*complete)(void *opaque, const char *line, Completions *c);
} ReadLineOps;

typedef struct ReadLine ReadLine;

/* @prompt is copied, @ops kept; nothing is shown until readline_start(). */
ReadLine *readline_new(const char *prompt, const ReadLineOps *ops, void *opaque);
void readline_free(ReadLine *rl);
/* Show the prompt and begin an empty line. */
void readline_start(ReadLine *rl);
/* Show prompt and line again, after something else was printed. */
void readline_show(ReadLine *rl);
/* Whether the prompt is shown and input edits a line. */
bool readline_active(const ReadLine *rl);
/* Forget the line that was begun and any half key sequence; the history stays. */
void readline_reset(ReadLine *rl);
/* One byte from the terminal. Ignored while no prompt is shown. */
void readline_feed(ReadLine *rl, char byte);
/* The lines entered so far, the oldest first; @n counts from 0. NULL when there is none. */
const char *readline_history(const ReadLine *rl, unsigned n);

#endif
