"""What the helper does for its client, request by request, apart from how requests come."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..config import MOST_NBD_DEVICES
from ..engine.workspace import Owner, Workspace
from ..errors import RequestInvalid, TeardownError
from . import messages, protocol
from .operations import Busy, Mounts

if TYPE_CHECKING:
    import socket

    from .runs import Runs


class Service:
    """The mounts of one client, process ``pid`` of user ``uid``."""

    def __init__(self, pid: int, uid: int) -> None:
        self._pid, self._uid = pid, uid
        self._mounts: Mounts | None = None
        self._runs: Runs | None = None
        self._workspace: Workspace | None = None

    def handle(self, request: protocol.Request, received: list[int], sent: list[int]) -> dict[str, Any]:
        """The answer to ``request``.

        :param received: descriptors that came with it; those that are taken over are removed from the list
        :param sent: where descriptors are put that shall go with the answer, to be closed then
        :raises ImageMountError: what is wrong with it, or went wrong
        """
        if isinstance(request, protocol.Configure):
            return self._configure(request)
        if self._mounts is None:
            raise RequestInvalid(argument="operation", value=repr(request.operation), reason="configure comes first")
        match request:
            case protocol.Open():
                result = self._mounts.open(request, received)
                if isinstance(result, Busy):
                    return {"busy": list(result.holders), "what": result.what, "ahead": result.ahead}
                return {"facts": result.to_wire()}
            case protocol.Layout():
                return {"layout": self._mounts.layout(request.mount, request.architecture)}
            case protocol.Release():
                if self._runs is not None:
                    self._runs.end(request.mount)
                self._mounts.release(request.mount)
                return {"released": request.mount}
            case protocol.Keep():
                self._mounts.keep(request.mount)
                return {"kept": request.mount}
            case protocol.Reclaim():
                from .reclaim import reclaim_for

                return {"report": reclaim_for(self._uid, dry_run=request.dry_run).to_wire()}
            case protocol.OpenInside() | protocol.ChangeInside() | protocol.XattrsInside():
                return self._inside(self._mounts, request, sent)
            case protocol.Run():
                return self._run(self._mounts, request, received)
            case protocol.Status():
                return {"mounts": self._mounts.status()}

    @property
    def daemon_pid(self) -> int | None:
        """Process id of the storage daemon, None where there is none."""
        return self._workspace.daemon_pid if self._workspace is not None else None

    def daemon_has_died(self) -> None:
        """What was under way to it would wait for its timeout; told of its end, the kernel fails it at once."""
        if self._mounts is not None:
            self._mounts.cut_off()

    @property
    def holds_kept(self) -> bool:
        """Whether something is held that shall outlive the client."""
        return self._mounts is not None and self._mounts.kept

    def undo(self, *, also_kept: bool) -> list[str]:
        """Undo everything that is not kept, and if nothing is held then, the rest; a line for each step that failed."""
        if self._runs is not None:
            self._runs.end()
        failures = self._mounts.close(also_kept=also_kept) if self._mounts is not None else []
        return failures if failures or self.holds_kept else self._close_workspace()

    def undo_later(self) -> list[str]:
        """As :meth:`undo`, for some time: what is busy now need not be so for long."""
        if self._mounts is None:
            return self._close_workspace()
        from .keeping import linger

        failures = linger(self._mounts)
        return failures if failures or self.holds_kept else self._close_workspace()

    def wait_for_end_of_kept(self, stop: socket.socket) -> list[str]:
        """Hold what is kept until it was unmounted by hand, or until ``stop`` is readable; then undo everything."""
        assert self._mounts is not None
        from .keeping import wait_for_end_of_kept

        wait_for_end_of_kept(self._mounts, stop)
        return self.undo(also_kept=True)

    def _inside(self, mounts: Mounts, request: protocol.InsideRequest, sent: list[int]) -> dict[str, Any]:
        from .inside import ACROSS, WITHIN, change_inside, open_inside, xattrs_inside

        # An errno is the answer to the request; what root_of raises is a failure of ours.
        root = mounts.root_of(request.mount)
        try:
            resolve = ACROSS if mounts.below(request.mount) else WITHIN
            if isinstance(request, protocol.OpenInside):
                sent.append(open_inside(root, request, resolve))
                return {"opened": request.mount}
            if isinstance(request, protocol.XattrsInside):
                sent.append(xattrs_inside(root, request, resolve))
                return {"opened": request.mount}
            change_inside(root, request, resolve)
            return {"changed": request.mount}
        except OSError as error:
            return {"errno": error.errno}
        finally:
            os.close(root)

    def _run(self, mounts: Mounts, request: protocol.Run, received: list[int]) -> dict[str, Any]:
        from .runs import Place, Runs

        self._runs = self._runs or Runs()
        places: list[Place] = []
        try:
            for number, path in {request.mount: ".", **mounts.below(request.mount)}.items():
                places.append(Place(number, path, mounts.root_of(number)))
            self._runs.start(request, places, received)
        finally:
            messages.close_all(place.root for place in places)
        return {"running": request.mount}

    def _configure(self, request: protocol.Configure) -> dict[str, Any]:
        if request.version != protocol.VERSION:
            reason = f"this helper speaks version {protocol.VERSION}: two versions of the package are installed"
            raise RequestInvalid(argument="version", value=str(request.version), reason=reason)
        if not 1 <= request.nbd_devices <= MOST_NBD_DEVICES or request.nbd_start < 0:
            value = f"{request.nbd_devices}, from {request.nbd_start}"
            raise RequestInvalid(argument="nbd_devices", value=value, reason=f"must be 1 to {MOST_NBD_DEVICES}")
        if self._mounts is None:
            self._workspace = Workspace(uid=self._uid, nbd_devices=request.nbd_devices, nbd_start=request.nbd_start)
            self._mounts = Mounts(self._workspace, Owner(self._pid, request.worker))
        return {"pid": os.getpid()}

    def _close_workspace(self) -> list[str]:
        if self._workspace is None:
            return []
        try:
            self._workspace.close()
        except TeardownError as error:
            return list(error.failures)
        return []
