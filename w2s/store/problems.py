"""Many problems in one message: the first twenty, a line each, then a count."""

import contextlib
from collections.abc import Iterator, Sequence

from w2s.store.records import BadInput

MOST = 20


class Problems:
    """What is wrong with a file, collected line by line."""

    def __init__(self):
        self.lines: list[str] = []
        self.count = 0

    def add(self, problem: object) -> None:
        """Add a problem; beyond the first MOST it is only counted."""
        self.count += 1
        if self.count <= MOST:
            self.lines.append(str(problem))

    def tell(self) -> None:
        """Raise a BadInput with all lines, if any."""
        raise_problems(self.lines, self.count)

    @contextlib.contextmanager
    def tell_with(self) -> Iterator[None]:
        """Report a BadInput raised inside together with the problems so far."""
        try:
            yield
        except BadInput as error:
            self.add(error)
            self.tell()


def raise_problems(lines: Sequence[str], count: int) -> None:
    """Raise a BadInput with these lines and the number of further problems, if any. count: of all problems."""
    if count:
        more = [f"... and {count - len(lines):,} more problems"] if count > len(lines) else []
        raise BadInput("\n".join([*lines, *more]))
