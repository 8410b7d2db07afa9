/* The decoder under a fuzzer.
 *
 * libFuzzer calls LLVMFuzzerTestOneInput; built with -DSTANDALONE, a main() does, for inputs on
 * stdin that are u32 length and bytes each, and prints 1 for a part that is well made, 0 for one
 * that is refused.  A well made part is read to its last byte, in memory of just its size. */
#include "plan.h"
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile size_t seen;

#define TYPE(code, name, types) [code] = types,
static const char *const TYPES[OP_LARGEST_CODE + 1] = { OP_TABLE(TYPE) };

static void read_all(const struct op *op)
{
	for (size_t i = 0; TYPES[op->code][i]; i++) {
		const struct arg *arg = &op->arg[i];

		if (TYPES[op->code][i] == 's')
			seen += strlen(arg->s) + (arg->n ? (unsigned char)arg->s[arg->n - 1] : 0);
		if (TYPES[op->code][i] == 'l')
			for (char **s = arg->v; *s; s++)
				seen += strlen(*s);
	}
}

static int decode(const uint8_t *data, size_t size)
{
	struct plan_head head;
	uint64_t pointers;
	uint32_t count = 0;
	char *ops, **pool;
	int good;

	if (size < sizeof head)
		return 0;
	memcpy(&head, data, sizeof head);
	/* The init reads what the head announces and no more. */
	if (head.bytes > size - sizeof head)
		return 0;
	ops = malloc(head.bytes + !head.bytes);
	memcpy(ops, data + sizeof head, head.bytes);
	good = plan_check(&head, ops, &pointers) == 0;
	if (good) {
		struct op op;
		struct plan plan = { ops, ops + head.bytes, head.first,
				     pool = malloc((pointers + !pointers) * sizeof *pool) };

		while (plan_next(&plan, &op)) {
			count++;
			read_all(&op);
		}
		if (count != head.count || (uint64_t)(plan.pool - pool) != pointers)
			abort();
		free(pool);
	}
	free(ops);
	return good;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	decode(data, size);
	return 0;
}

#ifdef STANDALONE
int main(void)
{
	static uint8_t data[1 << 20];
	uint32_t size;

	while (fread(&size, sizeof size, 1, stdin) == 1) {
		if (size > sizeof data || fread(data, 1, size, stdin) != size)
			return 2;
		putchar('0' + decode(data, size));
	}
	return 0;
}
#endif
