"""Every error of the package: one root, each also a builtin, facts as attributes.

The messages name the image or device, say what is wrong and what to do. Every error pickles (xdist workers send
them) and travels as JSON between the helper process and the test process: :meth:`ImageMountError.to_wire` and
:func:`from_wire`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from .engine.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self


class ImageMountError(Exception):
    """Root of all errors of this package."""

    _kinds: ClassVar[dict[str, type[ImageMountError]]] = {}
    _call: tuple[tuple[Any, ...], dict[str, Any]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        ImageMountError._kinds[cls.__name__] = cls

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # OSError parses its arguments in __new__: give it none, and keep them to pickle and to send.
        self = super().__new__(cls)
        self._call = args, kwargs
        return self

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self).__name__, *self._call, getattr(self, "__notes__", []))

    def to_wire(self) -> dict[str, Any]:
        """The error as JSON values; its arguments are JSON values already."""
        args, kwargs = self._call
        return {"type": type(self).__name__, "args": args, "kwargs": kwargs, "notes": getattr(self, "__notes__", [])}


def _rebuild(kind: str, args: Sequence[Any], kwargs: dict[str, Any], notes: Sequence[str]) -> ImageMountError:
    error = ImageMountError._kinds.get(kind, ImageMountError)(*args, **kwargs)
    for note in notes:
        error.add_note(note)
    return error


def from_wire(value: dict[str, Any]) -> ImageMountError:
    """The error that :meth:`ImageMountError.to_wire` described."""
    return _rebuild(value["type"], value["args"], value["kwargs"], value["notes"])


def is_ours(excinfo: Any) -> bool:
    """As ``__tracebackhide__`` of a module: pytest shows an error of ours at the line of the test that it is for.

    Other exceptions, which are faults, are shown whole, and so is everything with ``--full-trace``.
    """
    return bool(excinfo.errisinstance(ImageMountError))


class ImageNotFound(ImageMountError, FileNotFoundError):
    """There is no file of that name in any place where it was looked for."""

    def __init__(self, *, image: str, looked: Sequence[str]) -> None:
        self.image, self.looked = image, tuple(looked)
        places = "".join(f"\n  {place}" for place in self.looked)
        hint = "Give a full path, or set imagemount_path (IMAGEMOUNT_PATH)"
        super().__init__(f"image {image!r} not found; looked at:{places}\n{hint}")


class ImageUnreadable(ImageMountError, PermissionError):
    """The calling user may not open the image the way the mode asks."""

    def __init__(self, *, image: str, mode: str, reason: str, hint: str) -> None:
        self.image, self.mode, self.reason, self.hint = image, mode, reason, hint
        super().__init__(f"image {image!r} cannot be opened for mode {mode!r}: {reason}; {hint}")


class ImageInvalid(ImageMountError, ValueError):
    """The file is not an image that can be used: a directory, empty, truncated, of unknown features, corrupt."""

    def __init__(self, *, image: str, reason: str, hint: str) -> None:
        self.image, self.reason, self.hint = image, reason, hint
        super().__init__(f"image {image!r}: {reason}; {hint}")


class FormatMismatch(ImageInvalid):
    """The format that the caller named is not what the content says."""


class ImageUnsafe(ImageInvalid):
    """The image names another file (backing file, external data file, extent, parent) and that is refused."""


class UnpackFailed(ImageMountError, OSError):
    """A compressed or split image has no room: on the disk, or within the bound that is set."""

    def __init__(self, *, image: str, reason: str, hint: str) -> None:
        self.image, self.reason, self.hint = image, reason, hint
        super().__init__(f"image {image!r} cannot be unpacked: {reason}; {hint}")


class ImageBusy(ImageMountError, OSError):
    """Another program holds the image in a way that excludes this use."""

    def __init__(self, *, image: str, reason: str, hint: str) -> None:
        self.image, self.reason, self.hint = image, reason, hint
        super().__init__(f"image {image!r} is in use: {reason}; {hint}")


class ImageLocked(ImageBusy):
    """Others hold the image: readers share it, a writer shares it with nobody. ``pids`` are the holders'.

    ``writer_waits``: nobody writes to it yet; a writer waits for its readers, and is to be served first.
    """

    def __init__(self, *, image: str, exclusive: bool, pids: Sequence[int], writer_waits: bool = False) -> None:
        self.exclusive, self.pids, self.writer_waits = exclusive, tuple(pids), writer_waits
        who = ", ".join(str(pid) for pid in self.pids) or "that cannot be seen from here"
        reason = f"mode 'rw' needs it alone, and it is held by pid {who}" if exclusive else f"pid {who} writes to it"
        if writer_waits:
            reason = "somebody waits to write to it, and comes first"
        super().__init__(image=image, reason=reason, hint="wait for its end; see `imagemount ps`")


class FilesystemLocked(ImageBusy):
    """This kernel mounts one copy of that file system at a time, and others have one mounted; ``pids`` are theirs."""

    def __init__(self, *, image: str, fstype: str, uuid: str, pids: Sequence[int]) -> None:
        self.fstype, self.uuid, self.pids = fstype, uuid, tuple(pids)
        who = ", ".join(str(pid) for pid in self.pids) or "that cannot be seen from here"
        reason = f"its {fstype}, UUID {uuid}, is mounted for pid {who}, and this kernel mounts one copy at a time"
        super().__init__(image=image, reason=reason, hint="wait for its end; Linux 6.7 mounts them side by side")


class PartitionTableInvalid(ImageInvalid):
    """The partition table is corrupt beyond what its spare copy can mend."""


class PartitionNotFound(ImageMountError, LookupError):
    """No partition matches. ``table`` is the partition table as text, empty where the image has none."""

    def __init__(self, *, image: str, wanted: int | str, reason: str, table: str = "") -> None:
        self.image, self.wanted, self.reason, self.table = image, wanted, reason, table
        super().__init__(f"image {image!r}, partition {wanted!r}: {reason}" + (f"\n{table}" if table else ""))


class PartitionAmbiguous(PartitionNotFound):
    """More than one partition matches; ``table`` lists the matches."""


class PartitionRequired(PartitionNotFound):
    """The image has a partition table and no partition was chosen."""


class FilesystemNotMountable(ImageMountError, ValueError):
    """What was found there is no file system that can be mounted: swap, an encrypted volume, nothing known."""

    def __init__(self, *, image: str, partition: int | str | None, found: str | None, reason: str, hint: str) -> None:
        self.image, self.partition, self.found, self.reason, self.hint = image, partition, found, reason, hint
        super().__init__(f"{describe_place(image, partition)}: {reason}; {hint}")


class PassphraseRequired(FilesystemNotMountable):
    """It is an encrypted volume, and neither a passphrase nor a key file was given."""


class PassphraseWrong(ImageMountError, PermissionError):
    """No key slot of the encrypted volume opens with the passphrase or key that was given."""

    def __init__(self, *, image: str, place: str) -> None:
        self.image, self.place = image, place
        hint = "give the right passphrase=, or key_file= with its exact bytes: a newline at the end counts"
        super().__init__(f"image {image!r}, {place}: no key slot opens with that passphrase or key; {hint}")


class VolumeNotFound(ImageMountError, LookupError):
    """No volume matches, or more than one does. ``volumes`` holds a line for each that there is."""

    def __init__(self, *, image: str, wanted: str, reason: str, hint: str, volumes: Sequence[str] = ()) -> None:
        self.image, self.wanted, self.reason, self.hint = image, wanted, reason, hint
        self.volumes = tuple(volumes)
        lines = "".join(f"\n  {volume}" for volume in self.volumes)
        super().__init__(f"image {image!r}, volume {wanted!r}: {reason}; {hint}{lines}")


class VolumeInvalid(ImageInvalid):
    """A volume cannot be put together: its metadata are damaged, a part is missing, a root hash does not fit."""


class MountFailed(ImageMountError, OSError):
    """The kernel refused a mount. ``errno`` is the kernel's."""

    def __init__(self, *, image: str, partition: int | str | None, fstype: str, errno: int, reason: str, hint: str):
        self.image, self.partition, self.fstype, self.reason, self.hint = image, partition, fstype, reason, hint
        super().__init__(f"{describe_place(image, partition)}: mounting {fstype} failed: {reason}; {hint}")
        self.errno = errno


