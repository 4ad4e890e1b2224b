"""Disk images opened by one ``qemu-storage-daemon``, driven by QMP.

Every level of an image is named with its driver, and no backing file is opened, so qemu probes nothing and follows
nothing. Files are handed over as ``/proc/OUR_PID/fd/N``: what is opened is the very file that the caller opened.

Commands are as short as can be, since qemu 7.2 reads them byte by byte, 4 µs each: names are of a letter and a number,
and what is the default is left out. (A node inherits ``read-only`` from the node that it is written in.)
Source: QEMU's qapi/block-core.json and qapi/block-export.json. What is used is there since QEMU 6.0.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...errors import DeviceFailed, ImageUnsafe, RequestInvalid
from .dead_fuse import unmount_dead
from .nodes import Export, Node, access, file_at, file_of, image_at, strangers
from .opened_before import OpenedBefore
from .qmp import Command, QmpError, QmpLost
from .refusals import refusal
from .removal import remove_export, remove_node
from .session import QemuSession

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from ..reader import Window


class StorageDaemon:
    """One storage daemon, started at the first image. Not for use by several threads at once.

    Nodes (an image, an overlay, a window) and exports are called by names that it gives; none is used twice.

    :param folder: a folder of our own, its working folder, for the socket of its NBD server and its FUSE exports. The
        daemon gets names in it, since ``folder`` may be a path that only this process can use
    :param remembers: of an image that was opened before and has not changed since, it is not asked again whether qemu
        opens another file with it. Only where who gives the image has no less privilege than this process: the image
        might be changed, by a memory map, without a trace
    :param timeout: seconds that one command may take
    """

    def __init__(self, folder: Path, *, remembers: bool = False, timeout: float = 30.0) -> None:
        self._folder = folder
        self.nbd_socket = folder / "nbd.sock"
        self._timeout = timeout
        self._session: QemuSession | None = None
        self._stopped = False
        self._nodes: dict[str, Node] = {}
        self._exports: dict[str, Export] = {}
        self._count = 0
        self._serves_nbd = False
        self._opened = OpenedBefore(remembers=remembers)

    @property
    def alive(self) -> bool:
        """False once the daemon has ended or was stopped; one that was not started yet is alive."""
        return not self._stopped and (self._session is None or self._session.alive)

    @property
    def pid(self) -> int | None:
        """The daemon's process id, None before its start."""
        return self._session.pid if self._session else None

    # What can be added.

    def add_image(
        self,
        fd: int,
        format: str,
        *,
        image: str,
        readonly: bool,
        backing: str | None = None,
        data_file: str | None = None,
        also_opens: Collection[str] = (),
    ) -> str:
        """A node of the virtual disk in the file or block device open at ``fd``, which must stay open.

        :param format: the name of qemu's driver
        :param image: the image's name, for messages
        :param backing: the node that it is a difference to
        :param data_file: the node that has its data
        :param also_opens: the files of its own that it may open by name
        :raises ImageInvalid: qemu cannot read it
        :raises ImageUnsafe: opening it opened another file as well
        :raises ImageBusy: another program has a lock on it
        :raises DeviceFailed: the daemon failed
        """
        if not readonly and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
            reason = "the image is to be written to, but was opened for reading only"
            raise RequestInvalid(argument="fd", value=str(fd), reason=reason)
        alone = backing is None and data_file is None and not also_opens
        key = self._opened.key(fd, format) if readonly and alone else None
        size = self._opened.size_of(key)
        name = self._new_name("i")
        options = {"node-name": name, **access(readonly=readonly), **image_at(fd, format, backing=backing)}
        if data_file is not None:
            options["data-file"] = data_file
        if size is not None:
            self._add_known(name, options, Node(image, format, size, readonly, unnamed=1))
            return name
        options["file"]["node-name"] = file_of(name)  # by which it is told from what qemu opens of its own accord
        self._add(name, options, image=image, format=format, readonly=readonly, also_opens=also_opens)
        self._opened.note(key, self._nodes[name].size)
        return name

    def size_when_opened_before(self, fd: int, format: str) -> int | None:
        """Bytes of the virtual disk of the image open at ``fd``, where :meth:`add_known_window` takes it; else None."""
        return self._opened.size_of(self._opened.key(fd, format))

    def add_known_window(self, fd: int, format: str, window: Window, *, image: str) -> str:
        """A read-only node that is ``window`` of an image that was opened before, by one command.

        It must have had a :meth:`size_when_opened_before`. Parameters as for :meth:`add_image`.
        """
        name = self._new_name("w")
        place = {"offset": window.offset, "size": window.size}
        options = {"driver": "raw", "node-name": name, **access(readonly=True), **place, "file": image_at(fd, format)}
        self._add_known(name, options, Node(image, format, window.size, readonly=True, unnamed=2))
        return name

    def add_overlay(self, node: str, fd: int, *, most: int | None = None) -> str:
        """A writable node over ``node``: what is written to it goes to the empty temporary file open at ``fd``.

        A temporary qcow2 of the size of ``node``, which is not changed. ``fd`` must stay open.

        :param most: bytes that it may take; a write that needs more fails with ENOSPC. None is no bound
        """
        base = self._known(node)
        name = self._new_name("o")
        no_flush = {"cache": {"no-flush": True}}
        file = {**file_at(fd), "node-name": file_of(name), **access(readonly=False), **no_flush}
        if most is not None:
            # The driver raw lets nobody write beyond its size, and wants a file that is as long already.
            os.ftruncate(fd, most)
            window = {"driver": "raw", "size": most, "file": file_at(fd)}
            file = {**window, "node-name": file_of(name), **access(readonly=False), **no_flush}
        create = {"driver": "qcow2", "file": file_of(name), "size": base.size}
        self._running().execute(base.image, "blockdev-add", file)
        self._nodes[file_of(name)] = base if most is None else replace(base, unnamed=1)
        try:
            self._running().create(base.image, self._new_name("j"), create)
            options = {
                "driver": "qcow2",
                "node-name": name,
                **access(readonly=False),
                # It is thrown away: what a flush protects from, a crash, ends it anyway.
                **no_flush,
                "file": file_of(name),
                "backing": node,
            }
            self._add_known(name, options, Node(base.image, "qcow2", base.size, readonly=False))
            return name
        except BaseException:
            self.remove_node(file_of(name))
            raise

    def add_window(self, node: str, window: Window) -> str:
        """A node that is ``window`` of ``node``: an export of it *is* the partition."""
        base = self._known(node)
        name = self._new_name("w")
        place = {"offset": window.offset, "size": window.size}
        options = {"driver": "raw", "node-name": name, **access(readonly=base.readonly), **place, "file": node}
        self._running().execute(base.image, "blockdev-add", options)
        self._nodes[name] = Node(base.image, base.format, window.size, base.readonly)
        return name

    def virtual_size(self, node: str) -> int:
        """Bytes of the node's virtual disk; no question to the daemon."""
        return self._known(node).size

    def export_file(self, node: str, path: Path, *, writable: bool) -> str:
        """Mount by FUSE, over the existing regular file ``path``, a file whose bytes are those of ``node``.

        :raises DeviceFailed: there is no FUSE here, or ``path`` is not a regular file
        """
        mountpoint = path.name if path.parent == self._folder else str(path)
        return self._export(self._export_name(node), node, {"type": "fuse", "mountpoint": mountpoint}, path, writable)

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
        name = self._export_name(node)
        options = {"type": "nbd"} if name == node else {"type": "nbd", "name": name}  # the node's is the default
        return self._export(name, node, options, None, writable)

    # How it is removed.

    def remove_export(self, export: str, *, and_node: str | None = None) -> None:
        """End an export, also one that clients are connected to. Gone already is fine.

        :param and_node: its node, to be removed too if that can be done at once; else :meth:`remove_node` is still due
        :raises DeviceFailed: it is still there after 5 s
        """
        known = self._exports.get(export)
        if known is None:
            return
        node_gone = False
        try:
            node_gone = remove_export(self._running(), export, known.image, and_node=and_node)
        except QmpLost:  # the daemon is dead, and every export with it
            if known.path is not None:
                unmount_dead(known.path)
        del self._exports[export]
        if node_gone and and_node is not None:
            self._forget_node(and_node)

    def remove_node(self, node: str) -> None:
        """Remove a node that nothing is built on any more. Gone already is fine.

        :raises DeviceFailed: it is still in use after 5 s
        """
        known = self._nodes.get(node)
        if known is None:
            return
        with suppress(QmpLost):  # the daemon is dead, and every node with it
            remove_node(self._running(), node, known.image)
        self._forget_node(node)

    def stop(self) -> None:
        """End the daemon and everything in it; twice is fine.

        :raises DeviceFailed: it does not even end by SIGKILL
        :raises OSError: the mount of an export is in use
        """
        self.bury()
        for name, export in list(self._exports.items()):
            if export.path is not None:
                unmount_dead(export.path)
            del self._exports[name]

    def bury(self) -> None:
        """As :meth:`stop`, but what it has exported by FUSE stays mounted, dead, until :meth:`remove_export`.

        For a daemon that has died, while devices are still on its exports.
        """
        self._stopped = True
        if self._session is None:
            return
        self._session.stop()
        self._session = None
        self._nodes.clear()
        self.nbd_socket.unlink(missing_ok=True)

    # What the above share.

    def _running(self) -> QemuSession:
        if self._stopped:
            raise QmpLost("the storage daemon was stopped")
        if self._session is None:
            self._session = QemuSession(self._folder, timeout=self._timeout)
        return self._session

    def _known(self, node: str) -> Node:
        try:
            return self._nodes[node]
        except KeyError:
            reason = "the daemon that had this image open has ended"
            hint = "if it was killed for want of memory, run fewer workers"
            raise DeviceFailed(image="", device=f"qemu-storage-daemon, {node}", reason=reason, hint=hint) from None

    def _forget_node(self, node: str) -> None:
        self._nodes.pop(node, None)
        self.remove_node(file_of(node))  # an overlay's file was a node before the overlay was

    def _new_name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}{self._count}"

    def _export_name(self, node: str) -> str:
        return self._new_name("e") if node in self._exports else node

    def _add_known(self, name: str, options: dict[str, Any], node: Node) -> None:
        """Add a node of which all is known."""
        (added,) = self._running().execute_many(node.image, [Command("blockdev-add", options)])
        if isinstance(added, QmpError):
            raise refusal(added, image=node.image, format=node.format) from added
        self._nodes[name] = node

    def _add(
        self,
        name: str,
        options: dict[str, Any],
        *,
        image: str,
        format: str,
        readonly: bool,
        also_opens: Collection[str] = (),
    ) -> None:
        """Add the node; ask in the same breath for all nodes, for its size, and whether it brought some along."""
        commands = [Command("blockdev-add", options), Command("query-named-block-nodes", {"flat": True})]
        added, listed = self._running().execute_many(image, commands)
        if isinstance(added, QmpError):
            raise refusal(added, image=image, format=format) from added
        nodes = {str(node["node-name"]): node for node in listed}
        size = int(nodes[name]["image"]["virtual-size"])
        self._nodes[name] = Node(image, format, size, readonly, also_opens)
        # Nothing was read through it yet.
        if found := strangers(listed, self._nodes):
            self.remove_node(name)
            hint = "make a self-contained copy of it with `qemu-img convert`, if you trust the image"
            raise ImageUnsafe(image=image, reason=f"it names another file, {', '.join(found)}", hint=hint)

    def _export(self, name: str, node: str, options: dict[str, Any], path: Path | None, writable: bool) -> str:
        base = self._known(node)
        if writable:
            options["writable"] = True
        self._running().execute(base.image, "block-export-add", {"id": name, "node-name": node, **options})
        self._exports[name] = Export(base.image, path)
        return name
