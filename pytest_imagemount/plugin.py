"""The pytest plugin: options, report header, fixtures. Imported in every pytest run, so nothing heavy is at the top."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from .config import Settings, add_options, settings_from
from .end_of_run import EndOfRun
from .image_option import CHECK_FILES, CHOICE, ImageChoice, add_image_options, configure_images
from .keep import KeepFailed, has_failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from _pytest.nodes import Node

    from .errors import CapabilityMissing
    from .factory import ImageFactory
    from .mounted_image import BlockDevice, MountedImage
    from .mounted_system import MountedSystem
    from .pending import Pending
    from .session import MountSession

    MountFactory = Callable[..., Pending[MountedImage]]
    SystemFactory = Callable[..., Pending[MountedSystem]]
    AttachFactory = Callable[..., Pending[BlockDevice]]

_SETTINGS = pytest.StashKey[Settings]()


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)
    add_image_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    settings = config.stash[_SETTINGS] = settings_from(config)
    config.pluginmanager.register(EndOfRun(), "imagemount-end-of-run")
    if settings.keep:
        config.pluginmanager.register(KeepFailed(), "imagemount-keep")
    configure_images(config, settings)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if CHOICE in metafunc.fixturenames:
        from .image_option import parametrise

        parametrise(metafunc)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if not file_path.name.endswith(CHECK_FILES):
        return None
    from .checks.collect import CheckFile

    return CheckFile.from_parent(parent, path=file_path)


def pytest_report_header(config: pytest.Config) -> str:
    from .report_header import header_line

    return header_line(sudo=config.stash[_SETTINGS].sudo)


def pytest_assertrepr_compare(config: pytest.Config, op: str, left: object, right: object) -> list[str] | None:
    from .assertions import explain, verbosity_of

    return explain(op, left, right, verbosity_of(config))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    if call.excinfo is not None and call.excinfo.errisinstance(AssertionError):
        from .assertions import add_notes, verbosity_of

        add_notes(call.excinfo.value, verbosity_of(item.config))


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
def mounted_system(request: pytest.FixtureRequest) -> Iterator[SystemFactory]:
    """Mount an installed system for this test: mounted_system(image, *, mode="ro", ...) is a context manager.

    Its root is found and mounted, and below it what its own fstab and the types of its partitions say: /boot, /home,
    the ESP. It gives a MountedSystem: as a MountedImage of the whole tree, with system.submounts and system.skipped.
    """
    with _session(request) as session:
        yield session.mount_system


@pytest.fixture(scope="session")
def session_mounted_system(request: pytest.FixtureRequest) -> Iterator[SystemFactory]:
    """As mounted_system, for systems that stay mounted until the end of the run; each xdist worker mounts its own."""
    with _session(request) as session:
        yield session.mount_system


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


@pytest.fixture(scope="session", name=CHOICE)
def imagemount_choice(request: pytest.FixtureRequest) -> ImageChoice:
    """The image of --image that the test is run with."""
    from .image_option import choice_of

    return choice_of(request)


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest, _imagemount_choice: ImageChoice) -> Iterator[MountedImage]:
    """The image that pytest --image FILE names, mounted read-only: a MountedImage. With several, each test runs once
    for each.

    It stays mounted until the last test with it; each xdist worker mounts its own.
    """
    from .image_option import mounted_choice

    yield from mounted_choice(request, _imagemount_choice)


@pytest.fixture(scope="session")
def image_path(_imagemount_choice: ImageChoice) -> Path:
    """The path of the image file that pytest --image FILE names; nothing is mounted for it."""
    return _imagemount_choice.path


def _session(request: pytest.FixtureRequest) -> MountSession:
    return session_of(request.node)


def session_of(node: Node) -> MountSession:
    """What is mounted for ``node`` and released when it ends."""
    from .session import MountSession

    config = node.config
    settings = config.stash[_SETTINGS]
    # pytest-xdist asks that this be read, not the environment, which a worker's own children inherit.
    worker: dict[str, Any] = getattr(config, "workerinput", {})
    name = str(worker.get("workerid", ""))
    number = name.removeprefix("gw")
    return MountSession(
        settings,
        test=node.nodeid,
        worker=name,
        nbd_start=int(number) if number.isdigit() else 0,
        folders=(*settings.path, config.rootpath, *_test_folder(node)),
        unavailable=_skip if settings.unavailable == "skip" else None,
        failed=partial(has_failed, node) if settings.keep else None,
        guarded=settings.signals == "auto",
        tell=partial(_tell, config),
        draw=_drawer(config),
    )


def _test_folder(node: Node) -> tuple[Any, ...]:
    """The folder of the test file; none for the wider scopes, which have many."""
    path = getattr(node, "path", None)
    return () if path is None else (path if path.is_dir() else path.parent,)


def _tell(config: pytest.Config, line: str) -> None:
    """Show the user a line at once, past the capture of output; from a worker it goes to the terminal too."""
    import sys

    with _past_capture(config):
        print(f"\n{line}", file=sys.stderr, flush=True)


def _drawer(config: pytest.Config) -> Callable[[str], None] | None:
    """Shows a line on the terminal in the place of the one before; None where there is none, as in a worker."""
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    if reporter is None or not reporter.isatty:
        return None

    def draw(line: str) -> None:
        with _past_capture(config):
            reporter.ensure_newline()
            reporter.rewrite(line, erase=True)
            reporter.flush()

    return draw


def _past_capture(config: pytest.Config) -> AbstractContextManager[None]:
    """Inside, what is printed is shown."""
    from contextlib import nullcontext

    capture: Any = config.pluginmanager.getplugin("capturemanager")
    return capture.global_and_fixture_disabled() if capture else nullcontext()


def _skip(missing: CapabilityMissing) -> None:
    pytest.skip(f"imagemount: {missing}")
