/* Directories, links, device nodes and the terminal in the rootfs. */
#include "init.h"
#include <sys/ioctl.h>
#include <termios.h>

/* MKDIR path mode how */
int op_mkdir(struct init *in, const struct op *op)
{
	unsigned how = ((unsigned)op->arg[2].i & HOW_NO_LINKS) | HOW_MAKE_DIR;
	owned_fd fd = root_make(in, op->arg[0].s, how, (mode_t)op->arg[1].i, NULL);

	return fd < 0 ? fd : 0;
}

static bool is_link_to(int dir, const char *name, const char *target)
{
	char text[PATH_MAX];
	ssize_t n = readlinkat(dir, name, text, sizeof text);

	return n >= 0 && (size_t)n == strlen(target) && !memcmp(text, target, (size_t)n);
}

/* SYMLINK target path replace
 * What is there already stays, unless it is to be replaced: a file or another link, never a
 * directory or what is mounted. */
int op_symlink(struct init *in, const struct op *op)
{
	const char *target = op->arg[0].s, *name;
	owned_fd dir = root_parent(in, op->arg[1].s, &name);

	if (dir < 0)
		return dir;
	if (symlinkat(target, dir, name) == 0)
		return 0;
	if (errno != EEXIST)
		return -errno;
	if (!op->arg[2].i || is_link_to(dir, name, target))
		return 0;
	if (unlinkat(dir, name, 0) < 0)
		return -errno;
	return result(symlinkat(target, dir, name));
}

static bool same_device(const struct stat *st, mode_t mode, dev_t device)
{
	if ((st->st_mode & S_IFMT) != (mode & S_IFMT))
		return false;
	return !(S_ISCHR(mode) || S_ISBLK(mode)) || st->st_rdev == device;
}

/* Open dir/name to mount a device on it; an empty file when it is missing. */
static int open_place(int dir, const char *name)
{
	if (mknodat(dir, name, S_IFREG | 0644, 0) < 0 && errno != EEXIST)
		return -errno;
	return child_open(dir, name, O_PATH);
}

/* In a user namespace nobody makes devices, so the host's node is mounted; it must be the one
 * that the device rules are about. */
static int bind_node(int dir, const char *name, const char *source, mode_t mode, dev_t device)
{
	owned_fd tree = sys_open_tree(AT_FDCWD, source, TREE_CLONE), place = -1;
	struct stat st;

	if (tree < 0)
		return tree;
	if (fstat(tree, &st) < 0)
		return -errno;
	if (!same_device(&st, mode, device))
		return -ENODEV;
	place = open_place(dir, name);
	if (place < 0)
		return place;
	if (fstat(place, &st) < 0)
		return -errno;
	/* The image's own node of this device may be of no use, for its mount is perhaps nodev. */
	if (!S_ISREG(st.st_mode) && !same_device(&st, mode, device))
		return -EEXIST;
	return sys_move_mount(tree, place);
}

/* A set-group-id directory or a default ACL has its own mind about what is made in it. */
static int settle_node(const struct init *in, int dir, const char *name, const struct op *op)
{
	mode_t mode = (mode_t)op->arg[1].i;
	uid_t uid = (uid_t)op->arg[4].i;
	gid_t gid = (gid_t)op->arg[5].i;
	owned_fd fd = child_open(dir, name, O_PATH);
	struct stat st;
	char path[32];

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	/* It is the one that we just made, or somebody who shares the directory swapped it. */
	if (!same_device(&st, mode, makedev((unsigned)op->arg[2].i, (unsigned)op->arg[3].i)))
		return -EEXIST;
	if ((st.st_uid != uid || st.st_gid != gid) && fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0)
		return -errno;
	fd_path(path, fd);
	if (st.st_mode != mode && fchmodat(in->proc, path, mode & 07777, 0) < 0)
		return -errno;
	return 0;
}

/* NODE path mode major minor uid gid source bind
 * A node that the image brings is left as it is, provided that it is the right device. */
