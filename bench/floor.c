/* What the kernel itself asks for each part of making a container: bench/performance.py.
 *
 *     floor ROUNDS CGROUP...
 *
 * CGROUP: directories below which one may be made, one per hierarchy.  Prints a line per part:
 * its name, a tab, the median and the minimum in nanoseconds.  Each part is done by the cheapest
 * calls there are, in a process as small as there can be; nothing is checked or undone within the
 * time that is taken.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 1000, INSTRUCTIONS = 300 };
enum { NR_CLONE3 = 435, INTO_CGROUP_SHIFT = 33 };

/* linux/bpf_common.h, linux/seccomp.h, which a C library need not have */
enum { LOAD_RETURN = 0x06, JUMP_IF_EQUAL = 0x15, SET_MODE_FILTER = 1, RET_ALLOW = 0x7fff0000 };
struct instruction {
    uint16_t code;
    uint8_t jt, jf;
    uint32_t k;
};
struct program {
    unsigned short length;
    struct instruction *filter;
};

struct clone_args_v2 {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
        set_tid_size, cgroup;
};

static int rounds;
static int64_t *shared; /* where a child leaves what it has measured */

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int compare(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

/* Runs `part`, which returns nanoseconds or -1, and prints what it took. */
static void report(const char *name, int64_t (*part)(long), long argument)
{
    static int64_t times[MOST];
    for (int i = -1; i < rounds; i++) { /* round -1 is not counted */
        int64_t spent = part(argument);
        if (spent < 0) {
            fprintf(stderr, "floor: %s: %s\n", name, strerror(errno));
            return;
        }
        if (i >= 0)
            times[i] = spent;
    }
    qsort(times, (size_t)rounds, sizeof *times, compare);
    printf("%s\t%lld\t%lld\n", name, (long long)times[rounds / 2], (long long)times[0]);
    fflush(stdout);
}

static int64_t fork_and_exit(long unused)
{
    (void)unused;
    int64_t begin = now();
    pid_t pid = vfork();
    if (pid == 0)
        _exit(0);
    return pid > 0 && waitpid(pid, NULL, 0) == pid ? now() - begin : -1;
}

static int64_t execute(long unused)
{
    (void)unused;
    char *argv[] = {"floor", NULL}, *environment[] = {NULL};
    int64_t begin = now();
    pid_t pid = vfork();
    if (pid == 0) {
        execve("/proc/self/exe", argv, environment);
        _exit(1);
    }
    return pid > 0 && waitpid(pid, NULL, 0) == pid ? now() - begin : -1;
}

static pid_t clone_with(uint64_t flags, int cgroup)
{
    struct clone_args_v2 args = {.flags = flags, .exit_signal = SIGCHLD};
    if (cgroup >= 0) {
        args.flags |= UINT64_C(1) << INTO_CGROUP_SHIFT;
        args.cgroup = (uint64_t)cgroup;
    }
    return (pid_t)syscall(NR_CLONE3, &args, cgroup >= 0 ? sizeof args : 64);
}

/* The call alone: what the end of a namespace costs is done later, and by the kernel's own. */
static int64_t make_namespaces(long flags)
{
    int64_t begin = now();
    pid_t pid = clone_with((uint64_t)flags, -1);
    if (pid == 0)
        _exit(0);
    int64_t spent = now() - begin;
    return pid > 0 && waitpid(pid, NULL, 0) == pid ? spent : -1;
}

/* Runs `part` in namespaces of its own, as the first process in there. */
static int64_t inside(int64_t (*part)(long), long argument)
{
    *shared = -1;
    pid_t pid = clone_with(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWNET, -1);
    if (pid == 0) {
        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0)
            *shared = part(argument);
        _exit(0);
    }
    return pid > 0 && waitpid(pid, NULL, 0) == pid ? *shared : -1;
}

static const char *const types[] = {"tmpfs", "proc", "sysfs", "mqueue", "devpts"};

static int64_t mount_one(long which)
{
    int64_t begin = now();
    int failed = mount("none", "/tmp", types[which], MS_NOSUID | MS_NODEV,
                       which == 4 ? "newinstance" : NULL);
    return failed ? -1 : now() - begin;
}

