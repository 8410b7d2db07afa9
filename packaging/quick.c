/* Plain verbs from the record that ocirt/quick.py wrote when it made the container.
 *
 * Policy is Python's, and was applied then.  Here is only: read the record, look whether the
 * process lives, do the one thing.  Arguments that are not plain, a record that is missing or
 * odd, a container in another state than the verb expects, every system call that fails: -1, and
 * Python does the verb from the start, words the error and writes the log.  So each function
 * returns -1 before it has changed anything, or in a place where doing it again is harmless.
 */
#define _GNU_SOURCE
#include "quick.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PYTHON = -1, DONE = 0 };

/* ocirt/quick.py */
enum { START = 1, KILL = 2, DELETE = 4 };
enum { ID, BEFORE_PID, BEFORE_STATUS, AFTER_STATUS, FREEZE_FILE, FIRST_DIRECTORY };
enum { LARGEST = 1 << 20, MOST_TEXTS = 64 };
static const uint64_t SUM = (UINT64_C(1) << 32) - 5;

/* asm-generic/unistd.h; musl of Debian 12 lacks the names */
enum { NR_PIDFD_SEND_SIGNAL = 424, NR_PIDFD_OPEN = 434 };

struct head {
    char magic[4];
    uint32_t bytes, flags, texts;
    int64_t pid;
    uint64_t start_time;
    uint64_t inode, size; /* of state.json */
    int64_t changed;
};

struct record {
    struct head head;
    const char *text[MOST_TEXTS];
    uint32_t length[MOST_TEXTS];
};

struct call {
    const char *root, *log, *verb, *id, *signal;
    int force;
};

/* --- arguments */

/* An option's value: `-name v`, `--name v`, `-name=v`, `--name=v`; 0 when it is another option. */
static int option(char ***at, const char *name, const char **value)
{
    const char *word = **at;
    size_t length = strlen(name);
    word += word[1] == '-' ? 2 : 1;
    if (strncmp(word, name, length) != 0)
        return 0;
    if (word[length] == '=')
        *value = word + length + 1;
    else if (word[length] == '\0' && (*at)[1])
        *value = *++*at;
    else
        return 0;
    return 1;
}

static int one_of(const char *word, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(word, *list) == 0)
            return 1;
    return 0;
}

static const char *const formats[] = {"text", "json", NULL};
static const char *const rootless[] = {"true", "false", "auto", NULL};
static const char *const systemd_cgroup[] = {"-systemd-cgroup", "--systemd-cgroup", NULL};
static const char *const force[] = {"-f", "-force", "--force", NULL};

static int read_globals(char ***at, struct call *call)
{
    const char *value;
    for (; **at && (**at)[0] == '-'; ++*at) {
        if (option(at, "root", &call->root) || option(at, "log", &call->log))
            continue;
        if (option(at, "log-format", &value) && one_of(value, formats))
            continue;
        if (option(at, "rootless", &value) && one_of(value, rootless))
            continue;
        if (!one_of(**at, systemd_cgroup)) /* create wrote down which driver it was */
            return PYTHON;
    }
    return DONE;
}

static int plain_id(const char *id)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+.-";
    size_t length = strlen(id);
    return length > 0 && length < NAME_MAX && strspn(id, letters) == length && id[0] != '-' &&
           strcmp(id, ".") != 0 && strcmp(id, "..") != 0;
}

static int read_words(char **at, struct call *call)
{
    call->verb = *at++;
    int kill = strcmp(call->verb, "kill") == 0, delete = strcmp(call->verb, "delete") == 0;
    if (!kill && !delete && strcmp(call->verb, "start") != 0 && strcmp(call->verb, "state") != 0)
        return PYTHON;
    for (; *at; at++) {
        if (delete && one_of(*at, force))
            call->force = 1;
        else if (!call->id && plain_id(*at))
            call->id = *at;
        else if (kill && call->id && !call->signal)
            call->signal = *at;
        else
            return PYTHON;
    }
    return call->id ? DONE : PYTHON;
}

/* The state root when none is given: Python decides for everyone but the machine's root. */
static int default_root(struct call *call)
{
    unsigned first, outside, count;
    if (geteuid() != 0)
        return PYTHON;
    FILE *map = fopen("/proc/self/uid_map", "re");
    if (!map)
        return PYTHON;
    int read = fscanf(map, "%u %u %u", &first, &outside, &count);
    fclose(map);
    call->root = "/run/ocirt";
    return read == 3 && first == 0 && outside == 0 && count == UINT32_MAX ? DONE : PYTHON;
}

