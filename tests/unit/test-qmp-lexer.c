/*
 * JSON out of a stream: values, errors with their exact text, how reading goes on after an error,
 * and limits. Every input is fed whole and byte by byte; both must give the same.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <malloc.h>
#include <string.h>
#include <sys/resource.h>
#include "monitor/json-lexer.h"
#include "monitor/json-stream.h"

/* All that comes out of @data, values and errors, one a line. */
static char *run(const char *data, size_t size, size_t chunk)
{
    g_autoptr(JSONStream) s = json_stream_new();
    GString *out = g_string_new(NULL);

    for (size_t at = 0; at < size;) {
        struct json_object *v = NULL;
        Error *err = NULL;
        size_t used = 0, len = MIN(chunk, size - at);
        JSONStreamResult r = json_stream_feed(s, data + at, len, &used, &v, &err);

        at += used;
        if (r == JSON_STREAM_VALUE) {
            g_string_append(out, json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN |
                                                                JSON_C_TO_STRING_NOSLASHESCAPE));
            g_string_append_c(out, '\n');
            json_object_put(v);
        } else if (r == JSON_STREAM_ERROR) {
            g_string_append_printf(out, "E %s\n", error_get_pretty(err));
            error_free(err);
        } else {
            g_assert_cmpuint(used, ==, len);
        }
    }
    return g_string_free(out, FALSE);
}

static void check_len(const char *data, size_t size, const char *expect)
{
    for (size_t chunk = 1; chunk <= size; chunk = chunk == 1 ? size : size + 1) {
        g_autofree char *got = run(data, size, chunk);
        g_assert_cmpstr(got, ==, expect);
    }
}

static void check(const char *text, const char *expect)
{
    check_len(text, strlen(text), expect);
}

static void test_values(void)
{
    check("{}", "{}\n");
    check(" [ ] ", "[]\n");
    check("{\"a\":1,\"b\":[true,false,null,\"x\"],\"c\":{\"d\":-2.5}}",
          "{\"a\":1,\"b\":[true,false,null,\"x\"],\"c\":{\"d\":-2.5}}\n");
    check("{'execute':'stop'}", "{\"execute\":\"stop\"}\n");
    check("{\"a\":'it\\'s \"so\"'}", "{\"a\":\"it's \\\"so\\\"\"}\n");
    check("[0,-0,9223372036854775807,-9223372036854775808,18446744073709551615]",
          "[0,0,9223372036854775807,-9223372036854775808,18446744073709551615]\n");
    check("1 ", "1\n");
    check("true ", "true\n");
    check("null,", "null\nE JSON parse error, expecting value\n");
    check("{}{}\n[]", "{}\n{}\n[]\n");
    check("{\"a\":\n\t\r {}}", "{\"a\":{}}\n");
}

static void test_big_integer_is_a_number(void)
{
    g_autofree char *out = run("[18446744073709551616]", 22, 22);
    double d = g_ascii_strtod(out + 1, NULL);

    g_assert_cmpfloat(d, ==, 18446744073709551616.0);
    check("[1e999]", "E JSON parse error, number out of range\n");
}

static void test_strings(void)
{
    check("[\"\\u00e4\\u20ac\\ud83d\\ude00\\n\\/\"]", "[\"ä€😀\\n/\"]\n");
    check("[\"ä€😀\"]", "[\"ä€😀\"]\n");
    check("[\"\\ud83d\"]",
          "E JSON parse error, \\ud83d is not a valid Unicode character\n");
    check("[\"\\udc00\"]",
          "E JSON parse error, \\udc00 is not a valid Unicode character\n");
    check("[\"\\u0000\"]",
          "E JSON parse error, \\u0000 is not a valid Unicode character\n");
    check("[\"\\u12\"]", "E JSON parse error, \\u12 is not a valid Unicode character\n");
    check("[\"\\q\"]", "E JSON parse error, invalid escape sequence '\\q'\n");
    check("[\"\xc3\x28\"]", "E JSON parse error, invalid UTF-8 sequence in string\n");
    check("[\"\xed\xa0\x80\"]", "E JSON parse error, invalid UTF-8 sequence in string\n");
    check("{\"\xc0\xaf\":1}", "E JSON parse error, invalid UTF-8 sequence in string\n");
    check("[\"\\\\\",\"\\\"\"]", "[\"\\\\\",\"\\\"\"]\n");
}

static void test_syntax(void)
{
    check("{\"a\" 1}[]", "E JSON parse error, missing : in object pair\n[]\n");
    check("{\"a\":1 \"b\":2}[]", "E JSON parse error, expected separator in dict\n[]\n");
    check("[1 2][]", "E JSON parse error, expected separator in list\n[]\n");
    check("{1:2}[]", "E JSON parse error, key is not a string in object\n[]\n");
    check("{\"a\":1,}[]", "E JSON parse error, key is not a string in object\n[]\n");
    check("[1,][]", "E JSON parse error, expecting value\n[]\n");
    check("{\"a\":1,\"a\":2}[]", "E JSON parse error, duplicate key\n[]\n");
    check("[nul][]", "E JSON parse error, invalid keyword 'nul'\n[]\n");
    check("{]{}", "E JSON parse error, key is not a string in object\n{}\n");
    check("}{}", "E JSON parse error, expecting value\n{}\n");
    /* A nested error is told when the brackets around it are closed. */
    check("{\"a\":[nul,{\"b\":[]}]}{}", "E JSON parse error, invalid keyword 'nul'\n{}\n");
}

