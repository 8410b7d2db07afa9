/*
 * Let a soft RDMA device move between network namespaces.
 *
 * The kernel moves a device only if its driver can take it away from programs that have it open.
 * Soft-RoCE does not say that it can, up to Linux 7.2 at least, though all that it would have to do
 * is nothing: programs keep their memory, and every call of theirs is refused from then on.  With
 * this a machine without hardware shows what exclusive mode does.
 *
 * As a module, or built in: docs/conformance.md.
 */
#include <linux/module.h>
#include <rdma/ib_verbs.h>

static char *device = "rxe0";
module_param(device, charp, 0444);

static void disassociate(struct ib_ucontext *context)
{
}

static int found(struct ib_device *one)
{
	if (strcmp(dev_name(&one->dev), device) == 0)
		one->ops.disassociate_ucontext = disassociate;
	return 0;
}

static struct ib_client client = {
	.name = "movable",
	.add = found,
};

static int __init movable_init(void)
{
	return ib_register_client(&client);
}

/* What it has set is never taken back, and so there is no way to unload it. */
module_init(movable_init);
MODULE_DESCRIPTION("Let a soft RDMA device move between network namespaces");
MODULE_LICENSE("Dual MIT/GPL");
