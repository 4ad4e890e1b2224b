"""What reclaiming did, or would do: values that travel from the helper to the command line."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that was found.

    :param what: what is done to it, as ``unmount /run/…/mount-1``, or what it is
    :param folder: the helper's folder that it belongs to
    :param reason: why it was left; empty where it was not
    """

    what: str
    folder: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}" if self.reason else self.what


@dataclass(frozen=True, slots=True)
class Report:
    """``reclaimed``: what was, or with ``dry_run`` would be, taken down, in order. ``left``: what is ours and could not
    be, or what is in the way. ``not_ours``: what a record names and somebody else has now; it is none of our business.
    """

    dry_run: bool
    reclaimed: list[Item] = field(default_factory=list)
    left: list[Item] = field(default_factory=list)
    not_ours: list[Item] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Take in what ``other`` says."""
        self.reclaimed.extend(other.reclaimed)
        self.left.extend(other.left)
        self.not_ours.extend(other.not_ours)

    def to_wire(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)

    @classmethod
    def from_wire(cls, value: Mapping[str, Any]) -> Self:
        """The report that :meth:`to_wire` described."""
        names = ("reclaimed", "left", "not_ours")
        return cls(value["dry_run"], **{name: [Item(**item) for item in value[name]] for name in names})
