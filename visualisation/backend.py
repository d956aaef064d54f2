"""Import matplotlib independently of the environment's backend: nothing here opens a window.

A notebook's kernel names its own backend in MPLBACKEND, which the scripts that it starts inherit. Where that backend is
not installed, matplotlib refuses to be imported at all; so it is imported without, and given the backend afterwards.
"""

import contextlib
import os
import sys

if "matplotlib" not in sys.modules and "MPLBACKEND" in os.environ:
    backend = os.environ.pop("MPLBACKEND")
    import matplotlib

    os.environ["MPLBACKEND"] = backend
    with contextlib.suppress(ValueError):
        matplotlib.rcParams["backend"] = backend
