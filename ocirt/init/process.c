/* What the program may do and as whom: the attributes of the process. */
#include "init.h"
#include <poll.h>
#include <signal.h>

/* A procfs of our own, without a mount in it.  Needed where the runtime's has some, as in a
 * container: there /proc/sys is often a read-only mount. */
static int own_proc(struct init *in)
{
	owned_fd fs = -1;
	int r;

	if (in->own_proc >= 0)
		return in->own_proc;
	fs = sys_fsopen("proc");
	r = fs < 0 ? fs : sys_fsconfig(fs, FS_CMD_CREATE, NULL, NULL);
	if (r == 0)
		r = in->own_proc = sys_fsmount(fs, 0);
	return r;
}

/* Open a sysctl and nothing that is mounted over one. */
static int sysctl_open(int proc, const char *path)
{
	owned_fd fd = sys_openat2(proc, path, O_WRONLY,
				  IN_BENEATH | IN_NO_SYMLINKS | IN_NO_MAGICLINKS | IN_NO_XDEV);

	if (fd >= 0 && !has_magic(fd, MAGIC_PROC))
		return -EXDEV;
	return steal(&fd);
}

/* SYSCTL key value
 * One write to one verified file (CVE-2022-0811, CVE-2025-52881). */
int op_sysctl(struct init *in, const struct op *op)
{
	char path[PATH_MAX];
	owned_fd fd = -1;

	if (op->arg[0].n + sizeof "sys/" > sizeof path)
		return -ENAMETOOLONG;
	memcpy(path, "sys/", 4);
	memcpy(path + 4, op->arg[0].s, op->arg[0].n + 1);
	fd = sysctl_open(in->proc, path);
	if (fd == -EXDEV) {
		int proc = own_proc(in);

		fd = proc < 0 ? -EXDEV : sysctl_open(proc, path);
	}
	if (fd < 0)
		return fd;
	return write(fd, op->arg[1].s, op->arg[1].n) < 0 ? -errno : 0;
}

/* LSM kind label
 * Takes effect at the next execve. */
int op_lsm(struct init *in, const struct op *op)
{
	char text[4096];
	const struct arg *label = &op->arg[1];
	int r;

	if (op->arg[0].i == LSM_SELINUX)
		return proc_write(in, "self/attr/exec", label->s, label->n);
	if (label->n + 5 > sizeof text)
		return -ENAMETOOLONG;
	memcpy(text, "exec ", 5);
	memcpy(text + 5, label->s, label->n);
	r = proc_write(in, "self/attr/apparmor/exec", text, label->n + 5);
	/* Before Linux 5.8, and without stacking of modules, there is only the common file. */
	return r == -ENOENT ? proc_write(in, "self/attr/exec", text, label->n + 5) : r;
}

