/*
 * Visitors, over the types of tests/qapi-schema/zoo.json.
 *
 * Each case is a text and either what comes back when it is read, cloned, and written again, or the
 * message with which it is refused. Run under a leak checker, this covers deallocation of whole and
 * of half-built values too.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <string.h>

#include "qapi/clone-visitor.h"
#include "qapi/dealloc-visitor.h"
#include "qapi/json-input-visitor.h"
#include "qapi/json-output-visitor.h"
#include "tests/unit/test-qapi-visit-zoo.h"
#include "util/keyval.h"

/* Reads a value with @v; returns it as JSON text, by way of a clone, or NULL with an error. */
typedef char *Roundtrip(Visitor *v, Error **errp);

#define ROUNDTRIP(type) \
    static char *roundtrip_##type(Visitor *in, Error **errp) \
    { \
        struct json_object *json = NULL; \
        type *obj = (type *)&json; \
        \
        if (!visit_type_##type(in, NULL, &obj, errp)) { \
            g_assert_null(obj); \
            return NULL; \
        } \
        type *clone = QAPI_CLONE(type, obj); \
        qapi_free_##type(obj); \
        Visitor *out = json_output_visitor_new(&json); \
        visit_type_##type(out, NULL, &clone, &error_abort); \
        visit_complete(out, &json); \
        visit_free(out); \
        qapi_free_##type(clone); \
        char *text = g_strdup(json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN)); \
        json_object_put(json); \
        return text; \
    }

ROUNDTRIP(Animal)
ROUNDTRIP(Guest)
ROUNDTRIP(House)
ROUNDTRIP(HouseRef)
ROUNDTRIP(Nothing)
ROUNDTRIP(Numbers)
ROUNDTRIP(Zoo)
ROUNDTRIP(strList)

typedef struct Case {
    Roundtrip *type;
    const char *text;
    const char *expected;   /* NULL: the same as text; when error is set: no use */
    const char *error;
} Case;

static void run_case(const Case *c, Visitor *(*reader)(const char *text))
{
    Error *err = NULL;
    Visitor *v = reader(c->text);
    g_autofree char *got = c->type(v, &err);

    visit_free(v);
    if (c->error) {
        g_assert_null(got);
        g_assert_nonnull(err);
        g_assert_cmpstr(error_get_pretty(err), ==, c->error);
        error_free(err);
    } else {
        g_assert_cmpstr(err ? error_get_pretty(err) : "", ==, "");
        g_assert_cmpstr(got, ==, c->expected ?: c->text);
    }
}

/* Single quotes stand for double ones, to keep the cases readable. */
static Visitor *json_reader(const char *text)
{
    g_autofree char *quoted = g_strdelimit(g_strdup(text), "'", '"');
    struct json_object *obj;

    json_parse_text(quoted, &obj, &error_abort);
    Visitor *v = json_input_visitor_new(obj);
    json_object_put(obj);
    return v;
}

static void run_json_case(const Case *c)
{
    g_autofree char *expected = g_strdelimit(g_strdup(c->expected ?: c->text), "'", '"');
    Case quoted = *c;

    quoted.expected = expected;
    run_case(&quoted, json_reader);
}

static Visitor *keyval_reader(const char *text)
{
    return json_input_visitor_new_str(text, "name", &error_abort);
}

static void test_json(gconstpointer data)
{
    for (const Case *c = data; c->type; c++) {
        run_json_case(c);
    }
}

static void test_keyval(gconstpointer data)
{
    for (const Case *c = data; c->type; c++) {
        run_case(c, keyval_reader);
    }
}

