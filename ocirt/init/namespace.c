/* Stage 0 and the namespaces: what happens before and right after the child is cloned. */
#include "init.h"
#include <net/if.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define MOST_PENDING 8

/* Joins that the kernel refused while we were in the wrong user namespace. */
static struct {
	int fd, type, index;
} pending[MOST_PENDING];
static int pending_count;

/* A mount namespace has a root of its own, which is then the working directory too. */
static int enter_root(struct init *in)
{
	in->in_proc = false;
	cleanup_close(&in->root);
	in->root = result(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
	return in->root < 0 ? in->root : 0;
}

static int enter(struct init *in, int fd, int type)
{
	if (setns(fd, type) < 0)
		return -errno;
	return type == CLONE_NEWNS ? enter_root(in) : 0;
}

static int retry_pending(struct init *in)
{
	for (int i = 0; i < pending_count; i++) {
		int r = enter(in, pending[i].fd, pending[i].type);

		if (r < 0) {
			in->fail_index = pending[i].index;
			return r;
		}
	}
	pending_count = 0;
	return 0;
}

/* JOIN fd nstype may_retry
 * A namespace that belongs to a user namespace further down can be joined only after that one.
 * From the first join on other processes may see us, so they must not be able to ptrace us or
 * to look at our descriptors (CVE-2016-9962). */
int op_join(struct init *in, const struct op *op)
{
	int fd = slot_fd(in, op->arg[0].i), type = (int)op->arg[1].i, r;

	if (!in->guarded && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	in->guarded = true;
	r = enter(in, fd, type);
	if (r == 0 && type == CLONE_NEWUSER)
		return retry_pending(in);
	if (r != -EPERM || !op->arg[2].i || pending_count == MOST_PENDING)
		return r;
	pending[pending_count].fd = fd;
	pending[pending_count].type = type;
	pending[pending_count++].index = (int)op->index;
	return 0;
}

static int fill_slot(struct init *in, int64_t slot, int fd)
{
	if (fd < 0)
		return fd;
	if (slot < 0 || slot >= SLOTS || in->slots[slot]) {
		close(fd);
		return -EBADSLT;
	}
	in->slots[slot] = (uint32_t)fd + 1;
	return 0;
}

/* OPEN_TREE slot path recursive
 * For sources that the container's root may not read, and for id-mapped mounts.  The tree would
 * take part in the host's propagation, so it becomes a slave, as the container's mounts do. */
int op_open_tree(struct init *in, const struct op *op)
{
	struct mount_attr_ slave = { .propagation = MS_SLAVE };
	unsigned flags = op->arg[2].i ? AT_RECURSIVE : 0;
	owned_fd tree = sys_open_tree(AT_FDCWD, op->arg[1].s, TREE_CLONE | flags);
	int r = tree < 0 ? tree : sys_mount_setattr(tree, AT_RECURSIVE, &slave);

	return r < 0 ? r : fill_slot(in, op->arg[0].i, steal(&tree));
}

static int write_map(const struct init *in, int pid, const char *file, const struct arg *map)
{
	char path[48], *at = path + sizeof path;
	size_t n = strlen(file) + 1;

	at -= n;
	memcpy(at, file, n);
	*--at = '/';
	do
		*--at = (char)('0' + pid % 10);
	while (pid /= 10);
	return proc_write(in, at, map->s, map->n);
}

/* A user namespace lives as long as a process in it, or a descriptor: a child makes it, waits to
 * be mapped, and goes. */
static int make_userns(const struct init *in, const struct arg *uids, const struct arg *gids)
{
	struct clone_args_ args = { .flags = CLONE_NEWUSER, .exit_signal = SIGCHLD };
	char path[48] = "";
	int pid = sys_clone3(&args), r, fd = -1;

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		for (;;)
			pause();
	}
	if (pid < 0)
		return pid;
	r = write_map(in, pid, "uid_map", uids);
	if (r == 0)
		r = write_map(in, pid, "gid_map", gids);
	if (r == 0) {
		char *at = path + sizeof path - sizeof "/ns/user";
		int n = pid;

		memcpy(at, "/ns/user", sizeof "/ns/user");
		do
			*--at = (char)('0' + n % 10);
		while (n /= 10);
		/* The last component is a magic link, and to be followed. */
		r = fd = result(openat(in->proc, at, O_RDONLY | O_CLOEXEC));
	}
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return r < 0 ? r : fd;
}

/* IDMAP slot uid_map gid_map recursive
 * Containers tend to have the same maps on all their mounts, so the last namespace is kept. */
int op_idmap(struct init *in, const struct op *op)
{
	static const struct arg *uids, *gids;
	static struct arg last_uids, last_gids;
	static int userns = -1;
	struct mount_attr_ attr = { .set = ATTR_IDMAP };

	if (!uids || strcmp(uids->s, op->arg[1].s) || strcmp(gids->s, op->arg[2].s)) {
		cleanup_close(&userns);
		userns = make_userns(in, &op->arg[1], &op->arg[2]);
		if (userns < 0)
			return userns;
		last_uids = op->arg[1];
		last_gids = op->arg[2];
		uids = &last_uids;
		gids = &last_gids;
	}
	attr.userns_fd = (uint64_t)userns;
	return sys_mount_setattr(slot_fd(in, op->arg[0].i), op->arg[3].i ? AT_RECURSIVE : 0, &attr);
}

/* WRITE path data
 * A file of the runtime's, such as oom_score_adj or resctrl's tasks. */
int op_write(struct init *in, const struct op *op)
{
	owned_fd fd = result(open(op->arg[0].s, O_WRONLY | O_CLOEXEC));

	(void)in;
	if (fd < 0)
		return fd;
	return write(fd, op->arg[1].s, op->arg[1].n) < 0 ? -errno : 0;
}

/* AFFINITY mask
 * Empty: every CPU, so that a cpuset decides and not what the runtime happened to have. */
int op_affinity(struct init *in, const struct op *op)
{
	char all[1024];

	(void)in;
	if (op->arg[0].n)
		return result(syscall(SYS_sched_setaffinity, 0, op->arg[0].n, op->arg[0].s));
	memset(all, 0xff, sizeof all);
	(void)syscall(SYS_sched_setaffinity, 0, sizeof all, all);
	return 0;
}

/* CLONE flags cgroup
 * The child is made a child of the runtime, for whoever waits for it; stage 0 says its pid, as
 * the runtime sees it, and is done. */
int op_clone(struct init *in, const struct op *op)
{
	int cgroup = slot_fd(in, op->arg[1].i), pid;
	struct clone_args_ args = { .flags = (uint64_t)op->arg[0].i | CLONE_PARENT };

	if (pending_count) {
		in->fail_index = pending[0].index;
		return -EPERM;
	}
	if (op->arg[1].i >= 0) {
		args.flags |= CLONE_INTO_CGROUP_FLAG;
		args.cgroup = (uint64_t)cgroup;
	}
	pid = sys_clone3(&args);
	if (pid < 0)
		return pid;
	if (pid)
		_exit(reply(in, REPLY_CLONED, op->index, pid) < 0);
	/* A session of its own, so that a terminal's signals to the runtime end there. */
	if (setsid() < 0)
		return -errno;
	return 0;
}

/* NETLINK protocol
 * A socket works in the network namespace that it was made in: with this one the runtime moves
 * devices in and out and sets them up, and never goes there. */
int op_netlink(struct init *in, const struct op *op)
{
	int protocol = (int)op->arg[0].i;
	owned_fd fd = result(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));

	return fd < 0 ? fd : reply_fd(in, op->index, REPLY_FD_NETLINK, fd);
}

