"""Files that are written whole, or not at all."""

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

# Errors that a user can fix; any other OSError is a bug.
DISK_ERRORS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOTDIR),
    *(errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
}


@contextlib.contextmanager
def open_whole(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A new file for writing ("w" as UTF-8, or "wb"): flushed to the disk, then renamed to `path`.

    A lone surrogate is written as an escape, which is how JSON writes it.
    """
    partial = path.with_name(path.name + ".new")
    text = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace"}
    with open(partial, mode, **text) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def make_folder(path: Path) -> None:
    """Make a folder and its parents. A NotADirectoryError where no folder can be made, such as in /proc."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None


def write_json(path: Path, value: Any) -> None:
    with open_whole(path) as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")


def describe_disk_error(error: BaseException) -> str | None:
    """'FILE: No space left on device' and the like; None for an error of another kind."""
    in_rust = re.search(r"os error (\d+)", str(error)) if type(error).__name__ == "SafetensorError" else None
    number = int(in_rust[1]) if in_rust else getattr(error, "errno", None)
    if number not in DISK_ERRORS:
        return None
    return f"{getattr(error, 'filename', None) or 'writing'}: {os.strerror(number)}"
