"""Found by every Python of a test: takes away what Linux has and macOS has not."""

from __future__ import annotations

import os
import select
import signal

_LINUX = {
    os: "sched_getaffinity sched_setaffinity posix_fallocate posix_fadvise memfd_create O_TMPFILE"
    " pidfd_open prlimit copy_file_range splice eventfd O_DIRECT O_PATH setns unshare getrandom"
    " getxattr setxattr listxattr removexattr",
    signal: "SIGRTMIN SIGRTMAX SIGPWR SIGSTKFLT SIGPOLL sigtimedwait sigwaitinfo",
    select: "epoll",
}
for module, names in _LINUX.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
