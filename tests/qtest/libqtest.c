/*
 * Starting, watching and ending machines under test.
 *
 * The test listens on two UNIX sockets in a directory of its own, and the machine connects to them;
 * then the directory goes away again, so nothing is left behind whatever happens. stdout and
 * stderr are pipes, drained by a thread each into memory, where tests can wait for a line. The
 * child asks the kernel to be killed when the test dies; a test that aborts kills it by itself
 * first.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tests/qtest/libqtest-int.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE_DEFAULT_S 60

static GPtrArray *machines;
static char *socket_dir;        /* while a machine starts */

static bool reap_until(QTestState *s, gint64 deadline);

/* ---- test programs ---- */

const char *qtest_get_arch(void)
{
    return "x86_64";
}

const char *qtest_binary(void)
{
    const char *binary = g_getenv("FERRY_BINARY");

    return binary && *binary ? binary : FERRY_BINARY_DEFAULT;
}

const char *qtest_guest(const char *name)
{
    const char *dir = g_getenv("FERRY_GUEST_DIR");
    static char *path;

    g_free(path);
    return path = g_strdup_printf("%s/%s.elf", dir && *dir ? dir : FERRY_GUEST_DIR_DEFAULT, name);
}

gint64 qtest_deadline(void)
{
    const char *text = g_getenv("FERRY_TEST_TIMEOUT");
    gint64 seconds = text ? g_ascii_strtoll(text, NULL, 10) : 0;

    return g_get_monotonic_time() + (seconds > 0 ? seconds : DEADLINE_DEFAULT_S) * G_USEC_PER_SEC;
}

static char *test_path(const char *path)
{
    return g_strdup_printf("/%s/%s", qtest_get_arch(), path + (*path == '/'));
}

void qtest_add_func(const char *path, void (*fn)(void))
{
    g_autofree char *full = test_path(path);

    g_test_add_func(full, fn);
}

void qtest_add_data_func(const char *path, const void *data, void (*fn)(const void *data))
{
    g_autofree char *full = test_path(path);

    g_test_add_data_func(full, data, fn);
}

void qtest_add_data_func_full(const char *path, void *data, void (*fn)(const void *data),
                              GDestroyNotify destroy)
{
    g_autofree char *full = test_path(path);

    g_test_add_data_func_full(full, data, fn, destroy);
}

/*
 * What became of a machine, and all it said. The one that the failure is about is given time to
 * end.
 */
static void report_machine(QTestState *s, QTestState *failed)
{
    bool ended = reap_until(s, g_get_monotonic_time() + (s == failed ? G_USEC_PER_SEC : 0));
    g_autofree char *err = qtest_stderr(s);

    fprintf(stderr, "machine [%s]", s->args);
    if (!ended) {
        fprintf(stderr, " runs still");
    } else if (WIFSIGNALED(s->status)) {
        fprintf(stderr, " was ended by signal %d (%s)%s", WTERMSIG(s->status),
                strsignal(WTERMSIG(s->status)), WCOREDUMP(s->status) ? ", core dumped" : "");
    } else {
        fprintf(stderr, " ended with status %d", WEXITSTATUS(s->status));
    }
    fprintf(stderr, "%s\n%s", *err ? ", its stderr:" : ", no word on stderr", err);
}

void qtest_fail(QTestState *s, const char *fmt, ...)
{
    g_autofree char *message = NULL;
    va_list ap;

    va_start(ap, fmt);
    message = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    for (guint i = 0; machines && i < machines->len; i++) {
        report_machine(g_ptr_array_index(machines, i), s);
    }
    g_assertion_message(NULL, "libqtest", 0, "qtest", message);
    abort();
}

/* Whether the program has it: a line of "-accel help". */
static bool binary_has_accel(const char *name)
{
    static char **lines;

    if (!lines) {
        g_autofree char *out = NULL;

        g_assert_cmpint(qtest_run("-accel help", &out, NULL), ==, 0);
        lines = g_strsplit_set(out, " \n", -1);
    }
    return g_strv_contains((const char *const *)lines, name);
}

bool qtest_has_accel(const char *name)
{
    int fd, version = 12;

    if (!strcmp(name, "kvm")) {
        fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
        version = fd >= 0 ? ioctl(fd, KVM_GET_API_VERSION, 0) : -1;
        if (fd >= 0) {
            close(fd);
        }
    }
    return version == 12 && binary_has_accel(name);
}

/* ---- standard output and error ---- */

static gpointer capture_thread(gpointer opaque)
{
    Capture *capture = opaque;
    char buf[4096];
    ssize_t n;

    while ((n = read(capture->fd, buf, sizeof(buf))) > 0 || (n < 0 && errno == EINTR)) {
        mutex_lock(&capture->lock);
        g_string_append_len(capture->text, buf, MAX(n, 0));
        cond_broadcast(&capture->changed);
        mutex_unlock(&capture->lock);
    }
    mutex_lock(&capture->lock);
    capture->ended = true;
    cond_broadcast(&capture->changed);
    mutex_unlock(&capture->lock);
    return NULL;
}

