"""Taking nodes and exports out of the storage daemon again.

The daemon refuses to remove what is in use, and an export is in use until its last client is gone, which happens in the
background. So a removal is tried again when something has happened in the daemon, until a deadline.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ...errors import DeviceFailed
from ..undo import patience
from .qmp import Command, QmpError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .session import QemuSession

_TIMEOUT = 5.0
# How long to wait for an event before a refused removal is tried again all the same.
_RETRY_PAUSE = 0.02


def remove_export(session: QemuSession, export: str, image: str, *, and_node: str | None = None) -> bool:
    """End an export, whoever is connected to it, and see it gone; ``image`` is for messages.

    :param and_node: a node that is to be removed after it, asked for in the same breath
    :returns: whether that node is gone
    :raises DeviceFailed: the export is still there after 5 s
    :raises QmpLost: the daemon is dead
    """
    node_gone = False

    def removed(deadline: float) -> bool:
        nonlocal node_gone
        commands = [Command("block-export-del", {"id": export, "mode": "hard"})]
        if and_node is not None and not node_gone:
            commands.append(Command("blockdev-del", {"node-name": and_node}))
        answer, *more = session.ask_many(commands, timeout=patience(_TIMEOUT))
        if more:
            node_gone = not isinstance(more[0], QmpError)
        if isinstance(answer, QmpError):  # it is being removed, or is gone: an earlier removal did not see the end
            exports = session.ask("query-block-exports", {}, timeout=patience(_TIMEOUT))
            return export not in [found["id"] for found in exports]
        return session.saw(
            lambda event: event.name == "BLOCK_EXPORT_DELETED" and event.data.get("id") == export,
            timeout=deadline - time.monotonic(),
        )

    _until(removed, session, export, image)
    return node_gone


def remove_node(session: QemuSession, node: str, image: str) -> None:
    """Remove a node that nothing is built on; ``image`` is for messages.

    :raises DeviceFailed: it is still in use after 5 s
    :raises QmpLost: the daemon is dead
    """

    def removed(deadline: float) -> bool:
        answer = session.ask("blockdev-del", {"node-name": node}, timeout=patience(_TIMEOUT))
        if not isinstance(answer, QmpError):
            return True
        nodes = session.ask("query-named-block-nodes", {"flat": True}, timeout=patience(_TIMEOUT))
        return node not in [found["node-name"] for found in nodes]

    _until(removed, session, node, image)


def _until(removed: Callable[[float], bool], session: QemuSession, what: str, image: str) -> None:
    deadline = time.monotonic() + patience(_TIMEOUT)
    while not removed(deadline):
        if time.monotonic() >= deadline:
            reason = f"it is still in use after {_TIMEOUT:.0f} s"
            hint = "remove first what is built on it, or what has it open"
            raise DeviceFailed(image=image, device=f"qemu-storage-daemon, {what}", reason=reason, hint=hint)
        session.saw(lambda event: True, timeout=_RETRY_PAUSE)
