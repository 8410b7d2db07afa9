"""CRIU, the program that freezes processes into files and thaws them, and how we speak with it.

    rpc.py        its messages: dicts to bytes and back                         pure
    options.py    which option of our command line is which field of a request  pure
    external.py   the mounts that are not the container's own                   reads, no more
    swrk.py       one `criu swrk` and the conversation with it
    check.py      its version, and what it says of this machine

What a checkpoint or a restore consists of is in ocirt/checkpoint.py and ocirt/restore.py.

CRIU side: criu(8); images/rpc.proto of its source; "Other/RPC" of its documentation.
"""
