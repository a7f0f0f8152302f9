/*
 * libqtest: tests that drive real machines.
 *
 * A QTestState is one running ferry-system-x86_64 with a QMP monitor and a qtest server, both over
 * sockets; several may run at once. Names follow QEMU's libqtest, so that who knows one can read
 * the other. Every wait has a deadline (60 s, or FERRY_TEST_TIMEOUT seconds); what goes wrong fails
 * the test with what was awaited, and what the machine said on stderr. Machines die with the test
 * program however that ends, and leave no files.
 *
 * The program is FERRY_BINARY from the environment, or the one of the build tree. For use by one
 * thread.
 *
 * JSON templates (qtest_qmp() and others) are JSON in which strings may have single quotes, with
 * %s for a string (quoted and escaped), %d %i %u %ld %lu %lld %llu and PRI macros for numbers, %f,
 * %p for a json_object (its reference is taken), %% for a percent sign; %i takes an int and gives
 * true or false.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_QTEST_LIBQTEST_H
#define TESTS_QTEST_LIBQTEST_H

#include <glib.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct QTestState QTestState;

/* ---- life ---- */

/*
 * Start a machine with @args (quoted as for a shell) and negotiate QMP capabilities. The qtest
 * accelerator is used unless @args name another that works.
 */
QTestState *qtest_init(const char *args);
QTestState *qtest_initf(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* The same without a word over QMP: the greeting has not been read. */
QTestState *qtest_init_without_qmp_handshake(const char *args);
/* Read the greeting and negotiate. */
void qtest_qmp_handshake(QTestState *s);

/*
 * End the machine (SIGTERM, unless it has ended) and check that it ended with the expected status;
 * a signal that killed it, or a deadline that passed, is a failure. Frees @s.
 */
void qtest_quit(QTestState *s);
/* SIGKILL, whatever it does; frees @s. */
void qtest_kill(QTestState *s);
/* The exit status that qtest_quit() expects; 0 at first. */
void qtest_set_expected_status(QTestState *s, int status);
/* Wait until the machine has ended by itself; its exit status, or minus the signal. */
int qtest_wait_exit(QTestState *s);
/* Whether it runs still. */
bool qtest_probe_child(QTestState *s);
pid_t qtest_pid(QTestState *s);

/*
 * What the machine wrote so far to stdout and stderr. Caller frees. qtest_wait_*() return when the
 * text has appeared.
 */
char *qtest_stdout(QTestState *s);
char *qtest_stderr(QTestState *s);
void qtest_wait_stdout(QTestState *s, const char *text);
void qtest_wait_stderr(QTestState *s, const char *text);

/* Return when there are more than @have bytes on stdout. */
void qtest_wait_more_stdout(QTestState *s, size_t have);

/* Add a variable to the environment of machines started from now on; NULL takes it away again. */
void qtest_setenv(const char *name, const char *value);

/*
 * Run the program to its end with nothing but @args: no sockets, no accelerator chosen.
 * Returns: the exit status, or minus the signal. *@out and *@err (either may be NULL) are the
 * caller's.
 */
int qtest_run(const char *args, char **out, char **err);

/* ---- QMP ---- */

/* Send a command and return the response, {"return": ...} or {"error": ...}; events are queued. */
struct json_object *qtest_qmp(QTestState *s, const char *fmt, ...);
/* The same with @n_fds descriptors attached. */
struct json_object *qtest_qmp_fds(QTestState *s, const int *fds, size_t n_fds, const char *fmt,
                                  ...);
/* The same, and fail the test unless it succeeded; _ref returns what "return" holds. */
void qtest_qmp_assert_success(QTestState *s, const char *fmt, ...);
struct json_object *qtest_qmp_assert_success_ref(QTestState *s, const char *fmt, ...);
void qtest_qmp_fds_assert_success(QTestState *s, const int *fds, size_t n_fds, const char *fmt,
                                  ...);
/* The same, and fail the test unless it failed; returns what "error" holds. */
struct json_object *qtest_qmp_assert_failure_ref(QTestState *s, const char *fmt, ...);
/* The same with the exact description expected. */
void qtest_qmp_assert_error(QTestState *s, const char *desc, const char *fmt, ...);

/* Send without waiting; receive the next response, events are queued. */
void qtest_qmp_send(QTestState *s, const char *fmt, ...);
void qtest_qmp_send_raw(QTestState *s, const void *bytes, size_t len);
struct json_object *qtest_qmp_receive(QTestState *s);
/* Receive whatever is next, response or event. NULL when the machine closed the connection. */
struct json_object *qtest_qmp_receive_dict(QTestState *s);

/* Wait for the next event of that name, queued or to come; _ref returns it, others stay queued. */
void qtest_qmp_eventwait(QTestState *s, const char *event);
struct json_object *qtest_qmp_eventwait_ref(QTestState *s, const char *event);
/* The first queued event of that name, taken out of the queue, or NULL; does not read. */
struct json_object *qtest_qmp_event_ref(QTestState *s, const char *event);
/* Forget the events that are queued. */
void qtest_qmp_clear_events(QTestState *s);

/* A JSON template as an object. */
struct json_object *qtest_json(const char *fmt, ...);
struct json_object *qtest_json_v(const char *fmt, va_list ap);
/*
 * The value at @path ("return.ram.total", "0.name") of @obj, borrowed; a missing one fails the
 * test. The typed ones check the type too.
 */
struct json_object *qtest_get(struct json_object *obj, const char *path);
const char *qtest_get_str(struct json_object *obj, const char *path);
int64_t qtest_get_int(struct json_object *obj, const char *path);
bool qtest_get_bool(struct json_object *obj, const char *path);
/* Whether there is one. */
bool qtest_has(struct json_object *obj, const char *path);

/* What an HMP command prints, without carriage returns. Caller frees. */
char *qtest_hmp(QTestState *s, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* ---- the qtest protocol ---- */

uint8_t qtest_readb(QTestState *s, uint64_t addr);
uint16_t qtest_readw(QTestState *s, uint64_t addr);
uint32_t qtest_readl(QTestState *s, uint64_t addr);
uint64_t qtest_readq(QTestState *s, uint64_t addr);
void qtest_writeb(QTestState *s, uint64_t addr, uint8_t value);
void qtest_writew(QTestState *s, uint64_t addr, uint16_t value);
void qtest_writel(QTestState *s, uint64_t addr, uint32_t value);
void qtest_writeq(QTestState *s, uint64_t addr, uint64_t value);
/* memread and memwrite (hexadecimal); bufread and bufwrite are the same by base64. */
void qtest_memread(QTestState *s, uint64_t addr, void *data, size_t size);
void qtest_memwrite(QTestState *s, uint64_t addr, const void *data, size_t size);
void qtest_bufread(QTestState *s, uint64_t addr, void *data, size_t size);
void qtest_bufwrite(QTestState *s, uint64_t addr, const void *data, size_t size);
void qtest_memset(QTestState *s, uint64_t addr, uint8_t pattern, size_t size);

uint8_t qtest_inb(QTestState *s, uint16_t port);
uint16_t qtest_inw(QTestState *s, uint16_t port);
uint32_t qtest_inl(QTestState *s, uint16_t port);
void qtest_outb(QTestState *s, uint16_t port, uint8_t value);
void qtest_outw(QTestState *s, uint16_t port, uint16_t value);
void qtest_outl(QTestState *s, uint16_t port, uint32_t value);

/* Virtual time, nanoseconds; each returns the time after it. */
int64_t qtest_clock_step(QTestState *s, int64_t step);
int64_t qtest_clock_step_next(QTestState *s);
int64_t qtest_clock_set(QTestState *s, int64_t value);

/* Hear of interrupt lines ("ioapic"); the level that line @num was last said to have. */
void qtest_irq_intercept_in(QTestState *s, const char *path);
bool qtest_get_irq(QTestState *s, int num);

/*
 * Send one line (without newline) and return the answer line as it is, "OK ..." or "FAIL ...".
 * For tests of the protocol itself. Caller frees.
 */
char *qtest_raw_command(QTestState *s, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* The descriptors of the two connections. */
int qtest_qmp_fd(QTestState *s);
int qtest_socket_fd(QTestState *s);

/* ---- test programs ---- */

const char *qtest_get_arch(void);
const char *qtest_binary(void);
/* The path of a guest kernel of the build tree ("ticker", "dirtier"); valid until the next call. */
const char *qtest_guest(const char *name);
/*
 * A directory of the test program's own; it goes away with all that is in it when the program ends,
 * however that is.
 */
const char *qtest_tmpdir(void);
/* Whether an accelerator is there and works for the caller ("kvm", "tcg", "qtest"). */
bool qtest_has_accel(const char *name);
/* g_test_add_func() below /x86_64. */
void qtest_add_func(const char *path, void (*fn)(void));
void qtest_add_data_func(const char *path, const void *data, void (*fn)(const void *data));
void qtest_add_data_func_full(const char *path, void *data, void (*fn)(const void *data),
                              GDestroyNotify destroy);

/* Fail the test with a message and the machine's stderr. @s may be NULL. */
G_NORETURN void qtest_fail(QTestState *s, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* The moment at which a wait that begins now is given up, of g_get_monotonic_time(). */
gint64 qtest_deadline(void);

#endif
