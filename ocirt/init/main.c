/* ocirt-init SOCKET: performs a plan.
 *
 * The runtime decides everything and sends ops (ocirt/plan/ops.py); the init performs them one by
 * one, says which one failed and with what errno, and in the end is replaced by the container's
 * program.  No policy, no allocation once a part is read, no file of the host kept open.
 *
 * Stage 0 runs the part up to op clone in the runtime's namespaces; the child that it clones goes
 * on with the rest.  Both read from the same socket, one after the other. */
#include "init.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/vfs.h>

/* linux/net.h: SCM_MAX_FD */
#define MOST_FDS 253

static struct init state = { .proc = -1, .own_proc = -1, .root = -1, .null.tree = -EBADF,
			     .empty.tree = -EBADF, .hook_output = { -1, -1 },
			     .fail_index = -1 };

#define ENTRY(code, name, types) [code] = op_##name,
static int (*const HANDLERS[OP_LARGEST_CODE + 1])(struct init *, const struct op *) = {
	OP_TABLE(ENTRY)
};

/* --- text */

void say_bytes(struct init *in, const char *bytes, size_t count)
{
	size_t room = sizeof in->text - in->text_bytes;

	if (count > room)
		count = room;
	memcpy(in->text + in->text_bytes, bytes, count);
	in->text_bytes += count;
}

void say(struct init *in, const char *text)
{
	say_bytes(in, text, strlen(text));
}

void say_number(struct init *in, uint64_t n)
{
	char digits[20];
	size_t at = sizeof digits;

	do
		digits[--at] = (char)('0' + n % 10);
	while (n /= 10);
	say_bytes(in, digits + at, sizeof digits - at);
}

/* strerror as engines search for it: lower case, but for words such as "RFS". */
void say_error(struct init *in, int number)
{
	const char *text = strerror(number);
	char first = text[0];

	if (first >= 'A' && first <= 'Z' && text[1] >= 'a' && text[1] <= 'z')
		first |= 0x20;
	say_bytes(in, &first, 1);
	say(in, text + 1);
}

/* --- the runtime */

static int send_reply(const struct init *in, uint32_t type, uint32_t index, int32_t value,
		      const char *text, size_t bytes)
{
	uint32_t head[4] = { type, index, (uint32_t)value, (uint32_t)bytes };
	struct iovec parts[2] = { { head, sizeof head }, { (void *)text, bytes } };

	/* write, not send: a seccomp profile may know nothing of sockets. */
	if (in->sock < 0)
		return -ENOTCONN;
	if (!bytes)
		return write(in->sock, head, sizeof head) == (ssize_t)sizeof head ? 0 : -EPIPE;
	return writev(in->sock, parts, 2) == (ssize_t)(sizeof head + bytes) ? 0 : -EPIPE;
}

int reply(struct init *in, uint32_t type, uint32_t index, int32_t value)
{
	return send_reply(in, type, index, value, NULL, 0);
}

int reply_fd(struct init *in, uint32_t index, int32_t value, int fd)
{
	uint32_t head[4] = { REPLY_FD, index, (uint32_t)value, 0 };
	struct iovec part = { head, sizeof head };
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { { 0 } };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
				  .msg_controllen = sizeof control };

	control.head.cmsg_level = SOL_SOCKET;
	control.head.cmsg_type = SCM_RIGHTS;
	control.head.cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
	return sendmsg(in->sock, &message, MSG_NOSIGNAL) == (ssize_t)sizeof head ? 0 : -EPIPE;
}

/* 0 when the runtime says to go on. */
int await_answer(struct init *in)
{
	char answer[4];
	size_t held = 0;

	while (held < sizeof answer) {
		ssize_t n = read(in->sock, answer + held, sizeof answer - held);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -EPIPE;
		held += (size_t)n;
	}
	return answer[0] | answer[1] | answer[2] | answer[3] ? -ECANCELED : 0;
}

/* The plan cannot be told from garbage, or the runtime is gone. */
static void __attribute__((noreturn)) refuse(struct init *in, uint32_t index, int number)
{
	(void)reply(in, REPLY_FAIL, index, number);
	_exit(1);
}

static void keep_fds(struct init *in, struct msghdr *message)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		const unsigned char *at = CMSG_DATA(c);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (; count; count--, at += sizeof(int)) {
			int fd;

			memcpy(&fd, at, sizeof fd);
			if (in->slot_count == SLOTS)
				refuse(in, 0, EMFILE);
			in->slots[in->slot_count++] = (uint32_t)fd + 1;
		}
	}
}

/* Read exactly so many bytes, and the descriptors that come with them.  False at the end. */
static bool receive(struct init *in, void *to, size_t bytes)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(MOST_FDS * sizeof(int))];
	} control;

	while (bytes) {
		struct iovec part = { to, bytes };
		struct msghdr message = { .msg_iov = &part,
					  .msg_iovlen = 1,
					  .msg_control = &control,
					  .msg_controllen = sizeof control };
		ssize_t n = recvmsg(in->sock, &message, MSG_CMSG_CLOEXEC);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0 || message.msg_flags & MSG_CTRUNC)
			return false;
		keep_fds(in, &message);
		to = (char *)to + n;
		bytes -= (size_t)n;
	}
	return true;
}

