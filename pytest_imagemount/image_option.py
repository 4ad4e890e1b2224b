"""``pytest --image FILE``: the images that the fixtures ``image`` and ``image_path``, and check files, are run with.

Imported in every pytest run: nothing heavy at the top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .config import Settings
    from .mounted_image import MountedImage

CHOICE = "_imagemount_choice"
"""The fixture that is parametrised: a fixture of the user's that is named ``image`` is none of ours."""

CHECK_FILES = (".imagecheck.yaml", ".imagecheck.yml")

AUTO = "auto"
_ROOT = "root"
PARTITIONS = (
    "auto or root (both: the only one with a file system, or the one that holds the system), a number, or LABEL=, "
    "UUID=, PARTLABEL=, PARTUUID=, TYPE= with a value, or lv:GROUP/VOLUME (default: auto)"
)
"""What may be asked for, for the help of options."""

_CHOICES = pytest.StashKey["list[ImageChoice]"]()
_SETTINGS = pytest.StashKey["Settings"]()


class ImageChoice(NamedTuple):
    """An image to run tests with.

    :param path: absolute
    :param name: what ids and messages call it: the file name, and of what is above it as much as tells it from the
        other images
    :param partition: as for ``mounted_image``
    :param format: that it must have; None takes it from the content
    """

    path: Path
    name: str
    partition: str = AUTO
    format: str | None = None
    mode: str = "ro"


def add_image_options(parser: pytest.Parser) -> None:
    """Declare ``--image`` and what goes with it."""
    group = parser.getgroup("imagemount")
    group.addoption(
        "--image",
        action="append",
        dest="imagemount_images",
        metavar="FILE",
        help="a disk image to run tests with that use the fixture image or image_path, and check files "
        "(*.imagecheck.yaml); give it again for more",
    )
    group.addoption(
        "--image-partition",
        dest="imagemount_image_partition",
        default=AUTO,
        metavar="WHICH",
        help=f"the partition of --image: {PARTITIONS}",
    )
    group.addoption(
        "--image-format",
        dest="imagemount_image_format",
        metavar="FORMAT",
        help="the format that --image must have (default: told from the content)",
    )


def configure_images(config: pytest.Config, settings: Settings) -> None:
    """Find the images that were given, before any test.

    :raises pytest.UsageError: there is no such file
    """
    config.stash[_SETTINGS] = settings
    given: Sequence[str] | None = config.getoption("imagemount_images")
    config.stash[_CHOICES] = []
    if not given:
        return
    from .errors import ImageMountError
    from .image_files import find_image

    try:
        found = [find_image(image, (config.invocation_params.dir, *settings.path)) for image in given]
    except ImageMountError as error:
        raise pytest.UsageError(f"--image: {error}") from None
    paths = list(dict.fromkeys(found))
    config.stash[_CHOICES] = [
        ImageChoice(
            path=path,
            name=name,
            partition=partition_of(config.getoption("imagemount_image_partition")),
            format=config.getoption("imagemount_image_format"),
        )
        for path, name in zip(paths, short_names(paths), strict=True)
    ]
    report_images(config)


def partition_of(word: str) -> str:
    """What ``mounted_image`` calls the partition that ``word`` of a command line or check file names."""
    return AUTO if word == _ROOT else word


def report_images(config: pytest.Config) -> None:
    """Have the reports of this run say which image each test had; a second call does nothing."""
    if not config.pluginmanager.hasplugin("imagemount-image-reports"):
        from .image_reports import ImageReports

        config.pluginmanager.register(ImageReports(config), "imagemount-image-reports")


def chosen_images(config: pytest.Config) -> list[ImageChoice]:
    """The images that ``--image`` names."""
    return config.stash[_CHOICES]


def parametrise(metafunc: pytest.Metafunc) -> None:
    """Run a test that uses ``image`` or ``image_path`` once for each image."""
    choices = chosen_images(metafunc.config)
    if choices:
        ids = [choice.name for choice in choices]
        # At session scope pytest puts the tests of one image side by side, and an image is mounted once a worker. It
        # is read-only, so that no test can spoil it for another, and what was read of it (package database, users)
        # is read once.
        metafunc.parametrize(CHOICE, choices, ids=ids, indirect=True, scope="session")


def choice_of(request: pytest.FixtureRequest) -> ImageChoice:
    """The image that the test is run with; fails or skips the test where none was given."""
    choice: ImageChoice | None = getattr(request, "param", None)
    if choice is None:
        no_image(request.config, "the fixtures image and image_path need one")
    return choice


def no_image(config: pytest.Config, who: str) -> NoReturn:
    """Fail the test, or skip it where the settings say so for what is unavailable."""
    text = f"imagemount: no image was given, and {who}: run pytest --image FILE"
    if config.stash[_SETTINGS].unavailable == "skip":
        pytest.skip(text)
    pytest.fail(text, pytrace=False)


def mounted_choice(request: pytest.FixtureRequest, choice: ImageChoice) -> Iterator[MountedImage]:
    """The generator of the fixture ``image``."""
    from .shared_images import shared_images

    with shared_images(request.session).held(choice) as shared:
        yield shared.image


def short_names(paths: Sequence[Path]) -> list[str]:
    """A name for each of ``paths``, which differ: the last part, and of equal ones as many more as tell them apart."""
    depths = [1] * len(paths)
    while True:
        names = ["/".join(path.parts[-depth:]) for path, depth in zip(paths, depths, strict=True)]
        equal = [number for number, name in enumerate(names) if names.count(name) > 1]
        if not equal:
            return names
        for number in equal:
            depths[number] += 1
