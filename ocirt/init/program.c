/* The program: found and checked, kept waiting at the gate, and executed. */
#include "init.h"
#include <signal.h>
#include <sys/mman.h>

static char program_path[PATH_MAX];
static char home[sizeof "HOME=" + 1024] = "HOME=/";

/* --- home */

/* The home in "name:password:uid:gid:gecos:home:shell", if the uid is the one; NULL if not. */
static const char *home_of(char *line, const char *uid)
{
	char *field[7];

	for (int i = 0; i < 7; i++) {
		field[i] = line;
		line += strcspn(line, ":");
		if (!*line && i < 5)
			return NULL;
		if (*line)
			*line++ = 0;
	}
	return strcmp(field[2], uid) || !*field[5] ? NULL : field[5];
}

static void decimal(char out[24], uint64_t n)
{
	char digits[24];
	int count = 0;

	do
		digits[count++] = (char)('0' + n % 10);
	while (n /= 10);
	while (count)
		*out++ = digits[--count];
	*out = 0;
}

/* Remember the home in this line, if it is the uid's and not too long to be one. */
static bool take_home(char *line, const char *uid)
{
	const char *found = home_of(line, uid);

	if (!found || strlen(found) >= sizeof home - 5)
		return false;
	strcpy(home + 5, found);
	return true;
}

/* Look through an open /etc/passwd, of which we read a megabyte at most.  A line longer than the
 * buffer is nobody's, and is skipped to its end. */
static void search_passwd(int fd, const char *uid)
{
	char lines[4096 + 1];
	size_t held = 0;
	bool skip = false;

	for (int reads = 0; reads < 256; reads++) {
		ssize_t n = read(fd, lines + held, sizeof lines - 1 - held);
		char *at = lines, *end;

		if (n < 0)
			return;
		held += (size_t)n;
		/* The last line may lack its end. */
		if (n == 0)
			lines[held++] = '\n';
		while ((end = memchr(at, '\n', held - (size_t)(at - lines)))) {
			*end = 0;
			if (!skip && take_home(at, uid))
				return;
			skip = false;
			at = end + 1;
		}
		if (n == 0)
			return;
		held -= (size_t)(at - lines);
		memmove(lines, at, held);
		if (held == sizeof lines - 1) {
			held = 0;
			skip = true;
		}
	}
}

/* HOME uid
 * For a program whose environment lacks HOME: what the image's /etc/passwd says, read here and
 * not by nss, which would load the image's libraries (CVE-2019-14271 and its kind). */
int op_home(struct init *in, const struct op *op)
{
	owned_fd path = root_open(in, "/etc/passwd", O_PATH, 0), fd = -1;
	struct stat st;
	char uid[24];

	in->home = home;
	if (path < 0 || fstat(path, &st) < 0 || !S_ISREG(st.st_mode))
		return 0;
	fd = reopen(in, path, O_RDONLY);
	if (fd < 0)
		return 0;
	decimal(uid, (uint64_t)op->arg[0].i);
	search_passwd(fd, uid);
	return 0;
}

/* --- program */

