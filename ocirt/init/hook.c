/* Lifecycle hooks that run inside: createContainer and startContainer. */
#include "init.h"
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#define OUTPUT_MOST 4096

/* A hook in flight.  Its stdio are files in memory: nothing blocks, a hook that reads no stdin
 * is no error, and one that leaves a daemon behind does not hold us up. */
struct hook {
	const char *path;
	char **argv, **env;
	int root;
	int io[3];
	volatile int error; /* of execve; the child shares our memory until then */
};

static int memory_file(const char *name)
{
	int fd = result(syscall(SYS_memfd_create, name, MEMFD_CLOEXEC));

	/* sysctl vm.memfd_noexec=2 wants it said. */
	if (fd == -EACCES)
		fd = result(syscall(SYS_memfd_create, name, MEMFD_CLOEXEC | MEMFD_NOEXEC_SEAL));
	return fd;
}

static void put_number(char **at, uint64_t n)
{
	char digits[24];
	int count = 0;

	do
		digits[count++] = (char)('0' + n % 10);
	while (n /= 10);
	while (count)
		*(*at)++ = digits[--count];
}

static int put(int fd, const char *data, size_t bytes)
{
	while (bytes) {
		ssize_t n = write(fd, data, bytes);

		if (n < 0)
			return -errno;
		data += n;
		bytes -= (size_t)n;
	}
	return 0;
}

/* The container's state, with our pid as the container sees it. */
static int state_file(const struct arg *before, const struct arg *after)
{
	owned_fd fd = memory_file("state");
	char pid[24], *end = pid;
	int r;

	if (fd < 0)
		return fd;
	put_number(&end, (uint64_t)getpid());
	r = put(fd, before->s, before->n);
	if (r == 0)
		r = put(fd, pid, (size_t)(end - pid));
	if (r == 0)
		r = put(fd, after->s, after->n);
	if (r == 0 && lseek(fd, 0, SEEK_SET) < 0)
		r = -errno;
	return r < 0 ? r : steal(&fd);
}

/* HOOK_OUTPUT stdout stderr */
int op_hook_output(struct init *in, const struct op *op)
{
	for (int i = 0; i < 2; i++)
		in->hook_output[i] = slot_fd(in, op->arg[i].i);
	return 0;
}

static int output_file(const char *name)
{
	owned_fd fd = memory_file(name);

	/* Else two writers, as `sh` and its child, would overwrite each other after a truncate. */
	if (fd >= 0 && fcntl(fd, F_SETFL, O_APPEND) < 0)
		return -errno;
	return steal(&fd);
}

/* In the child: nothing but system calls.  Where a seccomp profile forbids close_range, every
 * descriptor is marked to be closed already. */
static void __attribute__((noreturn)) become(struct hook *hook)
{
	if (setpgid(0, 0) == 0 && (hook->root < 0 ? chdir("/") : fchdir(hook->root)) == 0 &&
	    dup2(hook->io[0], 0) == 0 && dup2(hook->io[1], 1) == 1 && dup2(hook->io[2], 2) == 2 &&
	    (sys_close_range(3, ~0u, 0) == 0 || errno == EPERM || errno == ENOSYS))
		execve(hook->path, hook->argv, hook->env);
	hook->error = errno;
	_exit(127);
}

