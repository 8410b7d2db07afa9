/* Wait for a container's process, in the place of the Python that started it: ocirt/aside.py.
 *
 *     ocirt run|exec  ID  ROOT  PID  MASTER  TTY  TERMIOS  [words... CODE -- ID]
 *
 * The first word is argv[0], blank included, which nobody types.  ROOT: where the state is, or
 * empty when nothing is to be deleted.  MASTER: the master side of the process's terminal, TTY:
 * our own, already raw, TERMIOS: how it was before, in hex; -1, -1 and empty without a terminal.
 * words: what to become when deleting takes more than quick.c knows; CODE is written over with
 * the exit code.
 *
 * All signals are blocked when we are called, and stay so: they arrive by signalfd, those that
 * came in between included.  Nothing here allocates: a machine short of memory still gets its
 * container's end reported.
 */
#define _GNU_SOURCE
#include "quick.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ID = 1, ROOT, PID, MASTER, TTY, TERMIOS, WORDS };
enum { CODE_FROM_END = 3 };
enum { CHUNK = 4096 }; /* PIPE_BUF: a pipe that poll(2) calls writable takes as much at once */
enum { FAILURE = 1, END_OF_FILE = 4 /* what Ctrl-D would send */ };
enum { SIGNALS, STDIN, TERMINAL, STDOUT, WATCHED };

/* What has been read and is still to be written; from, to: -1 once closed. */
struct stream {
    int from, to;
    size_t begin, end;
    char data[CHUNK];
};

struct attendant {
    pid_t pid;
    int signals, master, tty;
    struct stream in, out; /* stdin to the terminal, the terminal to stdout */
};

/* SIGKILL and SIGSTOP cannot be had, a C library keeps 32 and 33; SIGPIPE is about our output. */
static int catches(int number)
{
    return number != SIGKILL && number != SIGSTOP && number != SIGPIPE && number != 32 &&
           number != 33;
}

