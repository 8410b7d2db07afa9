/* The program `ocirt`: find the interpreter and our package, and become them.
 * Plain calls of start, state, kill and delete are carried out here: quick.c.  So is the waiting
 * of `run` and `exec`, which then take this program's place in memory again: attend.c.
 *
 * A console script as pip writes it costs 15 ms (it scans site-packages), a version manager's
 * shim 60.  This costs one exec.  Nothing is taken from the environment: not PATH, not PYTHON*.
 * The interpreter starts isolated (-I), without site (-S), writes no files (-B), speaks UTF-8.
 *
 * Where things are:
 *   editable install   the build bakes both in (OCIRT_DIR, OCIRT_PYTHON)
 *   wheel              BIN/ocirt goes with BIN/../lib/python3.N/site-packages/ocirt
 *
 * Where the build could embed the interpreter (embed.c), the program made of it is called in the
 * same way instead: it starts in a third of the time.
 *
 * Our directory gets on no search path: the package is put in place as a module whose __path__
 * is known, so a file of some other package there can never stand in for one of the standard
 * library's.  Cold verbs that need other packages ask for them: ocirt/cli/cold.py.
 */
#define _GNU_SOURCE
#include "quick.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef OCIRT_DIR
#define OCIRT_DIR "" /* the directory that holds ocirt/, if the build knows it */
#endif
#ifndef OCIRT_PYTHON
#define OCIRT_PYTHON "" /* the interpreter, if the build knows it */
#endif
#ifndef OCIRT_EMBEDDED
#define OCIRT_EMBEDDED "" /* the program beside our package that stands for an interpreter */
#define OCIRT_EMBEDDED_FOR 0, 0, 0 /* that interpreter: size in bytes, time of last change */
#endif

enum { OLDEST = 11, NEWEST = 19, FAILURE = 1 };

/* A process that lives for milliseconds has no garbage worth looking for. */
static const char code[] =
    "import sys, gc\n"
    "gc.disable()\n"
    "a = sys.argv\n"
    "m = type(sys)('ocirt')\n"
    "m.__path__ = [a[1] + '/ocirt']\n"
    "m.SITE = a[2]\n"
    "m.PROGRAM = a[3]\n"
    "sys.modules['ocirt'] = m\n"
    "del a[1:4]\n"
    "from ocirt.cli import console\n"
    "console()\n";

static const char *const layouts[] = {
    "%s/../lib/python3.%d/site-packages",
    "%s/../lib64/python3.%d/site-packages",
    "%s/../lib/python3.%d/dist-packages",
};

struct place {
    char dir[PATH_MAX];    /* holds ocirt/ */
    char site[PATH_MAX];   /* holds third-party packages; may be the same, may be empty */
    char python[PATH_MAX];
    char program[PATH_MAX]; /* this very file; empty when unknown */
    char embedded[PATH_MAX]; /* stands for this very interpreter; empty: nothing does */
};

/* Write a path; 0 when it does not fit, or when nothing is there. */
__attribute__((format(printf, 3, 4))) static int find(char *path, int mode, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    int length = vsnprintf(path, PATH_MAX, format, values);
    va_end(values);
    if (length > 0 && length < PATH_MAX && access(path, mode) == 0)
        return 1;
    path[0] = '\0';
    return 0;
}

/* BIN, the directory of this very file: links followed, PATH not needed. */
static int own_directory(char *bin, char *program)
{
    ssize_t length = readlink("/proc/self/exe", bin, PATH_MAX - 1);
    if (length > 0) {
        bin[length] = '\0';
    } else {
        /* no /proc; the kernel also tells the name that was executed */
        const char *name = (const char *)getauxval(AT_EXECFN);
        if (!name || !realpath(name, bin))
            return 0;
    }
    memcpy(program, bin, PATH_MAX);
    char *slash = strrchr(bin, '/');
    if (!slash)
        return 0;
    *slash = '\0';
    return 1;
}

