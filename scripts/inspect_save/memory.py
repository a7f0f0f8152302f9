"""The machine's memory: the sections of "ram", with the pages in them or in places of their own.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import struct

from .reader import Bad

ZERO, MEM_SIZE, PAGE, EOS, CONTINUE, XBZRLE, MULTIFD_FLUSH = (
    0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x200)
PAGE_BYTES = 4096
MAPPED_ALIGN = 1 << 20
# Far more than any machine has; it keeps a senseless list from filling this one's memory.
BLOCKS_MAX = 4096


class Bitmap:
    """A direct-mapped block's bitmap. It stays in the file and is read in pieces."""

    PIECE = 1 << 16

    def __init__(self, reader, offset, pages):
        self.reader, self.offset = reader, offset
        self.size = (pages + 63) // 64 * 8

    def count(self, first, end):
        """How many of the pages [first, end) are set."""
        total = 0
        for start, stop in self.reader.data(self.offset + first // 8, self.offset + (end + 7) // 8):
            for at in range(start, stop, self.PIECE):
                piece = self.reader.read_at(at, min(self.PIECE, stop - at))
                page = (at - self.offset) * 8
                value = int.from_bytes(piece, "little")
                if page + len(piece) * 8 > end:
                    value &= (1 << (end - page)) - 1
                if page < first:
                    value >>= first - page
                total += bin(value).count("1")
        return total


class DataPages:
    """The pages of a stream's block whose last record held data: a bit each, where there are any."""

    PART_PAGES = 4096

    def __init__(self):
        self.parts = {}

    def add(self, page):
        number, page = divmod(page, self.PART_PAGES)
        part = self.parts.get(number)
        if part is None:
            part = self.parts[number] = bytearray(self.PART_PAGES // 8)
        part[page >> 3] |= 1 << (page & 7)

    def remove(self, page):
        number, page = divmod(page, self.PART_PAGES)
        if number in self.parts:
            self.parts[number][page >> 3] &= ~(1 << (page & 7))

    def count(self):
        return sum(bin(int.from_bytes(part, "little")).count("1") for part in self.parts.values())


class Block:
    def __init__(self, name, length):
        self.name, self.length = name, length
        self.pages = length // PAGE_BYTES
        self.data = DataPages()
        self.data_records = self.zero_records = 0
        self.mapped = None

    def summary(self):
        stored = self.mapped["pages-set"] if self.mapped else self.data.count()
        result = {"name": self.name, "length": self.length, "pages": self.pages,
                  "pages-with-data": stored, "zero-share": round(1 - stored / self.pages, 4)}
        if self.mapped:
            result["direct-mapped"] = self.mapped
        else:
            result["data-records"] = self.data_records
            result["zero-records"] = self.zero_records
        return result


class Memory:
    """The sections of "ram"."""

    def __init__(self, reader, capabilities):
        self.r = reader
        self.mapped = "mapped-ram" in capabilities
        self.ignore_shared = "x-ignore-shared" in capabilities
        self.blocks = {}
        self.listed = False
        self.last_block = None
        self.remarks = []

    def mapped_block(self, block):
        """The header, bitmap and pages of a block at fixed offsets."""
        at = self.r.pos
        version, page_size, bitmap_at, pages_at = struct.unpack(
            ">IQQQ", self.r.bytes(28, "a direct-mapped header"))
        where = f"block '{block.name}'"
        bitmap = Bitmap(self.r, bitmap_at, block.pages)
        if version != 1 or page_size != PAGE_BYTES:
            raise Bad(f"{where}: direct-mapped header version {version}, page size {page_size}")
        if bitmap_at < self.r.pos:
            raise Bad(f"{where}: bitmap at {bitmap_at}, expected at {self.r.pos}")
        if pages_at < bitmap_at + bitmap.size or pages_at % MAPPED_ALIGN:
            raise Bad(f"{where}: pages at {pages_at} overlap the bitmap or are not aligned")
        if pages_at + block.length > self.r.size:
            raise Bad(f"{where}: truncated: the pages end at {pages_at + block.length}, the file "
                      f"at {self.r.size}")
        if bitmap.count(block.pages, bitmap.size * 8):
            raise Bad(f"{where}: the bitmap names pages beyond the block's end")
        block.mapped = {"header-offset": at, "bitmap-offset": bitmap_at, "pages-offset": pages_at,
                        "pages-set": bitmap.count(0, block.pages),
                        "pages-in-holes": self.pages_in_holes(block, bitmap, pages_at)}
        if block.mapped["pages-in-holes"]:
            self.remarks.append(
                f"{where}: {block.mapped['pages-in-holes']} pages that the bitmap names are holes in "
                "the file; they read as zero, as after cp --sparse=always")
        self.r.pos = pages_at + block.length

    def pages_in_holes(self, block, bitmap, pages_at):
        """How many pages the bitmap names where the file has nothing."""
        total = 0
        for start, stop in self.r.holes(pages_at, pages_at + block.length):
            first, end = (start - pages_at + PAGE_BYTES - 1) // PAGE_BYTES, (stop - pages_at) // PAGE_BYTES
            if first < end:
                total += bitmap.count(first, end)
        return total

    def mem_size(self, total):
        if self.listed:
            raise Bad("the memory's blocks are listed twice")
        self.listed = True
        seen = 0
        while seen < total:
            name = self.r.string("a block's name")
            length = self.r.u64(f"block '{name}': its length")
            if not name or "\0" in name:
                raise Bad(f"'{name}' is no name for a block")
            if name in self.blocks:
                raise Bad(f"block '{name}' is listed twice")
            if length == 0 or length % PAGE_BYTES or length > total - seen:
                raise Bad(f"block '{name}' has length {length} of {total - seen} that are left")
            if len(self.blocks) == BLOCKS_MAX:
                raise Bad(f"more than {BLOCKS_MAX} blocks are listed")
            block = self.blocks[name] = Block(name, length)
            if self.ignore_shared:
                self.r.u64(f"block '{name}': its address")
            if self.mapped:
                self.mapped_block(block)
            seen += length

    def page(self, flags, offset):
        """A record of a page, with data or zero."""
        if not self.listed:
            raise Bad("a page comes before the list of the memory's blocks")
        if self.mapped:
            raise Bad(f"a record of a page at {self.r.pos - 8}, which has no place in a "
                      "direct-mapped file")
        if not flags & CONTINUE:
            name = self.r.string("a block's name")
            if name not in self.blocks:
                raise Bad(f"a page belongs to block '{name}', which is not announced")
            self.last_block = self.blocks[name]
        block = self.last_block
        if block is None:
            raise Bad(f"a page at {offset:#x} belongs to no block")
        if offset >= block.length:
            raise Bad(f"a page at {offset:#x} lies outside its block '{block.name}'")
        if flags & PAGE:
            self.r.skip(PAGE_BYTES, "a page")
            block.data.add(offset // PAGE_BYTES)
            block.data_records += 1
        else:
            fill = self.r.u8("a zero page")
            if fill:
                raise Bad(f"block '{block.name}': the page at {offset:#x} is filled with "
                          f"{fill:#04x}, only zero is allowed")
            block.data.remove(offset // PAGE_BYTES)
            block.zero_records += 1

    def section(self):
        """The data of a section: records up to the end mark."""
        while True:
            word = self.r.u64("a RAM record")
            offset, flags = word & ~(PAGE_BYTES - 1), word & (PAGE_BYTES - 1)
            kind = flags & ~CONTINUE
            if kind in (PAGE, ZERO):
                self.page(flags, offset)
            elif kind == EOS:
                return
            elif kind == MEM_SIZE:
                self.mem_size(offset)
            elif kind == MULTIFD_FLUSH:
                if not self.mapped or not self.listed:
                    raise Bad("the stream waits for multifd channels, which a file has not")
            elif kind == XBZRLE:
                raise Bad("a page is compressed with XBZRLE, which the VMM does not know")
            else:
                raise Bad(f"a RAM record has flags {flags:#x}")
