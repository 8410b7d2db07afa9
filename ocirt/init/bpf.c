/* The device rules of cgroup v2: an eBPF program, assembled by the runtime, loaded here. */
#include "init.h"

/* linux/bpf.h: commands, and the attributes of those, each padded to the size of the union. */
#define PROG_LOAD 5
#define PROG_ATTACH 8
#define PROG_DETACH 9
#define PROG_GET_FD_BY_ID 13
#define PROG_QUERY 16
#define TYPE_CGROUP_DEVICE 15
#define CGROUP_DEVICE 6
#define ALLOW_MULTI 2u
#define REPLACE 4u
#define MOST_PROGRAMS 64

union bpf_attr_ {
	struct {
		uint32_t type, count;
		uint64_t insns, license;
	} load;
	struct {
		uint32_t target, program, type, flags, replaced;
	} attach;
	struct {
		uint32_t target, type, query_flags, attach_flags;
		uint64_t ids;
		uint32_t count;
	} query;
	uint32_t id;
	/* Newer kernels look at more of it; what we do not set must be zero. */
	char size[144];
};

static int bpf(int command, union bpf_attr_ *attr)
{
	return result(syscall(SYS_bpf, command, attr, sizeof *attr));
}

static int load(const struct arg *program)
{
	union bpf_attr_ attr = { .load = { TYPE_CGROUP_DEVICE, program->n / 8,
					   (uintptr_t)program->s, (uintptr_t)"Apache" } };
	int fd, tries = 5;

	if (program->n % 8)
		return -EINVAL;
	/* EAGAIN: the verifier gives up when a signal is pending. */
	do
		fd = bpf(PROG_LOAD, &attr);
	while (fd == -EAGAIN && --tries);
	return fd;
}

static int attach(int cgroup, int program, unsigned flags, int replaced)
{
	union bpf_attr_ attr = { .attach = { (uint32_t)cgroup, (uint32_t)program, CGROUP_DEVICE,
					     flags, (uint32_t)replaced } };

	return bpf(PROG_ATTACH, &attr);
}

static int detach(int cgroup, int program)
{
	union bpf_attr_ attr = { .attach = { (uint32_t)cgroup, (uint32_t)program, CGROUP_DEVICE,
					     0, 0 } };

	return bpf(PROG_DETACH, &attr);
}

static int program_by_id(uint32_t id)
{
	union bpf_attr_ attr = { .id = id };

	return bpf(PROG_GET_FD_BY_ID, &attr);
}

/* Fill ids with the programs that are there; returns their number. */
static int query(int cgroup, uint32_t ids[MOST_PROGRAMS])
{
	union bpf_attr_ attr = { .query = { .target = (uint32_t)cgroup, .type = CGROUP_DEVICE,
					    .ids = (uintptr_t)ids, .count = MOST_PROGRAMS } };
	int r = bpf(PROG_QUERY, &attr);

	return r < 0 ? r : (int)attr.query.count;
}

/* DEVICES cgroup program
 * All programs of a cgroup must agree, so an old one would go on to refuse.  A single old one is
 * replaced in one step; several (a systemd of another mind) go after ours is in. */
int op_devices(struct init *in, const struct op *op)
{
	uint32_t ids[MOST_PROGRAMS];
	int cgroup = slot_fd(in, op->arg[0].i), count, r;
	owned_fd program = load(&op->arg[1]), old = -1;

	if (program < 0)
		return program;
	count = query(cgroup, ids);
	if (count < 0)
		return count;
	if (count == 1) {
		old = program_by_id(ids[0]);
		if (old >= 0 && attach(cgroup, program, ALLOW_MULTI | REPLACE, old) == 0)
			return 0;
	}
	r = attach(cgroup, program, ALLOW_MULTI, 0);
	for (int i = 0; i < count && r == 0; i++) {
		owned_fd each = program_by_id(ids[i]);

		/* Not ours to see, so not ours to take away. */
		if (each == -EPERM || each == -EACCES)
			continue;
		r = each < 0 ? each : detach(cgroup, each);
	}
	return r;
}
