"""`os` for the verbs that engines call: `from ocirt import system as os`.

`import os` costs 4 million instructions, a tenth of a `create`, most of them for abstract classes
that nobody here asks for.  This is the C module below it, and of what os adds in Python the few
functions that hot verbs need, for text in UTF-8 (the launcher says -X utf8).  Whatever else is
asked for is that of os, imported then.  Where os has been loaded before, this module is os itself.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import *  # noqa: F403
    from os import _exit as _exit
    from os import path as path
else:
    import posix

    from ocirt import ospath as path

    globals().update({**posix.__dict__, **globals()})  # as `import *`, for a tenth of its cost

    SEEK_SET = 0

    def makedirs(name, mode=0o777, exist_ok=False):
        above = path.dirname(name.rstrip("/"))
        if above and not path.exists(above):
            makedirs(above, exist_ok=True)
        try:
            posix.mkdir(name, mode)
        except OSError:
            if not exist_ok or not path.isdir(name):
                raise

    def fsencode(name):
        return name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name

    def fsdecode(name):
        return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name

    environ = {fsdecode(key): fsdecode(value) for key, value in posix.environ.items()}

    def __getattr__(name):
        if name[:2] == "__":
            raise AttributeError(name)
        import os

        return getattr(os, name)

    if "os" in sys.modules:
        sys.modules[__name__] = sys.modules["os"]
