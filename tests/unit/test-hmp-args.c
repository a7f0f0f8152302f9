/*
 * What a line at the monitor's prompt means: words, expressions, and the argument types of
 * commands, with the exact messages.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/hmp-args.h"

static bool lookup(const char *name, int64_t *value)
{
    *value = 0x1000;
    return !g_strcmp0(name, "rip");
}

static void check_expr(const char *text, int64_t expect, const char *rest)
{
    const char *p = text;
    int64_t v = 0;

    hmp_expr_parse(&p, lookup, &v, &error_abort);
    g_assert_cmpint(v, ==, expect);
    g_assert_cmpstr(p, ==, rest);
}

static void check_expr_error(const char *text, const char *expect)
{
    const char *p = text;
    int64_t v;
    Error *err = NULL;

    g_assert_false(hmp_expr_parse(&p, lookup, &v, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, expect);
    error_free(err);
}

static void test_expr(void)
{
    check_expr("1", 1, "");
    check_expr("0x10 rest", 16, "rest");
    check_expr("010", 8, "");
    check_expr("1 + 2 * 3", 7, "");
    check_expr("(1+2)*3", 9, "");
    check_expr("1|2&3^4", 7, "");
    check_expr("-1", -1, "");
    check_expr("~0", -1, "");
    check_expr("- -5", 5, "");
    check_expr("'a'+1", 98, "");
    check_expr("$rip+4", 0x1004, "");
    check_expr("7%4/3", 1, "");
    check_expr("8 / 2", 4, "");
    check_expr("8/2", 4, "");
    check_expr("8 /2", 4, "");
    check_expr("4096 /tmp/file", 4096, "/tmp/file");
    check_expr("0xffffffffffffffff", -1, "");
    check_expr("0x8000000000000000/-1", INT64_MIN, "");
    check_expr("0x7fffffffffffffff*2", -2, "");
}

static void test_expr_errors(void)
{
    g_autofree char *deep = g_strnfill(4000, '('), *minus = g_strnfill(4000, '-');

    check_expr_error("", "unexpected end of expression");
    check_expr_error("1+", "unexpected end of expression");
    check_expr_error("-", "unexpected end of expression");
    check_expr_error("(1", "')' expected");
    check_expr_error("1/0", "division by zero");
    check_expr_error("1%0", "division by zero");
    check_expr_error("$foo", "unknown register '$foo'");
    check_expr_error("'a", "missing terminating ' character");
    check_expr_error("abc", "invalid char 'a' in expression");
    check_expr_error("0x10000000000000000", "number too large");
    check_expr_error(deep, "expression is nested too deeply");
    minus[3999] = '1';
    check_expr_error(minus, "expression is nested too deeply");
}

static void check(const char *types, const char *text, const char *expect)
{
    HMPArgs *args = hmp_args_parse("cmd", types, text, lookup, &error_abort);

    g_assert_cmpstr(json_object_to_json_string_ext(args, JSON_C_TO_STRING_PLAIN |
                                                   JSON_C_TO_STRING_NOSLASHESCAPE), ==, expect);
    json_object_put(args);
}

static void check_error(const char *types, const char *text, const char *expect)
{
    Error *err = NULL;

    g_assert_null(hmp_args_parse("cmd", types, text, lookup, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, expect);
    error_free(err);
}

static void test_strings(void)
{
    check("", "", "{}");
    check("", "  ", "{}");
    check("a:s", " x", "{\"a\":\"x\"}");
    check("a:s,b:s?", "x", "{\"a\":\"x\"}");
    check("a:s,b:s?", "x y", "{\"a\":\"x\",\"b\":\"y\"}");
    check("a:F", "\"/tmp/a b\"", "{\"a\":\"/tmp/a b\"}");
    check("a:s", "\"\\n\\\"\\\\\"", "{\"a\":\"\\n\\\"\\\\\"}");
    check("a:s,b:S", "x y  z ", "{\"a\":\"x\",\"b\":\"y  z\"}");
    check_error("a:s", "", "cmd: string expected");
    check_error("a:F", "", "cmd: filename expected");
    check_error("a:B", "", "cmd: block device name expected");
    check_error("a:s", "x y", "cmd: extraneous characters at the end of line");
    check_error("", "x", "cmd: extraneous characters at the end of line");
    check_error("a:s", "\"x", "cmd: unterminated string");
    check_error("a:s", "\"\\q\"", "cmd: unsupported escape code: '\\q'");
    check_error("a:s", "\"\\", "cmd: unsupported escape code: '\\ '");
}

static void test_numbers(void)
{
    check("a:i", "-1", "{\"a\":-1}");
    check("a:i", "0xffffffff", "{\"a\":4294967295}");
    check("a:l,b:i", "1+1 3", "{\"a\":2,\"b\":3}");
    check("a:l", "$rip", "{\"a\":4096}");
    check("a:M", "2", "{\"a\":2097152}");
    check("a:o", "2", "{\"a\":2097152}");
    check("a:o", "1.5G", "{\"a\":1610612736}");
    check("a:o", "4096b", "{\"a\":4096}");
    check("a:T", "250ms", "{\"a\":0.25}");
    check("a:b", "on", "{\"a\":true}");
    check("a:b", "off", "{\"a\":false}");
    check("a:l,b:i.", "1", "{\"a\":1}");
    check("a:l,b:i.", "1 .2", "{\"a\":1,\"b\":2}");
    check_error("a:i", "", "cmd: integer expected");
    check_error("a:i", "0x100000000", "'cmd' has failed: integer is for 32-bit values");
    check_error("a:i", "x", "cmd: invalid char 'x' in expression");
    check_error("a:M", "-1", "cmd: enter a positive value");
    check_error("a:M", "0x7fffffffffffffff", "cmd: too large value for 'a'");
    check_error("a:o", "x", "cmd: invalid size");
    check_error("a:o", "1Z", "cmd: invalid size '1Z'");
    check_error("a:o", "-1", "cmd: size '-1' is out of range");
    check_error("a:o", "nan", "cmd: size 'nan' is out of range");
    check_error("a:o", "16E", "cmd: size '16E' is out of range");
    check_error("a:T", "1h", "cmd: unknown unit suffix 'h'");
    check_error("a:b", "yes", "Expected 'on' or 'off'");
}

static void test_format(void)
{
    check("fmt:/,addr:l", "0x10", "{\"addr\":16}");
    check("fmt:/,addr:l", "/4xw 0x10", "{\"count\":4,\"format\":120,\"size\":4,\"addr\":16}");
    check("fmt:/,addr:l", "/b 1", "{\"count\":1,\"format\":0,\"size\":1,\"addr\":1}");
    check("fmt:/,addr:l", "/99999999999999999999xg 1",
          "{\"count\":2147483647,\"format\":120,\"size\":8,\"addr\":1}");
    check_error("fmt:/,addr:l", "/z 1", "invalid char in format: 'z'");
    check_error("fmt:/,addr:l", "/x", "cmd: integer expected");
}

static void test_options(void)
{
    check("detach:-d,resume:-r,uri:s", "-d tcp:0:1", "{\"detach\":true,\"uri\":\"tcp:0:1\"}");
    check("detach:-d,resume:-r,uri:s", "-r -d tcp:0:1",
          "{\"resume\":true,\"detach\":true,\"uri\":\"tcp:0:1\"}");
    check("detach:-d,uri:s", "tcp:0:1", "{\"uri\":\"tcp:0:1\"}");
    check("f:-f,g:-gs,a:s?", "-g val -f", "{\"g\":\"val\",\"f\":true}");
    check("all:-a", "", "{}");
    check_error("detach:-d,uri:s", "-x tcp:0:1", "cmd: unsupported option -x");
    check_error("detach:-d,uri:s", "-d", "cmd: string expected");
    check_error("g:-gs", "-g", "cmd: value expected for -g");
    check_error("g:-g", "-x", "cmd: unsupported option -x");
}

static void test_types(void)
{
    g_autofree char *name = NULL;

    g_assert_cmpint(hmp_args_type("d:-d,fmt:/,uri:F,b:b", 0, &name), ==, 'F');
    g_assert_cmpstr(name, ==, "uri");
    g_assert_cmpint(hmp_args_type("d:-d,fmt:/,uri:F,b:b", 1, NULL), ==, 'b');
    g_assert_cmpint(hmp_args_type("d:-d,fmt:/,uri:F,b:b", 2, NULL), ==, '\0');
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/hmp/expr", test_expr);
    g_test_add_func("/hmp/expr-errors", test_expr_errors);
    g_test_add_func("/hmp/args/strings", test_strings);
    g_test_add_func("/hmp/args/numbers", test_numbers);
    g_test_add_func("/hmp/args/format", test_format);
    g_test_add_func("/hmp/args/options", test_options);
    g_test_add_func("/hmp/args/types", test_types);
    return g_test_run();
}