static void capture_begin(Capture *capture, int fd)
{
    capture->fd = fd;
    mutex_init(&capture->lock);
    cond_init(&capture->changed);
    capture->text = g_string_new(NULL);
    capture->thread = g_thread_new("capture", capture_thread, capture);
}

/* Wait for the pipe's end: the machine has ended. */
static void capture_join(Capture *capture)
{
    if (capture->thread) {
        g_thread_join(g_steal_pointer(&capture->thread));
    }
}

static void capture_free(Capture *capture)
{
    capture_join(capture);
    close(capture->fd);
    g_string_free(capture->text, TRUE);
    mutex_destroy(&capture->lock);
    cond_destroy(&capture->changed);
}

static char *capture_text(Capture *capture)
{
    char *text;

    mutex_lock(&capture->lock);
    text = g_strdup(capture->text->str);
    mutex_unlock(&capture->lock);
    return text;
}

/* Wait for @text, or (NULL) for more than @have bytes. */
static bool capture_wait(Capture *capture, const char *text, size_t have)
{
    gint64 deadline = qtest_deadline();
    bool found;

    mutex_lock(&capture->lock);
    while (!(found = text ? strstr(capture->text->str, text) != NULL : capture->text->len > have) &&
           !capture->ended) {
        if (!cond_wait_until(&capture->changed, &capture->lock, deadline)) {
            break;
        }
    }
    mutex_unlock(&capture->lock);
    return found;
}

/* After the end of the process all it wrote is there. */
static char *capture_of(QTestState *s, Capture *capture)
{
    if (!s->pid) {
        capture_join(capture);
    }
    return capture_text(capture);
}

char *qtest_stdout(QTestState *s)
{
    return capture_of(s, &s->out);
}

char *qtest_stderr(QTestState *s)
{
    return capture_of(s, &s->err);
}

void qtest_wait_stdout(QTestState *s, const char *text)
{
    if (!capture_wait(&s->out, text, 0)) {
        g_autofree char *out = qtest_stdout(s);

        qtest_fail(s, "'%s' did not appear on stdout, which was: %s", text, out);
    }
}

void qtest_wait_more_stdout(QTestState *s, size_t have)
{
    if (!capture_wait(&s->out, NULL, have)) {
        g_autofree char *out = qtest_stdout(s);

        qtest_fail(s, "nothing more appeared on stdout, which was: %s", out);
    }
}

void qtest_wait_stderr(QTestState *s, const char *text)
{
    if (!capture_wait(&s->err, text, 0)) {
        qtest_fail(s, "'%s' did not appear on stderr", text);
    }
}

/* ---- processes ---- */

static void remove_socket_dir(void)
{
    static const char *const names[] = { "qtest", "qmp" };

    if (!socket_dir) {
        return;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(socket_dir, names[i], NULL);

        unlink(path);
    }
    rmdir(socket_dir);
    g_clear_pointer(&socket_dir, g_free);
}

static char *tmpdir;

/* Also links are removed, not followed. */
static void remove_tree(const char *path)
{
    GDir *dir = g_file_test(path, G_FILE_TEST_IS_SYMLINK) ? NULL : g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *child = g_build_filename(path, name, NULL);

        remove_tree(child);
    }
    if (dir) {
        g_dir_close(dir);
    }
    remove(path);
}

static void kill_all(void)
{
    for (guint i = 0; machines && i < machines->len; i++) {
        QTestState *s = g_ptr_array_index(machines, i);

        if (s->pid) {
            kill(s->pid, SIGKILL);
            waitpid(s->pid, NULL, 0);
            s->pid = 0;
        }
    }
    remove_socket_dir();
    if (tmpdir) {
        remove_tree(tmpdir);
        g_clear_pointer(&tmpdir, g_free);
    }
}

static void on_abort(int signo)
{
    signal(SIGABRT, SIG_DFL);
    kill_all();
    raise(SIGABRT);
}

static void prepare_once(void)
{
    if (!machines) {
        machines = g_ptr_array_new();
        atexit(kill_all);
        signal(SIGABRT, on_abort);
        signal(SIGPIPE, SIG_IGN);
    }
}

const char *qtest_tmpdir(void)
{
    prepare_once();
    if (!tmpdir) {
        tmpdir = g_dir_make_tmp("ferry-test-XXXXXX", NULL);
        g_assert_nonnull(tmpdir);
    }
    return tmpdir;
}

static char **machine_env;

void qtest_setenv(const char *name, const char *value)
{
    char **env = machine_env ? machine_env : g_get_environ();

    machine_env = value ? g_environ_setenv(env, name, value, TRUE)
                        : g_environ_unsetenv(env, name);
}