class ImageUnmounted(ImageMountError, ValueError):
    """A path of an image was used after the image was unmounted (as a closed file: a ValueError)."""

    def __init__(self, *, image: str, path: str) -> None:
        self.image, self.path = image, path
        super().__init__(
            f"image {image!r} is not mounted any more, so {path!r} cannot be reached; "
            "use its paths inside the 'with' block, or take the factory of a wider scope"
        )


class FactsMissing(ImageMountError, LookupError):
    """The image does not hold what the fact is read from. ``looked`` are the places inside the image, in order."""

    def __init__(self, *, image: str, fact: str, looked: Sequence[str], hint: str) -> None:
        self.image, self.fact, self.looked, self.hint = image, fact, tuple(looked), hint
        places = "".join(f"\n  {printable(place)}" for place in self.looked)
        super().__init__(f"image {image!r} has no {printable(fact)}; looked at:{places}\n{hint}")


class FactsInvalid(ImageMountError, ValueError):
    """A file of the image cannot be read as what it should be. ``line`` counts from 1; None for the whole file."""

    def __init__(self, *, image: str, path: str, reason: str, hint: str, line: int | None = None) -> None:
        self.image, self.path, self.reason, self.hint, self.line = image, path, reason, hint, line
        place = path if line is None else f"{path}, line {line}"
        super().__init__(f"image {image!r}: {printable(place)}: {printable(reason)}; {hint}")


