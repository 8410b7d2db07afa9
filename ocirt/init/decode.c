/* Check and read a part of a plan.  Pure: no system call, no allocation, nothing global. */
#include "plan.h"
#include <errno.h>
#include <stddef.h>
#include <string.h>

#define TYPE(code, name, types) [code] = types,
static const char *const TYPES[OP_LARGEST_CODE + 1] = { OP_TABLE(TYPE) };

struct op_head {
	uint16_t code, count;
	uint32_t bytes;
};

static uint64_t round8(uint64_t n)
{
	return (n + 7) & ~(uint64_t)7;
}

/* Number of strings in data, or -1 unless every string ends with a NUL. */
static int64_t count_strings(const char *data, uint32_t bytes)
{
	int64_t count = 0;

	if (bytes && data[bytes - 1])
		return -1;
	for (const char *end = data + bytes; data < end; count++)
		data = (const char *)memchr(data, 0, (size_t)(end - data)) + 1;
	return count;
}

/* Bytes that an argument of this type takes at p, or 0 when it does not fit or is not well made. */
static uint64_t check_arg(char type, const char *p, uint64_t left, uint64_t *pointers)
{
	uint32_t words[2];
	int64_t slot;

	if (left < 8)
		return 0;
	memcpy(words, p, 8);
	memcpy(&slot, p, 8);
	switch (type) {
	case 'i':
		return 8;
	case 'f':
		return slot >= -1 && slot < SLOTS ? 8 : 0;
	case 's':
		if (left - 8 < round8((uint64_t)words[0] + 1) || words[1] || p[8 + words[0]])
			return 0;
		return 8 + round8((uint64_t)words[0] + 1);
	default:
		if (left - 8 < round8(words[0]) || count_strings(p + 8, words[0]) != words[1])
			return 0;
		/* One more for the closing NULL, one for the HOME that op `home` may add. */
		*pointers += (uint64_t)words[1] + 2;
		return 8 + round8(words[0]);
	}
}

static const char *types_of(const struct op_head *head)
{
	const char *types = head->code <= OP_LARGEST_CODE ? TYPES[head->code] : NULL;

	return types && strlen(types) == head->count ? types : NULL;
}

static int check_op(const struct op_head *head, const char *p, uint64_t *pointers)
{
	const char *types = types_of(head);
	uint64_t left = head->bytes - sizeof *head;

	if (!types)
		return -EPROTO;
	for (; *types; types++) {
		uint64_t size = check_arg(*types, p, left, pointers);

		if (!size)
			return -EPROTO;
		p += size;
		left -= size;
	}
	return left ? -EPROTO : 0;
}

int plan_check(const struct plan_head *plan, const char *ops, uint64_t *pointers)
{
	uint64_t left = plan->bytes;
	uint32_t after_try = 0;

	*pointers = 0;
	if (plan->magic != PLAN_MAGIC || plan->bytes > PLAN_LARGEST)
		return -EPROTO;
	if ((uint64_t)plan->first + plan->count > INT32_MAX)
		return -EPROTO;
	for (uint32_t i = 0; i < plan->count; i++) {
		struct op_head head;

		if (left < sizeof head)
			return -EPROTO;
		memcpy(&head, ops, sizeof head);
		if (head.bytes < sizeof head || head.bytes > left || head.bytes % 8)
			return -EPROTO;
		if (check_op(&head, ops + sizeof head, pointers) < 0)
			return -EPROTO;
		/* A try governs the two ops after it; neither may be a try, nor the clone. */
		if (after_try && (head.code == OP_TRY || head.code == OP_CLONE))
			return -EPROTO;
		after_try = head.code == OP_TRY ? 2 : after_try ? after_try - 1 : 0;
		ops += head.bytes;
		left -= head.bytes;
	}
	return left || after_try ? -EPROTO : 0;
}

/* Point out[0..n] at the strings that lie one after the other at p. */
static void lay_out(char **out, const char *p, uint32_t n)
{
	for (; n; n--) {
		*out++ = (char *)p;
		p += strlen(p) + 1;
	}
	out[0] = out[1] = NULL;
}

static const char *read_arg(struct plan *plan, struct arg *arg, char type, const char *p)
{
	uint32_t words[2];

	memcpy(words, p, 8);
	if (type == 'i' || type == 'f') {
		memcpy(&arg->i, p, 8);
		return p + 8;
	}
	if (type == 's') {
		arg->s = p + 8;
		arg->n = words[0];
		return p + 8 + round8((uint64_t)words[0] + 1);
	}
	arg->v = plan->pool;
	arg->n = words[1];
	lay_out(arg->v, p + 8, arg->n);
	plan->pool += arg->n + 2;
	return p + 8 + round8(words[0]);
}

bool plan_next(struct plan *plan, struct op *op)
{
	struct op_head head;
	const char *p = plan->at + sizeof head;

	if (plan->at == plan->end)
		return false;
	memcpy(&head, plan->at, sizeof head);
	op->start = plan->at;
	op->index = plan->index++;
	op->code = head.code;
	for (uint32_t i = 0; i < head.count; i++)
		p = read_arg(plan, &op->arg[i], TYPES[head.code][i], p);
	plan->at += head.bytes;
	return true;
}