static const Case structs[] = {
    { roundtrip_Nothing, "{}" },
    { roundtrip_Animal, "{'name':'ant','diet':'any-thing','legs':6}" },
    { roundtrip_Animal, "{'name':'','diet':'meat','legs':4,'young':[],'nicknames':[]}" },
    { roundtrip_Animal,
      "{'name':'a','diet':'meat','legs':4,'young':[{'name':'b','diet':'meat','legs':4,"
      "'young':[{'name':'c','diet':'plants','legs':3}]}],'notes':{'x':[1,null,true]},"
      "'nicknames':['p','q']}" },
    { roundtrip_Animal, "{'name':'a','diet':'meat','legs':4,'notes':null}" },
    { roundtrip_strList, "['a','','c']" },
    { roundtrip_strList, "[]" },
    { roundtrip_Zoo, "{'houses':[],'opening':[0,255],'tickets':[{'serial_No':7}]}" },
    { }
};

static const Case struct_errors[] = {
    { roundtrip_Nothing, "[]",
      .error = "Invalid parameter type for '<anonymous>', expected: object" },
    { roundtrip_Nothing, "null",
      .error = "Invalid parameter type for '<anonymous>', expected: object" },
    { roundtrip_Nothing, "{'z':1,'y':2}", .error = "Parameter 'z' is unexpected" },
    { roundtrip_Nothing, "{'x':1}", .error = "Parameter 'x' is unexpected" },
    { roundtrip_Animal, "{'diet':'meat','legs':4}", .error = "Parameter 'name' is missing" },
    { roundtrip_Animal, "{'name':1,'diet':'meat','legs':4}",
      .error = "Invalid parameter type for 'name', expected: string" },
    { roundtrip_Animal, "{'name':'a\\u0000b','diet':'meat','legs':4}",
      .error = "Parameter 'name' expects a string without NUL characters" },
    { roundtrip_Animal, "{'name':'a','diet':'stones','legs':4}",
      .error = "Parameter 'diet' does not accept value 'stones'" },
    { roundtrip_Animal, "{'name':'a','diet':true,'legs':4}",
      .error = "Invalid parameter type for 'diet', expected: string" },
    { roundtrip_Animal, "{'name':'a','diet':'meat','legs':256}",
      .error = "Parameter 'legs' expects uint8_t (0 to 255)" },
    { roundtrip_Animal, "{'name':'a','diet':'meat','legs':4,'young':{}}",
      .error = "Invalid parameter type for 'young', expected: array" },
    { roundtrip_Animal, "{'name':'a','diet':'meat','legs':4,'young':[{'name':'b','diet':'meat'}]}",
      .error = "Parameter 'young[0].legs' is missing" },
    { roundtrip_Animal,
      "{'name':'a','diet':'meat','legs':4,'young':[{'name':'b','diet':'meat','legs':1},"
      "{'name':'c','diet':'meat','legs':1,'bogus':1}]}",
      .error = "Parameter 'young[1].bogus' is unexpected" },
    { roundtrip_Animal, "{'name':'a','diet':'meat','legs':4,'nicknames':['p',2]}",
      .error = "Invalid parameter type for 'nicknames[1]', expected: string" },
    { roundtrip_strList, "['a',null]",
      .error = "Invalid parameter type for '[1]', expected: string" },
    {}
};