static pid_t spawn(struct hook *hook)
{
	pid_t pid = vfork();

	if (pid == 0)
		become(hook);
	return pid < 0 ? -errno : pid;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Wait for the exit of pid, not for the end of its output.  True when time ran out.  A runtime
 * that died takes the hook and us along. */
static bool wait_exit(const struct init *in, pid_t pid, int64_t timeout, int *status)
{
	owned_fd exited = result(syscall(NR_PIDFD_OPEN, pid, 0));
	struct pollfd polls[2] = { { .fd = exited, .events = POLLIN }, { .fd = in->sock } };
	int64_t end = now_ms() + timeout;

	for (;;) {
		int64_t left = timeout ? end - now_ms() : 1000;
		pid_t r = waitpid(pid, status, WNOHANG);

		if (r == pid || (r < 0 && errno != EINTR))
			return false;
		if (left <= 0)
			return true;
		/* Without a pidfd (a seccomp profile may forbid it) we look now and then. */
		if (exited < 0 && left > 10)
			left = 10;
		if (poll(polls, 2, left > 1000 ? 1000 : (int)left) < 0 && errno != EINTR)
			return waitpid(pid, status, 0) < 0;
		if (polls[1].revents) {
			kill(-pid, SIGKILL);
			_exit(1);
		}
	}
}

static void say_output(struct init *in, const char *label, int fd)
{
	char text[OUTPUT_MOST];
	ssize_t n = pread(fd, text, sizeof text, 0);

	say(in, label);
	if (n > 0)
		say_bytes(in, text, (size_t)n);
}

/* Word the end of a hook as Go's os/exec does, since engines and users know these words. */
static void say_status(struct init *in, int status)
{
	if (WIFSIGNALED(status)) {
		const char *name = strsignal(WTERMSIG(status));
		char first = (char)(name[0] | 0x20);

		say(in, "signal: ");
		say_bytes(in, &first, 1);
		say(in, name + 1);
		if (WCOREDUMP(status))
			say(in, " (core dumped)");
	} else {
		say(in, "exit status ");
		say_number(in, (uint64_t)WEXITSTATUS(status));
	}
}

static void say_timeout(struct init *in, int64_t timeout)
{
	uint64_t tenths = (uint64_t)(timeout + 50) / 100;

	say(in, "hook ran past specified timeout of ");
	say_number(in, tenths / 10);
	say(in, ".");
	say_number(in, tenths % 10);
	say(in, "s");
}

static int run(struct init *in, struct hook *hook, int64_t timeout)
{
	int status = 0;
	pid_t pid = spawn(hook);

	if (pid < 0)
		return pid;
	if (wait_exit(in, pid, timeout, &status)) {
		kill(-pid, SIGKILL);
		waitpid(pid, &status, 0);
		say_timeout(in, timeout);
		return 1;
	}
	if (hook->error)
		return -hook->error;
	if (status == 0)
		return 0;
	say_status(in, status);
	say_output(in, ", stdout: ", hook->io[1]);
	say_output(in, ", stderr: ", hook->io[2]);
	return 1;
}

/* Behind the gate only the container's stderr is left to hear of it. */
static void __attribute__((noreturn)) report_late(struct init *in, const struct op *op, int r)
{
	char detail[TEXT_MOST];
	size_t n = in->text_bytes;

	memcpy(detail, in->text, n);
	in->text_bytes = 0;
	say(in, "ocirt: error running ");
	say(in, op->arg[5].s);
	say(in, " hook #");
	say_number(in, (uint64_t)op->arg[6].i);
	say(in, ": ");
	if (r < 0) {
		say(in, "fork/exec ");
		say(in, op->arg[0].s);
		say(in, ": ");
		say_error(in, -r);
	}
	say_bytes(in, detail, n);
	say(in, "\n");
	(void)!write(2, in->text, in->text_bytes);
	_exit(255);
}

/* HOOK path argv env before after label index timeout
 * stdin is the state; the environment is exactly the hook's (CVE-2025-23266); no descriptor of
 * ours is inherited.  The working directory is the rootfs, as runc has it. */
int op_hook(struct init *in, const struct op *op)
{
	char *path_only[] = { (char *)op->arg[0].s, NULL };
	owned_fd state = state_file(&op->arg[3], &op->arg[4]);
	owned_fd out = in->hook_output[0] < 0 ? output_file("stdout") : -1;
	owned_fd err = in->hook_output[1] < 0 ? output_file("stderr") : -1;
	struct hook hook = {
		.path = op->arg[0].s,
		.argv = op->arg[1].n ? op->arg[1].v : path_only,
		.env = op->arg[2].v,
		.root = in->root,
		.io = { state, out, err },
	};
	int r;

	for (int i = 0; i < 2; i++)
		if (in->hook_output[i] >= 0)
			hook.io[1 + i] = in->hook_output[i];
	r = state < 0	       ? state
	    : hook.io[1] < 0 ? hook.io[1]
	    : hook.io[2] < 0 ? hook.io[2]
			       : run(in, &hook, op->arg[7].i);

	if (r != 0 && in->sock < 0)
		report_late(in, op, r);
	return r;
}
