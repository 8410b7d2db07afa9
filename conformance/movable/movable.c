/*
 * Let a soft RDMA device move between network namespaces.
 *
 * The kernel moves a device only if its driver can take it away from programs that have it open.
 * Soft-RoCE does not say that it can, up to Linux 6.1 at least, though all that it would have to do
 * is nothing: programs keep their memory, and every call of theirs is refused from then on.  With
 * this a machine without hardware shows what exclusive mode does.
 *
 *     make -C /lib/modules/VERSION/build M=$PWD/conformance/movable modules
 *     insmod conformance/movable/movable.ko device=rxe0
 */
#include <linux/module.h>
#include <rdma/ib_verbs.h>

static char *device = "rxe0";
module_param(device, charp, 0444);

static void disassociate(struct ib_ucontext *context)
{
}

static int __init movable_init(void)
{
	struct ib_device *found = ib_device_get_by_name(device, RDMA_DRIVER_UNKNOWN);

	if (!found)
		return -ENODEV;
	/* Never taken back, and so there is no way to unload this. */
	found->ops.disassociate_ucontext = disassociate;
	ib_device_put(found);
	return 0;
}

module_init(movable_init);
MODULE_DESCRIPTION("Let a soft RDMA device move between network namespaces");
MODULE_LICENSE("Dual MIT/GPL");
