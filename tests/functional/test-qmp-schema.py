#!/usr/bin/env python3
"""What query-qmp-schema promises, held against the program that promises it.

The schema must be whole in itself, and every answer and event that is seen here must have the form that
it describes. Every command is called with members missing, unknown or of a wrong type, as deep as the
schema goes: the error must name the path of the member, and the machine must live on.

    test-qmp-schema.py FERRY

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import copy
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
from lib.qmp import QMP  # noqa: E402

FERRY = sys.argv[1]
# What QEMU's meta-schema knows.
JSON_TYPES = {"string": str, "number": (int, float), "int": int, "boolean": bool,
              "null": type(None), "object": dict, "array": list}
# Sessions answer this one differently before and after negotiation; here it is after.
NEGOTIATED = "qmp_capabilities"


class Schema:
    def __init__(self, entities):
        self.entities = {}
        for entity in entities:
            assert entity["name"] not in self.entities, f"{entity['name']} is there twice"
            self.entities[entity["name"]] = entity

    def __getitem__(self, name):
        assert name in self.entities, f"type {name} is referred to and does not exist"
        return self.entities[name]

    def of_kind(self, kind):
        return {name: e for name, e in self.entities.items() if e["meta-type"] == kind}

    def members(self, name):
        """Members of an object type without those of its variants, by name."""
        assert self[name]["meta-type"] == "object", f"{name} is no object type"
        members = {}
        for member in self[name]["members"]:
            assert member["name"] not in members, f"{name}.{member['name']} is there twice"
            members[member["name"]] = member
        return members

    def variant(self, name, value):
        """Members that the variant for @value of the tag adds to object type @name."""
        for variant in self[name].get("variants", ()):
            if variant["case"] == value:
                return self.members(variant["type"])
        return {}

    def members_for(self, name, value):
        """All members that an object @value of type @name may have."""
        members = self.members(name)
        if "tag" in self[name]:
            members = members | self.variant(name, value[self[name]["tag"]])
        return members

    def references(self, entity):
        kind = entity["meta-type"]
        if kind == "array":
            return [entity["element-type"]]
        if kind == "command":
            return [entity["arg-type"], entity["ret-type"]]
        if kind == "event":
            return [entity["arg-type"]]
        return [m["type"] for key in ("members", "variants") for m in entity.get(key, ())
                if kind != "enum"]

    def check(self, name, value, path):
        """@value has the form of type @name."""
        entity = self[name]
        kind = entity["meta-type"]
        if kind == "builtin":
            if entity["json-type"] != "value":
                wanted = JSON_TYPES[entity["json-type"]]
                good = isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool)
                assert good, f"{path} is {value!r}, not of type {name}"
        elif kind == "enum":
            assert value in entity["values"], f"{path} is {value!r}, which {name} does not list"
        elif kind == "array":
            assert isinstance(value, list), f"{path} is no array"
            for i, element in enumerate(value):
                self.check(entity["element-type"], element, f"{path}[{i}]")
        elif kind == "alternate":
            assert any(self.fits(m["type"], value) for m in entity["members"]), f"{path}: {value!r}"
        else:
            assert isinstance(value, dict), f"{path} is no object"
            members = self.members_for(name, value)
            for key, member in members.items():
                assert key in value or "default" in member, f"{path}.{key} is missing"
            for key, inner in value.items():
                assert key in members, f"{path}.{key} is not in the schema"
                self.check(members[key]["type"], inner, f"{path}.{key}")

    def fits(self, name, value):
        try:
            self.check(name, value, "")
            return True
        except AssertionError:
            return False

    def example(self, name, case=None):
        """A value of type @name with its mandatory members; @case: of the tag."""
        entity = self[name]
        kind = entity["meta-type"]
        if kind == "builtin":
            return {"str": "x", "int": 1, "number": 1, "bool": True}.get(name, "x")
        if kind == "enum":
            return case or entity["values"][0]
        if kind == "array":
            return [self.example(entity["element-type"])]
        if kind == "alternate":
            # The plain one where there is one: a node may be described by nodes without end.
            kinds = [m["type"] for m in entity["members"]]
            return self.example(next((k for k in kinds if self[k]["meta-type"] == "builtin"), kinds[0]))
        value = {key: self.example(m["type"], case if key == entity.get("tag") else None)
                 for key, m in self.members(name).items() if "default" not in m}
        if "tag" in entity:
            value |= {key: self.example(m["type"])
                      for key, m in self.variant(name, value[entity["tag"]]).items()
                      if "default" not in m}
        return value


class Machine:
    """A machine on which no CPU runs, and its schema."""

    def __init__(self, directory):
        path = os.path.join(directory, "qmp")
        self.process = subprocess.Popen(
            [FERRY, "-accel", "qtest", "-S", "-m", "16", "-nodefaults", "-display", "none",
             "-qmp", f"unix:{path},server=on,wait=off"], stdin=subprocess.DEVNULL)
        self.qmp = QMP(path, self.must_live)
        self.schema = Schema(self.qmp.command("query-qmp-schema"))
        self.commands = self.schema.of_kind("command")

    def must_live(self):
        assert self.process.poll() is None, f"the program ended: {self.process.returncode}"

    def call(self, name, arguments=None):
        """A command whose answer, and the events before it, have the form of the schema."""
        message = {"execute": name}
        if arguments is not None:
            message["arguments"] = arguments
        answer = self.qmp.answer(message)
        for event in self.qmp.events:
            self.schema.check(self.schema[event["event"]]["arg-type"], event.get("data", {}),
                              event["event"])
        if "return" in answer:
            self.schema.check(self.commands[name]["ret-type"], answer["return"], name)
        return answer

    def refused(self, name, arguments, *words):
        """The call fails with a GenericError that has all the @words."""
        answer = self.qmp.answer({"execute": name, "arguments": arguments})
        what = f"{name} {arguments!r}: {answer}"
        assert "error" in answer, what
        assert answer["error"]["class"] == "GenericError", what
        for word in words:
            assert word in answer["error"]["desc"], f"no {word} in the answer to {what}"


def test_whole(m):
    """All that is referred to exists, all that exists is referred to, tags and cases add up."""
    schema = m.schema
    reached, waiting = set(), [*schema.of_kind("command"), *schema.of_kind("event")]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += schema.references(schema[name])
    assert reached == set(schema.entities), set(schema.entities) - reached
    for name, entity in schema.entities.items():
        if entity["meta-type"] == "builtin":
            assert entity["json-type"] in (*JSON_TYPES, "value"), entity
        elif entity["meta-type"] == "enum":
            assert len(set(entity["values"])) == len(entity["values"]) > 0, entity
            assert [v["name"] for v in entity["members"]] == entity["values"], entity
        elif entity["meta-type"] == "object":
            common = schema.members(name)
            assert ("tag" in entity) == ("variants" in entity), entity
            if "tag" in entity:
                tag = schema[common[entity["tag"]]["type"]]
                cases = [v["case"] for v in entity["variants"]]
                assert len(set(cases)) == len(cases) and set(cases) <= set(tag["values"]), entity
                for case in cases:
                    assert not common.keys() & schema.variant(name, case).keys(), (name, case)
        elif entity["meta-type"] in ("command", "event"):
            schema.members(entity["arg-type"])


def test_describes_itself(m):
    schema = [*m.schema.entities.values()]
    m.schema.check(m.commands["query-qmp-schema"]["ret-type"], schema, "query-qmp-schema")


def test_same_commands(m):
    listed = [c["name"] for c in m.call("query-commands")["return"]]
    assert sorted(listed) == sorted(m.commands), set(listed) ^ set(m.commands)


def test_answers(m):
    """Everything that only asks is asked, and what happens meanwhile is an event of the schema."""
    asked = 0
    for when in ("stopped", "running", "reset", "saved"):
        if when == "running":
            m.call("migrate-set-capabilities",
                   {"capabilities": [{"capability": "events", "state": True}]})
            m.call("object-add", {"qom-type": "memory-backend-ram", "id": "spare", "size": 4096})
            m.call("chardev-add", {"id": "none", "backend": {"type": "null", "data": {}}})
            m.call("cont")
        elif when == "reset":
            m.call("system_reset")
            m.qmp.event(("RESET",))
        elif when == "saved":
            m.call("stop")
            assert "return" in m.call("migrate", {"uri": "exec:cat > /dev/null"})
            while m.qmp.event(("MIGRATION",))["data"]["status"] != "completed":
                pass
        for name, command in m.commands.items():
            if name.startswith("query-") and not m.schema.example(command["arg-type"]):
                assert "return" in (answer := m.call(name)), (name, when, answer)
                asked += 1
    assert asked >= 4 * 15, asked
    for path in ("/", "/machine", "/objects", "/objects/spare", "/machine/unattached"):
        assert "return" in (answer := m.call("qom-list", {"path": path})), answer
    for kind in m.call("qom-list-types")["return"]:
        for command in ("qom-list-properties", "device-list-properties"):
            m.call(command, {"typename": kind["name"]})


def test_missing(m):
    for name, command in m.commands.items():
        needed = m.schema.example(command["arg-type"])
        if name == NEGOTIATED or not needed:
            continue
        m.refused(name, {}, "is missing")
        for member in needed:
            m.refused(name, {k: v for k, v in needed.items() if k != member},
                      f"Parameter '{member}' is missing")


def test_unknown(m):
    for name, command in m.commands.items():
        if name == NEGOTIATED:
            continue
        arguments = m.schema.example(command["arg-type"]) | {"no-such-member": 1}
        # device_add takes the device's properties beside its own members.
        m.refused(name, arguments, "" if name == "device_add" else "'no-such-member' is unexpected")
        for wrong in ([], "x", 1, None):
            m.refused(name, wrong, "'arguments'")


def wrong_values(schema, name):
    """Values that type @name does not take."""
    entity = schema[name]
    if entity["meta-type"] == "builtin":
        return {"str": [1, [], {}, True, None], "bool": ["x", 1, [], {}, None],
                "int": ["x", [], {}, True, 1.5, 1e300, None],
                "number": ["x", [], {}, True, None]}.get(name, [])
    if entity["meta-type"] == "enum":
        return [1, [], {}, True, None, "no-such-value", ""]
    if entity["meta-type"] == "array":
        return [1, "x", {}, True, None]
    if entity["meta-type"] == "object":
        return [1, "x", [], True, None]
    return []


def spoil(schema, name, value, path=""):
    """Pairs: @value of type @name, wrong in one place; the path of that place."""
    entity = schema[name]
    if path:
        for wrong in wrong_values(schema, name):
            yield wrong, path
    if entity["meta-type"] == "array":
        for wrong, where in spoil(schema, entity["element-type"], value[0], path + "[0]"):
            yield [wrong], where
    elif entity["meta-type"] == "object":
        for key, member in schema.members_for(name, value).items():
            inner = copy.deepcopy(value.get(key, schema.example(member["type"])))
            dot = f"{path}.{key}" if path else key
            for wrong, where in spoil(schema, member["type"], inner, dot):
                yield value | {key: wrong}, where
        for case in (v["case"] for v in entity.get("variants", ())):
            if case != value[entity["tag"]]:
                other = schema.example(name, case)
                for key, member in schema.variant(name, case).items():
                    dot = f"{path}.{key}" if path else key
                    inner = schema.example(member["type"])
                    for wrong, where in spoil(schema, member["type"], inner, dot):
                        yield other | {key: wrong}, where


def test_wrong(m):
    calls = 0
    for name, command in m.commands.items():
        if name == NEGOTIATED:
            continue
        arguments = m.schema.example(command["arg-type"])
        for wrong, path in spoil(m.schema, command["arg-type"], arguments):
            m.refused(name, wrong, f"'{path}'")
            calls += 1
    assert calls > 1000, calls


def test_no_command(m):
    answer = m.qmp.answer({"execute": "no-such-command"})
    assert answer == {"error": {"class": "CommandNotFound",
                                "desc": "The command no-such-command has not been found"}}, answer
    answer = m.qmp.answer({"execute": NEGOTIATED, "id": [1]})
    assert answer["id"] == [1] and answer["error"]["class"] == "CommandNotFound", answer
    for message in ({}, [], 1, {"execute": 1}, {"execute": "stop", "x": 1}, {"arguments": {}}):
        assert m.qmp.answer(message)["error"]["class"] == "GenericError", message


def test_lives(m):
    m.must_live()
    assert m.call("query-status")["return"]["status"] == "postmigrate"
    assert m.call("quit")["return"] == {}
    assert m.process.wait(60) == 0


TESTS = [test_whole, test_describes_itself, test_same_commands, test_answers, test_missing,
         test_unknown, test_wrong, test_no_command, test_lives]


def main():
    failed = False
    print(f"1..{len(TESTS)}")
    with tempfile.TemporaryDirectory(prefix="ferry-schema-") as directory:
        machine = Machine(directory)
        try:
            for number, test in enumerate(TESTS, 1):
                name = test.__name__[5:].replace("_", "-")
                try:
                    test(machine)
                    print(f"ok {number} {name}", flush=True)
                except Exception as error:      # pylint: disable=broad-except
                    failed = True
                    print(f"not ok {number} {name}")
                    print(f"# {error!r}"[:2000].replace("\n", "\n# "), flush=True)
        finally:
            if machine.process.poll() is None:
                machine.process.kill()
                machine.process.wait()
    return failed


if __name__ == "__main__":
    sys.exit(main())