/* RDMA_MOVE namespace index
 * Sends an RDMA device from where we are to that namespace.  Unlike with network devices, the
 * kernel looks at the namespace of who asks, not of the socket.
 * linux/netlink.h: NETLINK_RDMA is 20, struct nlmsghdr with NLM_F_REQUEST | NLM_F_ACK, struct
 * nlattr; an answer of type NLMSG_ERROR holds -errno or 0.  linux/rdma_netlink.h: client
 * RDMA_NL_NLDEV, RDMA_NLDEV_CMD_SET, RDMA_NLDEV_ATTR_DEV_INDEX, RDMA_NLDEV_NET_NS_FD. */
int op_rdma_move(struct init *in, const struct op *op)
{
	struct head {
		uint32_t size;
		uint16_t type, flags;
		uint32_t sequence, port;
	};
	struct attribute {
		uint16_t size, type;
		uint32_t value;
	};
	struct {
		struct head head;
		struct attribute device, namespace;
	} ask = {
		{ sizeof(ask), 5 << 10 | 2, 1 | 4, 1, 0 },
		{ sizeof(struct attribute), 1, (uint32_t)op->arg[1].i },
		{ sizeof(struct attribute), 68, (uint32_t)slot_fd(in, op->arg[0].i) },
	};
	struct {
		struct head head;
		int32_t error;
		char rest[500];
	} answer;
	owned_fd fd = result(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 20));
	ssize_t size;

	if (fd < 0)
		return fd;
	if (send(fd, &ask, sizeof(ask), 0) < 0)
		return -errno;
	size = recv(fd, &answer, sizeof(answer), 0);
	if (size < 0)
		return -errno;
	return size >= 20 && answer.head.type == 2 ? answer.error : -EPROTO;
}