static const Case numbers[] = {
    { roundtrip_Numbers, "{}" },
    { roundtrip_Numbers,
      "{'i':-9223372036854775808,'i8':-128,'i16':-32768,'i32':-2147483648,"
      "'i64':9223372036854775807,'u8':255,'u16':65535,'u32':4294967295,"
      "'u64':18446744073709551615,'sz':18446744073709551615,'num':0.5,'flag':true,"
      "'nothing':null}" },
    { roundtrip_Numbers, "{'i8':127,'i16':32767,'i32':2147483647,'u64':9223372036854775808}" },
    { roundtrip_Numbers, "{'num':3}", "{'num':3.0}" },
    { roundtrip_Numbers, "{'num':-1e22}", "{'num':-1e+22}" },
    { roundtrip_Numbers, "{'i':1.0}",
      .error = "Invalid parameter type for 'i', expected: integer" },
    { roundtrip_Numbers, "{'i':1e3}",
      .error = "Invalid parameter type for 'i', expected: integer" },
    { roundtrip_Numbers, "{'u64':1.5}",
      .error = "Invalid parameter type for 'u64', expected: uint64" },
    { roundtrip_Numbers, "{'i':'1'}",
      .error = "Invalid parameter type for 'i', expected: integer" },
    { roundtrip_Numbers, "{'i':9223372036854775808}", .error = "Parameter 'i' expects int64_t" },
    { roundtrip_Numbers, "{'i8':128}", .error = "Parameter 'i8' expects int8_t (-128 to 127)" },
    { roundtrip_Numbers, "{'i8':-129}", .error = "Parameter 'i8' expects int8_t (-128 to 127)" },
    { roundtrip_Numbers, "{'i16':32768}", .error = "Parameter 'i16' expects int16_t (-32768 to 32767)" },
    { roundtrip_Numbers, "{'i32':-2147483649}", .error = "Parameter 'i32' expects int32_t (-2147483648 to 2147483647)" },
    { roundtrip_Numbers, "{'u8':-1}", .error = "Parameter 'u8' expects uint8_t" },
    { roundtrip_Numbers, "{'u16':65536}", .error = "Parameter 'u16' expects uint16_t (0 to 65535)" },
    { roundtrip_Numbers, "{'u32':4294967296}", .error = "Parameter 'u32' expects uint32_t (0 to 4294967295)" },
    { roundtrip_Numbers, "{'u64':-1}", .error = "Parameter 'u64' expects uint64_t" },
    { roundtrip_Numbers, "{'sz':-1}", .error = "Parameter 'sz' expects uint64_t" },
    { roundtrip_Numbers, "{'num':1e999}", .error = "Parameter 'num' expects a finite number" },
    { roundtrip_Numbers, "{'num':'1'}",
      .error = "Invalid parameter type for 'num', expected: number" },
    { roundtrip_Numbers, "{'flag':1}",
      .error = "Invalid parameter type for 'flag', expected: boolean" },
    { roundtrip_Numbers, "{'nothing':0}",
      .error = "Invalid parameter type for 'nothing', expected: null" },
    { roundtrip_Numbers, "{'i':null}",
      .error = "Invalid parameter type for 'i', expected: integer" },
    {}
};

static const Case unions[] = {
    { roundtrip_House, "{'kind':'cage','bars':12,'default':true}" },
    { roundtrip_House, "{'kind':'pool','id':'p','volume':1000}" },
    { roundtrip_House, "{'kind':'meadow'}" },
    { roundtrip_House, "{'kind':'ruin','id':'old'}" },
    { roundtrip_House,
      "{'kind':'pool','volume':1,'fish':[{'name':'eel','diet':'meat','legs':0}]}" },
    { roundtrip_House, "{}", .error = "Parameter 'kind' is missing" },
    { roundtrip_House, "{'kind':'tent'}",
      .error = "Parameter 'kind' does not accept value 'tent'" },
    { roundtrip_House, "{'kind':'cage'}", .error = "Parameter 'bars' is missing" },
    { roundtrip_House, "{'kind':'cage','bars':1,'volume':1}",
      .error = "Parameter 'volume' is unexpected" },
    { roundtrip_House, "{'kind':'ruin','bars':1}", .error = "Parameter 'bars' is unexpected" },
    { roundtrip_Zoo,
      "{'houses':[{'kind':'pool','volume':1,'fish':[{'name':'eel','diet':'meat',"
      "'legs':-1}]}]}",
      .error = "Parameter 'houses[0].fish[0].legs' expects uint8_t" },
    {}
};

