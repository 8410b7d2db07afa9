/* Fill a new tmpfs with the directory that it covers (mount option tmpcopyup).
 *
 * Modes, owners, times and what extended attributes the tmpfs takes come along; hard links
 * become copies.  Every entry is opened in its directory and never through a link. */
#include "init.h"
#include <sys/sendfile.h>
#include <sys/xattr.h>

#define DEEPEST 128

struct dirent_ {
	uint64_t ino;
	int64_t off;
	uint16_t bytes;
	uint8_t type;
	char name[];
};

/* Best effort: a tmpfs takes only some namespaces of attributes, and a user namespace fewer. */
static void copy_xattrs(int from, int to)
{
	char names[1024], value[1024];
	ssize_t n = flistxattr(from, names, sizeof names);

	for (char *name = names; n > 0 && name < names + n; name += strlen(name) + 1) {
		ssize_t size = fgetxattr(from, name, value, sizeof value);

		if (size >= 0)
			(void)fsetxattr(to, name, value, (size_t)size, 0);
	}
}

/* The owner before the mode: chown takes set-user-id bits away. */
static int copy_metadata(int from, int to, const struct stat *st)
{
	struct timespec times[2] = { st->st_atim, st->st_mtim };

	copy_xattrs(from, to);
	if (fchown(to, st->st_uid, st->st_gid) < 0 && errno != EPERM && errno != EINVAL)
		return -errno;
	if (fchmod(to, st->st_mode & 07777) < 0 || futimens(to, times) < 0)
		return -errno;
	return 0;
}

static int copy_file(int from_dir, int to_dir, const char *name)
{
	owned_fd from = child_open(from_dir, name, O_RDONLY | O_NONBLOCK), to = -1;
	struct stat st;
	ssize_t n;

	if (from < 0)
		return from;
	if (fstat(from, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EBUSY;
	to = result(openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
	if (to < 0)
		return to;
	while ((n = sendfile(to, from, NULL, 1 << 30)) > 0)
		;
	return n < 0 ? -errno : copy_metadata(from, to, &st);
}

static int copy_link(int from, int to, const char *name, const struct stat *st)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(from, name, target, sizeof target);

	if (n < 0 || n == sizeof target)
		return n < 0 ? -errno : -ENAMETOOLONG;
	target[n] = 0;
	if (symlinkat(target, to, name) < 0)
		return -errno;
	(void)fchownat(to, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW);
	return 0;
}

static int copy_dir(int from, int to, int depth);

static int copy_subdir(int from_dir, int to_dir, const char *name, int depth)
{
	owned_fd from = child_open(from_dir, name, O_RDONLY | O_DIRECTORY), to = -1;

	if (from < 0)
		return from;
	if (mkdirat(to_dir, name, 0700) < 0)
		return -errno;
	to = child_open(to_dir, name, O_RDONLY | O_DIRECTORY);
	return to < 0 ? to : copy_dir(from, to, depth + 1);
}

static int copy_entry(int from, int to, const char *name, int depth)
{
	struct stat st;

	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return copy_subdir(from, to, name, depth);
	if (S_ISREG(st.st_mode))
		return copy_file(from, to, name);
	if (S_ISLNK(st.st_mode))
		return copy_link(from, to, name, &st);
	/* Devices cannot be made in a user namespace, and are no content. */
	if (mknodat(to, name, st.st_mode, st.st_rdev) < 0)
		return errno == EPERM ? 0 : -errno;
	(void)fchownat(to, name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW);
	return 0;
}

static int copy_entries(int from, int to, int depth)
{
	_Alignas(struct dirent_) char batch[2048];
	long n;

	while ((n = syscall(SYS_getdents64, from, batch, sizeof batch)) > 0)
		for (long at = 0; at < n;) {
			const struct dirent_ *entry = (const struct dirent_ *)(batch + at);
			int r = 0;

			if (strcmp(entry->name, ".") && strcmp(entry->name, ".."))
				r = copy_entry(from, to, entry->name, depth);
			if (r < 0)
				return r;
			at += entry->bytes;
		}
	return n < 0 ? -errno : 0;
}

static int copy_dir(int from, int to, int depth)
{
	struct stat st;
	int r;

	if (depth > DEEPEST)
		return -ELOOP;
	if (fstat(from, &st) < 0)
		return -errno;
	r = copy_entries(from, to, depth);
	/* Last, since a copied entry changes the times. */
	return r < 0 || depth == 0 ? r : copy_metadata(from, to, &st);
}

/* The tmpfs root keeps its own mode and owner: config.json may have given them. */
int copy_up(const struct init *in, int from, int to)
{
	owned_fd source = reopen(in, from, O_RDONLY | O_DIRECTORY), target = -1;

	if (source < 0)
		return source;
	target = reopen(in, to, O_RDONLY | O_DIRECTORY);
	return target < 0 ? target : copy_dir(source, target, 0);
}
