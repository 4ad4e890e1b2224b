"""The pytest plugin: options, report header, fixtures. Imported in every pytest run, so nothing heavy is at the top."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from .config import Settings, add_options, settings_from
from .end_of_run import EndOfRun
from .keep import KeepFailed, has_failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .errors import CapabilityMissing
    from .factory import ImageFactory
    from .mounted_image import BlockDevice, MountedImage
    from .pending import Pending
    from .session import MountSession

    MountFactory = Callable[..., Pending[MountedImage]]
    AttachFactory = Callable[..., Pending[BlockDevice]]

_SETTINGS = pytest.StashKey[Settings]()


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    settings = config.stash[_SETTINGS] = settings_from(config)
    config.pluginmanager.register(EndOfRun(), "imagemount-end-of-run")
    if settings.keep:
        config.pluginmanager.register(KeepFailed(), "imagemount-keep")


def pytest_report_header(config: pytest.Config) -> str:
    from .capabilities import header_line

    return header_line(sudo=config.stash[_SETTINGS].sudo)


@pytest.fixture
def mounted_image(request: pytest.FixtureRequest) -> Iterator[MountFactory]:
    """Mount disk images for this test: mounted_image(image, partition=None, *, mode="ro", ...) is a context manager.

    It gives a MountedImage: (image / "etc/hostname").read_text() reads inside the image, image.root is the mount
    point. Formats, file systems and partition tables are told from the content. Whatever is still mounted when the
    test ends is unmounted.
    """
    with _session(request) as session:
        yield session.mount


@pytest.fixture(scope="class")
def class_mounted_image(request: pytest.FixtureRequest) -> Iterator[MountFactory]:
    """As mounted_image, for images that stay mounted until the last test of the class."""
    with _session(request) as session:
        yield session.mount


@pytest.fixture(scope="module")
def module_mounted_image(request: pytest.FixtureRequest) -> Iterator[MountFactory]:
    """As mounted_image, for images that stay mounted until the last test of the module."""
    with _session(request) as session:
        yield session.mount


@pytest.fixture(scope="package")
def package_mounted_image(request: pytest.FixtureRequest) -> Iterator[MountFactory]:
    """As mounted_image, for images that stay mounted until the last test of the package."""
    with _session(request) as session:
        yield session.mount


@pytest.fixture(scope="session")
def session_mounted_image(request: pytest.FixtureRequest) -> Iterator[MountFactory]:
    """As mounted_image, for images that stay mounted until the end of the run; each xdist worker mounts its own."""
    with _session(request) as session:
        yield session.mount


@pytest.fixture
def attached_image(request: pytest.FixtureRequest) -> Iterator[AttachFactory]:
    """Attach disk images as block devices: attached_image(image, partition=None, *, partitions=False, ...).

    A context manager that gives a BlockDevice: device.path is /dev/loop3 or /dev/nbd0, with the whole disk or one
    partition behind it, not mounted. Whatever is still attached when the test ends is detached.
    """
    with _session(request) as session:
        yield session.attach


@pytest.fixture(scope="class")
def class_attached_image(request: pytest.FixtureRequest) -> Iterator[AttachFactory]:
    """As attached_image, for devices that stay attached until the last test of the class."""
    with _session(request) as session:
        yield session.attach


@pytest.fixture(scope="module")
def module_attached_image(request: pytest.FixtureRequest) -> Iterator[AttachFactory]:
    """As attached_image, for devices that stay attached until the last test of the module."""
    with _session(request) as session:
        yield session.attach


@pytest.fixture(scope="package")
def package_attached_image(request: pytest.FixtureRequest) -> Iterator[AttachFactory]:
    """As attached_image, for devices that stay attached until the last test of the package."""
    with _session(request) as session:
        yield session.attach


@pytest.fixture(scope="session")
def session_attached_image(request: pytest.FixtureRequest) -> Iterator[AttachFactory]:
    """As attached_image, for devices that stay attached until the end of the run; each xdist worker has its own."""
    with _session(request) as session:
        yield session.attach


@pytest.fixture(scope="session")
def image_factory(tmp_path_factory: pytest.TempPathFactory) -> ImageFactory:
    """Build small real images, with no privilege: image_factory(format="qcow2", table="gpt", partitions=[...]).

    Returns the path of a new image. Content comes from a dict of path to text, bytes, File, Directory or Symlink, or
    from a folder. Without table=, one file system fills the image: image_factory(fstype="ext4", content={...}).
    """
    from .factory import ImageFactory

    return ImageFactory(tmp_path_factory.mktemp("images"))


def _session(request: pytest.FixtureRequest) -> MountSession:
    from .session import MountSession

    config = request.config
    settings = config.stash[_SETTINGS]
    # pytest-xdist asks that this be read, not the environment, which a worker's own children inherit.
    worker: dict[str, Any] = getattr(config, "workerinput", {})
    name = str(worker.get("workerid", ""))
    number = name.removeprefix("gw")
    return MountSession(
        settings,
        test=request.node.nodeid,
        worker=name,
        nbd_start=int(number) if number.isdigit() else 0,
        folders=(*settings.path, config.rootpath, *_test_folder(request)),
        unavailable=_skip if settings.unavailable == "skip" else None,
        failed=partial(has_failed, request.node) if settings.keep else None,
        guarded=settings.signals == "auto",
        tell=partial(_tell, config),
    )


def _test_folder(request: pytest.FixtureRequest) -> tuple[Any, ...]:
    """The folder of the test file; none for the wider scopes, which have many."""
    path = getattr(request.node, "path", None)
    return () if path is None else (path if path.is_dir() else path.parent,)


def _tell(config: pytest.Config, line: str) -> None:
    """Show the user a line at once, past the capture of output; from a worker it goes to the terminal too."""
    import sys
    from contextlib import nullcontext

    capture: Any = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        print(f"\n{line}", file=sys.stderr, flush=True)


def _skip(missing: CapabilityMissing) -> None:
    pytest.skip(f"imagemount: {missing}")