static int open_signals(void)
{
    uint64_t set = 0;
    sigset_t caught;
    for (int number = 1; number <= 64; number++)
        if (catches(number))
            set |= UINT64_C(1) << (number - 1);
    sigemptyset(&caught);
    memcpy(&caught, &set, sizeof set); /* sigaddset refuses those that musl keeps for itself */
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &caught, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* --- the terminal */

static void resize(const struct attendant *own)
{
    struct winsize size; /* a terminal without a size keeps the config's */
    if (ioctl(own->tty, TIOCGWINSZ, &size) == 0)
        ioctl(own->master, TIOCSWINSZ, &size);
}

static void restore(int tty, const char *hex)
{
    unsigned char saved[128] = {0}; /* more than any struct termios of a kernel */
    unsigned byte;
    for (size_t i = 0; i < sizeof saved && sscanf(hex + 2 * i, "%2x", &byte) == 1; i++)
        saved[i] = (unsigned char)byte;
    if (tty >= 0)
        ioctl(tty, TCSETS, saved);
}

static int is_empty(const struct stream *stream)
{
    return stream->begin == stream->end;
}

/* Takes in what there is; 0: there will be no more. */
static int fill(struct stream *stream)
{
    ssize_t got = read(stream->from, stream->data, CHUNK);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 1;
    if (got <= 0) { /* EIO: every copy of the terminal's other side is closed */
        stream->from = -1;
        return 0;
    }
    stream->begin = 0;
    stream->end = (size_t)got;
    return 1;
}

static void flush(struct stream *stream)
{
    ssize_t put = write(stream->to, stream->data + stream->begin, stream->end - stream->begin);
    if (put >= 0)
        stream->begin += (size_t)put;
    else if (errno != EAGAIN && errno != EINTR)
        stream->from = stream->to = -1, stream->begin = stream->end;
}

/* Copies what the program wrote last. */
static void drain(struct stream *out)
{
    while (out->to >= 0) {
        if (is_empty(out)) {
            if (out->from < 0 || !fill(out) || is_empty(out))
                return;
            continue;
        }
        struct pollfd watch = {.fd = out->to, .events = POLLOUT};
        poll(&watch, 1, -1);
        flush(out);
    }
}

static void copy(struct attendant *own, const struct pollfd *watched)
{
    if (watched[STDIN].revents && !fill(&own->in)) {
        own->in.data[0] = END_OF_FILE;
        own->in.begin = 0;
        own->in.end = 1;
    }
    if (watched[TERMINAL].revents & POLLOUT)
        flush(&own->in);
    if (watched[TERMINAL].revents & ~POLLOUT) {
        if (own->out.from >= 0 && is_empty(&own->out))
            fill(&own->out);
        else if (!is_empty(&own->in))
            flush(&own->in); /* hung up: let it fail */
    }
    if (watched[STDOUT].revents)
        flush(&own->out);
}

/* --- waiting */

static void forward(const struct attendant *own)
{
    struct signalfd_siginfo info;
    while (read(own->signals, &info, sizeof info) == sizeof info) {
        int number = (int)info.ssi_signo;
        if (number == SIGWINCH && own->tty >= 0)
            resize(own);
        /* Those are about ourselves.  The pid is our own child's, which has not been reaped. */
        if (number != SIGCHLD && number != SIGURG && number != SIGWINCH)
            kill(own->pid, number);
    }
}

/* Reaps whoever has ended; 1: the process has, 0: not yet, -1: there is no such child. */
static int reap(pid_t pid, int *code)
{
    int status;
    for (pid_t ended; (ended = waitpid(-1, &status, WNOHANG)) != 0;) {
        if (ended < 0)
            return -1;
        if (ended == pid) {
            *code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            return 1;
        }
    }
    return 0;
}

static void watch(struct pollfd *slot, int fd, short events)
{
    *slot = (struct pollfd){.fd = events ? fd : -1, .events = events};
}

static int wait_for_end(struct attendant *own, int *code)
{
    struct pollfd watched[WATCHED];
    for (int ended; (ended = reap(own->pid, code)) == 0;) {
        struct stream *in = &own->in, *out = &own->out;
        int taking = out->from >= 0 && is_empty(out), giving = !is_empty(in);
        watch(&watched[SIGNALS], own->signals, POLLIN);
        watch(&watched[STDIN], in->from, is_empty(in) ? POLLIN : 0);
        watch(&watched[TERMINAL], own->master,
              (short)((taking ? POLLIN : 0) | (giving ? POLLOUT : 0)));
        watch(&watched[STDOUT], out->to, is_empty(out) ? 0 : POLLOUT);
        /* No descriptor for signals is no reason to miss the end. */
        if (poll(watched, WATCHED, own->signals < 0 ? 100 : -1) < 0)
            continue;
        if (watched[SIGNALS].revents)
            forward(own);
        copy(own, watched);
    }
    return *code < 0 ? -1 : 0;
}

/* --- the end */

/* Becomes the Python that deletes the container, or says why not. */
static int finish(char **words, int count, int code)
{
    char *place = words[count - CODE_FROM_END];
    snprintf(place, strlen(place) + 1, "%d", code);
    execv("/proc/self/exe", words);
    fprintf(stderr, "ocirt run failed: the container is not deleted: %s\n", strerror(errno));
    return FAILURE;
}

static int number(const char *word)
{
    return (int)strtol(word, NULL, 10);
}

int attend(int argc, char **argv)
{
    static struct attendant own;
    int code = -1;
    if (argc < WORDS)
        return FAILURE;
    own.pid = number(argv[PID]);
    own.master = number(argv[MASTER]);
    own.tty = number(argv[TTY]);
    own.signals = open_signals();
    own.in.from = own.out.to = -1;
    own.in.to = own.out.from = own.master;
    if (own.master >= 0) {
        own.in.from = STDIN_FILENO;
        own.out.to = STDOUT_FILENO;
        fcntl(own.master, F_SETFD, FD_CLOEXEC);
        fcntl(own.master, F_SETFL, fcntl(own.master, F_GETFL) | O_NONBLOCK);
        fcntl(own.tty, F_SETFD, FD_CLOEXEC);
        resize(&own); /* it may have changed while nobody listened */
    }
    int failed = wait_for_end(&own, &code);
    if (!failed)
        drain(&own.out);
    restore(own.tty, argv[TERMIOS]);
    if (failed)
        code = FAILURE; /* not our child: cannot be */
    if (argv[ROOT][0] == '\0' || quick_end(argv[ROOT], argv[ID], own.pid) == 0)
        return code;
    return argc >= WORDS + CODE_FROM_END ? finish(argv + WORDS, argc - WORDS, code) : FAILURE;
}
