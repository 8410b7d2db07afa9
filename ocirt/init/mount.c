/* The rootfs and what is mounted in it.
 *
 * Trees are cloned, given their attributes while nobody can see them, and moved onto an open
 * descriptor.  Where mount(2) wants a path it gets self/fd/N, with procfs as the working
 * directory: one more name that nothing in a container can redirect. */
#include "init.h"
#include <stdlib.h>

/* Stand in the runtime's procfs, for paths of the form self/fd/N. */
int enter_proc(struct init *in)
{
	if (in->in_proc)
		return 0;
	if (fchdir(in->proc) < 0)
		return -errno;
	in->in_proc = true;
	return 0;
}

static int mount_on(struct init *in, int fd, const char *source, const char *fstype,
		    unsigned long flags, const char *data)
{
	char path[32];
	int r = enter_proc(in);

	if (r < 0)
		return r;
	fd_path(path, fd);
	return result(mount(source, path, fstype, flags, *data ? data : NULL));
}

/* PROPAGATION flags
 * The mounts of the host stop to hear of ours before there are any. */
int op_propagation(struct init *in, const struct op *op)
{
	(void)in;
	return result(mount(NULL, "/", NULL, (unsigned long)op->arg[0].i, NULL));
}

/* Make the mount that holds path private.  pivot_root refuses a root whose parent mount is
 * shared, and a shared one would carry our mounts to the host. */
static int holder_private(const char *path)
{
	char holder[PATH_MAX];
	size_t end = strlen(path);

	if (end >= sizeof holder)
		return -ENAMETOOLONG;
	memcpy(holder, path, end + 1);
	for (;;) {
		int r = result(mount(NULL, *holder ? holder : "/", NULL, MS_PRIVATE, NULL));

		/* EINVAL: not a mount point. */
		if (r != -EINVAL || !*holder)
			return r;
		while (end && holder[end - 1] == '/')
			end--;
		while (end && holder[end - 1] != '/')
			end--;
		while (end && holder[end - 1] == '/')
			end--;
		holder[end] = 0;
	}
}

/* A mount of the host's /dev/null, taken before anything hostile is around: what covers masked
 * files must be this device and no file that an image put there (CVE-2025-31133). */
static int null_device(void)
{
	owned_fd tree = sys_open_tree(AT_FDCWD, "/dev/null", TREE_CLONE | AT_SYMLINK_NOFOLLOW);
	struct stat st;

	if (tree < 0)
		return tree;
	if (fstat(tree, &st) < 0)
		return -errno;
	return is_null(&st) ? steal(&tree) : -ENODEV;
}

/* ROOTFS path bind
 * Opens the root of all later paths.  bind: as a mount of its own, which pivot_root needs. */
int op_rootfs(struct init *in, const struct op *op)
{
	const char *path = op->arg[0].s;

	if (op->arg[1].i) {
		int r = holder_private(path);

		if (r < 0)
			return r;
		if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) < 0)
			return -errno;
	}
	cleanup_close(&in->root);
	in->root = result(open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
	in->null.tree = null_device();
	return in->root < 0 ? in->root : 0;
}

/* --- mount */

static bool has_mode(const char *data)
{
	for (; data; data = strchr(data, ','), data = data ? data + 1 : NULL)
		if (!strncmp(data, "mode=", 5))
			return true;
	return false;
}

/* Append the mode of the directory below, so that an image's 0700 /tmp stays one. */
static int add_mode(int fd, const char *data, char *out, size_t room)
{
	struct stat st;
	size_t n = strlen(data);

	if (n + sizeof ",mode=7777" > room)
		return -E2BIG;
	if (fstat(fd, &st) < 0)
		return -errno;
	memcpy(out, data, n);
	if (n)
		out[n++] = ',';
	memcpy(out + n, "mode=", 5);
	n += 5;
	for (int shift = 9; shift >= 0; shift -= 3)
		out[n++] = (char)('0' + ((st.st_mode >> shift) & 7));
	out[n] = 0;
	return 0;
}

static bool is_proc_root(int fd)
{
	struct stat st;

	return has_magic(fd, MAGIC_PROC) && fstat(fd, &st) == 0 && st.st_ino == PROC_ROOT_INODE;
}

/* Look at what a new mount's path leads to now, by name, as the container will. */
static int verify_magic(const struct init *in, const char *dest, unsigned how)
{
	owned_fd fd = -1;

	if (!(how & (HOW_VERIFY_PROC | HOW_VERIFY_SYS)))
		return 0;
	fd = root_open(in, dest, O_PATH | O_DIRECTORY, how & HOW_NO_LINKS ? IN_NO_SYMLINKS : 0);
	if (fd < 0)
		return fd;
	if (how & HOW_VERIFY_SYS)
		return has_magic(fd, MAGIC_SYSFS) ? 0 : -EXDEV;
	return is_proc_root(fd) ? 0 : -EXDEV;
}