static void child_exec(char **argv, int out, int err, pid_t parent)
{
    int null = open("/dev/null", O_RDONLY);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(127);
    }
    dup2(null, 0);
    dup2(out, 1);
    dup2(err, 2);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGABRT, SIG_DFL);
    if (machine_env) {
        execve(argv[0], argv, machine_env);
    } else {
        execv(argv[0], argv);
    }
    dprintf(2, "cannot run %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

static char **make_argv(const char *args)
{
    g_autofree char *line = g_strdup_printf("program %s", args);
    GError *error = NULL;
    char **argv;

    if (!g_shell_parse_argv(line, NULL, &argv, &error)) {
        qtest_fail(NULL, "bad arguments [%s]: %s", args, error->message);
    }
    g_free(argv[0]);
    argv[0] = g_strdup(qtest_binary());
    return argv;
}

/* A running process with its output captured; sockets are not connected. */
static QTestState *spawn(const char *args)
{
    QTestState *s = g_new0(QTestState, 1);
    g_auto(GStrv) argv = make_argv(args);
    pid_t parent = getpid();
    int out[2], err[2];

    prepare_once();
    g_assert_cmpint(pipe2(out, O_CLOEXEC), ==, 0);
    g_assert_cmpint(pipe2(err, O_CLOEXEC), ==, 0);
    s->args = g_strdup(args);
    s->qtest = (LineSocket){ -1, "qtest", g_string_new(NULL) };
    s->qmp = (LineSocket){ -1, "QMP", g_string_new(NULL) };
    g_queue_init(&s->events);
    fflush(NULL);
    s->pid = fork();
    g_assert_cmpint(s->pid, >=, 0);
    if (s->pid == 0) {
        child_exec(argv, out[1], err[1], parent);
    }
    close(out[1]);
    close(err[1]);
    capture_begin(&s->out, out[0]);
    capture_begin(&s->err, err[0]);
    g_ptr_array_add(machines, s);
    return s;
}

static void free_state(QTestState *s)
{
    g_ptr_array_remove(machines, s);
    capture_free(&s->out);
    capture_free(&s->err);
    for (unsigned i = 0; i < 2; i++) {
        LineSocket *socket = i ? &s->qmp : &s->qtest;

        if (socket->fd >= 0) {
            close(socket->fd);
        }
        g_string_free(socket->in, TRUE);
    }
    qtest_qmp_clear_events(s);
    g_free(s->args);
    g_free(s);
}

/* Wait until the process ends; false at the deadline. */
static bool reap_until(QTestState *s, gint64 deadline)
{
    struct pollfd pfd = { .events = POLLIN };
    gint64 left = MAX(deadline - g_get_monotonic_time(), 0) / 1000;
    int ret;

    if (!s->pid) {
        return true;
    }
    pfd.fd = syscall(SYS_pidfd_open, s->pid, 0);
    g_assert_cmpint(pfd.fd, >=, 0);
    do {
        ret = poll(&pfd, 1, left);
    } while (ret < 0 && errno == EINTR);
    close(pfd.fd);
    if (ret == 0) {
        return false;
    }
    g_assert_cmpint(waitpid(s->pid, &s->status, 0), ==, s->pid);
    s->pid = 0;
    return true;
}

static int exit_code(QTestState *s)
{
    return WIFEXITED(s->status) ? WEXITSTATUS(s->status) : -WTERMSIG(s->status);
}

int qtest_wait_exit(QTestState *s)
{
    if (!reap_until(s, qtest_deadline())) {
        qtest_fail(s, "the machine did not end");
    }
    return exit_code(s);
}

bool qtest_probe_child(QTestState *s)
{
    return !reap_until(s, 0);
}

pid_t qtest_pid(QTestState *s)
{
    return s->pid;
}

void qtest_set_expected_status(QTestState *s, int status)
{
    s->expected_status = status;
}

void qtest_quit(QTestState *s)
{
    if (!s) {
        return;
    }
    if (s->pid) {
        kill(s->pid, SIGTERM);
    }
    if (qtest_wait_exit(s) != s->expected_status) {
        qtest_fail(s, "the machine ended with %s %d, expected was status %d",
                   WIFEXITED(s->status) ? "status" : "signal", ABS(exit_code(s)),
                   s->expected_status);
    }
    free_state(s);
}

void qtest_kill(QTestState *s)
{
    if (!s) {
        return;
    }
    if (s->pid) {
        kill(s->pid, SIGKILL);
        reap_until(s, qtest_deadline());
    }
    free_state(s);
}

int qtest_run(const char *args, char **out, char **err)
{
    QTestState *s = spawn(args);
    int code = qtest_wait_exit(s);

    if (out) {
        *out = qtest_stdout(s);
    }
    if (err) {
        *err = qtest_stderr(s);
    }
    free_state(s);
    return code;
}

/* ---- sockets ---- */

static int listen_at(const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpuint(strlen(path), <, sizeof(addr.sun_path));
    strcpy(addr.sun_path, path);
    g_assert_cmpint(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), ==, 0);
    g_assert_cmpint(listen(fd, 1), ==, 0);
    return fd;
}

