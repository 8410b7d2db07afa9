/* What the parts of the init share: its state, its few helpers, its ops. */
#pragma once
#include "plan.h"
#include "sys.h"
#include <limits.h>
#include <string.h>

/* What an errno cannot say goes along with a failure: a hook's output, a sentence from the spec. */
#define TEXT_MOST 9216

/* A mount that covers masked paths: moved onto the first one, cloned from there for the others. */
struct shade {
	int tree; /* -errno: there is none */
	bool placed;
};

struct init {
	int sock;      /* to the runtime; -1 behind the gate */
	int proc;      /* root of the runtime's procfs, verified; -1 behind the gate */
	int own_proc;  /* a procfs of our own without mounts in it, made when proc has some */
	int root;      /* the rootfs once op rootfs has run */
	struct shade null; /* the host's /dev/null, verified */
	struct shade empty; /* the tmpfs for masked directories, made for the first */
	bool in_proc;  /* the working directory is proc */
	bool chdir_again;
	int hook_output[2]; /* files for what hooks print; -1: kept for the message */
	bool guarded;  /* not dumpable, since a namespace was joined */
	int fail_index; /* of the op to blame; -1: the one that runs */
	uint32_t slots[SLOTS]; /* fd + 1; 0: none */
	uint32_t slot_count;

	/* The part that runs. */
	char *part;
	size_t part_bytes;
	char **pool;
	size_t pool_bytes;

	/* The program. */
	const char *program_op; /* where in the part it lies */
	char **argv, **env;
	const char *home;

	char text[TEXT_MOST];
	size_t text_bytes;
};

#define HANDLER(code, name, types) int op_##name(struct init *in, const struct op *op);
OP_TABLE(HANDLER)

/* --- descriptors */
static inline void cleanup_close(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
#define owned_fd __attribute__((cleanup(cleanup_close))) int

static inline int steal(int *fd)
{
	int kept = *fd;

	*fd = -1;
	return kept;
}

/* The descriptor in a slot, -1 for none; slots were range-checked by the decoder. */
static inline int slot_fd(const struct init *in, int64_t slot)
{
	return slot < 0 ? -1 : (int)in->slots[slot] - 1;
}

static inline bool is_null(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 3);
}

/* --- text for the runtime */
void say(struct init *in, const char *text);
void say_bytes(struct init *in, const char *bytes, size_t count);
void say_number(struct init *in, uint64_t n);
void say_error(struct init *in, int number);

/* --- the runtime, over the socket: main.c */
int reply(struct init *in, uint32_t type, uint32_t index, int32_t value);
int reply_fd(struct init *in, uint32_t index, int32_t value, int fd);
int await_answer(struct init *in);

/* --- paths: root.c */
int root_open(const struct init *in, const char *path, uint64_t flags, uint64_t resolve);
int root_make(const struct init *in, const char *path, unsigned how, mode_t mode, bool *made);
int root_parent(const struct init *in, const char *path, const char **name);
int child_open(int dir, const char *name, uint64_t flags);
int reopen(const struct init *in, int fd, int flags);
int proc_open(const struct init *in, const char *path, uint64_t flags);
int proc_write(const struct init *in, const char *path, const char *data, size_t bytes);
int fd_path(char path[32], int fd);
bool has_magic(int fd, long magic);

/* --- mounts: mount.c, copyup.c */
int enter_proc(struct init *in);
int copy_up(const struct init *in, int from, int to);