/* Fill the tmpfs that now covers `below` with what it covers. */
static int fill(const struct init *in, const char *dest, int below, bool read_only)
{
	struct mount_attr_ attr = { .set = ATTR_RDONLY };
	owned_fd top = root_open(in, dest, O_PATH | O_DIRECTORY, 0);
	int r = top < 0 ? top : copy_up(in, below, top);

	if (r < 0 || !read_only)
		return r;
	return sys_mount_setattr(top, 0, &attr);
}

/* A mount inside of procfs would lie to whoever reads or writes there, a label above all
 * (CVE-2019-16884).  How dest was spelled is no matter: what counts is where it led. */
static int spare_proc(struct init *in, int fd, unsigned how)
{
	if (how & (HOW_IN_PROC | HOW_VERIFY_PROC) || !has_magic(fd, MAGIC_PROC))
		return 0;
	say(in, "is inside /proc, and must not be covered");
	return 1;
}

/* MOUNT fstype source dest flags data how
 * A new file system on dest.  A tmpfs takes over the mode of a directory that was there, and
 * with COPY_UP its content. */
int op_mount(struct init *in, const struct op *op)
{
	const char *fstype = op->arg[0].s, *source = op->arg[1].s, *dest = op->arg[2].s;
	unsigned long flags = (unsigned long)op->arg[3].i;
	const char *data = op->arg[4].s;
	unsigned how = (unsigned)op->arg[5].i;
	bool tmpfs = !strcmp(fstype, "tmpfs"), up = tmpfs && (how & HOW_COPY_UP), made;
	char with_mode[4096];
	owned_fd fd = root_make(in, dest, how, 0755, &made);
	int r;

	r = fd < 0 ? fd : spare_proc(in, fd, how);
	if (r != 0)
		return r;
	if (tmpfs && !made && !has_mode(data)) {
		r = add_mode(fd, data, with_mode, sizeof with_mode);
		if (r < 0)
			return r;
		data = with_mode;
	}
	r = mount_on(in, fd, source, fstype, up ? flags & ~(unsigned long)MS_RDONLY : flags, data);
	if (r == 0 && up)
		r = fill(in, dest, fd, flags & MS_RDONLY);
	return r < 0 ? r : verify_magic(in, dest, how);
}

/* --- bind */

static int set_attributes(int fd, uint64_t set, uint64_t clear, unsigned flags)
{
	struct mount_attr_ attr = { .set = set, .clear = clear };

	return set | clear ? sys_mount_setattr(fd, flags, &attr) : 0;
}

/* Whoever shares a directory with the container may have swapped dest for another one while it
 * was opened and covered.  It is still one of the rootfs, but not the one in config.json. */
static int verify_moved(const struct init *in, const char *dest, unsigned how,
			const struct statx_ *tree)
{
	owned_fd fd = root_open(in, dest, O_PATH, how & HOW_NO_LINKS ? IN_NO_SYMLINKS : 0);
	struct statx_ st;
	int r = fd < 0 ? fd : sys_statx(fd, &st);

	if (r < 0)
		return r;
	return st.mount_id == tree->mount_id && st.ino == tree->ino ? 0 : -EXDEV;
}

