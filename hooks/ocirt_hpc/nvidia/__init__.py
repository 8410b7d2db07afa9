"""NVIDIA's GPUs: which there are, which of them are asked for, what a container needs for them.

driver.py    what the loaded driver and its GPUs say in procfs and sysfs
choice.py    which GPUs and MIG devices a list of names means
files.py     the driver's libraries, programs and other files on the host, by capability

NVML is not needed for any of this: procfs tells the same without loading a library, and tests
can bring a machine as a directory.
"""