static int64_t bind_one(long unused)
{
    (void)unused;
    int64_t begin = now();
    return mount("/usr", "/tmp", NULL, MS_BIND, NULL) < 0 ? -1 : now() - begin;
}

static int64_t set_read_only(long unused)
{
    (void)unused;
    if (mount("/usr", "/tmp", NULL, MS_BIND, NULL) < 0)
        return -1;
    int64_t begin = now();
    int failed = mount(NULL, "/tmp", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL);
    return failed ? -1 : now() - begin;
}

static int64_t change_root(long unused)
{
    (void)unused;
    if (mount("none", "/tmp", "tmpfs", 0, NULL) < 0 || chdir("/tmp") < 0)
        return -1;
    int64_t begin = now();
    int failed = syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0;
    return failed ? -1 : now() - begin;
}

static int64_t make_private(long unused)
{
    (void)unused;
    int64_t begin = now();
    return mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0 ? -1 : now() - begin;
}

static int64_t mount_inside(long which)
{
    return inside(mount_one, which);
}

static int64_t bind_inside(long unused)
{
    return inside(bind_one, unused);
}

static int64_t read_only_inside(long unused)
{
    return inside(set_read_only, unused);
}

static int64_t pivot_inside(long unused)
{
    return inside(change_root, unused);
}

static int64_t private_inside(long unused)
{
    return inside(make_private, unused);
}