/* Wait until @fd can be read; the end of the process ends the wait too when @watch_exit. */
static void wait_readable(QTestState *s, int fd, const char *what, gint64 deadline, bool watch_exit)
{
    struct pollfd pfds[2] = { { .fd = fd, .events = POLLIN }, { .fd = -1, .events = POLLIN } };
    int ret;

    if (watch_exit && s->pid) {
        pfds[1].fd = syscall(SYS_pidfd_open, s->pid, 0);
    }
    do {
        ret = poll(pfds, 2, MAX(deadline - g_get_monotonic_time(), 0) / 1000);
    } while (ret < 0 && errno == EINTR);
    if (pfds[1].fd >= 0) {
        close(pfds[1].fd);
    }
    if (ret == 0) {
        qtest_fail(s, "nothing came on %s in time", what);
    }
    if (!pfds[0].revents && pfds[1].revents) {
        int code = qtest_wait_exit(s);

        qtest_fail(s, "the machine ended with %d before it connected %s", code, what);
    }
}

static void accept_at(QTestState *s, LineSocket *socket, int listener)
{
    wait_readable(s, listener, socket->what, qtest_deadline(), true);
    socket->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    g_assert_cmpint(socket->fd, >=, 0);
    close(listener);
}

char *line_socket_read(QTestState *s, LineSocket *socket)
{
    gint64 deadline = qtest_deadline();
    char buf[65536];

    for (;;) {
        char *newline = memchr(socket->in->str, '\n', socket->in->len);
        ssize_t n;

        if (newline) {
            size_t len = newline - socket->in->str;
            char *line = g_strndup(socket->in->str, len && newline[-1] == '\r' ? len - 1 : len);

            g_string_erase(socket->in, 0, len + 1);
            return line;
        }
        wait_readable(s, socket->fd, socket->what, deadline, false);
        n = recv(socket->fd, buf, sizeof(buf), 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return NULL;
        }
        g_string_append_len(socket->in, buf, n);
    }
}

void line_socket_write(QTestState *s, LineSocket *socket, const void *bytes, size_t len,
                       const int *fds, size_t n_fds)
{
    struct iovec iov = { (void *)bytes, len };
    g_autofree char *control = g_malloc0(CMSG_SPACE(sizeof(int) * MAX(n_fds, 1)));
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (n_fds) {
        struct cmsghdr *cmsg;

        msg.msg_control = control;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
        cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
        memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * n_fds);
    }
    while (iov.iov_len) {
        ssize_t n = sendmsg(socket->fd, &msg, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            qtest_fail(s, "cannot send on %s: %s", socket->what, strerror(errno));
        }
        iov.iov_base = (char *)iov.iov_base + n;
        iov.iov_len -= n;
        msg.msg_control = NULL;
        msg.msg_controllen = 0;
    }
}

QTestState *qtest_init_without_qmp_handshake(const char *args)
{
    g_autofree char *qtest_path = NULL, *qmp_path = NULL, *line = NULL;
    int qtest_listener, qmp_listener;
    QTestState *s;

    prepare_once();
    socket_dir = g_dir_make_tmp("ferry-qtest-XXXXXX", NULL);
    g_assert_nonnull(socket_dir);
    qtest_path = g_build_filename(socket_dir, "qtest", NULL);
    qmp_path = g_build_filename(socket_dir, "qmp", NULL);
    qtest_listener = listen_at(qtest_path);
    qmp_listener = listen_at(qmp_path);
    line = g_strdup_printf("-qtest unix:%s -qtest-log none -chardev socket,path=%s,id=char0 "
                           "-mon chardev=char0,mode=control -display none %s "
                           "-accel qtest", qtest_path, qmp_path, args ?: "");
    s = spawn(line);
    accept_at(s, &s->qtest, qtest_listener);
    accept_at(s, &s->qmp, qmp_listener);
    remove_socket_dir();
    return s;
}

QTestState *qtest_init(const char *args)
{
    QTestState *s = qtest_init_without_qmp_handshake(args);

    qtest_qmp_handshake(s);
    return s;
}

QTestState *qtest_initf(const char *fmt, ...)
{
    g_autofree char *args = NULL;
    va_list ap;

    va_start(ap, fmt);
    args = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    return qtest_init(args);
}

int qtest_qmp_fd(QTestState *s)
{
    return s->qmp.fd;
}

int qtest_socket_fd(QTestState *s)
{
    return s->qtest.fd;
}
