"""Disk images opened by one ``qemu-storage-daemon``, driven by QMP.

Every level of an image is named with its driver, and no backing file is opened, so qemu probes nothing and follows
nothing. Files are handed over as ``/proc/OUR_PID/fd/N``: what is opened is the very file that the caller opened.
Source: QEMU's qapi/block-core.json and qapi/block-export.json. What is used is there since QEMU 6.0.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import DeviceFailed, ImageUnsafe, RequestInvalid
from .dead_fuse import unmount_dead
from .qmp import Command, QmpError, QmpLost
from .refusals import refusal
from .removal import remove_export, remove_node
from .session import QemuSession

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..image import Image
    from ..reader import Window
    from ..undo import UndoStack

_KNOW_BACKING_FILES = frozenset({"qcow", "qcow2", "qed", "vmdk"})


@dataclass(frozen=True, slots=True)
class _Node:
    image: str
    format: str
    size: int  # bytes of the virtual disk
    readonly: bool


@dataclass(frozen=True, slots=True)
class _Export:
    image: str
    path: Path | None  # where it is mounted, for FUSE


def open_disk(
    daemon: StorageDaemon, image: Image, mode: str, make_scratch_file: Callable[[], int], undo: UndoStack
) -> str:
    """The node of ``image``'s virtual disk for ``mode`` (ro, overlay, rw); each undo goes on ``undo``.

    :param make_scratch_file: gives a descriptor of an empty temporary file, for what mode overlay writes
    """
    node = daemon.add_image(image.fd, image.format, image=image.name, readonly=mode != "rw")
    undo.push(f"close image {image.name!r}", lambda: daemon.remove_node(node))
    if mode != "overlay":
        return node
    scratch = make_scratch_file()
    undo.push("remove the scratch file", lambda: os.close(scratch))
    overlay = daemon.add_overlay(node, scratch)
    undo.push(f"remove the overlay of {image.name!r}", lambda: daemon.remove_node(overlay))
    return overlay


class StorageDaemon:
    """One storage daemon, started at the first image. Not for use by several threads at once.

    Nodes (an image, an overlay, a window) and exports are called by names that it gives; none is used twice.

    :param folder: a folder of our own, its working folder, for the socket of its NBD server and its FUSE exports. The
        daemon gets names in it, since ``folder`` may be a path that only this process can use
    :param timeout: seconds that one command may take
    """

    def __init__(self, folder: Path, *, timeout: float = 30.0) -> None:
        self._folder = folder
        self.nbd_socket = folder / "nbd.sock"
        self._timeout = timeout
        self._session: QemuSession | None = None
        self._stopped = False
        self._nodes: dict[str, _Node] = {}
        self._exports: dict[str, _Export] = {}
        self._count = 0
        self._serves_nbd = False

    @property
    def alive(self) -> bool:
        """False once the daemon has ended or was stopped; one that was not started yet is alive."""
        return not self._stopped and (self._session is None or self._session.alive)

    @property
    def pid(self) -> int | None:
        """The daemon's process id, None before its start."""
        return self._session.pid if self._session else None

    # What can be added.

    def add_image(self, fd: int, format: str, *, image: str, readonly: bool) -> str:
        """A node of the virtual disk in the file or block device open at ``fd``, which must stay open.

        :param format: the name of qemu's driver
        :param image: the image's name, for messages
        :raises ImageInvalid: qemu cannot read it
        :raises ImageUnsafe: opening it opened another file as well
        :raises ImageBusy: another program has a lock on it
        :raises DeviceFailed: the daemon failed
        """
        if not readonly and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
            reason = "the image is to be written to, but was opened for reading only"
            raise RequestInvalid(argument="fd", value=str(fd), reason=reason)
        name = self._new_name("image")
        options: dict[str, Any] = {
            "driver": format,
            "node-name": name,
            **_access(readonly=readonly),
            "file": _file(name, fd, readonly=readonly),
        }
        if format in _KNOW_BACKING_FILES:
            options["backing"] = None
        return self._add(name, options, image=image, format=format, readonly=readonly)

    def add_overlay(self, node: str, fd: int) -> str:
        """A writable node over ``node``: what is written to it goes to the empty temporary file open at ``fd``.

        A temporary qcow2 of the size of ``node``, which is not changed. ``fd`` must stay open.
        """
        base = self._known(node)
        name = self._new_name("overlay")
        file = {**_file(name, fd, readonly=False), "cache": {"no-flush": True}}
        create = {"driver": "qcow2", "file": _file_of(name), "size": base.size}
        self._running().execute(base.image, "blockdev-add", file)
        self._nodes[_file_of(name)] = base
        try:
            self._create(base, create)
            options = {
                "driver": "qcow2",
                "node-name": name,
                **_access(readonly=False),
                # It is thrown away: what a flush protects from, a crash, ends it anyway.
                "cache": {"no-flush": True},
                "file": _file_of(name),
                "backing": node,
            }
            return self._add(name, options, image=base.image, format="qcow2", readonly=False)
        except BaseException:
            self.remove_node(_file_of(name))
            raise

    def add_window(self, node: str, window: Window) -> str:
        """A node that is ``window`` of ``node``: an export of it *is* the partition."""
        base = self._known(node)
        name = self._new_name("window")
        place = {"offset": window.offset, "size": window.size}
        options = {"driver": "raw", "node-name": name, **_access(readonly=base.readonly), **place, "file": node}
        self._running().execute(base.image, "blockdev-add", options)
        self._nodes[name] = _Node(base.image, base.format, window.size, base.readonly)
        return name

    def virtual_size(self, node: str) -> int:
        """Bytes of the node's virtual disk; no question to the daemon."""
        return self._known(node).size

    def export_file(self, node: str, path: Path, *, writable: bool) -> str:
        """Mount by FUSE, over the existing regular file ``path``, a file whose bytes are those of ``node``.

        :raises DeviceFailed: there is no FUSE here, or ``path`` is not a regular file
        """
        mountpoint = path.name if path.parent == self._folder else str(path)
        options = {"type": "fuse", "mountpoint": mountpoint, "writable": writable}
        return self._export(self._new_name("export"), node, options, path)

    def export_nbd(self, node: str, *, writable: bool) -> str:
        """Serve ``node`` on the NBD server at :attr:`nbd_socket`, under the name that is returned."""
        base = self._known(node)
        if not self._serves_nbd:
            self.nbd_socket.unlink(missing_ok=True)
            address = {"type": "unix", "data": {"path": self.nbd_socket.name}}
            # 0: no bound on the number of connections; the bound is the number of devices.
            arguments = {"addr": address, "max-connections": 0}
            self._running().execute(base.image, "nbd-server-start", arguments)
            self._serves_nbd = True
        name = self._new_name("export")
        return self._export(name, node, {"type": "nbd", "name": name, "writable": writable}, None)

    # How it is removed.

    def remove_export(self, export: str) -> None:
        """End an export, also one that clients are connected to. Gone already is fine.

        :raises DeviceFailed: it is still there after 5 s
        """
        known = self._exports.get(export)
        if known is None:
            return
        try:
            remove_export(self._running(), export, known.image)
        except QmpLost:  # the daemon is dead, and every export with it
            if known.path is not None:
                unmount_dead(known.path)
        del self._exports[export]

    def remove_node(self, node: str) -> None:
        """Remove a node that nothing is built on any more. Gone already is fine.

        :raises DeviceFailed: it is still in use after 5 s
        """
        known = self._nodes.get(node)
        if known is None:
            return
        with suppress(QmpLost):  # the daemon is dead, and every node with it
            remove_node(self._running(), node, known.image)
        del self._nodes[node]
        self.remove_node(_file_of(node))  # an overlay's file was a node before the overlay was

    def stop(self) -> None:
        """End the daemon and everything in it; twice is fine.

        :raises DeviceFailed: it does not even end by SIGKILL
        """
        self._stopped = True
        if self._session is None:
            return
        self._session.stop()
        self._session = None
        self._nodes.clear()
        self.nbd_socket.unlink(missing_ok=True)
        while self._exports:
            _, export = self._exports.popitem()
            if export.path is not None:
                unmount_dead(export.path)

    # What the above share.

    def _running(self) -> QemuSession:
        if self._stopped:
            raise QmpLost("the storage daemon was stopped")
        if self._session is None:
            self._session = QemuSession(self._folder, timeout=self._timeout)
        return self._session

    def _known(self, node: str) -> _Node:
        try:
            return self._nodes[node]
        except KeyError:
            reason = "the daemon that had this image open has ended"
            hint = "if it was killed for want of memory, run fewer workers"
            raise DeviceFailed(image="", device=f"qemu-storage-daemon, {node}", reason=reason, hint=hint) from None

    def _new_name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._count}"

    def _add(self, name: str, options: dict[str, Any], *, image: str, format: str, readonly: bool) -> str:
        """Add the node; ask in the same breath for all nodes, for its size, and whether it brought some along."""
        commands = [Command("blockdev-add", options), Command("query-named-block-nodes", {"flat": True})]
        added, listed = self._running().execute_many(image, commands)
        if isinstance(added, QmpError):
            raise refusal(added, image=image, format=format) from added
        nodes = {str(node["node-name"]): node for node in listed}
        self._nodes[name] = _Node(image, format, int(nodes[name]["image"]["virtual-size"]), readonly)
        # qemu opens an external data file or extent that the image names, and we have no way to forbid it. Such a node
        # bears a name of qemu's making, since all of ours are named; nothing was read through it yet.
        ours = {either for known in self._nodes for either in (known, _file_of(known))}
        if strangers := [str(node["file"]) for called, node in nodes.items() if called not in ours]:
            self.remove_node(name)
            hint = "make a self-contained copy of it with `qemu-img convert`, if you trust the image"
            raise ImageUnsafe(image=image, reason=f"it names another file, {', '.join(strangers)}", hint=hint)
        return name

    def _create(self, base: _Node, options: dict[str, Any]) -> None:
        session = self._running()
        job = self._new_name("job")
        session.execute(base.image, "blockdev-create", {"job-id": job, "options": options})
        done = {"id": job, "status": "concluded"}
        session.wait(base.image, lambda event: event.name == "JOB_STATUS_CHANGE" and event.data == done)
        jobs, _ = session.execute_many(base.image, [Command("query-jobs"), Command("job-dismiss", {"id": job})])
        if failures := [str(found["error"]) for found in jobs if found["id"] == job and "error" in found]:
            hint = "the temporary folder (TMPDIR) may be full"
            reason = f"the temporary overlay was not made: {failures[0]}"
            raise DeviceFailed(image=base.image, device="qemu-storage-daemon", reason=reason, hint=hint)

    def _export(self, name: str, node: str, options: dict[str, Any], path: Path | None) -> str:
        base = self._known(node)
        self._running().execute(base.image, "block-export-add", {"id": name, "node-name": node, **options})
        self._exports[name] = _Export(base.image, path)
        return name


def _file_of(node: str) -> str:
    return f"{node}-file"


def _file(node: str, fd: int, *, readonly: bool) -> dict[str, Any]:
    driver = "host_device" if stat.S_ISBLK(os.fstat(fd).st_mode) else "file"
    filename = f"/proc/{os.getpid()}/fd/{fd}"
    return {"driver": driver, "node-name": _file_of(node), "filename": filename, **_access(readonly=readonly)}


def _access(*, readonly: bool) -> dict[str, Any]:
    access: dict[str, Any] = {"read-only": readonly, "auto-read-only": False}
    return access if readonly else {**access, "discard": "unmap"}
