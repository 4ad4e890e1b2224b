"""What a check found that is not as it should be."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..engine.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .plan import Check

_INDENT = "  "


@dataclass(frozen=True, slots=True)
class Problem:
    """One expectation that the image does not meet; all in words, as they are shown.

    :param what: the key of the check file: ``mode``, ``owner``, …
    :param expected: the value of the check file
    :param found: the value of the image
    :param path: of the file in the image, where a check is about several
    """

    what: str
    expected: str
    found: str
    path: str = ""

    def to_json(self) -> dict[str, Any]:
        """The problem as JSON values."""
        return asdict(self)


def value_problems(
    check: Check, found: Mapping[str, str | None], *, nothing: str = "none", ignore_case: bool = False
) -> Iterator[Problem]:
    """A problem for each key of ``check`` that ``found`` has with another value, in the order of the check file.

    :param nothing: what an empty value is shown as
    """
    for key in check.expect:
        if key not in found:
            continue
        wanted, value = check.text(key), found[key]
        same = wanted.lower() == (value or "").lower() if ignore_case else wanted == value
        if not same:
            yield Problem(key, wanted, value or nothing)


class CheckFailed(AssertionError):
    """A check whose image is not as it should be. ``problems`` are all that were found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(render_problems(self.problems))


def render_problems(problems: Sequence[Problem]) -> str:
    """The problems as aligned lines of text that are safe to print, under the path of each file where they have one."""
    width = max((len(problem.what) for problem in problems), default=0)
    lines: list[str] = []
    path = ""
    for problem in problems:
        if problem.path != path:
            path = problem.path
            lines.append(f"{_INDENT}{printable(path)}")
        margin = _INDENT * (2 if path else 1)
        lines += _block(f"{margin}{problem.what:<{width}}  expected ", problem.expected)
        # The image has written it: a line of its own in the log of a CI system can be a command to that.
        lines.append(f"{margin}{'':<{width}}  found    {printable(problem.found)}")
    return "\n".join(lines)


def _block(head: str, text: str) -> list[str]:
    """``text`` behind ``head``, its further lines below its first."""
    first, *rest = text.split("\n")
    return [head + printable(first), *(" " * len(head) + printable(line) for line in rest)]
