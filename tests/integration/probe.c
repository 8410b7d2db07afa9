/* probe: what busybox cannot tell a test.  Built static by conftest.py, put into every rootfs.
 *
 *   probe call NAME|NUMBER ARG...   make one system call, print its result or the errno's name
 *                                   ARG: a number, @text (a string), #N (a buffer of N zero
 *                                   bytes, printed in hex afterwards)
 *   probe open PATH FLAGS           open(2), print "ok" or the errno's name; FLAGS: r w rw c
 *   probe signals                   blocked, ignored and caught masks, as a program sees them
 *   probe fds                       every open descriptor and what it leads to
 *   probe self                      argv[0] .. argv[n], then the environment, one a line
 *   probe kill SIGNAL               kill itself
 *   probe notify TEXT...            send datagrams to $NOTIFY_SOCKET
 *   probe sleep SECONDS             sleep, ignoring nothing
 *   probe swap A B SECONDS          exchange two names over and over (the racer of test_security.py)
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static const struct {
    const char *name;
    long number;
} calls[] = {
    {"acct", SYS_acct},
    {"chroot", SYS_chroot},
    {"dup3", SYS_dup3},
    {"get_mempolicy", SYS_get_mempolicy},
    {"getcwd", SYS_getcwd},
    {"getegid", SYS_getegid},
    {"getpid", SYS_getpid},
    {"getpriority", SYS_getpriority},
    {"getsid", SYS_getsid},
    {"getuid", SYS_getuid},
    {"ioctl", SYS_ioctl},
    {"ioprio_get", SYS_ioprio_get},
    {"keyctl", SYS_keyctl},
    {"kill", SYS_kill},
    {"mkdirat", SYS_mkdirat},
    {"mount", SYS_mount},
    {"personality", SYS_personality},
    {"prctl", SYS_prctl},
    {"ptrace", SYS_ptrace},
    {"sched_getaffinity", SYS_sched_getaffinity},
    {"sched_getattr", SYS_sched_getattr},
    {"sched_getscheduler", SYS_sched_getscheduler},
    {"sethostname", SYS_sethostname},
    {"setns", SYS_setns},
    {"sync", SYS_sync},
    {"unshare", SYS_unshare},
};

static const struct {
    int number;
    const char *name;
} errnos[] = {
    {EACCES, "EACCES"}, {EBADF, "EBADF"},     {EBUSY, "EBUSY"},   {EEXIST, "EEXIST"},
    {EFAULT, "EFAULT"}, {EINVAL, "EINVAL"},   {EIO, "EIO"},       {EISDIR, "EISDIR"},
    {ELOOP, "ELOOP"},   {ENOENT, "ENOENT"},   {ENODEV, "ENODEV"}, {ENOSYS, "ENOSYS"},
    {ENOTDIR, "ENOTDIR"}, {ENOTTY, "ENOTTY"}, {ENXIO, "ENXIO"},   {EPERM, "EPERM"},
    {EROFS, "EROFS"},   {ESRCH, "ESRCH"},     {ETXTBSY, "ETXTBSY"}, {EOPNOTSUPP, "EOPNOTSUPP"},
    {ENOMEM, "ENOMEM"}, {ENOKEY, "ENOKEY"},   {EXDEV, "EXDEV"},   {ECHILD, "ECHILD"},
};

static int verdict(long result)
{
    if (result >= 0) {
        printf("%ld\n", result);
        return 0;
    }
    for (size_t i = 0; i < sizeof errnos / sizeof *errnos; i++)
        if (errnos[i].number == errno) {
            printf("%s\n", errnos[i].name);
            return 0;
        }
    printf("E%d\n", errno);
    return 0;
}

static int probe_call(int argc, char **argv)
{
    long number = -1, arguments[6] = {0};
    unsigned char *buffer = NULL;
    size_t size = 0;

    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (strcmp(calls[i].name, argv[0]) == 0)
            number = calls[i].number;
    if (number < 0)
        number = strtol(argv[0], NULL, 0);
    for (int i = 1; i < argc && i <= 6; i++) {
        if (argv[i][0] == '@') {
            arguments[i - 1] = (long)(argv[i] + 1);
        } else if (argv[i][0] == '#') {
            size = strtoul(argv[i] + 1, NULL, 0);
            buffer = calloc(1, size + 1);
            arguments[i - 1] = (long)buffer;
        } else {
            arguments[i - 1] = (long)strtoull(argv[i], NULL, 0);
        }
    }
    errno = 0;
    verdict(syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
                    arguments[5]));
    for (size_t i = 0; i < size; i++)
        printf("%02x%s", buffer[i], i + 1 == size ? "\n" : "");
    return 0;
}

static int probe_open(const char *path, const char *how)
{
    int flags = strcmp(how, "r") == 0    ? O_RDONLY
                : strcmp(how, "w") == 0  ? O_WRONLY
                : strcmp(how, "rw") == 0 ? O_RDWR
                                         : O_RDWR | O_CREAT;
    int fd = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
    if (fd >= 0) {
        puts("ok");
        return 0;
    }
    return verdict(-1);
}

static int probe_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    char target[4096];

    if (!dir)
        return verdict(-1);
    while ((entry = readdir(dir))) {
        int fd = atoi(entry->d_name);
        ssize_t length;
        if (entry->d_name[0] == '.' || fd == dirfd(dir))
            continue;
        length = readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1);
        printf("%d %.*s\n", fd, (int)(length < 0 ? 0 : length), target);
    }
    return 0;
}

static int probe_signals(void)
{
    sigset_t blocked;
    struct sigaction action;

    sigprocmask(SIG_BLOCK, NULL, &blocked);
    for (int number = 1; number < NSIG; number++) {
        if (sigismember(&blocked, number) == 1)
            printf("blocked %d\n", number);
        if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_DFL)
            printf("ignored %d\n", number);
    }
    return 0;
}

static int probe_swap(const char *a, const char *b, int seconds)
{
    struct timespec now, end;

    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += seconds;
    do {
        for (int i = 0; i < 1000; i++)
            if (syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2 /* RENAME_EXCHANGE */) != 0)
                return verdict(-1);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < end.tv_sec);
    return 0;
}

