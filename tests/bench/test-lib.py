#!/usr/bin/env python3
"""What the benchmarks measure with, measured: contents, comparison, medians, clocks, verdict lines (TAP).

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import contextlib
import io
import os
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from lib import BenchError, Skip, figures, host  # noqa: E402

MIB = host.MIB


class Contents(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)
        self.path = os.path.join(self.dir.name, "content")
        self.other = os.path.join(self.dir.name, "other")

    def pages(self):
        with open(self.path, "rb") as f:
            data = f.read()
        return [data[at:at + host.PAGE] for at in range(0, len(data), host.PAGE)]

    def test_mixed_has_the_shares_it_promises(self):
        host.write_mixed(self.path, 8 * MIB)
        pages = self.pages()
        zero = sum(not any(page) for page in pages)
        text = sum(any(page) and max(page) < 128 for page in pages)
        self.assertEqual(len(pages), 2048)
        self.assertEqual(zero, 512)
        self.assertEqual(text, 512)

    def test_sparse_occupies_what_is_used(self):
        host.write_sparse(self.path, 256 * MIB, 8 * MIB, extent=MIB)
        with open(self.path, "rb") as f:
            extents = list(host.data_extents(f.fileno(), 256 * MIB))
        self.assertEqual(os.stat(self.path).st_size, 256 * MIB)
        self.assertEqual(sum(end - begin for begin, end in extents), 8 * MIB)
        self.assertEqual(len(extents), 8)

    def test_one_changed_byte_is_found(self):
        host.write_random(self.path, 9 * MIB)
        with open(self.path, "rb") as f, open(self.other, "wb") as g:
            g.write(bytes(MIB) + f.read())
        host.must_be_same(self.other, self.path, 9 * MIB, got_at=MIB)
        with open(self.other, "r+b") as g:
            g.seek(9 * MIB + 5)
            byte = g.read(1)
            g.seek(9 * MIB + 5)
            g.write(bytes([byte[0] ^ 1]))
        with self.assertRaises(BenchError):
            host.must_be_same(self.other, self.path, 9 * MIB, got_at=MIB)

    def test_a_short_file_is_not_the_same(self):
        host.write_fill(self.path, 5 * MIB, 7)
        host.write_fill(self.other, 4 * MIB, 7)
        with self.assertRaises(BenchError):
            host.must_be_same(self.other, self.path, 5 * MIB)

    def test_directory_goes_away_and_refuses_a_full_disk(self):
        with host.Directory(self.dir.name, 0) as directory:
            path = directory.path
            host.write_fill(directory.file("x"), MIB, 0)
        self.assertFalse(os.path.exists(path))
        with self.assertRaises(Skip):
            host.Directory(self.dir.name, 1 << 60)


class Figures(unittest.TestCase):
    def said(self, function, *args, **kwargs):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            function(*args, **kwargs)
        return out.getvalue().splitlines()

    def test_median_and_rate(self):
        side = figures.Side("x", 2 << 30)
        for seconds in (9, 1, 2):
            side.add(seconds, seconds / 2)
        self.assertEqual(side.seconds.median, 2)
        self.assertEqual(side.mib_per_s, 1024)
        self.assertIn("0.500 s/GiB", side.lines()[1])

    def test_verdict(self):
        self.assertEqual(self.said(figures.verdict, "a", 1.2345, ["why"], at_least=1),
                         ["ratio a 1.23", "  why"])
        self.assertEqual(self.said(figures.verdict, "a", 0.9, at_least=1)[1],
                         "  WARNING: below the aim of 1")
        self.assertEqual(self.said(figures.verdict, "a", 1.01, below=1.01)[1],
                         "  WARNING: not below the aim of 1.01")

    def test_cpu_time_counts_threads_that_ended(self):
        watch = host.Stopwatch(os.getpid())
        sum(range(300000))
        seconds, cpu = watch.stop()
        self.assertGreater(cpu, 0)
        self.assertGreater(seconds, 0)


class Front(unittest.TestCase):
    def run_it(self, *args):
        return subprocess.run([os.path.join(HERE, "run"), *args], capture_output=True, text=True,
                              check=False)

    def test_list_names_every_module(self):
        done = self.run_it("--list")
        listed = {line.split()[0] for line in done.stdout.splitlines()}
        modules = {name[:-3].replace("_", "-") for name in os.listdir(HERE)
                   if name.endswith(".py") and not name.startswith("test-")}
        self.assertEqual(done.returncode, 0)
        self.assertEqual(listed, modules)

    def test_unknown_name(self):
        done = self.run_it("warp")
        self.assertEqual(done.returncode, 2)
        self.assertIn("no such benchmark: warp", done.stderr)


class TapResult(unittest.TestResult):
    def said(self, test, ok, why=""):
        print(f"{'ok' if ok else 'not ok'} {self.testsRun} {test.id().split('.', 1)[1]}")
        for line in why.splitlines():
            print(f"# {line}")

    def addSuccess(self, test):
        super().addSuccess(test)
        self.said(test, True)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.said(test, False, self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self.said(test, False, self.errors[-1][1])


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    print(f"1..{suite.countTestCases()}")
    result = suite.run(TapResult())
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
