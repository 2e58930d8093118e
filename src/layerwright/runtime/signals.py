"""What a started program has to forget of ours: Python ignores SIGPIPE, the worker SIGINT, and an ignored signal stays ignored in what is started."""

from __future__ import annotations

import signal

TO_DEFAULT = frozenset(range(1, signal.SIGRTMIN)) - {signal.SIGKILL, signal.SIGSTOP, 32, 33}  # 32 and 33 are libc's own