/* Send each text as a datagram to $NOTIFY_SOCKET. */
static int probe_notify(char **texts)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

    if (!path || strlen(path) >= sizeof name.sun_path)
        return fprintf(stderr, "probe: NOTIFY_SOCKET is not set\n"), 2;
    strcpy(name.sun_path, path);
    for (; *texts; texts++)
        if (sendto(fd, *texts, strlen(*texts), 0, (void *)&name, sizeof name) < 0)
            return verdict(-1);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (strcmp(what, "call") == 0 && argc > 2)
        return probe_call(argc - 2, argv + 2);
    if (strcmp(what, "open") == 0 && argc == 4)
        return probe_open(argv[2], argv[3]);
    if (strcmp(what, "fds") == 0)
        return probe_fds();
    if (strcmp(what, "signals") == 0)
        return probe_signals();
    if (strcmp(what, "self") == 0) {
        for (int i = 0; i < argc; i++)
            printf("argv %s\n", argv[i]);
        for (char **variable = environ; *variable; variable++)
            printf("env %s\n", *variable);
        return 0;
    }
    if (strcmp(what, "kill") == 0 && argc == 3)
        return kill(getpid(), atoi(argv[2])), pause(), 1;
    if (strcmp(what, "notify") == 0)
        return probe_notify(argv + 2);
    if (strcmp(what, "swap") == 0 && argc == 5)
        return probe_swap(argv[2], argv[3], atoi(argv[4]));
    if (strcmp(what, "sleep") == 0 && argc == 3)
        return (int)sleep((unsigned)atoi(argv[2]));
    fprintf(stderr, "probe: what?\n");
    return 2;
}
