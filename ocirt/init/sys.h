/* The kernel's side of things that libc headers may lack, by kernel header.
 *
 * Calls return -errno.  Numbers from 424 on are the same on every architecture; the init needs
 * Linux 5.12 (mount_setattr), where an older kernel answers ENOSYS. */
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <unistd.h>

/* asm-generic/unistd.h */
#define NR_OPEN_TREE 428
#define NR_MOVE_MOUNT 429
#define NR_FSOPEN 430
#define NR_FSCONFIG 431
#define NR_FSMOUNT 432
#define NR_PIDFD_OPEN 434
#define NR_CLONE3 435
#define NR_CLOSE_RANGE 436
#define NR_OPENAT2 437
#define NR_FACCESSAT2 439
#define NR_MOUNT_SETATTR 442

/* linux/capability.h */
#define CAPABILITY_VERSION_3 0x20080522
/* linux/close_range.h */
#define RANGE_CLOEXEC 4u
/* linux/fcntl.h */
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif
#define EMPTY_PATH AT_EMPTY_PATH
/* linux/keyctl.h */
#define KEYCTL_JOIN_SESSION_KEYRING 1
#define KEYCTL_SETPERM 5
#define KEYCTL_DESCRIBE 6
/* linux/magic.h */
#define MAGIC_PROC 0x9fa0
#define MAGIC_SYSFS 0x62656572
#define MAGIC_DEVPTS 0x1cd1
/* linux/memfd.h */
#define MEMFD_CLOEXEC 1u
#define MEMFD_NOEXEC_SEAL 8u
/* linux/mount.h */
#define TREE_CLONE 1u
#define TREE_CLOEXEC ((unsigned)O_CLOEXEC)
#define MOVE_F_EMPTY_PATH 0x04u
#define MOVE_T_EMPTY_PATH 0x40u
#define FS_CLOEXEC 1u
#define FS_SET_FLAG 0u
#define FS_SET_STRING 1u
#define FS_CMD_CREATE 6u
#define ATTR_RDONLY 0x1u
#define ATTR_IDMAP 0x00100000u
/* linux/openat2.h */
#define IN_NO_XDEV 0x01u
#define IN_NO_MAGICLINKS 0x02u
#define IN_NO_SYMLINKS 0x04u
#define IN_BENEATH 0x08u
#define IN_ROOT 0x10u
/* linux/prctl.h */
#ifndef PR_CAP_AMBIENT
#define PR_CAP_AMBIENT 47
#endif
#ifndef PR_CAP_AMBIENT_RAISE
#define PR_CAP_AMBIENT_RAISE 2
#define PR_CAP_AMBIENT_CLEAR_ALL 4
#endif
/* linux/proc_ns.h: inode of the root of every procfs */
#define PROC_ROOT_INODE 1
/* linux/sched.h */
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif
#define CLONE_INTO_CGROUP_FLAG 0x200000000ull
/* linux/seccomp.h */
#define SECCOMP_FILTER_MODE 1u
#define SECCOMP_NEW_LISTENER 8u
/* linux/stat.h */
#define STATX_TYPE_MODE_INO 0x103u
#define STATX_MOUNT_ID 0x1000u

struct open_how_ {
	uint64_t flags, mode, resolve;
};

struct mount_attr_ {
	uint64_t set, clear, propagation, userns_fd;
};

struct clone_args_ {
	uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
		set_tid_size, cgroup;
};

struct statx_ {
	uint32_t mask, blksize;
	uint64_t attributes;
	uint32_t nlink, uid, gid;
	uint16_t mode, pad;
	uint64_t ino, size, blocks, attributes_mask;
	uint64_t times[8];
	uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
	uint64_t mount_id;
	uint64_t later[13];
};
_Static_assert(sizeof(struct statx_) == 256, "linux/stat.h");

/* Turn libc's -1 into -errno. */
static inline int result(long r)
{
	return r < 0 ? -errno : (int)r;
}

static inline int sys_openat2(int at, const char *path, uint64_t flags, uint64_t resolve)
{
	struct open_how_ how = { .flags = flags | O_CLOEXEC, .resolve = resolve };
	int fd, tries = 64;

	/* EAGAIN: a rename elsewhere made the kernel unsure that a `..` stayed inside. */
	do
		fd = result(syscall(NR_OPENAT2, at, path, &how, sizeof how));
	while (fd == -EAGAIN && --tries);
	return fd;
}

static inline int sys_open_tree(int at, const char *path, unsigned flags)
{
	return result(syscall(NR_OPEN_TREE, at, path, flags | TREE_CLOEXEC));
}

static inline int sys_move_mount(int tree, int onto)
{
	return result(syscall(NR_MOVE_MOUNT, tree, "", onto, "",
			      MOVE_F_EMPTY_PATH | MOVE_T_EMPTY_PATH));
}

static inline int sys_mount_setattr(int fd, unsigned flags, const struct mount_attr_ *attr)
{
	return result(syscall(NR_MOUNT_SETATTR, fd, "", EMPTY_PATH | flags, attr, sizeof *attr));
}

static inline int sys_fsopen(const char *type)
{
	return result(syscall(NR_FSOPEN, type, FS_CLOEXEC));
}

static inline int sys_fsconfig(int fd, unsigned cmd, const char *key, const char *value)
{
	return result(syscall(NR_FSCONFIG, fd, cmd, key, value, 0));
}

static inline int sys_fsmount(int fd, unsigned attributes)
{
	return result(syscall(NR_FSMOUNT, fd, FS_CLOEXEC, attributes));
}

static inline int sys_statx(int fd, struct statx_ *st)
{
	return result(syscall(SYS_statx, fd, "", EMPTY_PATH,
			      STATX_TYPE_MODE_INO | STATX_MOUNT_ID, st));
}

static inline int sys_close_range(unsigned first, unsigned last, unsigned flags)
{
	return result(syscall(NR_CLOSE_RANGE, first, last, flags));
}

/* Fork with flags; 0 in the child. */
static inline int sys_clone3(struct clone_args_ *args)
{
	return result(syscall(NR_CLONE3, args, sizeof *args));
}