static const Case alternates[] = {
    { roundtrip_Guest, "'Anna'" },
    { roundtrip_Guest, "7" },
    { roundtrip_Guest, "null" },
    { roundtrip_Guest, "false" },
    { roundtrip_Guest, "[{'name':'a'},{'name':'b'}]" },
    { roundtrip_Guest, "{'name':'ape','diet':'plants','legs':2}" },
    { roundtrip_HouseRef, "{'kind':'cage','bars':1}" },
    { roundtrip_Zoo, "{'houses':[],'guests':['x',1,null,[],{'name':'a','diet':'meat','legs':0}],"
                     "'main':'old'}" },
    { roundtrip_HouseRef, "3",
      .error = "Invalid parameter type for '<anonymous>', expected: HouseRef" },
    { roundtrip_HouseRef, "[]",
      .error = "Invalid parameter type for '<anonymous>', expected: HouseRef" },
    { roundtrip_Guest, "1.5",
      .error = "Invalid parameter type for '<anonymous>', expected: integer" },
    { roundtrip_Guest, "{'name':'ape','legs':2}", .error = "Parameter 'diet' is missing" },
    { roundtrip_Zoo, "{'houses':[],'main':null}",
      .error = "Invalid parameter type for 'main', expected: HouseRef" },
    { roundtrip_Zoo, "{'houses':[],'main':{'kind':'cage','bars':true}}",
      .error = "Invalid parameter type for 'main.bars', expected: uint64" },
    { roundtrip_Zoo, "{'houses':[],'guests':[[{'name':'a'},{'nom':'b'}]]}",
      .error = "Parameter 'guests[0][1].name' is missing" },
    {}
};

static const Case keyvals[] = {
    { roundtrip_Animal, "ant,diet=meat,legs=6", "{\"name\":\"ant\",\"diet\":\"meat\",\"legs\":6}" },
    { roundtrip_Animal, "name=a,,b,diet=meat,legs=0x10",
      "{\"name\":\"a,b\",\"diet\":\"meat\",\"legs\":16}" },
    { roundtrip_Animal, "diet=meat,legs=2,name=x,nicknames.1=q,nicknames.0=p",
      "{\"name\":\"x\",\"diet\":\"meat\",\"legs\":2,\"nicknames\":[\"p\",\"q\"]}" },
    { roundtrip_Animal, "{ \"name\": \"j\", \"diet\": \"meat\", \"legs\": 1 }",
      "{\"name\":\"j\",\"diet\":\"meat\",\"legs\":1}" },
    { roundtrip_Numbers, "i=-5,u64=18446744073709551615,num=2.5,flag=on",
      "{\"i\":-5,\"u64\":18446744073709551615,\"num\":2.5,\"flag\":true}" },
    { roundtrip_Numbers, "sz=2M,flag=off", "{\"sz\":2097152,\"flag\":false}" },
    { roundtrip_Numbers, "sz=1.5k,flag=yes", "{\"sz\":1536,\"flag\":true}" },
    { roundtrip_Numbers, "sz=15E", "{\"sz\":17293822569102704640}" },
    { roundtrip_House, "kind=pool,volume=1G,fish.0.name=eel,fish.0.diet=meat,fish.0.legs=0",
      "{\"kind\":\"pool\",\"volume\":1073741824,\"fish\":[{\"name\":\"eel\",\"diet\":\"meat\","
      "\"legs\":0}]}" },
    { roundtrip_Numbers, "sz=16E", .error = "Parameter 'sz' expects a size" },
    { roundtrip_Numbers, "sz=1.5", .error = "Parameter 'sz' expects a size" },
    { roundtrip_Numbers, "i=5x", .error = "Parameter 'i' expects integer" },
    { roundtrip_Numbers, "i= 5", .error = "Parameter 'i' expects integer" },
    { roundtrip_Numbers, "i=9223372036854775808", .error = "Parameter 'i' expects integer" },
    { roundtrip_Numbers, "i8=200", .error = "Parameter 'i8' expects int8_t (-128 to 127)" },
    { roundtrip_Numbers, "u64=-1", .error = "Parameter 'u64' expects uint64_t" },
    { roundtrip_Numbers, "u16=-1", .error = "Parameter 'u16' expects uint16_t" },
    { roundtrip_Numbers, "num=inf", .error = "Parameter 'num' expects number" },
    { roundtrip_Numbers, "num=", .error = "Parameter 'num' expects number" },
    { roundtrip_Numbers, "flag=maybe", .error = "Parameter 'flag' expects 'on' or 'off'" },
    { roundtrip_Numbers, "flag.x=on",
      .error = "Invalid parameter type for 'flag', expected: string" },
    { roundtrip_Numbers, "bogus=1", .error = "Parameter 'bogus' is unexpected" },
    { roundtrip_House, "kind=pool,volume=1,fish.0.name=eel,fish.0.diet=meat",
      .error = "Parameter 'fish.0.legs' is missing" },
    { roundtrip_House, "kind=pool,volume=1,fish=eel",
      .error = "Invalid parameter type for 'fish', expected: array" },
    {}
};