static bool is_directory(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

static int bind_tree(struct init *in, int tree, const struct op *op)
{
	const char *dest = op->arg[2].s;
	unsigned how = (unsigned)op->arg[6].i;
	owned_fd fd = -1;
	struct statx_ st;
	int r = set_attributes(tree, (uint64_t)op->arg[4].i, (uint64_t)op->arg[5].i,
			       how & HOW_ALL_OF_IT ? AT_RECURSIVE : 0);

	if (r == 0)
		r = sys_statx(tree, &st);
	if (r < 0)
		return r;
	/* A false /proc would swallow what is masked and what programs write there (CVE-2019-16884). */
	if (how & HOW_VERIFY_PROC && !is_proc_root(tree)) {
		say(in, "is not the root of a procfs");
		return 1;
	}
	if (how & (HOW_MAKE_DIR | HOW_MAKE_FILE)) {
		how &= ~(unsigned)(HOW_MAKE_DIR | HOW_MAKE_FILE);
		how |= S_ISDIR(st.mode) ? HOW_MAKE_DIR : HOW_MAKE_FILE;
	}
	fd = root_make(in, dest, how, 0755, NULL);
	r = fd < 0 ? fd : spare_proc(in, fd, how);
	if (r != 0)
		return r;
	/* move_mount says EINVAL, which tells nobody what is wrong. */
	if (is_directory(fd) != S_ISDIR(st.mode))
		return -ENOTDIR;
	r = sys_move_mount(tree, fd);
	return r < 0 ? r : verify_moved(in, dest, how, &st);
}

/* BIND source tree dest recursive set clear how
 * A tree of the host, or one that stage 0 opened, on dest.  It gets its attributes before it
 * becomes visible.  A missing dest is made as what the source is, whatever `how` says. */
int op_bind(struct init *in, const struct op *op)
{
	unsigned flags = TREE_CLONE | (op->arg[3].i ? AT_RECURSIVE : 0);
	owned_fd tree = -1;

	if (op->arg[1].i >= 0)
		return bind_tree(in, slot_fd(in, op->arg[1].i), op);
	tree = sys_open_tree(AT_FDCWD, op->arg[0].s, flags);
	return tree < 0 ? tree : bind_tree(in, tree, op);
}

/* SET_ATTR dest set clear propagation recursive */
int op_set_attr(struct init *in, const struct op *op)
{
	owned_fd fd = root_open(in, op->arg[0].s, O_PATH, 0);
	struct mount_attr_ attr = {
		.set = (uint64_t)op->arg[1].i,
		.clear = (uint64_t)op->arg[2].i,
		.propagation = (uint64_t)op->arg[3].i,
	};

	return fd < 0 ? fd : sys_mount_setattr(fd, op->arg[4].i ? AT_RECURSIVE : 0, &attr);
}

/* REMOUNT dest flags data
 * For what belongs to the file system and not to the mount: mount_setattr cannot. */
int op_remount(struct init *in, const struct op *op)
{
	owned_fd fd = root_open(in, op->arg[0].s, O_PATH, 0);

	if (fd < 0)
		return fd;
	return mount_on(in, fd, NULL, NULL, (unsigned long)op->arg[1].i | MS_REMOUNT, op->arg[2].s);
}

/* --- mask and readonly */

/* A file system of one block and one inode, read-only: the least there is. */
static int empty_tmpfs(void)
{
	owned_fd fs = sys_fsopen("tmpfs");

	if (fs < 0)
		return fs;
	if (sys_fsconfig(fs, FS_SET_STRING, "source", "tmpfs") < 0 ||
	    sys_fsconfig(fs, FS_SET_STRING, "nr_blocks", "1") < 0 ||
	    sys_fsconfig(fs, FS_SET_STRING, "nr_inodes", "1") < 0 ||
	    sys_fsconfig(fs, FS_SET_FLAG, "ro", NULL) < 0 ||
	    sys_fsconfig(fs, FS_CMD_CREATE, NULL, NULL) < 0)
		return -errno;
	return sys_fsmount(fs, ATTR_RDONLY);
}

/* Cover fd.  A mount that is in place can be cloned; one that is not, only since Linux 6.15.  One
 * tmpfs for all directories: some machines mask one per CPU. */
static int cover(int fd, struct shade *shade)
{
	owned_fd clone = -1;
	int r;

	if (shade->tree < 0)
		return shade->tree;
	if (!shade->placed) {
		r = sys_move_mount(shade->tree, fd);
		shade->placed = r == 0;
		return r;
	}
	clone = sys_open_tree(shade->tree, "", TREE_CLONE | EMPTY_PATH);
	return clone < 0 ? clone : sys_move_mount(clone, fd);
}

/* MASK path
 * Hides a directory behind an empty tmpfs, anything else behind /dev/null.  What an image or a
 * kernel lacks needs no hiding. */
int op_mask(struct init *in, const struct op *op)
{
	owned_fd fd = root_open(in, op->arg[0].s, O_PATH, 0);
	struct stat st;

	if (fd == -ENOENT || fd == -ENOTDIR)
		return 0;
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return cover(fd, &in->null);
	if (in->empty.tree < 0)
		in->empty.tree = empty_tmpfs();
	return cover(fd, &in->empty);
}

/* READONLY path
 * A read-only copy of the mounts at path, on top of them; locked flags stay as they are, since
 * one attribute is added and none taken away. */
int op_readonly(struct init *in, const struct op *op)
{
	owned_fd fd = root_open(in, op->arg[0].s, O_PATH, 0), tree = -1;
	int r;

	if (fd == -ENOENT || fd == -ENOTDIR)
		return 0;
	if (fd < 0)
		return fd;
	tree = sys_open_tree(fd, "", TREE_CLONE | AT_RECURSIVE | EMPTY_PATH);
	if (tree < 0)
		return tree;
	r = set_attributes(tree, ATTR_RDONLY, 0, 0);
	return r < 0 ? r : sys_move_mount(tree, fd);
}

/* --- pivot */

/* The old root goes on top of the new one and is taken off there: pivot_root(2), NOTES. */
static int pivot(const struct init *in)
{
	owned_fd old = result(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));

	if (old < 0)
		return old;
	if (fchdir(in->root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || fchdir(old) < 0)
		return -errno;
	/* Without this the umount would travel to a host that shares its mounts with us. */
	if (mount(NULL, ".", NULL, MS_SLAVE | MS_REC, NULL) < 0 || umount2(".", MNT_DETACH) < 0)
		return -errno;
	return 0;
}

/* Uncover the octal escapes of a mountinfo field, in place. */
static void unescape(char *s)
{
	char *out = s;

	for (; *s; out++) {
		if (s[0] == '\\' && s[1] && s[2] && s[3]) {
			*out = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 4;
		} else {
			*out = *s++;
		}
	}
	*out = 0;
}

/* Take a whole procfs or sysfs away, or cover it where a user namespace locks it.  Behind a mere
 * chroot such a mount would let the kernel hand out fresh ones with nothing masked. */
static int hide_mount(char *line, const char *rootfs, size_t rootfs_bytes)
{
	char *field[5], *type = strstr(line, " - ");

	for (int i = 0; i < 5; i++) {
		field[i] = line;
		line += strcspn(line, " ");
		if (*line)
			*line++ = 0;
	}
	if (!type || (strncmp(type + 3, "proc ", 5) && strncmp(type + 3, "sysfs ", 6)))
		return 0;
	unescape(field[4]);
	if (strcmp(field[3], "/") || !strncmp(field[4], rootfs, rootfs_bytes))
		return 0;
	if (mount(NULL, field[4], NULL, MS_SLAVE | MS_REC, NULL) < 0)
		return errno == EINVAL || errno == ENOENT ? 0 : -errno;
	if (umount2(field[4], MNT_DETACH) == 0 || (errno != EINVAL && errno != EPERM))
		return 0;
	return result(mount("tmpfs", field[4], "tmpfs", MS_RDONLY, NULL));
}

static int hide_host_mounts(const struct init *in, const char *rootfs, size_t rootfs_bytes)
{
	char lines[8192 + 1];
	owned_fd fd = proc_open(in, "self/mountinfo", O_RDONLY);
	size_t held = 0;
	ssize_t n;

	if (fd < 0)
		return fd;
	while ((n = read(fd, lines + held, sizeof lines - 1 - held)) > 0) {
		char *at = lines, *end;

		held += (size_t)n;
		lines[held] = 0;
		for (; (end = strchr(at, '\n')); at = end + 1) {
			int r;

			*end = 0;
			r = hide_mount(at, rootfs, rootfs_bytes);
			if (r < 0)
				return r;
		}
		held -= (size_t)(at - lines);
		memmove(lines, at, held);
		/* A longer line cannot be: the options of a mount are at most a page. */
		if (held == sizeof lines - 1)
			return -E2BIG;
	}
	return n < 0 ? -errno : 0;
}

/* For a root that pivot_root refuses, such as an initramfs. */
static int move_root(const struct init *in)
{
	char rootfs[PATH_MAX];
	ssize_t n;
	int r;

	if (fchdir(in->root) < 0)
		return -errno;
	n = syscall(SYS_getcwd, rootfs, sizeof rootfs - 1);
	if (n < 0)
		return -errno;
	rootfs[n - 1] = '/';
	r = hide_host_mounts(in, rootfs, (size_t)n);
	if (r < 0)
		return r;
	if (mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0)
		return -errno;
	return 0;
}

/* PIVOT how
 * From here on "/" is the rootfs, and the host's mounts are out of reach. */
int op_pivot(struct init *in, const struct op *op)
{
	int r;

	in->in_proc = false;
	if (op->arg[0].i == ROOT_PIVOT)
		r = pivot(in);
	else if (op->arg[0].i == ROOT_MOVE)
		r = move_root(in);
	else
		r = fchdir(in->root) < 0 || chroot(".") < 0 ? -errno : 0;
	if (r < 0)
		return r;
	if (chdir("/") < 0)
		return -errno;
	close(in->root);
	in->root = result(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
	return in->root < 0 ? in->root : 0;
}
