"""The settings of a run: command line over environment over ini, parsed once, at the edge.

Every setting has one name in three places: ``--imagemount-NAME``, ``IMAGEMOUNT_NAME`` and ini ``imagemount_NAME``.
An environment variable that is empty counts as not set.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    import pytest

MOST_NBD_DEVICES = 1024
"""Each costs a lock file."""
_TRUE, _FALSE = ("1", "yes", "true", "on"), ("0", "no", "false", "off")


class Settings(NamedTuple):
    """What the user chose. ``timeout`` is in seconds, ``unpack_limit`` in bytes; all folders are absolute."""

    # Not a dataclass: making one costs a millisecond or two, in every pytest run.

    backend: str = "auto"
    timeout: float = 60.0
    unavailable: str = "fail"
    keep: bool = False
    sudo: str = "auto"
    nbd_devices: int = 16
    path: tuple[Path, ...] = ()
    signals: str = "auto"
    run: str = "never"
    cache: Path | None = None
    unpack_limit: int = 64 << 30
    backing_folders: tuple[Path, ...] = ()

    @property
    def command_folders(self) -> tuple[Path, ...]:
        """Where a command looks for an image: in the working folder before those of ``path``."""
        return (Path.cwd(), *self.path)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self:
        """The settings where there is no pytest: ``IMAGEMOUNT_*`` variables over the defaults.

        :raises RequestInvalid: a variable has a value that is not accepted
        """
        environ = os.environ if environ is None else environ
        values = {option.name: option.from_environment(environ) for option in _OPTIONS}
        return cls(**{name: value for name, value in values.items() if value is not None})


class _Option(NamedTuple):
    """One setting: what it accepts, how it is parsed, how ``pytest --help`` explains it.

    ``parse`` takes the value as written and the folder that relative folders are under, and raises ValueError.
    """

    name: str
    accepts: str
    parse: Callable[[Any, Path], Any]
    help: str
    ini_type: str = "string"
    metavar: str | None = None
    action: str = "store"

    @property
    def flag(self) -> str:
        return "--imagemount-" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return "IMAGEMOUNT_" + self.name.upper()

    @property
    def ini(self) -> str:
        return "imagemount_" + self.name

    def parsed(self, source: str, value: object, base: Path) -> Any:
        """The value of the setting; ``source`` names where ``value`` was written."""
        try:
            return self.parse(value, base)
        except ValueError:
            from .errors import RequestInvalid  # with every class of error there is: only where there is one

            raise RequestInvalid(argument=source, value=str(value), reason=f"expected {self.accepts}") from None

    def from_environment(self, environ: Mapping[str, str]) -> Any:
        text = environ.get(self.variable)
        return self.parsed(self.variable, text, Path.cwd()) if text else None


def add_options(parser: pytest.Parser) -> None:
    """Declare every ``--imagemount-*`` option and every ``imagemount_*`` ini key."""
    import pytest

    # The number types came with pytest 8.4; with them a TOML file says 90 where it would have to say "90".
    has_numbers = pytest.version_tuple >= (8, 4)
    group = parser.getgroup("imagemount", "disk images mounted in tests")
    for option in _OPTIONS:
        shown = {} if option.metavar is None else {"metavar": option.metavar}
        group.addoption(option.flag, action=option.action, default=None, help=option.help, **shown)
        ini_type: Any = option.ini_type if has_numbers or option.ini_type not in ("int", "float") else "string"
        parser.addini(option.ini, option.help, type=ini_type, default=None)


def settings_from(config: pytest.Config) -> Settings:
    """The settings of this pytest run: command line over environment over ini over the defaults.

    :raises pytest.UsageError: a value is not accepted; the message names the option, variable or ini key, the value,
        and what is accepted
    """
    import pytest

    try:
        values = {option.name: _find(option, config) for option in _OPTIONS}
    except ValueError as error:  # RequestInvalid
        raise pytest.UsageError(str(error)) from None
    return Settings(**{name: value for name, value in values.items() if value is not None})


def _find(option: _Option, config: pytest.Config) -> Any:
    here = config.invocation_params.dir
    value = config.getoption(option.ini)
    if value is not None:
        return option.parsed(option.flag, value, here)
    value = option.from_environment(os.environ)
    if value is not None:
        return value
    return _find_ini(option, config, here)


def _find_ini(option: _Option, config: pytest.Config, here: Path) -> Any:
    import pytest

    try:
        value = config.getini(option.ini)
    except (TypeError, ValueError, pytest.UsageError) as error:
        raise pytest.UsageError(f"ini {option.ini}: {error}; expected {option.accepts}") from None
    return None if value is None else option.parsed(f"ini {option.ini}", value, here)


def _one_of(*choices: str) -> Callable[[Any, Path], str]:
    def parse(value: Any, base: Path) -> str:
        if value not in choices:
            raise ValueError(value)
        return str(value)

    return parse


def _seconds(value: Any, base: Path) -> float:
    seconds = float(value)
    if not 0 < seconds < math.inf:
        raise ValueError(value)
    return seconds


def _devices(value: Any, base: Path) -> int:
    count = int(value)
    if not 1 <= count <= MOST_NBD_DEVICES:
        raise ValueError(value)
    return count


def _yes_or_no(value: Any, base: Path) -> bool:
    word = str(value).strip().lower()
    if word not in _TRUE + _FALSE:
        raise ValueError(value)
    return word in _TRUE


def _size(value: Any, base: Path) -> int:
    """Bytes, written as a number and K, M, G or T for powers of 1024."""
    text = str(value).strip().upper()
    factor = 1 << 10 * ("KMGT".index(text[-1]) + 1) if text[-1:] in tuple("KMGT") else 1
    size = int(text.rstrip("KMGT")) * factor
    if size < 1:
        raise ValueError(value)
    return size


def _folder(value: Any, base: Path) -> Path:
    if not str(value):
        raise ValueError(value)
    return base / Path(value).expanduser()


def _folders(value: Any, base: Path) -> tuple[Path, ...]:
    """The folders of a list, or of a text with colons between them."""
    parts = value.split(":") if isinstance(value, str) else value
    return tuple(base / Path(part).expanduser() for part in parts if part)


_OPTIONS = (
    _Option(
        name="backend",
        accepts="auto, loop, nbd or fuse",
        parse=_one_of("auto", "loop", "nbd", "fuse"),
        metavar="{auto,loop,nbd,fuse}",
        help="how an image becomes a block device: loop, nbd, fuse, or auto, which is loop for a raw image, and for "
        "every other format nbd where the kernel has it, else fuse (default: auto)",
    ),
    _Option(
        name="timeout",
        accepts="a number of seconds above 0",
        parse=_seconds,
        metavar="SECONDS",
        ini_type="float",
        help="how long to wait for a free device, or for an image that others use, in seconds (default: 60)",
    ),
    _Option(
        name="unavailable",
        accepts="fail or skip",
        parse=_one_of("fail", "skip"),
        metavar="{fail,skip}",
        help="what becomes of a test that asks for what this machine cannot do (default: fail)",
    ),
    _Option(
        name="keep",
        accepts=f"one of {', '.join(_TRUE)} or one of {', '.join(_FALSE)}",
        parse=_yes_or_no,
        ini_type="bool",
        action="store_true",
        help="leave what a failed test mounted, and print where it is and how to remove it (default: no)",
    ),
    _Option(
        name="sudo",
        accepts="auto or never",
        parse=_one_of("auto", "never"),
        metavar="{auto,never}",
        help="how a user who is not root gets mounts: auto starts the helper process by sudo -n, never does not "
        "(default: auto)",
    ),
    _Option(
        name="nbd_devices",
        accepts=f"a whole number from 1 to {MOST_NBD_DEVICES}",
        parse=_devices,
        metavar="COUNT",
        ini_type="int",
        help="how many NBD devices, from /dev/nbd0 on, all test processes of this machine share (default: 16)",
    ),
    _Option(
        name="path",
        accepts="a list of folders",
        parse=_folders,
        metavar="FOLDER",
        ini_type="paths",
        action="append",
        help="a folder to look for images in, before rootdir and the folder of the test; give it again for more, or "
        "set IMAGEMOUNT_PATH=FOLDER:FOLDER (default: none)",
    ),
    _Option(
        name="signals",
        accepts="auto or never",
        parse=_one_of("auto", "never"),
        metavar="{auto,never}",
        help="whether SIGTERM and SIGHUP run the finalizers before they end the run: auto sees to it while something "
        "is mounted and nothing else handles them, never does not (default: auto)",
    ),
    _Option(
        name="run",
        accepts="never or allow",
        parse=_one_of("never", "allow"),
        metavar="{never,allow}",
        help="whether image.run() and image.testinfra() may run commands of an image, confined: never refuses, allow "
        "lets them (default: never)",
    ),
    _Option(
        name="cache",
        accepts="a folder",
        parse=_folder,
        metavar="FOLDER",
        help="where compressed and split images are unpacked to and kept, which belongs to the user (default: "
        "pytest-imagemount in $XDG_CACHE_HOME or ~/.cache)",
    ),
    _Option(
        name="unpack_limit",
        accepts="a number of bytes from 1 up, with K, M, G or T for powers of 1024",
        parse=_size,
        metavar="SIZE",
        help="how large one image may be when it is unpacked, and how much all that are kept may take on the disk "
        "(default: 64G)",
    ),
    _Option(
        name="backing_folders",
        accepts="a list of folders",
        parse=_folders,
        metavar="FOLDER",
        ini_type="paths",
        action="append",
        help="a folder that files may be in which an image refers to, when a test mounts it with backing='allow'; give "
        "it again for more, or set IMAGEMOUNT_BACKING_FOLDERS=FOLDER:FOLDER (default: none)",
    ),
)