/* 0 when path can be executed by who we are now. */
static int check_program(const char *path)
{
	struct stat st;
	int r;

	if (stat(path, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (!S_ISREG(st.st_mode))
		return -EACCES;
	r = result(syscall(NR_FACCESSAT2, AT_FDCWD, path, X_OK, AT_EACCESS));
	/* A seccomp profile older than this call refuses it; then execve has the last word. */
	if (r == -EPERM || r == -ENOSYS)
		return st.st_mode & 0111 ? 0 : -EACCES;
	return r;
}

/* The value of PATH in env, NULL when unset. */
static const char *search_path(char *const *env)
{
	for (; *env; env++)
		if (!strncmp(*env, "PATH=", 5))
			return *env + 5;
	return NULL;
}

static int join_path(const char *dir, size_t n, const char *name)
{
	size_t m = strlen(name) + 1;

	if (n + 1 + m > sizeof program_path)
		return -ENAMETOOLONG;
	memcpy(program_path, dir, n);
	if (n)
		program_path[n++] = '/';
	memcpy(program_path + n, name, m);
	return 0;
}

/* Look for name in PATH.  Relative entries are left out, as Go's LookPath does: they would mean
 * the working directory, which is the image's. */
static int find_program(const char *name, char *const *env)
{
	const char *dir = search_path(env);
	size_t n;

	for (; dir && *name; dir = dir[n] ? dir + n + 1 : NULL) {
		n = strcspn(dir, ":");
		if (*dir == '/' && join_path(dir, n, name) == 0 && check_program(program_path) == 0)
			return 0;
	}
	return -ENOENT;
}

/* PROGRAM name argv env
 * Remembers the program and says what execve would, while `create` can still report it. */
int op_program(struct init *in, const struct op *op)
{
	const char *name = op->arg[0].s;
	int r;

	in->program_op = op->start;
	in->argv = op->arg[1].v;
	in->env = op->arg[2].v;
	/* The decoder left room for one more. */
	if (in->home)
		in->env[op->arg[2].n] = (char *)in->home;
	/* The runtime's procfs must be nobody's working directory. */
	if (in->in_proc && chdir("/") < 0)
		return -errno;
	in->in_proc = false;
	if (!strchr(name, '/'))
		return find_program(name, in->env);
	r = join_path("", 0, name);
	return r < 0 ? r : check_program(program_path);
}

/* --- gate */

/* As pid 1 of a pid namespace we are spared every signal that we do not handle. */
static const char TERMINATING[] = { SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE, SIGALRM,
				    SIGTERM, SIGXCPU, SIGVTALRM, SIGPROF, SIGIO, SIGPWR };

static void leave(int number)
{
	_exit(128 + number);
}

static void handle_signals(void (*handler)(int))
{
	struct sigaction action = { .sa_handler = handler };

	for (size_t i = 0; i < sizeof TERMINATING; i++)
		sigaction(TERMINATING[i], &action, NULL);
}

/* Give back the plan up to the op that holds the program's strings, and the stack that earlier
 * ops used: what waits here may wait for long, and a thousand times. */
static void shrink(struct init *in)
{
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t start = (uintptr_t)in->part, end = (uintptr_t)in->program_op & ~(page - 1);
	uintptr_t stack = (uintptr_t)__builtin_frame_address(0) & ~(page - 1);

	if (in->program_op >= in->part && start < end && end < start + in->part_bytes) {
		munmap(in->part, end - start);
		in->part += end - start;
		in->part_bytes -= end - start;
	}
	madvise((void *)(stack - 32 * page), 31 * page, MADV_DONTNEED);
}

/* Where a seccomp profile forbids close_range: what we know of.  The rest is marked already.  The
 * socket goes last, since its end tells the runtime that we wait. */
static void close_own(const struct init *in, int last)
{
	const int own[] = { in->proc,       in->own_proc,   in->root,
			    in->null.tree, in->empty.tree, in->sock };

	for (uint32_t i = 0; i < in->slot_count; i++)
		if (slot_fd(in, i) > last)
			close(slot_fd(in, i));
	for (size_t i = 0; i < sizeof own / sizeof *own; i++)
		if (own[i] > last)
			close(own[i]);
}

/* Make a descriptor the one of this number; what had the number is lost. */
static int move_fd(int *fd, int to)
{
	if (*fd != to && dup3(*fd, to, O_CLOEXEC) < 0)
		return -errno;
	*fd = to;
	return 0;
}

/* What hooks print to is moved out of the way of what takes the lowest numbers. */
static int lift_output(struct init *in, int above)
{
	for (int i = 0; i < 2; i++) {
		if (in->hook_output[i] < 0)
			continue;
		in->hook_output[i] = result(fcntl(in->hook_output[i], F_DUPFD_CLOEXEC, above));
		if (in->hook_output[i] < 0)
			return in->hook_output[i];
	}
	return 0;
}

/* Keep 0-2, the preserved descriptors, `keep`, and in the next free numbers the fifo and what the
 * hooks yet to come print to. */
static int close_rest(struct init *in, int *fifo, unsigned preserve, int keep)
{
	int *const ours[] = { fifo, &in->hook_output[0], &in->hook_output[1] };
	int next = 3 + (int)preserve, r = lift_output(in, next + 4);

	for (int i = 0; i < 3 && r == 0; i++) {
		if (*ours[i] < 0)
			continue;
		next += next == keep;
		r = move_fd(ours[i], next++);
	}
	if (r < 0)
		return r;
	if (sys_close_range((unsigned)(keep >= next ? keep + 1 : next), ~0u, 0) < 0 ||
	    (keep > next && sys_close_range((unsigned)next, (unsigned)keep - 1, 0) < 0))
		close_own(in, next - 1);
	in->sock = in->proc = in->root = in->null.tree = in->empty.tree = in->own_proc = -1;
	return 0;
}

/* GATE fifo preserve keep
 * Waits for `start` to write a byte.  The runtime gave us the fifo open for reading and writing,
 * so there is always a writer and read() blocks. */
int op_gate(struct init *in, const struct op *op)
{
	int fifo = slot_fd(in, op->arg[0].i), r;
	char byte;
	ssize_t n;

	handle_signals(leave);
	r = reply(in, REPLY_DONE, op->index, 0);
	if (r < 0)
		_exit(1);
	r = close_rest(in, &fifo, (unsigned)op->arg[1].i, op->arg[2].i);
	if (r < 0)
		return r;
	shrink(in);
	do
		n = read(fifo, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n != 1)
		_exit(1);
	handle_signals(SIG_DFL);
	return 0;
}

/* CLOSE_FDS preserve keep
 * The last word on what the program inherits (CVE-2024-21626).  Only marked, not closed: whoever
 * waits for an end of file learns from it that execve succeeded.  keep: one more descriptor, of any
 * number, that passes; -1: none. */
int op_close_fds(struct init *in, const struct op *op)
{
	int r = sys_close_range(3 + (unsigned)op->arg[0].i, ~0u, RANGE_CLOEXEC), keep = op->arg[1].i;

	(void)in;
	if (r < 0 || keep < 0)
		return r;
	return fcntl(keep, F_SETFD, 0) < 0 ? -errno : 0;
}

/* EXIT status
 * The end of a container that has no program. */
int op_exit(struct init *in, const struct op *op)
{
	(void)in;
	_exit((int)op->arg[0].i);
}

/* EXEC
 * What fails here can be told to nobody but the container's stderr: `create` is long over. */
int op_exec(struct init *in, const struct op *op)
{
	(void)op;
	if (in->in_proc && chdir("/") < 0)
		return -errno;
	execve(program_path, in->argv, in->env);
	{
		int number = errno;

		say(in, "exec ");
		say(in, program_path);
		say(in, ": ");
		say_error(in, number);
		say(in, "\n");
	}
	(void)!write(2, in->text, in->text_bytes);
	_exit(255);
}
