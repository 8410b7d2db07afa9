/* Paths.  Whatever lies under the rootfs is hostile: it is opened once, with openat2, and the
 * work goes on through the descriptor (CVE-2021-30465, CVE-2024-45310).  procfs files are opened
 * below a handle that the init got before it entered any container namespace (CVE-2025-52881). */
#include "init.h"
#include <sys/vfs.h>

/* As the kernel has it for links that exist. */
#define MOST_HOPS 40

/* Open a path as the container would see it: links are read against the rootfs, `..` ends there. */
int root_open(const struct init *in, const char *path, uint64_t flags, uint64_t resolve)
{
	return sys_openat2(in->root, path, flags, IN_ROOT | IN_NO_MAGICLINKS | resolve);
}

/* Open an entry of a directory, itself and no link. */
int child_open(int dir, const char *name, uint64_t flags)
{
	return sys_openat2(dir, name, flags, IN_BENEATH | IN_NO_SYMLINKS);
}

static uint64_t links_allowed(unsigned how)
{
	return how & HOW_NO_LINKS ? IN_NO_SYMLINKS : 0;
}

/* Open the longest part of path that exists as a directory; *rest is what is missing behind it. */
static int open_existing(const struct init *in, char *path, unsigned how, size_t *rest)
{
	for (size_t end = strlen(path);;) {
		char cut;
		int fd;

		while (end && path[end - 1] != '/')
			end--;
		*rest = end;
		while (end && path[end - 1] == '/')
			end--;
		cut = path[end];
		path[end] = 0;
		fd = root_open(in, end ? path : "/", O_PATH | O_DIRECTORY, links_allowed(how));
		path[end] = cut;
		if (fd != -ENOENT || !end)
			return fd;
	}
}

/* Put what the dangling link at path[start..end] names in its place: an image may say
 * /etc/resolv.conf -> ../run/resolv.conf and lack the target.  The outcome is one more path to
 * resolve in the rootfs, nothing to trust. */
static int replace_link(char path[PATH_MAX], int dir, size_t start, size_t end)
{
	char link[PATH_MAX];
	size_t rest = strlen(path + end) + 1, keep;
	int n;

	/* path[end] is '/' or the end; the name is cut out for readlinkat. */
	char cut = path[end];
	path[end] = 0;
	n = result(readlinkat(dir, path + start, link, sizeof link));
	path[end] = cut;
	if (n < 0)
		return n;
	keep = n && link[0] == '/' ? 0 : start;
	if (keep + (size_t)n + rest > PATH_MAX || (size_t)n == sizeof link)
		return -ENAMETOOLONG;
	memmove(path + keep + n, path + end, rest);
	memcpy(path + keep, link, (size_t)n);
	return 0;
}

/* Make one entry, a directory unless it is to be a file, and open it. */
static int make_entry(int dir, const char *name, bool file, mode_t mode, bool *made)
{
	int r = result(file ? mknodat(dir, name, S_IFREG | mode, 0) : mkdirat(dir, name, mode));

	if (r < 0 && r != -EEXIST)
		return r;
	if (made)
		*made = r == 0;
	return child_open(dir, name, O_PATH | (file ? 0 : O_DIRECTORY));
}

/* Make what is missing of path; -ERESTART: a dangling link was replaced, start again. */
static int make_missing(const struct init *in, char path[PATH_MAX], unsigned how, mode_t mode,
			bool *made)
{
	size_t at = 0;
	owned_fd dir = open_existing(in, path, how, &at);

	if (dir < 0)
		return dir;
	while (path[at]) {
		size_t end = at + strcspn(path + at, "/");
		size_t next = end + strspn(path + end, "/");
		bool last = !path[next];
		char cut = path[end];
		int fd;

		path[end] = 0;
		/* What does not exist has no parent to go back to. */
		if (!strcmp(path + at, ".."))
			return -ENOENT;
		if (!strcmp(path + at, "."))
			fd = steal(&dir);
		else
			fd = make_entry(dir, path + at, last && (how & HOW_MAKE_FILE),
					last ? mode : 0755, last ? made : NULL);
		path[end] = cut;
		if (fd == -ELOOP && !(how & HOW_NO_LINKS)) {
			int r = replace_link(path, dir, at, end);
			return r < 0 ? r : -ERESTART;
		}
		if (fd < 0)
			return fd;
		if (dir >= 0)
			close(dir);
		dir = fd;
		at = next;
	}
	return steal(&dir);
}

