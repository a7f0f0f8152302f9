"""The JSON description at a stream's end, and the devices' state that it makes readable.

The VMM does not read the description, so nothing in it can be taken for granted: it is checked as a
whole, with the sizes and counts in it added up, before the first byte is decoded by it.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import re

from .reader import Bad

SUBSECTION = 5
PAGE_BYTES = 4096
DESCRIPTION_MAX_BYTES = 64 << 20
# Far more than any machine has; they keep a senseless file from filling this one's memory.
DEVICES_MAX_BYTES = 64 << 20
DESCRIPTION_MAX_VALUES = 1 << 20
DEVICES_MAX_VALUES = 1 << 22
TABLES_MAX_DEPTH = 16
NAME_MAX = 255


class Senseless(Bad):
    """The description at the end is not what it should be."""

    def __str__(self):
        return f"the description makes no sense: {super().__str__()}"


def number(text):
    """An integer of the JSON: none has more digits than 64 bits need."""
    if len(text) > 20:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def parse_description(text):
    """The JSON at the end. ValueError: it is none, or more than any machine would write."""
    if text.count(b",") + text.count(b"[") + text.count(b"{") > DESCRIPTION_MAX_VALUES:
        raise ValueError(f"more than {DESCRIPTION_MAX_VALUES} values")
    try:
        return json.loads(text.decode("utf-8"), parse_int=number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def find_description(reader, start):
    """
    The description of a stream that goes on at @start, as (offset of its element, JSON); sections
    of devices cannot be walked without it. What ends with the file is it; else, as on a block
    device, the first that can be it.
    """
    window = DEVICES_MAX_BYTES + DESCRIPTION_MAX_BYTES
    reason = "truncated: the description at the stream's end is missing"
    budget = 2 * DESCRIPTION_MAX_BYTES
    # EOF, VMDESCRIPTION, a length, an object
    pattern = re.compile(rb"\x00\x06(?=[\x00-\x04]...\{)", re.DOTALL)
    for whole, begin in ((True, max(start, reader.size - DESCRIPTION_MAX_BYTES - 6)),
                         (False, start)):
        tail = reader.read_at(begin, window)
        for match in pattern.finditer(tail):
            at = match.start()
            length = int.from_bytes(tail[at + 2:at + 6], "big")
            end = at + 6 + length
            if (length > DESCRIPTION_MAX_BYTES or budget <= 0 or tail[end - 1:end] != b"}" or
                    (whole and begin + end != reader.size)):
                continue
            budget -= length + 64
            try:
                root = parse_description(tail[at + 6:end])
            except ValueError as err:
                if whole:
                    reason = f"the description at {begin + at} cannot be read: {err}"
                continue
            if whole or "devices" in root:
                return begin + at, root
    raise Bad(reason)


def width(kind):
    """How many bytes a value of type @kind has; None: the type leaves it open."""
    match = re.fullmatch(r"u?int(8|16|32|64)( equal)?", kind)
    return int(match[1]) // 8 if match else 1 if kind == "bool" else None


class Description:
    """
    What the devices' bytes mean: all of it checked before the first byte is decoded, so decoding
    can rely on it.
    """

    def __init__(self, root):
        self.path = ["the whole"]       # where we are, for messages
        self.devices = {}
        self.sizes = {}
        if self.member(root, "page_size", int, PAGE_BYTES) != PAGE_BYTES:
            self.fail(f"the page size is {root['page_size']}")
        if "configuration" in root:
            self.path = ["the configuration"]
            self.table(root["configuration"], 1)
        size = values = 0
        for index, device in enumerate(self.member(root, "devices", list)):
            self.path = [f"device {index}"]
            key = self.member(device, "name", str), self.member(device, "instance_id", int)
            self.path = [f"section '{key[0]}' ({key[1]})"]
            if key in self.devices:
                self.fail("it is described twice")
            self.devices[key] = device
            self.sizes[key], count = self.table(device, 1)
            size, values = size + self.sizes[key], values + count
            if size > DEVICES_MAX_BYTES or values > DEVICES_MAX_VALUES:
                self.fail(f"{size} bytes, {values} values up to here are more than a machine has")

    def fail(self, text):
        raise Senseless(f"{', '.join(self.path)}: {text}")

    def member(self, table, name, kind, default=None):
        """Member @name of @table, which must be of type @kind and may be missing if @default."""
        if not isinstance(table, dict):
            self.fail("it is no object")
        value = table.get(name, default)
        # In JSON true is no number.
        if not isinstance(value, kind) or isinstance(value, bool):
            self.fail(f"'{name}' is missing" if name not in table else
                      f"'{name}' is of the wrong type, {type(value).__name__}")
        if kind is str and len(value) > NAME_MAX:
            self.fail(f"'{name}' has {len(value)} characters")
        if kind is int and value < 0:
            self.fail(f"'{name}' is {value}")
        return value

    def table(self, table, depth):
        """Returns (bytes in the stream, values that decoding makes)."""
        if depth > TABLES_MAX_DEPTH:
            self.fail(f"tables are nested deeper than {TABLES_MAX_DEPTH}")
        size, values = 0, 1
        self.member(table, "vmsd_name", str, "")
        self.member(table, "version", int, 0)
        for index, field in enumerate(self.member(table, "fields", list)):
            self.path.append(f"field {index}")
            self.path[-1] = f"field '{self.member(field, 'name', str)}'"
            more = self.field(field, depth)
            self.path.pop()
            size, values = size + more[0], values + more[1]
        for index, sub in enumerate(self.member(table, "subsections", list, [])):
            self.path.append(f"subsection {index}")
            name = self.member(sub, "vmsd_name", str)
            self.path[-1] = f"subsection '{name}'"
            more = self.table(sub, depth + 1)
            self.path.pop()
            size += 6 + len(self.encoded(name)) + more[0]
            values += more[1]
        return size, values

    def encoded(self, name):
        try:
            return name.encode("utf-8")
        except UnicodeEncodeError:
            return self.fail("its name is no text")

    def field(self, field, depth):
        """Returns (bytes in the stream, values that decoding makes)."""
        kind, size = self.member(field, "type", str), self.member(field, "size", int)
        self.member(field, "index", int, 0)
        count = self.member(field, "array_len", int, 1)
        values = 1
        if kind == "struct" or "struct" in field:
            inner, values = self.table(self.member(field, "struct", dict), depth + 1)
            if inner != size:
                self.fail(f"its fields have {inner} bytes, it has {size}")
        elif width(kind) not in (None, size):
            self.fail(f"a value of type '{kind}' has {width(kind)} bytes, not {size}")
        if count * values > DEVICES_MAX_VALUES:
            self.fail(f"{count} elements are more than a machine has")
        return count * size, count * values + 1

    # Decoding

    def version(self, key):
        """The version of section @key, or None."""
        return self.devices[key].get("version")

    def decode(self, reader, key, end):
        """The state of section @key, which stands at the reader's position, before @end."""
        self.path = [f"section '{key[0]}' ({key[1]})"]
        if self.sizes[key] > end - reader.pos:
            raise Bad(f"{self.path[0]}: the description says {self.sizes[key]} bytes, there are "
                      f"{end - reader.pos} up to the stream's end")
        return self.decode_table(reader, self.devices[key])

    def spoiled(self, text):
        raise Bad(f"{', '.join(self.path)}: {text}")

    def decode_table(self, reader, table):
        value = {}
        for field in table["fields"]:
            name = field["name"]
            self.path.append(f"field '{name}'")
            decoded = self.decode_field(reader, field)
            self.path.pop()
            if "index" not in field:
                value[name] = decoded
            elif isinstance(value.get(name), list):
                value[name].append(decoded)
            else:
                value[name] = [decoded]
        for sub in table.get("subsections", []):
            name = sub["vmsd_name"]
            self.path.append(f"subsection '{name}'")
            value[name] = self.decode_subsection(reader, sub)
            self.path.pop()
        return value

    def decode_subsection(self, reader, sub):
        if reader.u8("a subsection") != SUBSECTION or \
                reader.string("a subsection") != sub["vmsd_name"]:
            self.spoiled("it is not where it should be")
        version = reader.u32("a subsection")
        if version != sub.get("version", version):
            self.spoiled(f"version {version}, the description says {sub['version']}")
        return self.decode_table(reader, sub)

    def decode_field(self, reader, field):
        size, kind, count = field["size"], field["type"], field.get("array_len", 1)
        if "struct" in field:
            values = [self.decode_table(reader, field["struct"]) for _ in range(count)]
        else:
            data = reader.bytes(size * count, "a field")
            parts = [data[i * size:(i + 1) * size] for i in range(count)]
            if kind == "bool":
                values = [self.decode_bool(part) for part in parts]
            elif width(kind):
                signed = not kind.startswith("u")
                values = [int.from_bytes(part, "big", signed=signed) for part in parts]
            else:
                values = [part.hex() for part in parts]
        return values if "array_len" in field else values[0]

    def decode_bool(self, part):
        if part[0] > 1:
            self.spoiled(f"{part[0]} where a bool is 0 or 1")
        return part[0] == 1
