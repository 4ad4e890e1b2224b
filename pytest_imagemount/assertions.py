"""What pytest shows below a failed assertion about facts of files, manifests, and differences of images.

Called for every failed assertion of a run that has the plugin, so that nothing else of the package is at the top.
"""

from __future__ import annotations

import re
import sys
from itertools import islice
from types import MethodType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pytest

    from .file_facts import FileFacts
    from .image_diff import ImageDiff

_SHOWN_VERBOSE = 1000
_LABELS_SHOWN = 5
_REWRITTEN = "@py_"


def verbosity_of(config: pytest.Config) -> int:
    """How much of an assertion is to be shown. pytest 8 cannot say without the terminal plugin, whose option it is."""
    return config.get_verbosity(config.VERBOSITY_ASSERTIONS) if "verbose" in config.option else 0


def explain(op: str, left: object, right: object, verbosity: int) -> list[str] | None:
    """Lines for pytest's ``pytest_assertrepr_compare``; None for what is pytest's own to explain.

    pytest cuts them after some lines unless ``-vv`` is given or it runs in CI.
    """
    if op != "==" or not _are_there("file_facts"):
        return None
    from .file_facts import FileFacts
    from .image_diff import ImageDiff, diff
    from .manifest import Manifest

    limit = _limit(verbosity)
    # By type() alone: isinstance would ask a proxy, as many tests compare, for its __class__.
    if type(left) is FileFacts and type(right) is FileFacts:
        return _facts_lines(left, right)
    if type(left) is Manifest and type(right) is Manifest:
        # With everything that the manifests have, since that is what == compares.
        return diff(left, right, times=True).lines(limit)
    if type(left) is ImageDiff and type(right) is ImageDiff:
        return _two_diffs(left, right, limit)
    for side in (left, right):
        if type(side) is ImageDiff:
            return side.lines(limit)
    return None


def add_notes(error: BaseException, verbosity: int) -> None:
    """Add to an AssertionError what pytest does not show of it: the paths that were read, and how two images differ.

    Of ``assert path.read_text() == "…"`` pytest shows the two texts and not where the first came from, and it asks
    nobody how to show the value of ``assert not diff(a, b)``, of which it prints one short line. Both are among the
    local variables of the frame that failed: pytest's rewriting gives the parts of an assertion names of their own.
    """
    if not _are_there("image_path"):
        return
    from .image_diff import ImageDiff

    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return
    variables = dict(trace.tb_frame.f_locals)
    shown = str(error)
    for value in {id(value): value for value in variables.values() if type(value) is ImageDiff and value}.values():
        # What explain() was asked for begins with the summary; only in a repr does it stand behind this word.
        if not re.search(f"(?<!<ImageDiff: ){re.escape(value.summary())}", shown):
            error.add_note("\n".join(value.lines(_limit(verbosity))))
    labels = [label for label in _labels(variables) if label not in shown]
    if labels:
        error.add_note(f"image: {', '.join(labels[:_LABELS_SHOWN])}{', …' if len(labels) > _LABELS_SHOWN else ''}")


def _labels(variables: dict[str, object]) -> list[str]:
    """The paths in images that the assertion itself used; else those at hand; else the images at hand."""
    from .engine.text import printable
    from .mounted_image import MountedImage

    of_assertion = [value for name, value in variables.items() if name.startswith(_REWRITTEN)]
    found = _labels_of_paths(of_assertion) or _labels_of_paths(variables.values())
    if not found:
        images = (value for value in variables.values() if type(value) is MountedImage)
        found = [image.title for image in images]
    return list(dict.fromkeys(map(printable, found)))


def _labels_of_paths(values: Iterable[object]) -> list[str]:
    """Of paths among the values, and of those whose methods are among them."""
    from .image_path import ImagePath

    owners = (value.__self__ if type(value) is MethodType else value for value in values)
    return [owner.label for owner in owners if type(owner) is ImagePath]


def _are_there(module: str) -> bool:
    """Whether values of a module of this package can exist. Most runs have none, and import nothing for them."""
    return f"{__package__}.{module}" in sys.modules


def _limit(verbosity: int) -> int:
    from .image_diff import SHOWN

    return SHOWN if verbosity < 2 else _SHOWN_VERBOSE


def _facts_lines(left: FileFacts, right: FileFacts) -> list[str]:
    from .file_facts import differences

    found = differences(left, right)
    width = max((len(each.fact) for each in found), default=0)
    return [
        f"facts of {left.label} == facts of {right.label}",
        *(f"  {fact + ':':{width + 1}} {ours} != {theirs}" for fact, ours, theirs in found),
    ]


def _two_diffs(left: ImageDiff, right: ImageDiff, limit: int) -> list[str]:
    """What the one says and the other does not; of line lists that long a pairwise comparison would be no help."""
    only = list(_only_in_one(left, right))
    more = [f"  … and {len(only) - limit} more"] if len(only) > limit else []
    return [f"{left.summary()} == {right.summary()}", *islice(only, limit), *more]


def _only_in_one(left: ImageDiff, right: ImageDiff) -> Iterator[str]:
    ours, theirs = ({each.path: each for each in one.changes} for one in (left, right))
    for path in sorted({*ours, *theirs}):
        if ours.get(path) != theirs.get(path):
            for side, changes in (("left", ours), ("right", theirs)):
                if path in changes:
                    yield f"  {side}: {changes[path]}"