static void test_recovery(void)
{
    check("\xff\n{}", "E JSON parse error, stray '\xef\xbf\xbd'\n{}\n");
    check("GET / HTTP/1.0\r\n{}", "E JSON parse error, stray 'G'\n{}\n");
    check("{\"a\":01}\n{}",
          "E JSON parse error, stray '01'\nE JSON parse error, expecting value\n{}\n");
    check("[-x,{}", "E JSON parse error, stray '-x'\nE JSON parse error, expecting value\n{}\n");
    check("[\"abc\n{}", "E JSON parse error, stray '\"abc'\n{}\n");
    check_len("[\"a\0b\n{}", 8,
              "E JSON parse error, stray '\"a'\nE JSON parse error, invalid keyword 'b'\n{}\n");
}

static void test_nesting(void)
{
    GString *s = g_string_new(NULL);
    g_autofree char *out = NULL;

    for (int i = 0; i < JSON_NESTING_MAX; i++) {
        g_string_append_c(s, '[');
    }
    for (int i = 0; i < JSON_NESTING_MAX; i++) {
        g_string_append_c(s, ']');
    }
    out = run(s->str, s->len, s->len);
    g_string_append_c(s, '\n');
    g_assert_cmpstr(out, ==, s->str);

    g_string_assign(s, "");
    for (int i = 0; i < 100000; i++) {
        g_string_append(s, i % 2 ? "{\"a\":" : "[");
    }
    g_string_append(s, "\n{}");
    check(s->str, "E JSON nesting depth limit exceeded\n{}\n");
    g_string_free(s, TRUE);
}

static size_t max_rss_kib(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss;
}

/* A gibibyte of one message: an error, and memory that does not follow the input. */
static void feed_gibibyte(const char *begin, const char *repeat, const char *error)
{
    g_autoptr(JSONStream) s = json_stream_new();
    g_autoptr(GString) chunk = g_string_new(NULL);
    size_t before = max_rss_kib(), errors = 0, used;
    struct json_object *v = NULL;
    Error *err = NULL;

    while (chunk->len < (1 << 20)) {
        g_string_append(chunk, repeat);
    }
    g_assert_cmpint(json_stream_feed(s, begin, strlen(begin), &used, &v, &err), ==,
                    JSON_STREAM_MORE);
    for (uint64_t sent = 0; sent < (1ULL << 30); sent += chunk->len) {
        for (size_t at = 0; at < chunk->len; at += used) {
            if (json_stream_feed(s, chunk->str + at, chunk->len - at, &used, &v, &err) ==
                JSON_STREAM_ERROR) {
                g_assert_cmpstr(error_get_pretty(err), ==, error);
                g_clear_pointer(&err, error_free);
                errors++;
            }
        }
    }
    g_assert_cmpuint(errors, ==, 1);
    g_assert_cmpint(json_stream_feed(s, "\n{}", 3, &used, &v, &err), ==, JSON_STREAM_VALUE);
    json_object_put(v);
    malloc_trim(0);
#ifndef __SANITIZE_ADDRESS__
    g_assert_cmpuint(max_rss_kib() - before, <, 400 * 1024);
#else
    (void)before;
#endif
}

static void test_long_string(void)
{
    feed_gibibyte("{\"execute\":\"", "aaaaaaaaaaaaaaaa", "JSON token size limit exceeded");
}

static void test_long_list(void)
{
    feed_gibibyte("[1", ",{}", "JSON message size limit exceeded");
}

static void test_long_number(void)
{
    feed_gibibyte("[1", "1111111111111111", "JSON token size limit exceeded");
}

static void test_reset(void)
{
    g_autoptr(JSONStream) s = json_stream_new();
    struct json_object *v = NULL;
    size_t used;

    g_assert_cmpint(json_stream_feed(s, "{\"a\":[\"x", 8, &used, &v, NULL), ==, JSON_STREAM_MORE);
    json_stream_reset(s);
    g_assert_cmpint(json_stream_feed(s, "[]", 2, &used, &v, NULL), ==, JSON_STREAM_VALUE);
    g_assert_cmpstr(json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN), ==, "[]");
    json_object_put(v);
}

/* Bytes at random, from an alphabet that makes JSON likely: nothing must break. */
static void test_random(void)
{
    static const char alphabet[] = "{}[]:,\"'\\u0de1-+.e true\nfalse null\xc3\xa9\xff";
    g_autoptr(GRand) rand = g_rand_new_with_seed(20261122);

    for (int round = 0; round < 3000; round++) {
        char buf[200];
        g_autofree char *whole = NULL, *bytes = NULL;

        for (size_t i = 0; i < sizeof(buf); i++) {
            buf[i] = alphabet[g_rand_int_range(rand, 0, sizeof(alphabet) - 1)];
        }
        whole = run(buf, sizeof(buf), sizeof(buf));
        bytes = run(buf, sizeof(buf), 1);
        g_assert_cmpstr(whole, ==, bytes);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/json-stream/values", test_values);
    g_test_add_func("/json-stream/big-integer", test_big_integer_is_a_number);
    g_test_add_func("/json-stream/strings", test_strings);
    g_test_add_func("/json-stream/syntax", test_syntax);
    g_test_add_func("/json-stream/recovery", test_recovery);
    g_test_add_func("/json-stream/nesting", test_nesting);
    g_test_add_func("/json-stream/reset", test_reset);
    g_test_add_func("/json-stream/random", test_random);
    g_test_add_func("/json-stream/long-string", test_long_string);
    g_test_add_func("/json-stream/long-list", test_long_list);
    g_test_add_func("/json-stream/long-number", test_long_number);
    return g_test_run();
}