static int64_t load_filter(long unused)
{
    (void)unused;
    static struct instruction code[INSTRUCTIONS];
    *shared = -1;
    pid_t pid = fork();
    if (pid != 0)
        return waitpid(pid, NULL, 0) == pid ? *shared : -1;
    for (int i = 0; i < INSTRUCTIONS - 1; i++)
        code[i] = (struct instruction){JUMP_IF_EQUAL, 0, 0, 5000u + (unsigned)i};
    code[INSTRUCTIONS - 1] = (struct instruction){LOAD_RETURN, 0, 0, RET_ALLOW};
    struct program program = {INSTRUCTIONS, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    int64_t begin = now();
    if (syscall(SYS_seccomp, SET_MODE_FILTER, 0, &program) == 0)
        *shared = now() - begin;
    _exit(0);
}

static int64_t copy_sealed(long unused)
{
    (void)unused;
    struct stat st;
    int64_t begin = now();
    int source = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int copy = memfd_create("floor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (source < 0 || copy < 0 || fstat(source, &st) < 0 ||
        sendfile(copy, source, NULL, (size_t)st.st_size) != st.st_size ||
        fcntl(copy, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        return -1;
    int64_t spent = now() - begin;
    close(source);
    close(copy);
    return spent;
}

/* --- cgroups */

static char **groups; /* one directory per hierarchy, which we make and remove */
static int count;

static int each_group(int (*act)(const char *))
{
    for (int i = 0; i < count; i++)
        if (act(groups[i]) < 0)
            return -1;
    return 0;
}

static int make(const char *path)
{
    return mkdir(path, 0755);
}

static int take_away(const char *path)
{
    for (int i = 0; i < 1000; i++) {
        if (rmdir(path) == 0)
            return 0;
        usleep(1000); /* its last process is being forgotten */
    }
    return -1;
}

static int64_t make_groups(long unused)
{
    (void)unused;
    int64_t begin = now();
    int failed = each_group(make) < 0;
    int64_t spent = now() - begin;
    return each_group(take_away) < 0 || failed ? -1 : spent;
}

static int64_t remove_groups(long unused)
{
    (void)unused;
    if (each_group(make) < 0)
        return -1;
    int64_t begin = now();
    return each_group(take_away) < 0 ? -1 : now() - begin;
}

static int put(const char *group, const char *file, const char *text)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", group, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t written = fd < 0 ? -1 : write(fd, text, strlen(text));
    close(fd);
    return written < 0 ? -1 : 0;
}

static int fill_cpuset(const char *group)
{
    char parent[4096], text[4096];
    static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};
    for (int i = 0; i < 2; i++) {
        snprintf(parent, sizeof parent, "%s/../%s", group, files[i]);
        int fd = open(parent, O_RDONLY | O_CLOEXEC);
        ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
        close(fd);
        if (got > 0) {
            text[got] = '\0';
            put(group, files[i], text);
        }
    }
    return 0;
}

/* "0" to one's own `tasks`, as the init does; without such a file, the pid to cgroup.procs. */
static int enter(const char *group)
{
    return put(group, "tasks", "0") == 0 ? 0 : put(group, "cgroup.procs", "0");
}

static int64_t attach(int by_itself)
{
    int gate[2];
    char byte = 0, text[16];
    *shared = -1;
    if (each_group(make) < 0 || each_group(fill_cpuset) < 0 || pipe(gate) < 0)
        return -1;
    pid_t pid = clone_with(0, -1);
    if (pid == 0) {
        int64_t begin = now();
        if (by_itself && each_group(enter) == 0)
            *shared = now() - begin;
        close(gate[1]);
        _exit(read(gate[0], &byte, 1) < 0);
    }
    if (!by_itself) {
        snprintf(text, sizeof text, "%d", pid);
        int64_t begin = now();
        int failed = 0;
        for (int i = 0; i < count; i++)
            failed |= put(groups[i], "cgroup.procs", text) < 0;
        *shared = failed ? -1 : now() - begin;
    }
    close(gate[0]);
    close(gate[1]);
    waitpid(pid, NULL, 0);
    return each_group(take_away) < 0 ? -1 : *shared;
}

static int64_t attach_oneself(long unused)
{
    (void)unused;
    return attach(1);
}

static int64_t attach_another(long unused)
{
    (void)unused;
    return attach(0);
}

/* cgroup2 alone: the last of the groups. */
static int64_t clone_into(long flags)
{
    if (make(groups[count - 1]) < 0)
        return -1;
    int dir = open(groups[count - 1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int64_t begin = now();
    pid_t pid = clone_with((uint64_t)flags, dir);
    if (pid == 0)
        _exit(0);
    int64_t spent = now() - begin;
    waitpid(pid, NULL, 0);
    close(dir);
    return take_away(groups[count - 1]) < 0 || pid < 0 ? -1 : spent;
}

int main(int argc, char **argv)
{
    enum { FIVE = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWUTS };
    if (argc < 2) /* the program that is executed */
        return 0;
    rounds = atoi(argv[1]);
    if (rounds < 1 || rounds > MOST)
        return 1;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    report("start and reap a process", fork_and_exit, 0);
    report("execute a static program", execute, 0);
    report("copy the init into sealed memory", copy_sealed, 0);
    report("clone3, no namespace", make_namespaces, 0);
    report("clone3, mount namespace", make_namespaces, CLONE_NEWNS);
    report("clone3, network namespace", make_namespaces, CLONE_NEWNET);
    report("clone3, pid, ipc and uts namespaces", make_namespaces,
           CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS);
    report("clone3, five namespaces", make_namespaces, FIVE);
    report("make all mounts slaves", private_inside, 0);
    for (long i = 0; i < (long)(sizeof types / sizeof *types); i++) {
        char name[32];
        snprintf(name, sizeof name, "mount %s", types[i]);
        report(name, mount_inside, i);
    }
    report("bind mount", bind_inside, 0);
    report("make a mount read-only", read_only_inside, 0);
    report("pivot_root", pivot_inside, 0);
    report("load a filter of 300 instructions", load_filter, 0);
    count = argc - 2;
    groups = argv + 2;
    if (count == 0)
        return 0;
    report("make cgroups, all hierarchies", make_groups, 0);
    report("remove cgroups, all hierarchies", remove_groups, 0);
    report("attach oneself, all hierarchies", attach_oneself, 0);
    report("attach another, all hierarchies", attach_another, 0);
    char parent[4096];
    snprintf(parent, sizeof parent - sizeof "cgroup.subtree_control", "%s", groups[count - 1]);
    strcpy(strrchr(parent, '/'), "/cgroup.subtree_control");
    if (access(parent, F_OK) == 0)
        report("clone3 into a cgroup of v2", clone_into, FIVE);
    return 0;
}