/* ATTACH tasks
 * On cgroup v1 a task that moves itself alone waits for no grace period. */
int op_attach(struct init *in, const struct op *op)
{
	int fd = slot_fd(in, op->arg[0].i), r;

	r = write(fd, "0", 1) < 0 ? -errno : 0;
	if (fd >= 0) {
		close(fd);
		in->slots[op->arg[0].i] = 0;
	}
	return r;
}

/* ASK kind
 * A guarded process belongs to the host's root, and only that may write its maps; a rootless
 * runtime is not. */
int op_ask(struct init *in, const struct op *op)
{
	bool lower = in->guarded && op->arg[0].i == REPLY_ASK_MAPS;
	int r;

	if (lower)
		prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	r = reply(in, REPLY_ASK, op->index, (int32_t)op->arg[0].i);
	if (r < 0 || await_answer(in) < 0)
		_exit(1);
	if (lower)
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	return 0;
}

/* FAIL errno */
int op_fail(struct init *in, const struct op *op)
{
	(void)in;
	return -(int)op->arg[0].i;
}

/* ROOT_IDS */
int op_root_ids(struct init *in, const struct op *op)
{
	(void)in;
	(void)op;
	if (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

/* UNSHARE flags */
int op_unshare(struct init *in, const struct op *op)
{
	(void)in;
	return result(unshare((int)op->arg[0].i));
}

/* TIME_OFFSETS offsets
 * A new time namespace holds only later children, until we join it ourselves; its clocks can be
 * set only before. */
int op_time_offsets(struct init *in, const struct op *op)
{
	owned_fd fd = -1;
	int r = result(unshare(CLONE_NEWTIME));

	if (r == 0 && op->arg[0].n)
		r = proc_write(in, "self/timens_offsets", op->arg[0].s, op->arg[0].n);
	if (r < 0)
		return r;
	fd = result(openat(in->proc, "self/ns/time_for_children", O_RDONLY | O_CLOEXEC));
	return fd < 0 ? fd : result(setns(fd, CLONE_NEWTIME));
}

/* HOSTNAME name */
int op_hostname(struct init *in, const struct op *op)
{
	(void)in;
	return result(sethostname(op->arg[0].s, op->arg[0].n));
}

/* DOMAINNAME name */
int op_domainname(struct init *in, const struct op *op)
{
	(void)in;
	return result(setdomainname(op->arg[0].s, op->arg[0].n));
}

/* LOOPBACK
 * Any socket takes interface ioctls; this one exists without IPv4 too. */
int op_loopback(struct init *in, const struct op *op)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	owned_fd fd = result(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));

	(void)in;
	(void)op;
	return fd < 0 ? fd : result(ioctl(fd, SIOCSIFFLAGS, &lo));
}

/* The permissions in "type;uid;gid;perm;description", 0 when they cannot be told. */
static unsigned long key_permissions(long key)
{
	char text[256];
	const char *at = text;
	long n = syscall(SYS_keyctl, KEYCTL_DESCRIBE, key, text, sizeof text);

	if (n <= 0 || (size_t)n > sizeof text)
		return 0;
	for (int i = 0; i < 3; i++) {
		at = strchr(at, ';');
		if (!at++)
			return 0;
	}
	return strtoul(at, NULL, 16);
}

/* KEYRING name
 * A session keyring of the container's own, which its processes may search. */
int op_keyring(struct init *in, const struct op *op)
{
	long key = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, op->arg[0].s);
	unsigned long permissions;

	(void)in;
	/* A kernel without keyrings has none to share. */
	if (key < 0)
		return errno == ENOSYS ? 0 : -errno;
	permissions = key_permissions(key);
	if (permissions)
		(void)syscall(SYS_keyctl, KEYCTL_SETPERM, key, permissions | 0x00080000);
	return 0;
}
