# SPDX-License-Identifier: Apache-2.0
"""Run folders on a disk that is full or not writable: one line, and nothing lost."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator

from jaxsafe.core import checks
from jaxsafe.core.run import Folder

# What a disk says that is full, over its quota or read-only.
_REFUSALS = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM")
    if hasattr(errno, name)
)


@contextlib.contextmanager
def named_refusals(folder: Folder) -> Iterator[None]:
    """Turns a disk's refusal to take a file of the run into one line.

    Raises:
      UserError: the disk is full or the folder not writable; what was saved before is intact.
    """
    try:
        yield
    except OSError as error:
        # A write that fails names no file; a file elsewhere is one that was to be read.
        where = pathlib.Path(os.fsdecode(error.filename)) if error.filename else folder.path
        inside = where.absolute().is_relative_to(folder.path.absolute())
        if error.errno not in _REFUSALS or not inside:
            raise
        raise checks.UserError(
            f"{where} cannot be written ({error.strerror}): free space or make the folder "
            "writable, then --resume."
        ) from error


@contextlib.contextmanager
def scored_anew(folder: Folder) -> Iterator[None]:
    """Sets the rows of an earlier scoring aside; they come back where the new one fails."""
    before = folder.evals.with_suffix(".before")
    if folder.evals.exists():
        os.replace(folder.evals, before)
    try:
        yield
    except BaseException:
        if before.exists():
            os.replace(before, folder.evals)
        raise
    before.unlink(missing_ok=True)
