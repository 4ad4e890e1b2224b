"""The test process's side of mounting: what is asked of the helper for an image, for the length of a scope."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

from .client import current_client
from .errors import CapabilityMissing, RequestInvalid, is_ours
from .facts import DeviceFacts, MountFacts
from .helper.protocol import Open, Release
from .image_files import Files
from .mounted_image import BlockDevice, MountedImage
from .pending import LIVE, Pending
from .scope import Scope
from .signals import Deferred
from .unpacking import Unpacker
from .waiting import Wait

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from .client import Client
    from .config import Settings
    from .image_files import BackingChoice, Images
    from .mounted_system import MountedSystem

__tracebackhide__ = is_ours
Mounted = TypeVar("Mounted", bound=MountedImage)


class MountSession(Scope):
    """What one fixture scope mounts and attaches.

    The parameters that are not here are those of :class:`.scope.Scope`.

    :param folders: where relative image paths are looked for, in order
    :param unavailable: called with what this machine cannot do, before it is raised
    :param tell: shows the user a line; None writes it to stderr
    :param draw: shows the user a line in the place of the one before; None where there is no terminal
    """

    def __init__(
        self,
        settings: Settings,
        *,
        test: str = "",
        worker: str = "",
        nbd_start: int = 0,
        folders: Iterable[Path] = (),
        unavailable: Callable[[CapabilityMissing], None] | None = None,
        failed: Callable[[], bool] | None = None,
        guarded: bool = False,
        tell: Callable[[str], None] | None = None,
        draw: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(test=test, worker=worker, failed=failed, guarded=guarded)
        self._settings = settings
        self._nbd_start = nbd_start
        self._folders = tuple(folders)
        self._unavailable = unavailable
        self._tell = tell or _tell
        self._draw = draw

    def mount(
        self,
        image: Images,
        partition: int | str | None = None,
        *,
        format: str | None = None,
        mode: str = "ro",
        fstype: str | None = None,
        options: Sequence[str] | str = (),
        mountpoint: str | os.PathLike[str] | None = None,
        backend: str | None = None,
        timeout: float | None = None,
        volume: str | None = None,
        subvolume: str | None = None,
        passphrase: str | bytes | None = None,
        key_file: str | os.PathLike[str] | None = None,
        verity: str | None = None,
        architecture: str | None = None,
        overlay_size: int | None = None,
        backing: BackingChoice = "refuse",
    ) -> Pending[MountedImage]:
        """A context manager that mounts ``image`` and gives a :class:`~.mounted_image.MountedImage`.

        :param image: path of the image; a relative one is looked for in the folders of ``imagemount_path``, then in
            rootdir, then beside the test. A list of paths: the disks of one array or volume group
        :param partition: None when the image itself holds the file system; 1, 2, … as in the partition table;
            ``"PARTLABEL=…"``, ``"PARTUUID=…"``, ``"LABEL=…"``, ``"UUID=…"``, ``"TYPE=…"``; ``"auto"`` or -1;
            ``"lv:GROUP/VOLUME"``, wherever in the image its volume group is
        :param format: ``"raw"``, ``"qcow2"``, …; None detects it from the content
        :param mode: ``"ro"``: not a byte of the image changes; ``"overlay"``: writable, and thrown away at teardown;
            ``"rw"``: writes reach the image
        :param fstype: type of the file system; None takes it from the superblock
        :param options: further mount options
        :param mountpoint: an existing empty folder to mount at, with the modes of the image's root while it is mounted:
            who may enter the folder above it may enter it; None makes one that only the user and root can reach
        :param backend: ``"auto"``, ``"loop"``, ``"nbd"``, ``"fuse"``; None takes the setting
        :param timeout: seconds to wait for a device, or for an image that others use; None takes the setting
        :param volume: ``"GROUP/VOLUME"`` of LVM in the partition
        :param subvolume: of btrfs, by its path from the top: ``"@home"``
        :param passphrase: of LUKS. It is in no log and no journal, and on no command line
        :param key_file: of LUKS, instead
        :param verity: root hash of dm-verity, hexadecimal: data that does not fit it cannot be read
        :param architecture: whose root partition ``"auto"`` means, as ``"aarch64"``; None is this machine's
        :param overlay_size: bytes that mode ``"overlay"`` may take; None is as many as there are
        :param backing: ``"refuse"``: an image that refers to other files is an error; ``"allow"``: those in the folders
            of ``imagemount_backing_folders`` are opened; or a list of such folders
        :raises ImageMountError: on entering, whatever the reason; nothing is left behind
        """
        request = {
            "partition": partition,
            "format": format,
            "mode": mode,
            "fstype": fstype,
            "options": (options,) if isinstance(options, str) else tuple(options),
            "backend": self._settings.backend if backend is None else backend,
            "volume": volume,
            "subvolume": subvolume,
            "verity": verity,
            "architecture": architecture,
            "overlay_size": overlay_size,
        }
        files = self._files(
            image,
            mode,
            mountpoint=mountpoint,
            passphrase=passphrase,
            key_file=key_file,
            format=format,
            backing=backing,
        )

        def open_it(pending: Pending[MountedImage]) -> MountedImage:
            return self.open(MountedImage, pending, files, request, timeout)

        return Pending(self, files.name, open_it, MountedImage.unmount)

    def mount_system(
        self,
        image: Images,
        partition: int | str = "auto",
        *,
        format: str | None = None,
        mode: str = "ro",
        backend: str | None = None,
        timeout: float | None = None,
        passphrase: str | bytes | None = None,
        key_file: str | os.PathLike[str] | None = None,
        architecture: str | None = None,
        overlay_size: int | None = None,
        backing: BackingChoice = "refuse",
    ) -> Pending[MountedSystem]:
        """A context manager that mounts an installed system and gives a :class:`~.mounted_system.MountedSystem`.

        The root of ``image`` is mounted, and below it what its own fstab says, in order and without ``noauto``, swap
        and network file systems; what fstab does not mention is placed by partition type, as the Discoverable
        Partitions Specification has it. The parameters are those of :meth:`mount`.

        :param partition: the root's; ``"auto"`` finds it
        :raises ImageMountError: also where something that the system needs to boot cannot be mounted
        """
        from .assembling import SystemWish, assemble

        request = {
            "format": format,
            "mode": mode,
            "backend": self._settings.backend if backend is None else backend,
            "architecture": architecture,
            "overlay_size": overlay_size,
        }
        files = self._files(image, mode, passphrase=passphrase, key_file=key_file, format=format, backing=backing)
        wish = SystemWish(files, request, partition, timeout)
        return assemble(self, wish)

    def attach(
        self,
        image: Images,
        partition: int | str | None = None,
        *,
        format: str | None = None,
        mode: str = "ro",
        partitions: bool = False,
        backend: str | None = None,
        timeout: float | None = None,
        volume: str | None = None,
        passphrase: str | bytes | None = None,
        key_file: str | os.PathLike[str] | None = None,
        verity: str | None = None,
        overlay_size: int | None = None,
        backing: BackingChoice = "refuse",
    ) -> Pending[BlockDevice]:
        """A context manager that makes ``image`` a block device and gives a :class:`~.mounted_image.BlockDevice`.

        The parameters are those of :meth:`mount`, but that ``partition=None`` attaches the whole disk.

        :param partitions: make partition nodes too (``/dev/loop3p1``)
        """
        if partitions and partition is not None:
            reason = "a partition has no partition nodes; leave out partition="
            raise RequestInvalid(argument="partitions", value="True", reason=reason)
        request = {
            "partition": partition,
            "format": format,
            "mode": mode,
            "backend": self._settings.backend if backend is None else backend,
            "attach_only": True,
            "partition_nodes": partitions,
            "volume": volume,
            "verity": verity,
            "overlay_size": overlay_size,
        }
        files = self._files(image, mode, passphrase=passphrase, key_file=key_file, format=format, backing=backing)

        def open_it(pending: Pending[BlockDevice]) -> BlockDevice:
            facts = self._ask(pending, files, request, timeout)
            return BlockDevice(DeviceFacts.from_wire(facts), pending.release)

        return Pending(self, files.name, open_it, BlockDevice.detach)

    def open(
        self, kind: type[Mounted], pending: Pending[Any], files: Files, request: dict[str, Any], timeout: float | None
    ) -> Mounted:
        """Have the helper mount what ``request`` says, as ``pending``."""
        facts = self._ask(pending, files, request, timeout)
        with Deferred():  # a descriptor of the mount that an interrupt let drop would keep it busy
            known = MountFacts.from_wire(facts)
            starter = pending.starter(allowed=self._settings.run == "allow")
            return kind(known, pending.release, opener=pending.opener(known.mountpoint), starter=starter)

    def _files(self, image: Images, mode: str, **options: Any) -> Files:
        settings = self._settings
        unpacker = Unpacker(settings.cache, settings.unpack_limit, self._tell, self._draw)
        return Files(image, self._folders, mode, listed=settings.backing_folders, unpacker=unpacker, **options)

    def _ask(
        self, pending: Pending[Any], files: Files, request: dict[str, Any], timeout: float | None
    ) -> dict[str, Any]:
        try:
            with files.opened(key_only="under" in request) as opened:
                with Deferred():  # a helper that is half started is nobody's
                    client = current_client(self._settings, worker=self.worker, nbd_start=self._nbd_start)
                    mount = pending.claim(client)
                open_request = Open(
                    mount=mount,
                    name=files.name,
                    source=str(opened.source),
                    test=self.test,
                    carries=opened.roles,
                    **request,
                )
                return self._until_free(pending, client, open_request, opened.descriptors, timeout)
        except CapabilityMissing as missing:
            if self._unavailable is not None:
                self._unavailable(missing)
            raise

    def _until_free(
        self, pending: Pending[Any], client: Client, request: Open, fds: tuple[int, ...], timeout: float | None
    ) -> dict[str, Any]:
        wait = Wait(request.name, self._settings.timeout if timeout is None else timeout, self._tell)
        while "busy" in (reply := client.ask(request, fds)):
            wait.pause(reply["what"], reply["busy"], reply["ahead"])
            pending.refuse_when_over()
        try:
            pending.refuse_when_over()
        except RequestInvalid:
            # Another thread has ended the scope, and its release may have come before the request.
            client.ask(Release(request.mount))
            raise
        facts: dict[str, Any] = reply["facts"]
        LIVE.devices.add(facts["path"] if request.attach_only else facts["device"])
        return facts


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