/* An unknown enum value comes with a hint that lists the known ones; the hint is not sent. */
static void test_enum(void)
{
    Error *err = NULL;

    g_assert_cmpstr(Diet_str(DIET_ANY_THING), ==, "any-thing");
    g_assert_cmpint(qapi_enum_parse(&Diet_lookup, "meat", -1, &error_abort), ==, DIET_MEAT);
    g_assert_cmpint(qapi_enum_parse(&Diet_lookup, NULL, 42, &error_abort), ==, 42);
    g_assert_cmpint(qapi_enum_parse(&Diet_lookup, "Meat", -1, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==, "invalid parameter value: Meat");
    error_free(err);
}

/* Nesting is limited where a type allows it without end. */
static void test_depth(void)
{
    struct json_object *animal = NULL;
    Error *err = NULL;
    Animal *obj;

    for (int i = 0; i < JSON_INPUT_DEPTH_MAX; i++) {
        struct json_object *outer = json_object_new_object();
        json_object_object_add(outer, "name", json_object_new_string("a"));
        json_object_object_add(outer, "diet", json_object_new_string("meat"));
        json_object_object_add(outer, "legs", json_object_new_int(1));
        struct json_object *young = json_object_new_array();
        if (animal) {
            json_object_array_add(young, animal);
        }
        json_object_object_add(outer, "young", young);
        animal = outer;
    }
    Visitor *v = json_input_visitor_new(animal);
    json_object_put(animal);
    g_assert_false(visit_type_Animal(v, NULL, &obj, &err));
    g_assert_null(obj);
    g_assert_true(g_str_has_suffix(error_get_pretty(err), "is nested too deeply"));
    g_assert_cmpuint(strlen(error_get_pretty(err)), <, 200);
    error_free(err);
    visit_free(v);
}

/* A clone shares nothing with the original. */
static void test_clone(void)
{
    g_autofree char *text = g_strdup("{\"name\":\"a\",\"diet\":\"meat\",\"legs\":1,"
                                     "\"notes\":{\"k\":1},\"nicknames\":[\"n\"]}");
    Visitor *v = json_input_visitor_new_str(text, NULL, &error_abort);
    Animal *animal;

    visit_type_Animal(v, NULL, &animal, &error_abort);
    visit_free(v);
    g_autoptr(Animal) clone = QAPI_CLONE(Animal, animal);
    g_assert_true(clone != animal && clone->name != animal->name);
    g_assert_true(clone->notes != animal->notes && clone->nicknames != animal->nicknames);

    Named named;
    QAPI_CLONE_MEMBERS(Named, &named, qapi_Animal_base(animal));
    qapi_free_Animal(animal);
    g_assert_cmpstr(named.name, ==, "a");
    g_assert_cmpstr(clone->name, ==, "a");
    g_assert_cmpstr(clone->nicknames->value, ==, "n");
    g_assert_cmpint(json_object_get_int(json_object_object_get(clone->notes, "k")), ==, 1);
    g_free(named.name);
    g_assert_null(QAPI_CLONE(Animal, NULL));
}

/* List helpers, and freeing what was built by hand. */
static void test_lists(void)
{
    strList *list = NULL, **tail = &list;

    QAPI_LIST_APPEND(tail, g_strdup("b"));
    QAPI_LIST_APPEND(tail, g_strdup("c"));
    QAPI_LIST_PREPEND(list, g_strdup("a"));
    g_assert_cmpuint(QAPI_LIST_LENGTH(list), ==, 3);
    g_assert_cmpstr(list->value, ==, "a");
    g_assert_cmpstr(list->next->next->value, ==, "c");
    g_assert_null(list->next->next->next);
    qapi_free_strList(list);
    qapi_free_strList(NULL);
    qapi_free_Zoo(NULL);

    /* half-built: members that were never set */
    qapi_free_Animal(g_new0(Animal, 1));
    qapi_free_House(g_new0(House, 1));
    qapi_free_Zoo(g_new0(Zoo, 1));
}

/* What JSON cannot express does not become broken JSON; a missing string becomes empty. */
static void test_output(void)
{
    Numbers numbers = { .has_num = true, .num = 1.0 / 0.0 };
    Named named = { .name = NULL };
    struct json_object *json;
    Visitor *v = json_output_visitor_new(&json);
    Numbers *numbers_ptr = &numbers;
    Named *named_ptr = &named;

    visit_type_Numbers(v, NULL, &numbers_ptr, &error_abort);
    visit_complete(v, &json);
    visit_free(v);
    g_assert_cmpstr(json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN), ==,
                    "{\"num\":0.0}");
    json_object_put(json);

    v = json_output_visitor_new(&json);
    visit_type_Named(v, NULL, &named_ptr, &error_abort);
    visit_complete(v, &json);
    visit_free(v);
    g_assert_cmpstr(json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN), ==,
                    "{\"name\":\"\"}");
    json_object_put(json);
}

