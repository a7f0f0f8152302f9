/*
 * JSON as QMP writes it, byte by byte.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <math.h>
#include <string.h>
#include "monitor/json-stream.h"
#include "util/json-writer.h"

static void check(struct json_object *value, bool pretty, const char *expect)
{
    g_autoptr(GString) out = g_string_new(NULL);

    json_write(out, value, pretty);
    g_assert_cmpstr(out->str, ==, expect);
    json_object_put(value);
}

static struct json_object *parse(const char *text)
{
    g_autoptr(JSONStream) s = json_stream_new();
    struct json_object *v = NULL;
    size_t used;

    g_assert_cmpint(json_stream_feed(s, text, strlen(text), &used, &v, &error_abort), ==,
                    JSON_STREAM_VALUE);
    return v;
}

static void test_plain(void)
{
    check(parse("{}"), false, "{}");
    check(parse("[]"), false, "[]");
    check(parse("{\"return\":{}}"), false, "{\"return\": {}}");
    check(parse("{'a':[1,-2,true,false,null],'b':'c'}"), false,
          "{\"a\": [1, -2, true, false, null], \"b\": \"c\"}");
    check(parse("[9223372036854775808,18446744073709551615,-9223372036854775808]"), false,
          "[9223372036854775808, 18446744073709551615, -9223372036854775808]");
    check(parse("[0.5,1e300]"), false, "[0.5, 1.0000000000000001e+300]");
    check(json_object_new_double(NAN), false, "0");
    check(json_object_new_double(INFINITY), false, "0");
    check(NULL, false, "null");
}

static void test_strings(void)
{
    check(json_object_new_string("a\"b\\c/d\n\r\t\b\f\x01\x7f"), false,
          "\"a\\\"b\\\\c/d\\n\\r\\t\\b\\f\\u0001\\u007F\"");
    check(json_object_new_string("ä€😀"), false, "\"\\u00E4\\u20AC\\uD83D\\uDE00\"");
    check(json_object_new_string("\xff" "a\xc3"), false, "\"\\uFFFDa\\uFFFD\"");
    check(json_object_new_string_len("a\0b", 3), false, "\"a\\u0000b\"");
}

static void test_pretty(void)
{
    check(parse("{'return':{},'x':[],'y':[1,{'a':2}]}"), true,
          "{\n    \"return\": {},\n    \"x\": [],\n    \"y\": [\n        1,\n        {\n"
          "            \"a\": 2\n        }\n    ]\n}");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/json-writer/plain", test_plain);
    g_test_add_func("/json-writer/strings", test_strings);
    g_test_add_func("/json-writer/pretty", test_pretty);
    return g_test_run();
}
