"""ocirt: an OCI container runtime for HPC and AI.

cli         the command line, one file per verb
container   the verbs as functions
launch      the init: started, fed with the plan, questioned
plan        config in, list of ops out
cgroup      resource groups, v1 and v2
"""