static int read_arguments(char **argv, struct call *call)
{
    if (!*argv || read_globals(&argv, call) < 0 || !*argv || read_words(argv, call) < 0)
        return PYTHON;
    if (!call->root && default_root(call) < 0)
        return PYTHON;
    /* Python makes a path absolute without looking at links, which matters where it has "..". */
    if (call->root[0] != '/' || strspn(call->root, "/") == strlen(call->root) ||
        strstr(call->root, ".."))
        return PYTHON;
    if (call->log) {
        int fd = open(call->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0)
            return PYTHON;
        close(fd);
    }
    return DONE;
}

/* --- the record */

/* What only its owner, which is us, can have written. */
static int is_ours(const struct stat *st, mode_t kind)
{
    return (st->st_mode & S_IFMT) == kind && st->st_uid == geteuid() &&
           (st->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

static int open_container(const struct call *call)
{
    char path[PATH_MAX];
    struct stat st;
    if (snprintf(path, sizeof path, "%s/%s", call->root, call->id) >= (int)sizeof path)
        return -1;
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0 || (fstat(dir, &st) == 0 && is_ours(&st, S_IFDIR)))
        return dir;
    close(dir);
    return -1;
}

/* Whether there is nothing at all of this id. */
static int is_unknown(const struct call *call)
{
    char path[PATH_MAX];
    struct stat st;
    return snprintf(path, sizeof path, "%s/%s", call->root, call->id) < (int)sizeof path &&
           lstat(path, &st) < 0 && errno == ENOENT;
}

/* Returns the bytes of the record, or NULL. */
static char *read_file(int dir, uint32_t *size)
{
    static char data[LARGEST];
    struct stat st;
    int fd = openat(dir, "quick", O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    int whole = 0;
    if (fstat(fd, &st) == 0 && is_ours(&st, S_IFREG) && st.st_size > (off_t)sizeof(struct head) &&
        st.st_size < LARGEST) {
        *size = (uint32_t)st.st_size;
        whole = read(fd, data, *size) == (ssize_t)*size;
    }
    close(fd);
    return whole ? data : NULL;
}

/* Whether the bytes are those that were written, by the number at their end. */
static int is_intact(const char *data, uint32_t size)
{
    uint64_t sum = 0;
    uint32_t written, end = size - (uint32_t)sizeof written;
    for (uint32_t i = 0; i < end; i++) {
        sum = sum << 8 | (unsigned char)data[i];
        if (i % 4 == 3)
            sum %= SUM; /* below 2^32, so the next four fit */
    }
    memcpy(&written, data + end, sizeof written);
    return sum % SUM == written;
}

/* Whether state.json is the one that the record was written for. */
static int is_current(int dir, const struct head *head)
{
    struct stat st;
    return fstatat(dir, "state.json", &st, AT_SYMLINK_NOFOLLOW) == 0 && is_ours(&st, S_IFREG) &&
           st.st_ino == head->inode && (uint64_t)st.st_size == head->size &&
           (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec == head->changed;
}

static int read_record(int dir, const char *id, struct record *record)
{
    uint32_t size, at = sizeof record->head;
    char *data = read_file(dir, &size);
    if (!data)
        return PYTHON;
    struct head *head = &record->head;
    memcpy(head, data, sizeof *head);
    if (memcmp(head->magic, "OCQ2", 4) != 0 || head->bytes != size || head->pid <= 0 ||
        head->texts < FIRST_DIRECTORY || head->texts > MOST_TEXTS || !is_intact(data, size) ||
        !is_current(dir, head))
        return PYTHON;
    size -= sizeof(uint32_t); /* the sum */
    for (uint32_t i = 0; i < head->texts; i++) {
        uint32_t length;
        if (size - at < sizeof length)
            return PYTHON;
        memcpy(&length, data + at, sizeof length);
        at += sizeof length;
        if (length >= size - at || data[at + length] != '\0')
            return PYTHON;
        record->text[i] = data + at;
        record->length[i] = length;
        at += length + 1;
    }
    return at == size && strcmp(record->text[ID], id) == 0 ? DONE : PYTHON;
}

/* --- looking */

/* Reads the start of a file into `text`; the length, or -1. */
static ssize_t read_start(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t length = read(fd, text, size - 1);
    int failed = errno;
    close(fd);
    errno = failed;
    if (length >= 0)
        text[length] = '\0';
    return length;
}

/* 1: the very process that create made, and no zombie; 0: gone; -1: cannot tell. */
static int alive(const struct record *record)
{
    char path[64], text[1024], state;
    unsigned long long start_time;
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)record->head.pid);
    if (read_start(path, text, sizeof text) < 0)
        return errno == ENOENT || errno == ESRCH ? 0 : -1;
    char *fields = strrchr(text, ')'); /* the name before it may hold anything */
    if (!fields || sscanf(fields,
                          ") %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
                          "%*s %*s %llu",
                          &state, &start_time) != 2)
        return -1;
    return start_time == record->head.start_time && state != 'Z' && state != 'X';
}

static int frozen(const struct record *record)
{
    char text[8];
    if (record->length[FREEZE_FILE] == 0)
        return 0;
    if (read_start(record->text[FREEZE_FILE], text, sizeof text) < 0)
        return errno == ENOENT || errno == ENODEV ? 0 : -1;
    return text[0] == '1';
}

/* Whether the init still holds the gate: one that nobody reads is left of a killed start. */
static int waits(int dir)
{
    int gate = openat(dir, "exec.fifo", O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (gate < 0)
        return 0;
    close(gate);
    return 1;
}

/* --- the verbs */

static int state(int dir, const struct record *record)
{
    long long pid = record->head.pid;
    const char *status;
    int lives = alive(record), still = lives > 0 ? frozen(record) : 0;
    if (lives < 0 || still < 0)
        return PYTHON;
    if (!lives)
        status = "stopped", pid = 0;
    else if (still)
        status = "paused";
    else
        status = waits(dir) ? "created" : "running";
    size_t size = record->head.bytes + 64;
    char *text = malloc(size);
    if (!text)
        return PYTHON;
    int length = snprintf(text, size, "%s%lld%s%s%s", record->text[BEFORE_PID], pid,
                          record->text[BEFORE_STATUS], status, record->text[AFTER_STATUS]);
    if (length < 0 || (size_t)length >= size)
        return PYTHON;
    for (char *rest = text; length > 0;) {
        ssize_t written = write(1, rest, (size_t)length);
        if (written < 0)
            return rest == text ? PYTHON : 1;
        rest += written;
        length -= (int)written;
    }
    return DONE;
}

static int start(int dir, const struct record *record)
{
    struct stat st;
    if (!(record->head.flags & START) || getenv("NOTIFY_SOCKET"))
        return PYTHON;
    if (alive(record) != 1 || frozen(record) != 0)
        return PYTHON;
    int gate = openat(dir, "exec.fifo", O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (gate < 0 || fstat(gate, &st) < 0 || !S_ISFIFO(st.st_mode) || write(gate, "", 1) != 1)
        return PYTHON;
    unlinkat(dir, "exec.fifo", 0);
    /* The init holds the other end until the program is executed. */
    struct pollfd watch = {.fd = gate};
    while (poll(&watch, 1, -1) < 0 && errno == EINTR)
        ;
    return DONE;
}

static const char *const signals[] = {
    "HUP",  "INT",    "QUIT", "ILL",  "TRAP", "ABRT", "BUS",  "FPE",  "KILL", "USR1", "SEGV",
    "USR2", "PIPE",   "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU",
    "URG",  "XCPU",   "XFSZ", "VTALRM", "PROF", "WINCH", "IO",   "PWR",  "SYS", NULL,
}; /* the order is the number, from 1: signal(7) */

/* A signal's number, or 0 for what Python has to read. */
static int signal_number(const char *word)
{
    if (!word)
        return 15;
    char *end;
    if (word[0] >= '1' && word[0] <= '9') {
        long number = strtol(word, &end, 10);
        return *end == '\0' && number <= 64 ? (int)number : 0;
    }
    if (strncasecmp(word, "SIG", 3) == 0)
        word += 3;
    for (int i = 0; signals[i]; i++)
        if (strcasecmp(word, signals[i]) == 0)
            return i + 1;
    return 0;
}

static int send_signal(const struct call *call, const struct record *record)
{
    int number = signal_number(call->signal);
    if (!(record->head.flags & KILL) || number == 0)
        return PYTHON;
    int pidfd = (int)syscall(NR_PIDFD_OPEN, (pid_t)record->head.pid, 0);
    /* Looked at with the pidfd in hand: from now on the pid cannot become another's. */
    if (pidfd < 0 || alive(record) != 1)
        return PYTHON;
    if (number == 9 && frozen(record) != 0)
        return PYTHON; /* has to be thawed as well */
    return syscall(NR_PIDFD_SEND_SIGNAL, pidfd, number, NULL, 0) == 0 ? DONE : PYTHON;
}

/* The files of a container, in the order of their removal: the one that proves it comes last. */
static const char *const files[] = {"quick", "exec.fifo", "config.json", "state.json", NULL};

/* getdents64(2) */
struct entry {
    uint64_t inode;
    int64_t next;
    uint16_t bytes;
    uint8_t kind;
    char name[];
};

/* Not by readdir(3), which allocates: see attend.c. */
static int only_known_files(int dir)
{
    _Alignas(struct entry) char list[1024];
    long length;
    int known = 1;
    if (lseek(dir, 0, SEEK_SET) < 0)
        return 0;
    while ((length = syscall(SYS_getdents64, dir, list, sizeof list)) > 0)
        for (long at = 0; at < length;) {
            const struct entry *entry = (const void *)(list + at);
            if (strcmp(entry->name, ".") != 0 && strcmp(entry->name, "..") != 0)
                known &= one_of(entry->name, files);
            at += entry->bytes;
        }
    return known && length == 0;
}

/* The kernel says EBUSY for a moment after the last process is gone. */
static int remove_cgroup(const char *path)
{
    for (long wait = 500000; wait <= 4000000; wait *= 2) {
        if (rmdir(path) == 0 || errno == ENOENT)
            return DONE;
        if (errno != EBUSY)
            break;
        nanosleep(&(struct timespec){.tv_nsec = wait}, NULL);
    }
    return PYTHON; /* somebody is in there, or has made cgroups below */
}

static int delete(int dir, const struct call *call, const struct record *record)
{
    char path[PATH_MAX];
    if (!(record->head.flags & DELETE) || alive(record) != 0 || !only_known_files(dir))
        return PYTHON;
    for (uint32_t i = FIRST_DIRECTORY; i < record->head.texts; i++)
        if (remove_cgroup(record->text[i]) < 0)
            return PYTHON;
    for (size_t i = 0; files[i]; i++)
        if (unlinkat(dir, files[i], 0) < 0 && errno != ENOENT)
            return PYTHON;
    snprintf(path, sizeof path, "%s/%s", call->root, call->id); /* fitted in open_container */
    return rmdir(path) == 0 ? DONE : PYTHON;
}

static struct record record;

int quick_end(const char *root, const char *id, long long pid)
{
    struct call call = {.root = root, .id = id};
    int dir = open_container(&call);
    if (dir < 0)
        return PYTHON;
    int done = PYTHON;
    if (flock(dir, LOCK_EX | LOCK_NB) == 0 && read_record(dir, id, &record) == 0 &&
        record.head.pid == pid)
        done = delete(dir, &call, &record);
    close(dir); /* Python would wait for the lock */
    return done;
}

int quick(int argc, char **argv)
{
    struct call call = {0};
    if (argc < 3 || read_arguments(argv + 1, &call) < 0)
        return PYTHON;
    int dir = open_container(&call);
    if (dir < 0) /* containerd's shim deletes by force what it has deleted already */
        return call.force && is_unknown(&call) ? DONE : PYTHON;
    int is_start = strcmp(call.verb, "start") == 0, is_delete = strcmp(call.verb, "delete") == 0;
    /* These two change the container, so one at a time; the lock ends with this program.  Whom
     * to wait for, and whom not, is Python's to say. */
    if ((is_start || is_delete) && flock(dir, LOCK_EX | LOCK_NB) < 0)
        return PYTHON;
    if (read_record(dir, call.id, &record) < 0)
        return PYTHON;
    if (is_start)
        return start(dir, &record);
    if (is_delete)
        return delete(dir, &call, &record);
    return strcmp(call.verb, "state") == 0 ? state(dir, &record) : send_signal(&call, &record);
}