static void *map(size_t bytes)
{
	return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
		    -1, 0);
}

/* Forget the part that has run, unless the program's strings lie in it. */
static void forget_part(struct init *in)
{
	if (in->part && !in->program_op) {
		munmap(in->part, in->part_bytes);
		if (in->pool)
			munmap(in->pool, in->pool_bytes);
	}
	in->part = NULL;
	in->pool = NULL;
}

/* Take the next part off the socket, and believe nothing in it. */
static struct plan receive_part(struct init *in)
{
	struct plan_head head;
	uint64_t pointers = 0;

	forget_part(in);
	/* The end, or a runtime that died: nobody is there to complain to. */
	if (!receive(in, &head, sizeof head))
		_exit(1);
	if (head.magic != PLAN_MAGIC || head.bytes > PLAN_LARGEST)
		refuse(in, head.first, EPROTO);
	in->part_bytes = head.bytes + !head.bytes;
	in->part = map(in->part_bytes);
	if (in->part == MAP_FAILED)
		refuse(in, head.first, errno);
	if (!receive(in, in->part, head.bytes))
		_exit(1);
	if (plan_check(&head, in->part, &pointers) < 0)
		refuse(in, head.first, EPROTO);
	in->pool_bytes = pointers * sizeof(char *);
	in->pool = pointers ? map(in->pool_bytes) : NULL;
	if (in->pool == MAP_FAILED)
		refuse(in, head.first, errno);
	return (struct plan){ in->part, in->part + head.bytes, head.first, in->pool };
}

/* --- performing */

/* 0, or a failure: -errno, or 1 when only the text says what happened. */
static int perform(struct init *in, const struct op *op)
{
	in->text_bytes = 0;
	in->fail_index = -1;
	return HANDLERS[op->code](in, op);
}

/* Behind the gate there is only the container's stderr, and nobody to word it. */
static void __attribute__((noreturn)) report_late(struct init *in, uint32_t index, int number)
{
	in->text_bytes = 0;
	say(in, "ocirt: op ");
	say_number(in, index);
	say(in, ": ");
	say_error(in, number);
	say(in, "\n");
	(void)!write(2, in->text, in->text_bytes);
	_exit(255);
}

static void __attribute__((noreturn)) fail(struct init *in, const struct op *op, int r)
{
	uint32_t index = in->fail_index < 0 ? op->index : (uint32_t)in->fail_index;

	(void)send_reply(in, REPLY_FAIL, index, r < 0 ? -r : 0, in->text, in->text_bytes);
	if (in->sock < 0)
		report_late(in, index, r < 0 ? -r : 0);
	_exit(1);
}

/* TRY
 * Performs the next op, and the one after it only when that fails.  The decoder has seen to it
 * that both are there. */
static void try_op(struct init *in, struct plan *plan, struct op *op)
{
	int r;

	plan_next(plan, op);
	r = perform(in, op);
	plan_next(plan, op);
	if (r == 0)
		return;
	r = perform(in, op);
	if (r != 0)
		fail(in, op, r);
}

/* Never called: the loop gives it the ops that it governs. */
int op_try(struct init *in, const struct op *op)
{
	(void)in;
	(void)op;
	return -EPROTO;
}

static void run_part(struct init *in, struct plan plan)
{
	struct op op;

	while (plan_next(&plan, &op)) {
		int r;

		if (op.code == OP_TRY) {
			try_op(in, &plan, &op);
			continue;
		}
		r = perform(in, &op);
		if (r != 0)
			fail(in, &op, r);
	}
}

/* --- the start */

/* Ignored signals and a blocked mask would be inherited by the program; Python ignores SIGPIPE
 * and SIGXFSZ.  Raw, since libc keeps some numbers to itself. */
static void reset_signals(void)
{
	const uint64_t none = 0;
	const uint64_t by_default[4] = { 0 };

	for (int number = 1; number <= 64; number++)
		(void)syscall(SYS_rt_sigaction, number, by_default, NULL, sizeof none);
	(void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none);
}

/* A program started with a closed stdio would find our next file there. */
static int ensure_stdio(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd < 3);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

/* The root of the runtime's procfs, by its looks and not by its name. */
static int open_proc(void)
{
	owned_fd fd = result(open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	return has_magic(fd, MAGIC_PROC) && st.st_ino == PROC_ROOT_INODE ? steal(&fd) : -ENODEV;
}

int main(int argc, char **argv)
{
	struct init *in = &state;

	if (argc != 2)
		return 2;
	in->sock = atoi(argv[1]);
	if (fcntl(in->sock, F_SETFD, FD_CLOEXEC) < 0)
		return 2;
	reset_signals();
	umask(0);
	in->proc = open_proc();
	if (in->proc >= 0 && in->proc < 3) {
		close(in->proc);
		in->proc = ensure_stdio() < 0 ? -EBADF : open_proc();
	}
	if (in->proc < 0)
		refuse(in, 0, -in->proc);
	for (;;)
		run_part(in, receive_part(in));
}
