"""The HPC stage: what a request for devices adds to a config, before anything exists.

request.py   what is asked for: options and annotations
cdi.py       which CDI files there are, and what they say
edits.py     the edits of the requested devices, applied to a copy of the config

Nothing here is loaded unless something asks (ocirt/hpc.py), and nothing here changes the
machine.  Every look at it takes a `root`, so that tests bring machines of their own.
"""
