"""The pictures: one SVG a section."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .report import give_to_owner, picture_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .sections.section import Results, Section


def draw(sections: Sequence[Section], found: Mapping[str, Results], folder: Path) -> list[str]:
    """Draw every section that has a picture into ``folder``; returns their keys.

    :raises ImportError: matplotlib is not installed
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Text stays text, and equal numbers give an equal file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "imagemount", "axes.spines.top": False})
    mpl.rcParams.update({"axes.spines.right": False, "font.size": 10})
    drawn = []
    for section in sections:
        if section.draw is None:
            continue
        bars = sum(len(outcomes or ()) for outcomes in (found[section.key].here, found[section.key].lab))
        figure = Figure(figsize=(9, max(4.0, 0.3 * bars) if section.in_lab else 4.5), layout="constrained")
        axes = figure.add_subplot()
        section.draw(found[section.key], axes)
        axes.set_title(section.title, loc="left")
        path = folder / picture_name(section.key)
        figure.savefig(path, metadata={"Date": None})
        give_to_owner(path)
        drawn.append(section.key)
    return drawn