/* The directory of packages that belongs to BIN, and the minor version it is for; 0: none. */
static int find_site(struct place *place, const char *bin, const char *package)
{
    char probe[PATH_MAX];
    for (int minor = NEWEST; minor >= OLDEST; minor--) {
        for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
            int length = snprintf(place->site, PATH_MAX, layouts[i], bin, minor);
            if (length < PATH_MAX && find(probe, R_OK, "%s%s", place->site, package))
                return minor;
        }
    }
    place->site[0] = '\0';
    return 0;
}

static int find_python(struct place *place, const char *bin, int minor)
{
    return find(place->python, X_OK, "%s/python3.%d", bin, minor) ||
           find(place->python, X_OK, "/usr/bin/python3.%d", minor) ||
           find(place->python, X_OK, "/usr/local/bin/python3.%d", minor);
}

/* The program that was built from this very interpreter: after an upgrade of it, there is none. */
static void find_embedded(struct place *place)
{
    static const long long wanted[] = {OCIRT_EMBEDDED_FOR};
    struct stat st;
    if (OCIRT_EMBEDDED[0] && stat(place->python, &st) == 0 && st.st_size == wanted[0] &&
        st.st_mtim.tv_sec == wanted[1] && st.st_mtim.tv_nsec == wanted[2])
        find(place->embedded, X_OK, "%s/ocirt/%s", place->dir, OCIRT_EMBEDDED);
}

static int locate(struct place *place)
{
    char bin[PATH_MAX];
    int known = own_directory(bin, place->program);
    if (OCIRT_DIR[0]) {
        if (known)
            find_site(place, bin, "");
        return find(place->dir, R_OK, "%s", OCIRT_DIR) &&
               find(place->python, X_OK, "%s", OCIRT_PYTHON);
    }
    if (!known)
        return 0;
    int minor = find_site(place, bin, "/ocirt/cli/__init__.py");
    memcpy(place->dir, place->site, sizeof place->dir);
    return minor && find_python(place, bin, minor);
}

/* For --trace-time: when we began, and what CPU time the exec had taken; see ocirt/cli/trace.py. */
static void note_time(char **argv)
{
    char text[64];
    struct timespec now, spent;
    while (*argv && strcmp(*argv, "--trace-time") != 0)
        argv++;
    if (!*argv || clock_gettime(CLOCK_MONOTONIC, &now) < 0 ||
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent) < 0)
        return;
    snprintf(text, sizeof text, "%lld%09ld %lld%09ld", (long long)now.tv_sec, now.tv_nsec,
             (long long)spent.tv_sec, spent.tv_nsec);
    setenv("OCIRT_TRACE_TIME", text, 1);
}

int main(int argc, char **argv)
{
    static struct place place;

    /* A caller may leave 0, 1 or 2 closed; a file opened later must not land there. */
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) < 0)
            return FAILURE;

    if (argc > 0 && (strcmp(argv[0], "ocirt run") == 0 || strcmp(argv[0], "ocirt exec") == 0))
        return attend(argc, argv);
    note_time(argv);
    int done = quick(argc, argv);
    if (done >= 0)
        return done;
    if (!locate(&place)) {
        fputs("ocirt: cannot find its own package and a python3 beside it; was the file moved?\n",
              stderr);
        return FAILURE;
    }
    const char *head[] = {place.python, "-I", "-S", "-B",      "-X",
                          "utf8",       "-c", code, place.dir, place.site, place.program};
    size_t heads = sizeof head / sizeof *head;
    size_t rest = argc > 0 ? (size_t)argc - 1 : 0;
    const char **args = calloc(heads + rest + 1, sizeof *args);
    if (!args) {
        perror("ocirt");
        return FAILURE;
    }
    memcpy(args, head, sizeof head);
    if (rest)
        memcpy(args + heads, argv + 1, rest * sizeof *args);
    find_embedded(&place);
    if (place.embedded[0])
        execv(place.embedded, (char *const *)args);
    execv(place.python, (char *const *)args);
    fprintf(stderr, "ocirt: %s: %s\n", place.python, strerror(errno));
    return FAILURE;
}