class DeviceFailed(ImageMountError, OSError):
    """The kernel or the storage daemon refused to make a block device from the image. ``errno`` may be None."""

    def __init__(self, *, image: str, device: str, reason: str, hint: str, errno: int | None = None) -> None:
        self.image, self.device, self.reason, self.hint = image, device, reason, hint
        super().__init__(f"image {image!r}: {device}: {reason}; {hint}")
        self.errno = errno


class DevicesBusy(ImageMountError, OSError):
    """Every NBD device is leased now; asking again later may do.

    ``holders`` says, a line each, who holds which; ``ahead`` is how many asked before and are to be served first.
    """

    def __init__(self, *, image: str, holders: Sequence[str], ahead: int = 0) -> None:
        self.image, self.holders, self.ahead = image, tuple(holders), ahead
        super().__init__(f"image {image!r}: no NBD device is free now; held by: {'; '.join(self.holders) or 'unknown'}")


class DeviceTimeout(ImageMountError, TimeoutError):
    """No NBD device became free in time.

    ``holders`` says, a line each, who holds which device; ``ahead`` is how many still stood in line before this one.
    """

    def __init__(self, *, image: str, waited: float, holders: Sequence[str], ahead: int = 0) -> None:
        self.image, self.waited, self.holders, self.ahead = image, waited, tuple(holders), ahead
        who = "".join(f"\n  {holder}" for holder in self.holders) or "\n  nobody that left a note"
        super().__init__(
            f"image {image!r}: no free NBD device after {waited:.0f} s{in_line(ahead)}; held by:{who}\n"
            "Raise --imagemount-nbd-devices or --imagemount-timeout, or run fewer workers"
        )


def in_line(ahead: int) -> str:
    """What follows where a wait for a device is told of: empty for the first in line."""
    return f", {ahead} in line before it" if ahead else ""


class CapabilityMissing(ImageMountError, RuntimeError):
    """This machine cannot do what was asked. ``capability`` is its name in ``imagemount doctor``."""

    def __init__(self, *, capability: str, reason: str, hint: str) -> None:
        self.capability, self.reason, self.hint = capability, reason, hint
        super().__init__(f"{capability} is not available here: {reason}; {hint}")


class HelperStartFailed(ImageMountError, RuntimeError):
    """The helper process could not be started. ``output`` is the end of what it printed."""

    def __init__(self, *, reason: str, hint: str, output: str = "") -> None:
        self.reason, self.hint, self.output = reason, hint, output
        super().__init__(f"the helper process did not start: {reason}; {hint}" + (f"\n{output}" if output else ""))


class HelperLost(ImageMountError, ConnectionError):
    """The helper process ended, or spoke out of turn, while mounts were in its hands."""

    def __init__(self, *, reason: str, hint: str) -> None:
        self.reason, self.hint = reason, hint
        super().__init__(f"the helper process was lost: {reason}; {hint}")


class LabFailed(ImageMountError, RuntimeError):
    """The lab's kernel did not come up, or ended before the command did. ``console`` is its log, ``output`` the end."""

    def __init__(self, *, reason: str, hint: str, console: str = "", output: str = "") -> None:
        self.reason, self.hint, self.console, self.output = reason, hint, console, output
        log = f"\nconsole log: {console}" if console else ""
        super().__init__(f"the lab failed: {reason}; {hint}{log}" + (f"\n{output}" if output else ""))


