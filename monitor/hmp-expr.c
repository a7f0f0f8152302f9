/*
 * A recursive descent over the grammar in the header, one function per level. Depth is limited,
 * since a line may hold thousands of brackets.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>
#include "monitor/hmp-expr.h"

#define DEPTH_MAX 64

typedef struct Expr {
    const char *start;
    const char *p;
    HMPRegisterLookup lookup;
    unsigned depth;
    Error **errp;
} Expr;

static bool expr_sum(Expr *e, int64_t *v);

static void next(Expr *e)
{
    if (*e->p) {
        e->p++;
    }
    while (g_ascii_isspace(*e->p)) {
        e->p++;
    }
}

static bool expr_char(Expr *e, int64_t *v)
{
    const char *p = e->p + 1;

    if (*p == '\\' && p[1]) {
        p++;
    }
    if (!*p || p[1] != '\'') {
        error_setg(e->errp, "missing terminating ' character");
        return false;
    }
    *v = (unsigned char)*p;
    e->p = p + 1;
    next(e);
    return true;
}

static bool expr_register(Expr *e, int64_t *v)
{
    const char *begin = e->p + 1, *end = begin;
    g_autofree char *name = NULL;

    while (g_ascii_isalnum(*end) || *end == '_' || *end == '.') {
        end++;
    }
    name = g_strndup(begin, end - begin);
    if (!e->lookup || !e->lookup(name, v)) {
        error_setg(e->errp, "unknown register '$%s'", name);
        return false;
    }
    e->p = end - 1;
    next(e);
    return true;
}

static bool expr_number(Expr *e, int64_t *v)
{
    char *end;

    errno = 0;
    *v = (int64_t)g_ascii_strtoull(e->p, &end, 0);
    if (errno == ERANGE) {
        error_setg(e->errp, "number too large");
        return false;
    }
    if (end == e->p) {
        if (*e->p) {
            error_setg(e->errp, "invalid char '%c' in expression",
                       g_ascii_isprint(*e->p) ? *e->p : '?');
        } else {
            error_setg(e->errp, "unexpected end of expression");
        }
        return false;
    }
    e->p = end - 1;
    next(e);
    return true;
}

static bool expr_bracket(Expr *e, int64_t *v)
{
    next(e);
    if (!expr_sum(e, v)) {
        return false;
    }
    if (*e->p != ')') {
        error_setg(e->errp, "')' expected");
        return false;
    }
    next(e);
    return true;
}

static bool expr_unary_inner(Expr *e, int64_t *v)
{
    char op = *e->p;

    switch (op) {
    case '+':
    case '-':
    case '~':
        next(e);
        if (*e->p == '\0') {
            error_setg(e->errp, "unexpected end of expression");
            return false;
        }
        if (++e->depth > DEPTH_MAX) {
            error_setg(e->errp, "expression is nested too deeply");
            return false;
        }
        if (!expr_unary_inner(e, v)) {
            return false;
        }
        e->depth--;
        *v = op == '-' ? (int64_t)(0 - (uint64_t)*v) : op == '~' ? ~*v : *v;
        return true;
    case '(':
        return expr_bracket(e, v);
    case '\'':
        return expr_char(e, v);
    case '$':
        return expr_register(e, v);
    default:
        return expr_number(e, v);
    }
}

/* "4096 /tmp/file" is a number and a file name, not a division: what follows is no operand. */
static bool is_path(const Expr *e)
{
    return e->p[0] == '/' && e->p > e->start && g_ascii_isspace(e->p[-1]) &&
           (g_ascii_isalpha(e->p[1]) || e->p[1] == '_' || e->p[1] == '.');
}

static bool expr_prod(Expr *e, int64_t *v)
{
    int64_t right;

    if (!expr_unary_inner(e, v)) {
        return false;
    }
    while (*e->p && strchr("*/%", *e->p) && !is_path(e)) {
        char op = *e->p;

        next(e);
        if (!expr_unary_inner(e, &right)) {
            return false;
        }
        if (op == '*') {
            *v = (int64_t)((uint64_t)*v * (uint64_t)right);
        } else if (right == 0) {
            error_setg(e->errp, "division by zero");
            return false;
        } else if (right == -1) {
            *v = op == '/' ? (int64_t)(0 - (uint64_t)*v) : 0;
        } else {
            *v = op == '/' ? *v / right : *v % right;
        }
    }
    return true;
}

static bool expr_logic(Expr *e, int64_t *v)
{
    int64_t right;

    if (!expr_prod(e, v)) {
        return false;
    }
    while (*e->p && strchr("&|^", *e->p)) {
        char op = *e->p;

        next(e);
        if (!expr_prod(e, &right)) {
            return false;
        }
        *v = op == '&' ? *v & right : op == '|' ? *v | right : *v ^ right;
    }
    return true;
}

static bool expr_sum(Expr *e, int64_t *v)
{
    int64_t right;

    if (++e->depth > DEPTH_MAX) {
        error_setg(e->errp, "expression is nested too deeply");
        return false;
    }
    if (!expr_logic(e, v)) {
        return false;
    }
    while (*e->p == '+' || *e->p == '-') {
        char op = *e->p;

        next(e);
        if (!expr_logic(e, &right)) {
            return false;
        }
        *v = op == '+' ? (int64_t)((uint64_t)*v + (uint64_t)right)
                       : (int64_t)((uint64_t)*v - (uint64_t)right);
    }
    e->depth--;
    return true;
}

bool hmp_expr_parse(const char **p, HMPRegisterLookup lookup, int64_t *value, Error **errp)
{
    Expr e = { .start = *p, .p = *p, .lookup = lookup, .errp = errp };

    while (g_ascii_isspace(*e.p)) {
        e.p++;
    }
    if (!expr_sum(&e, value)) {
        return false;
    }
    *p = e.p;
    return true;
}
