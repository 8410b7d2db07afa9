"""The HPC stage: what a request for devices adds to a config, before anything exists.

stage.py     the way from a config to an edited one: begin here
request.py   what is asked for: options, annotations, variables
site.py      what the site allows and wants: /etc/ocirt/hpc.toml
toml.py      what such a file says, read quickly
parts.py     mounts, variables, nodes and limits that a site adds (choice.py: to whom)
users.py     whose the program is, and its home
swap.py      libraries of the host for the image's: MPI (hostlibs.py: what they need, what fits)
pmi.py       what a launcher of MPI has for its ranks
hooksd.py    hooks that a site adds
houdini.py   the settings of Houdini in our words
host.py      one look at the machine, below a `root`
image.py     one look at the container's root file system, which is hostile
readonly.py  where things go in an image that nothing can be added to
cdi.py       which CDI files there are, and what they say (rules.py: what they may say)
nvidia/      NVIDIA's GPUs
rdma.py      InfiniBand, RoCE, iWARP (exclusive.py: where each is in one network namespace)
verbs.py     their user-space side, of the host
hints.py     variables by which libraries find the fabric (hugepages.py: memory for it)
kinds.py     devices that are nodes and nothing more, by one table (amdgpu.py: AMD's;
             kindrows.py: what a site may add to it)
topology.py  how near devices are to each other (cpuset.py: and to CPUs and memory)
loader.py    how an image's programs find the libraries (ldcache.py, elf.py)
optional.py  packages that need not be installed
tree.py      files that are made for one container
edits.py     edits in the form of CDI, applied to a copy of the config
notes.py     what was decided and why

Nothing here is loaded unless something asks (ocirt/hpc.py), and nothing here changes the
machine.  Every look at it takes a `root`, so that tests bring machines of their own.
"""
