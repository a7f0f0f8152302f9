# A thin front for meson: what a person types. Everything is built in $(BUILD).
#
# Copyright (C) 2026 The Ferry developers
# SPDX-License-Identifier: GPL-2.0-or-later

BUILD ?= build
MESON_OPTIONS ?=
# Names of benchmarks, all when empty: make bench BENCH="precopy save"
BENCH ?=
# Fuzz targets, all when empty, and how long each runs: make fuzz FUZZ=fuzz-qmp FUZZ_SECONDS=600
FUZZ ?=
FUZZ_SECONDS ?= 60

ifeq ($(CI),true)
MESON_OPTIONS += -Dwerror=true
endif

.PHONY: all demo check check-slow check-asan check-tsan fuzz bench install clean help

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

help:
	@echo "make              build everything in $(BUILD)/"
	@echo "make demo         save, restore and move a running machine, checked by its guest"
	@echo "make check        unit, qtest and functional tests"
	@echo "make check-slow   the same, and the long ones"
	@echo "make check-asan   the tests under AddressSanitizer and UBSan, in build-asan/"
	@echo "make check-tsan   the tests of threads under ThreadSanitizer, in build-tsan/"
	@echo "make fuzz         the fuzz targets, FUZZ_SECONDS=60 each, in build-fuzz/"
	@echo "make bench [BENCH='name name']  benchmarks beside their peers"
	@echo "make install      install below the prefix (MESON_OPTIONS=--prefix=...)"

# Says what is missing and installs it (Debian 12, apt, sudo when not root).
.PHONY: deps
deps:
	@scripts/install-deps

$(BUILD)/build.ninja: | deps
	@meson setup $(BUILD) $(MESON_OPTIONS)

build-asan/build.ninja: | deps
	@meson setup build-asan -Db_sanitize=address,undefined -Db_lundef=false $(MESON_OPTIONS)

build-tsan/build.ninja: | deps
	@meson setup build-tsan -Db_sanitize=thread -Db_lundef=false $(MESON_OPTIONS)

build-fuzz/build.ninja: | deps
	@CC=clang meson setup build-fuzz -Dfuzz=true -Ddocs=disabled -Db_sanitize=address,undefined \
	   -Db_lundef=false $(MESON_OPTIONS)

demo: deps all
	@FERRY_BUILD=$(BUILD) scripts/demo

check: deps all
	@meson test -C $(BUILD) --no-rebuild --print-errorlogs --no-suite slow --no-suite bench

check-slow: deps all
	@meson test -C $(BUILD) --no-rebuild --print-errorlogs --no-suite bench
	@$(MAKE) --no-print-directory fuzz

check-asan: deps build-asan/build.ninja
	@ninja -C build-asan
	@FERRY_TEST_TIMEOUT=300 ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1 \
	 LSAN_OPTIONS=suppressions=$(CURDIR)/tests/lsan.supp:print_suppressions=0 \
	 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	 meson test -C build-asan --no-rebuild --print-errorlogs --no-suite slow --no-suite bench \
	   --timeout-multiplier 4

check-tsan: deps build-tsan/build.ninja
	@ninja -C build-tsan
	@FERRY_TEST_TIMEOUT=400 G_SLICE=always-malloc TSAN_OPTIONS=halt_on_error=1:suppressions=$(CURDIR)/tests/tsan.supp \
	 meson test -C build-tsan --no-rebuild --print-errorlogs --suite unit --suite qtest \
	   --no-suite slow --timeout-multiplier 8

fuzz: deps build-fuzz/build.ninja
	@ninja -C build-fuzz
	@tests/fuzz/run build-fuzz --seconds $(FUZZ_SECONDS) $(FUZZ)

bench: deps all
	@FERRY_BUILD=$(BUILD) tests/bench/run $(BENCH)

install: all
	@meson install -C $(BUILD) --no-rebuild

clean:
	@rm -rf $(BUILD) build-asan build-tsan build-fuzz
