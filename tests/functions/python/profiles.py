"""Writes a cProfile of a block of code, for the upload by the extension (docs/profiles.md)."""

import contextlib
import cProfile
import os
import time

FOLDER = "/tmp/tailor"


@contextlib.contextmanager
def profiled(name):
    """Profiles the block. The name of the file is unique, so that a later profile does not replace it."""
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        yield
    finally:
        profiler.disable()
        os.makedirs(FOLDER, exist_ok=True)
        file = f"{name}-{time.time_ns()}.cprofile"
        # A name that begins with a dot is not complete. The rename makes it complete at once.
        profiler.dump_stats(f"{FOLDER}/.{file}")
        os.rename(f"{FOLDER}/.{file}", f"{FOLDER}/{file}")
