/* A plan as it lies in memory.  plan_check() looks at every byte once; afterwards plan_next()
 * walks the ops where they are, without copying.  The wire format is drawn in
 * ocirt/plan/ops.py. */
#pragma once
#include "ops.h"
#include <stdbool.h>
#include <stdint.h>

#define SLOTS 1024

struct plan_head {
	uint32_t magic, first, count, bytes;
};

/* One argument: i for int and fd, s and n (bytes) for str, v and n (strings) for list. */
struct arg {
	union {
		int64_t i;
		const char *s;
		char **v;
	};
	uint32_t n;
};

struct op {
	const char *start;
	uint32_t index;
	uint32_t code;
	struct arg arg[OP_MOST_ARGS];
};

struct plan {
	const char *at, *end;
	uint32_t index;
	char **pool;
};

/* Refuse (-EPROTO) a part that is not exactly what the table says; else tell how many pointers
 * its lists need. */
int plan_check(const struct plan_head *head, const char *ops, uint64_t *pointers);

/* Take the next op of a checked part; its lists are laid out in plan->pool. */
bool plan_next(struct plan *plan, struct op *op);
