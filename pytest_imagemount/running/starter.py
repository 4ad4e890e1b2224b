"""How a mounted image has its commands started. Imported at every mount, so nothing heavy is at the top."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import RequestInvalid
from ..helper.protocol import Run

if TYPE_CHECKING:
    from ..client import Client


class Starter:
    """Has the helper start commands in mount number ``mount``; ``allowed`` is whether the user lets it."""

    def __init__(self, client: Client, mount: int, *, allowed: bool) -> None:
        self._client, self._mount, self.allowed = client, mount, allowed

    def start(self, pipes: tuple[int, ...], **fields: Any) -> None:
        """Start one with ``pipes``; ``fields`` are those of :class:`~..helper.protocol.Run`.

        :raises RequestInvalid: they are more than one message takes
        """
        try:
            self._client.ask(Run(self._mount, **fields), pipes)
        except RequestInvalid as error:
            if error.argument != "message":
                raise
            reason = f"with env= it is {error.reason}; give what is long by input=, or by a file"
            raise RequestInvalid(argument="argv", value=f"{len(fields['argv'])} words", reason=reason) from None