/* NO_NEW_PRIVS */
int op_no_new_privs(struct init *in, const struct op *op)
{
	(void)in;
	(void)op;
	return result(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

/* SCHEDULER attr */
int op_scheduler(struct init *in, const struct op *op)
{
	(void)in;
	/* struct sched_attr, first version: its first word says its size. */
	if (op->arg[0].n < 48 || *(const uint32_t *)(const void *)op->arg[0].s > op->arg[0].n)
		return -EINVAL;
	return result(syscall(SYS_sched_setattr, 0, op->arg[0].s, 0));
}

/* IO_PRIORITY value */
int op_io_priority(struct init *in, const struct op *op)
{
	(void)in;
	return result(syscall(SYS_ioprio_set, 1, 0, op->arg[0].i));
}

/* PERSONALITY value */
int op_personality(struct init *in, const struct op *op)
{
	(void)in;
	return result(syscall(SYS_personality, op->arg[0].i));
}

/* MEMPOLICY mode nodes
 * The kernel reads maxnode - 1 bits, in whole longs; the wire format pads with zeros to 8. */
int op_mempolicy(struct init *in, const struct op *op)
{
	const struct arg *nodes = &op->arg[1];

	(void)in;
	return result(syscall(SYS_set_mempolicy, op->arg[0].i, nodes->n ? nodes->s : NULL,
			      nodes->n ? nodes->n * 8ul + 1 : 0));
}

/* UMASK value */
int op_umask(struct init *in, const struct op *op)
{
	(void)in;
	umask((mode_t)op->arg[0].i);
	return 0;
}

/* BOUNDING keep */
int op_bounding(struct init *in, const struct op *op)
{
	uint64_t keep = (uint64_t)op->arg[0].i;

	(void)in;
	for (int cap = 0; cap < 64; cap++) {
		if (keep >> cap & 1 || prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0)
			continue;
		/* Behind the last one that this kernel knows. */
		return errno == EINVAL ? 0 : -errno;
	}
	return 0;
}

/* IDENTITY uid gid groups set_groups
 * Raw calls: libc's would look for threads to change along. */
int op_identity(struct init *in, const struct op *op)
{
	const struct arg *groups = &op->arg[2];
	long uid = (long)op->arg[0].i, gid = (long)op->arg[1].i;

	(void)in;
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		return -errno;
	if (op->arg[3].i && syscall(SYS_setgroups, groups->n / 4, groups->s) < 0)
		return -errno;
	if (syscall(SYS_setresgid, gid, gid, gid) < 0 || syscall(SYS_setresuid, uid, uid, uid) < 0)
		return -errno;
	return 0;
}

static int raise_ambient(struct init *in, uint64_t caps)
{
	int r = 0;

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return -errno;
	for (int cap = 0; cap < 64; cap++)
		if (caps >> cap & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
			r = -errno;
	(void)in;
	return r;
}

/* CAPABILITIES effective permitted inheritable ambient
 * An ambient capability needs to be permitted and inheritable; engines rely on a config that
 * says otherwise being accepted, with a warning. */
int op_capabilities(struct init *in, const struct op *op)
{
	uint32_t head[2] = { CAPABILITY_VERSION_3, 0 };
	uint32_t data[2][3];
	int r;

	for (int half = 0; half < 2; half++)
		for (int set = 0; set < 3; set++)
			data[half][set] = (uint32_t)((uint64_t)op->arg[set].i >> (32 * half));
	if (syscall(SYS_capset, head, data) < 0)
		return -errno;
	r = raise_ambient(in, (uint64_t)op->arg[3].i);
	return r < 0 ? reply(in, REPLY_WARN, op->index, -r) : 0;
}

/* SECCOMP flags program listener
 * From here on only calls that a profile must allow the program as well: read, write, execve.
 * The runtime fetches the listener with pidfd_getfd while we wait. */
int op_seccomp(struct init *in, const struct op *op)
{
	struct {
		unsigned short count;
		const char *program;
	} filter = { (unsigned short)(op->arg[1].n / 8), op->arg[1].s };
	unsigned flags = (unsigned)op->arg[0].i | (op->arg[2].i ? SECCOMP_NEW_LISTENER : 0);
	int fd;

	if (op->arg[1].n % 8 || op->arg[1].n / 8 > 4096)
		return -EINVAL;
	fd = result(syscall(SYS_seccomp, SECCOMP_FILTER_MODE, flags, &filter));
	if (fd < 0 || !op->arg[2].i)
		return fd;
	if (reply(in, REPLY_ASK, (uint32_t)fd, REPLY_ASK_SECCOMP) < 0 || await_answer(in) < 0)
		_exit(1);
	close(fd);
	return 0;
}

/* STDIO uid
 * The program may open /dev/stdout again.  Not everything can be given away, nor need be. */
int op_stdio(struct init *in, const struct op *op)
{
	uid_t uid = (uid_t)op->arg[0].i;

	(void)in;
	for (int fd = 0; fd < 3; fd++) {
		struct stat st;

		if (fstat(fd, &st) < 0 || is_null(&st) || st.st_uid == uid)
			continue;
		if (fchown(fd, uid, (gid_t)-1) == 0)
			continue;
		if (errno != EPERM && errno != EINVAL && errno != EROFS)
			return -errno;
	}
	return 0;
}

/* A directory outside of our root has no name that starts with "/": some descriptor leaked, and
 * cwd leads through it (CVE-2024-21626). */
static int check_cwd(struct init *in)
{
	char cwd[PATH_MAX];

	if (syscall(SYS_getcwd, cwd, sizeof cwd) < 0 && errno != ENAMETOOLONG)
		return -errno;
	if (cwd[0] == '/')
		return 0;
	say(in, "current working directory is outside of container mount namespace root -- "
		"possible container breakout detected");
	return 1;
}

/* CHDIR path early
 * Once with all capabilities; if that is refused, as by a home on NFS, once as the user. */
int op_chdir(struct init *in, const struct op *op)
{
	bool early = op->arg[1].i;

	if (!early && !in->chdir_again)
		return 0;
	if (chdir(op->arg[0].s) < 0) {
		in->chdir_again = early && errno == EACCES;
		return in->chdir_again ? 0 : -errno;
	}
	in->in_proc = false;
	return check_cwd(in);
}

/* DEATH_SIGNAL signal
 * The runtime may have died before we asked to hear of it. */
int op_death_signal(struct init *in, const struct op *op)
{
	struct pollfd peer = { .fd = in->sock };

	if (prctl(PR_SET_PDEATHSIG, op->arg[0].i, 0, 0, 0) < 0)
		return -errno;
	if (poll(&peer, 1, 0) > 0 && peer.revents & (POLLHUP | POLLERR))
		_exit(1);
	return 0;
}
