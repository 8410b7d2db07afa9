"""NVIDIA's GPUs: which there are, which of them are asked for, what a container needs for them.

driver.py    what the loaded driver and its GPUs say in procfs and sysfs
request.py   who asks, and for what
policy.py    what the site has told NVIDIA's toolkit
choice.py    which GPUs and MIG devices a list of names means
allocation.py  which of them belong to the batch job that we run in
nvml.py      what only NVML can tell, asked in a child process
require.py   what the image demands of driver and GPUs
files.py     the driver's libraries, programs and other files on the host, by capability
compat.py    a newer libcuda that the image brings
container.py nodes, mounts and links for the chosen ones
native.py    libraries in the image's own folders, for who wants them there
mps.py       the folder of the Multi-Process Service
cdihooks.py  the work of nvidia-cdi-hook, for engines and CDI files that ask for it
stage.py     all of it in its order

Nearly all of this procfs tells without loading a library, so that tests can bring a machine as a
directory.
"""
