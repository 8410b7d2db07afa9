/* A stand-in for the driver's libnvidia-ml.so.1, with the names that nvidia-ml-py calls: two GPUs,
 * the first cut into the MIG devices of MIGS.  A macro gives it a fault; see test_nvml.py. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct part *device;
struct part {
	const char *uuid, *bus;
	unsigned minor, gi, ci;
};

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, MISMATCH = 18, LOST = 15 };
enum { BRAND_TESLA = 2 };
enum { FDS = 4096 }; /* among which the pipe to our parent is */

#ifndef VERSION
#define VERSION "550.54.15"
#endif

static struct part gpus[] = {
	{"GPU-00000000-1111-2222-3333-444444444444", "00000000:01:00.0", 0, 0, 0},
	{"GPU-00000001-1111-2222-3333-444444444444", "00000000:02:00.0", 1, 0, 0},
};
static struct part migs[] = {
	{"MIG-aaaaaaaa-0000-5000-8000-000000000007", "", 0, 7, 0},
	{"MIG-bbbbbbbb-0000-5000-8000-000000000008", "", 0, 8, 0},
};

struct pci {
	char legacy[16];
	unsigned domain, bus, device, id, subsystem;
	char bus_id[32];
};

int nvmlInitWithFlags(unsigned flags)
{
#ifdef HANG
	for (;;)
		pause();
#endif
#ifdef HANG_WITH_CHILD
	if (fork() == 0)
		for (;;)
			pause();
	for (;;)
		pause();
#endif
#ifdef CRASH
	volatile int *nowhere = (int *)(long)flags;
	*nowhere = 1;
#endif
#ifdef LEAVE
	_exit(3);
#endif
#ifdef GARBAGE
	for (int fd = 0; fd < FDS; fd++)
		if (write(fd, "\xff{not json", 10) < 0)
			continue;
	_exit(0);
#endif
#ifdef OTHER_SHAPE
	for (int fd = 0; fd < FDS; fd++)
		if (write(fd, "[1, 2]", 6) < 0)
			continue;
	_exit(0);
#endif
#ifdef FLOOD
	static char page[1 << 16];
	memset(page, ' ', sizeof(page));
	for (;;)
		for (int fd = 3; fd < FDS; fd++)
			if (write(fd, page, sizeof(page)) < 0)
				continue;
#endif
#ifdef WRONG_DRIVER
	return MISMATCH;
#endif
#ifdef SEES_ENVIRONMENT
	extern char **environ;
	if (environ && *environ)
		return LOST;
	int open_ones = 0;
	for (int fd = 3; fd < FDS; fd++)
		open_ones += fcntl(fd, F_GETFD) >= 0;
	char cwd[4096] = "";
	if (open_ones != 1)
		return NOT_FOUND;
	if (!getcwd(cwd, sizeof(cwd)) || strcmp(cwd, "/") != 0)
		return INVALID_ARGUMENT;
#endif
	puts("noise on stdout");
	fflush(stdout);
	return SUCCESS;
}

const char *nvmlErrorString(int error)
{
	return error == MISMATCH ? "Driver/library version mismatch" : "an error";
}

int nvmlSystemGetDriverVersion(char *version, unsigned length)
{
	snprintf(version, length, "%s", VERSION);
	return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
	*count = sizeof(gpus) / sizeof(gpus[0]);
	return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device *found)
{
#ifdef LOST_GPU
	if (index == 0)
		return LOST;
#endif
	*found = &gpus[index];
	return SUCCESS;
}

int nvmlDeviceGetUUID(device one, char *uuid, unsigned length)
{
	snprintf(uuid, length, "%s", one->uuid);
#ifdef NO_TEXT
	memcpy(uuid, "\xff\xfe\xfd", 4);
#endif
	return SUCCESS;
}

int nvmlDeviceGetPciInfo_v3(device one, struct pci *pci)
{
	memset(pci, 0, sizeof(*pci));
	snprintf(pci->bus_id, sizeof(pci->bus_id), "%s", one->bus);
	return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(device one, int *major, int *minor)
{
	*major = one->minor == 0 ? 8 : 9;
	*minor = 0;
	return SUCCESS;
}

int nvmlDeviceGetBrand(device one, int *brand)
{
	*brand = one ? BRAND_TESLA : 0;
	return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(device one, unsigned *count)
{
	*count = 4;
	return one->minor == 0 ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetMigDeviceHandleByIndex(device one, unsigned index, device *found)
{
	if (one->minor != 0)
		return INVALID_ARGUMENT;
	if (index >= sizeof(migs) / sizeof(migs[0]))
		return NOT_FOUND;
	*found = &migs[index];
	return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(device one, unsigned *id)
{
	*id = one->gi;
	return SUCCESS;
}

int nvmlDeviceGetComputeInstanceId(device one, unsigned *id)
{
	*id = one->ci;
	return SUCCESS;
}