/* A walk that is given up leaves nothing behind. */
static void test_unfinished_output(void)
{
    struct json_object *json = NULL;
    Visitor *v = json_output_visitor_new(&json);
    int64_t one = 1;

    visit_start_struct(v, NULL, NULL, 0, &error_abort);
    visit_type_int(v, "one", &one, &error_abort);
    visit_free(v);
    g_assert_null(json);
}

static void test_string_reader_errors(void)
{
    static const char *const cases[][2] = {
        { "{ name }", "JSON parse error: quoted object property name expected" },
        { "{ \"a\": 1 } x", "JSON parse error: unexpected character" },
        { "{ \"a\": 1", "JSON parse error: unexpected end of data" },
        { "{ \"a\": \"\xff\" }", "JSON parse error: invalid utf-8 string" },
        { "{ \"a\": 18446744073709551616 }", "JSON parse error: integer out of range" },
        { "{ \"a\": [ \"1\", -9223372036854775809 ] }", "JSON parse error: integer out of range" },
        { "a.=1", "Invalid parameter 'a.'" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Error *err = NULL;
        g_assert_null(json_input_visitor_new_str(cases[i][0], NULL, &err));
        g_assert_nonnull(err);
        g_assert_cmpstr(error_get_pretty(err), ==, cases[i][1]);
        error_free(err);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_data_func("/qapi/visitor/structs", structs, test_json);
    g_test_add_data_func("/qapi/visitor/struct-errors", struct_errors, test_json);
    g_test_add_data_func("/qapi/visitor/numbers", numbers, test_json);
    g_test_add_data_func("/qapi/visitor/unions", unions, test_json);
    g_test_add_data_func("/qapi/visitor/alternates", alternates, test_json);
    g_test_add_data_func("/qapi/visitor/keyval", keyvals, test_keyval);
    g_test_add_func("/qapi/visitor/enum", test_enum);
    g_test_add_func("/qapi/visitor/depth", test_depth);
    g_test_add_func("/qapi/visitor/clone", test_clone);
    g_test_add_func("/qapi/visitor/lists", test_lists);
    g_test_add_func("/qapi/visitor/output", test_output);
    g_test_add_func("/qapi/visitor/unfinished-output", test_unfinished_output);
    g_test_add_func("/qapi/visitor/string-errors", test_string_reader_errors);
    return g_test_run();
}
