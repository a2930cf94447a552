"""Runs a program and writes what it used, as JSON, to a file descriptor.

Usage: launch.py DESCRIPTOR PROGRAM [ARGUMENT...]

This is a process of its own because a program's peak RSS cannot be less than that of the process that started it: until
`exec`, a child has its parent's memory. Without site packages, Python takes about 9 MiB.
"""

import os
import sys
import time

descriptor = int(sys.argv[1])
os.set_inheritable(descriptor, False)
started = time.monotonic()
process = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(process, 0)
seconds = time.monotonic() - started
figures = '{"seconds": %r, "user_seconds": %r, "system_seconds": %r, "rss_bytes": %d, "exit_code": %d}' % (
    seconds,
    usage.ru_utime,
    usage.ru_stime,
    usage.ru_maxrss * 1024,
    os.waitstatus_to_exitcode(status),
)
os.write(descriptor, figures.encode())