class RequestInvalid(ImageMountError, ValueError):
    """An argument is not of the form that the call takes."""

    def __init__(self, *, argument: str, value: str, reason: str) -> None:
        self.argument, self.value, self.reason = argument, value, reason
        super().__init__(f"{argument}={value}: {reason}")


class CheckFileInvalid(ImageMountError, ValueError):
    """A file of checks is not as its schema says; ``mistakes`` has a line each: ``file:line:column: what is wrong``."""

    def __init__(self, *, file: str, mistakes: Sequence[str]) -> None:
        self.file, self.mistakes = file, tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


class ManifestInvalid(ImageMountError, ValueError):
    """A file is no manifest, or was changed to what is none. ``line`` counts from 1."""

    def __init__(self, *, file: str, line: int, reason: str) -> None:
        self.file, self.line, self.reason = file, line, reason
        super().__init__(f"{file}, line {line}: {reason}; write the manifest anew with Manifest.write()")


class StageError(ImageMountError, RuntimeError):
    """A stage was asked for in a state from which it cannot be reached."""

    def __init__(self, *, stage: str, state: str, needs: str) -> None:
        self.stage, self.state, self.needs = stage, state, needs
        super().__init__(f"cannot {stage} in state {state!r}; it must be {needs}")


class ProgramFailed(ImageMountError, RuntimeError):
    """A program ended with a failure. ``argv``, ``returncode`` and the end of its stderr are attributes."""

    def __init__(self, *, argv: Sequence[str], returncode: int, reason: str, stderr: str = "", hint: str = "") -> None:
        self.argv, self.returncode, self.reason, self.stderr, self.hint = tuple(argv), returncode, reason, stderr, hint
        text = f"{argv[0]}: {reason}" + (f"; {hint}" if hint else "") + (f"\n{stderr}" if stderr else "")
        super().__init__(f"{text}\ncommand: {' '.join(argv)}")


class CommandNotAllowed(ImageMountError, PermissionError):
    """A command of an image was to be run, and the user has not said that this may be."""

    def __init__(self, *, image: str, argv: Sequence[str]) -> None:
        self.image, self.argv = image, tuple(argv)
        super().__init__(
            f"image {image!r}: {' '.join(argv)}: commands of an image are not run unless you allow it: "
            "--imagemount-run=allow, IMAGEMOUNT_RUN=allow, or imagemount_run = allow in the ini file"
        )


class CommandFailed(ImageMountError, RuntimeError):
    """A command of an image could not be run (``returncode`` is None then), or with ``check`` ended badly."""

    def __init__(
        self, *, image: str, argv: Sequence[str], returncode: int | None, reason: str, hint: str = "", output: str = ""
    ) -> None:
        self.image, self.argv, self.returncode = image, tuple(argv), returncode
        self.reason, self.hint, self.output = reason, hint, output
        text = f"image {image!r}: {' '.join(argv)}: {reason}" + (f"; {hint}" if hint else "")
        super().__init__(text + (f"\n{output}" if output else ""))


class CommandTimeout(ImageMountError, TimeoutError):
    """A command of an image took longer than it may, and was ended. ``output`` is the end of what it wrote."""

    def __init__(self, *, image: str, argv: Sequence[str], timeout: float, output: str = "") -> None:
        self.image, self.argv, self.timeout, self.output = image, tuple(argv), timeout, output
        text = f"image {image!r}: {' '.join(argv)}: not over after {timeout:g} s, and ended; raise timeout="
        super().__init__(text + (f"\n{output}" if output else ""))


class TeardownError(ImageMountError, RuntimeError):
    """One or more undo steps failed; every one was tried. ``failures`` holds a line each."""

    def __init__(self, *, subject: str, failures: Sequence[str]) -> None:
        self.subject, self.failures = subject, tuple(failures)
        lines = "".join(f"\n  {failure}" for failure in self.failures)
        super().__init__(f"teardown of {subject} failed in {len(self.failures)} step(s):{lines}")


def describe_place(image: str, part: int | str | None) -> str:
    """``image 'disk.raw'`` or ``image 'disk.raw', partition 2``; ``part`` as for :func:`describe_part`."""
    return f"image {image!r}" + ("" if part is None else f", {describe_part(part)}")


def describe_part(part: int | str | None) -> str:
    """``partition 2``, ``volume vg/root`` or ``the image itself``: a part of an image, by what ``partition=`` takes."""
    if part is None:
        return "the image itself"
    name = str(part)
    return f"volume {name[3:]}" if name.startswith("lv:") else f"partition {name}"