int op_node(struct init *in, const struct op *op)
{
	const char *name;
	owned_fd dir = root_parent(in, op->arg[0].s, &name);
	mode_t mode = (mode_t)op->arg[1].i;
	dev_t device = makedev((unsigned)op->arg[2].i, (unsigned)op->arg[3].i);
	struct stat st;

	if (dir < 0)
		return dir;
	if (op->arg[7].i)
		return bind_node(dir, name, op->arg[6].s, mode, device);
	if (mknodat(dir, name, mode, device) == 0)
		return settle_node(in, dir, name, op);
	if (errno == EPERM)
		return bind_node(dir, name, op->arg[6].s, mode, device);
	if (errno != EEXIST)
		return -errno;
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return same_device(&st, mode, device) ? 0 : -EEXIST;
}

/* --- the terminal */

/* The multiplexer of the container's own devpts, and nothing that an image put at its name. */
static int open_master(const struct init *in)
{
	owned_fd fd = root_open(in, "/dev/pts/ptmx", O_PATH, IN_NO_SYMLINKS);
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!has_magic(fd, MAGIC_DEVPTS) || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(5, 2))
		return -ENOTTY;
	return reopen(in, fd, O_RDWR | O_NOCTTY);
}

/* The other end, asked from the master: /dev/pts/N may be anything by now (CVE-2025-52565). */
static int open_slave(int master)
{
	int unlock = 0;

	if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
		return -errno;
	return result(ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
}

static int bind_console(const struct init *in, int slave)
{
	const char *name;
	owned_fd dir = root_parent(in, "/dev/console", &name), tree = -1, place = -1;

	if (dir < 0)
		return dir;
	tree = sys_open_tree(slave, "", TREE_CLONE | EMPTY_PATH);
	if (tree < 0)
		return tree;
	/* An image without a /dev of ours may bring a console of the machine, which is covered. */
	place = open_place(dir, name);
	return place < 0 ? place : sys_move_mount(tree, place);
}

static int take_terminal(int slave)
{
	/* EPERM: we lead a session already. */
	if (setsid() < 0 && errno != EPERM)
		return -errno;
	if (ioctl(slave, TIOCSCTTY, 0) < 0)
		return -errno;
	for (int fd = 0; fd < 3; fd++)
		if (dup2(slave, fd) < 0)
			return -errno;
	return 0;
}

/* CONSOLE height width uid gid bind
 * A new terminal: the master goes to the runtime, the slave becomes stdio and /dev/console. */
int op_console(struct init *in, const struct op *op)
{
	struct winsize size = { (unsigned short)op->arg[0].i, (unsigned short)op->arg[1].i, 0, 0 };
	owned_fd master = open_master(in), slave = -1;
	int r;

	if (master < 0)
		return master;
	slave = open_slave(master);
	if (slave < 0)
		return slave;
	if ((size.ws_row || size.ws_col) && ioctl(master, TIOCSWINSZ, &size) < 0)
		return -errno;
	r = op->arg[4].i ? bind_console(in, slave) : 0;
	if (r < 0)
		return r;
	if (fchown(slave, (uid_t)op->arg[2].i, (gid_t)op->arg[3].i) < 0)
		return -errno;
	r = reply_fd(in, op->index, REPLY_FD_CONSOLE, master);
	return r < 0 ? r : take_terminal(slave);
}

/* REOPEN_NULL
 * A descriptor of the host's /dev/null would be one more file of the host in the container. */
int op_reopen_null(struct init *in, const struct op *op)
{
	owned_fd null = -1;
	struct stat st;

	(void)op;
	for (int fd = 0; fd < 3; fd++) {
		if (fstat(fd, &st) < 0 || !is_null(&st))
			continue;
		if (null < 0) {
			owned_fd path = root_open(in, "/dev/null", O_PATH | O_NOFOLLOW, 0);

			if (path < 0)
				return path;
			if (fstat(path, &st) < 0)
				return -errno;
			if (!is_null(&st)) {
				say(in, "container's /dev/null is invalid");
				return -ENOENT;
			}
			null = reopen(in, path, O_RDWR);
			if (null < 0)
				return null;
		}
		if (dup2(null, fd) < 0)
			return -errno;
	}
	return 0;
}