/* Open path in the rootfs with O_PATH; make it, and its parents with 0755, when `how` says so.
 * *made tells whether it is new. */
int root_make(const struct init *in, const char *path, unsigned how, mode_t mode, bool *made)
{
	char copy[PATH_MAX];
	uint64_t type = how & HOW_MAKE_DIR ? O_DIRECTORY : 0;
	int fd = root_open(in, path, O_PATH | type, links_allowed(how));

	if (made)
		*made = false;
	if (fd != -ENOENT || !(how & (HOW_MAKE_DIR | HOW_MAKE_FILE)))
		return fd;
	if (strlen(path) >= sizeof copy)
		return -ENAMETOOLONG;
	strcpy(copy, path);
	for (int hops = 0; hops < MOST_HOPS; hops++) {
		fd = make_missing(in, copy, how, mode, made);
		if (fd != -ERESTART)
			return fd;
	}
	return -ELOOP;
}

/* Open the directory of path, made if missing; *name is the last component.  Below /dev no
 * component may be a link: an image whose /dev is a link has us make nodes elsewhere
 * (CVE-2026-41579, CVE-2026-47766). */
int root_parent(const struct init *in, const char *path, const char **name)
{
	char dir[PATH_MAX];
	const char *slash = strrchr(path, '/');
	unsigned how = HOW_MAKE_DIR;

	*name = slash ? slash + 1 : path;
	if (!**name || !strcmp(*name, ".") || !strcmp(*name, ".."))
		return -EINVAL;
	if ((size_t)(*name - path) >= sizeof dir)
		return -ENAMETOOLONG;
	memcpy(dir, path, (size_t)(*name - path));
	dir[*name - path] = 0;
	if (!strncmp(path, "/dev/", 5))
		how |= HOW_NO_LINKS;
	return root_make(in, *dir ? dir : "/", how, 0755, NULL);
}

/* Write "self/fd/N", which names the open file below a procfs; returns its length. */
int fd_path(char path[32], int fd)
{
	char digits[12];
	int n = 0, at = 8;

	memcpy(path, "self/fd/", 8);
	do
		digits[n++] = (char)('0' + fd % 10);
	while (fd /= 10);
	while (n)
		path[at++] = digits[--n];
	path[at] = 0;
	return at;
}

/* Open again, with other flags, what an O_PATH descriptor refers to. */
int reopen(const struct init *in, int fd, int flags)
{
	char path[32];

	fd_path(path, fd);
	return result(openat(in->proc, path, flags | O_CLOEXEC));
}

bool has_magic(int fd, long magic)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && (long)fs.f_type == magic;
}

/* Open a file of the runtime's procfs, and nothing that is mounted in it. */
int proc_open(const struct init *in, const char *path, uint64_t flags)
{
	owned_fd fd = sys_openat2(in->proc, path, flags,
				  IN_BENEATH | IN_NO_MAGICLINKS | IN_NO_XDEV);

	if (fd >= 0 && !has_magic(fd, MAGIC_PROC))
		return -EXDEV;
	return steal(&fd);
}

/* One write, since every write to such a file is a whole request. */
int proc_write(const struct init *in, const char *path, const char *data, size_t bytes)
{
	owned_fd fd = proc_open(in, path, O_WRONLY);

	if (fd < 0)
		return fd;
	return write(fd, data, bytes) < 0 ? -errno : 0;
}
