"""A disk that is full."""

import resource
import signal
from contextlib import contextmanager


@contextmanager
def largest_file(size: int):
    """Inside, no file of this process may grow beyond ``size`` bytes: the disk says no."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, previous)
