# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C that is not lost, and an end in one line."""

import _thread
import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

_WAIT = 0.05  # seconds, by which the callback is over


@contextlib.contextmanager
def deliver_again() -> Iterator[None]:
    """Inside, a KeyboardInterrupt raised where Python drops exceptions comes once more.

    Python only prints what is raised in a callback of its garbage collector, of a weak reference or
    in `__del__`, and JAX has such callbacks. Main thread only.
    """
    before = sys.unraisablehook

    def hook(dropped: Any) -> None:
        if dropped.exc_type is KeyboardInterrupt:
            threading.Timer(_WAIT, _thread.interrupt_main).start()
        else:
            before(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        if sys.unraisablehook is hook:
            sys.unraisablehook = before


def hush() -> None:
    """Lets nothing more be printed of errors that nobody can catch.

    After a message that says what failed: a checkpoint's writer whose disk is full leaves threads
    and coroutines behind, and Python tells a traceback of each.
    """
    sys.unraisablehook = _ignore
    threading.excepthook = _ignore
    logging.getLogger("asyncio").disabled = True


def _ignore(told: Any) -> None:
    del told
