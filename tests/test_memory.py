"""A thread that allocates and frees 80 MB again and again gets the same pages, and no fresh ones from the kernel."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, threading
import numpy as np
from jaxvpr import memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work(counts):
    for _ in range(3):
        before = faults()
        np.ones(80 * 2**20, np.uint8)
        counts.append(faults() - before)

if sys.argv[1] == "keep":
    assert memory.keep_freed()
counts = []
thread = threading.Thread(target=work, args=(counts,))
thread.start()
thread.join()
print(*counts)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told")
def test_freed_memory_is_kept():
    def counts(how):
        done = subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, capture_output=True, text=True)
        return [int(count) for count in done.stdout.split()]

    first, *later = counts("keep")
    assert first > 10 * max(later)
    assert min(counts("leave")) > 10 * max(later)
