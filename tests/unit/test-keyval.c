/*
 * Option strings to JSON.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <string.h>

#include "util/keyval.h"

static void check(const char *params, const char *implied, const char *expected)
{
    struct json_object *obj = keyval_parse(params, implied, NULL, &error_abort);

    g_assert_cmpstr(json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PLAIN), ==, expected);
    json_object_put(obj);
}

static void check_error(const char *params, const char *implied, const char *message)
{
    Error *err = NULL;

    g_assert_null(keyval_parse(params, implied, NULL, &err));
    g_assert_nonnull(err);
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
}

static void test_good(void)
{
    check("", NULL, "{}");
    check("a=1", NULL, "{\"a\":\"1\"}");
    check("a=1,", NULL, "{\"a\":\"1\"}");
    check("a=,b=2", NULL, "{\"a\":\"\",\"b\":\"2\"}");
    check("a=x,,y,b-c_d=2", NULL, "{\"a\":\"x,y\",\"b-c_d\":\"2\"}");
    check("a=,,", NULL, "{\"a\":\",\"}");
    check("a=1=2", NULL, "{\"a\":\"1=2\"}");
    check("a=1,a=2", NULL, "{\"a\":\"2\"}");
    check("a.b.c=1,a.b.d=2,a.e=3", NULL, "{\"a\":{\"b\":{\"c\":\"1\",\"d\":\"2\"},\"e\":\"3\"}}");
    check("first,b=2", "a", "{\"a\":\"first\",\"b\":\"2\"}");
    check("fir,,st", "a", "{\"a\":\"fir,st\"}");
    check("b=2", "a", "{\"b\":\"2\"}");
}

static void test_lists(void)
{
    check("x.0=a,x.1=b", NULL, "{\"x\":[\"a\",\"b\"]}");
    check("x.1=b,x.0=a", NULL, "{\"x\":[\"a\",\"b\"]}");
    check("x.0.y=1,x.1.y=2", NULL, "{\"x\":[{\"y\":\"1\"},{\"y\":\"2\"}]}");
    check("x.0.0=1", NULL, "{\"x\":[[\"1\"]]}");
    check_error("x.1=b", NULL, "Parameter 'x.0' missing");
    check_error("x.0=a,x.2=b", NULL, "Parameter 'x.1' missing");
    check_error("x.0=a,x.4294967296=b", NULL, "Parameter 'x.1' missing");
    check_error("x.0=a,x.y=b", NULL, "Parameters 'x.*' used inconsistently");
    check_error("x.00=a", NULL, "Parameter 'x.0' missing");
}

static void test_bad(void)
{
    check_error("a", NULL, "Expected '=' after parameter 'a'");
    check_error("x=1,a,b=2", NULL, "Expected '=' after parameter 'a'");
    check_error("x=1,a", "imp", "Expected '=' after parameter 'a'");
    check_error("=1", NULL, "Invalid parameter ''");
    check_error(",", NULL, "Invalid parameter ''");
    check_error(",", "imp", "No value for parameter 'imp'");
    check_error("a..b=1", NULL, "Invalid parameter 'a..b'");
    check_error(".a=1", NULL, "Invalid parameter '.a'");
    check_error("0=1", NULL, "Invalid parameter '0'");
    check_error("a b=1", NULL, "Invalid parameter 'a b'");
    check_error("a.1b=1", NULL, "Invalid parameter 'a.1b'");
    check_error("/path=1", NULL, "Invalid parameter '/path'");
    check_error("a=1,a.b=2", NULL, "Parameters 'a.*' used inconsistently");
    check_error("a.b=2,a=1", NULL, "Parameters 'a.*' used inconsistently");
    check_error("a.b=1,a.b.c=2", NULL, "Parameters 'a.b.*' used inconsistently");
}

/* A key's length bounds the nesting that it can ask for. */
static void test_long_key(void)
{
    g_autoptr(GString) key = g_string_new("a");

    while (key->len + 2 <= KEYVAL_KEY_MAX_CHARS) {
        g_string_append(key, ".a");
    }
    g_string_append(key, "=1");
    struct json_object *obj = keyval_parse(key->str, NULL, NULL, &error_abort);
    json_object_put(obj);

    g_string_prepend(key, "aa");
    g_autofree char *message = g_strdup_printf("Parameter name '%.64s...' is too long", key->str);
    check_error(key->str, NULL, message);
}

static void test_help(void)
{
    bool help;
    struct json_object *obj = keyval_parse("help", "type", &help, &error_abort);

    g_assert_true(help);
    json_object_put(obj);
    obj = keyval_parse("memory,?", "type", &help, &error_abort);
    g_assert_true(help);
    g_assert_cmpstr(json_object_get_string(json_object_object_get(obj, "type")), ==, "memory");
    json_object_put(obj);
    obj = keyval_parse("a=help", NULL, &help, &error_abort);
    g_assert_false(help);
    json_object_put(obj);
    check_error("help", NULL, "Expected '=' after parameter 'help'");
}

static void test_json_text(void)
{
    struct json_object *obj;
    g_autoptr(GString) deep = g_string_new(NULL);
    Error *err = NULL;

    g_assert_cmpint(json_parse_text("null", &obj, &error_abort), ==, 0);
    g_assert_null(obj);
    g_assert_cmpint(json_parse_text(" [1, 2] ", &obj, &error_abort), ==, 0);
    g_assert_cmpuint(json_object_array_length(obj), ==, 2);
    json_object_put(obj);

    /* what looks like a number too large, and is none */
    g_assert_cmpint(json_parse_text("{\"99999999999999999999\": \"\\\"99999999999999999999\","
                                    " \"a\": 99999999999999999999.5, \"b\": 1e30,"
                                    " \"c\": -9223372036854775808}",
                                    &obj, &error_abort), ==, 0);
    g_assert_cmpuint(json_object_object_length(obj), ==, 4);
    json_object_put(obj);

    for (int i = 0; i < 100000; i++) {
        g_string_append_c(deep, '[');
    }
    g_assert_cmpint(json_parse_text(deep->str, &obj, &err), ==, -1);
    g_assert_null(obj);
    g_assert_cmpstr(error_get_pretty(err), ==, "JSON parse error: nesting too deep");
    error_free(err);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/keyval/good", test_good);
    g_test_add_func("/keyval/lists", test_lists);
    g_test_add_func("/keyval/bad", test_bad);
    g_test_add_func("/keyval/long-key", test_long_key);
    g_test_add_func("/keyval/help", test_help);
    g_test_add_func("/keyval/json-text", test_json_text);
    return g_test_run();
}
