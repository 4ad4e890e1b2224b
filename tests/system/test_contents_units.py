"""States of units in trees that hypothesis makes, against `systemctl --root`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_imagemount import programs
from pytest_imagemount.contents.services import read_services
from tests.unit.system_tree import make_tree

from .debian_root import cannot

FOLDERS = (
    "etc/systemd/system",
    "etc/systemd/system",
    "usr/lib/systemd/system",
    "usr/lib/systemd/system",
    "usr/local/lib/systemd/system",
    "lib/systemd/system",
    "run/systemd/system",
    "run/systemd/transient",
    "run/systemd/generator",
    "etc/systemd/system.control",
    "opt",
)
names = st.builds(
    "{}.{}".format,
    st.sampled_from(["a", "b", "c@", "c@x"]),
    st.sampled_from(["service"] * 8 + ["socket", "mount", "target"]),
)
lines = st.one_of(
    st.sampled_from(
        [
            "[Unit]",
            "[Install]",
            "[bad",
            "[In\\stall]",
            "; comment",
            "# comment \\",
            "Key=goes on \\",
            "WantedBy=multi-user.target",
            'RequiredBy="a.target" b.target',
            'WantedBy=a "b',
            "WantedBy=",
            "DefaultInstance=x",
            "DefaultInstance=%p",
            "Also=%N.service",
            "Also=nothing",
            "\\",
            "ä=ü",
        ]
    ),
    st.builds("Alias={} {}".format, names, names),
    st.builds("Also={}".format, names),
)
contents = st.one_of(
    st.builds(lambda body: "[Install]\n" + "\n".join(body), st.lists(lines, max_size=5)),
    st.builds("\n".join, st.lists(lines, max_size=5)),
    st.just(""),
)
targets = st.one_of(
    names,
    st.builds("{}/{}".format, st.sampled_from(["/lib/systemd/system", "/usr/lib/systemd/system", "/opt"]), names),
    st.builds("../../../../../usr/lib/systemd/system/{}".format, names),
    st.sampled_from(["/dev/null", "/dev/null", ".", "/", "..", "text.txt", "/no/such.service"]),
)
places = st.one_of(
    st.builds("{}/{}".format, st.sampled_from(FOLDERS), names),
    st.builds("{}/{}".format, st.sampled_from(FOLDERS), names),
    st.builds("{}/{}{}/{}".format, st.sampled_from(FOLDERS), names, st.sampled_from([".wants", ".requires"]), names),
    st.builds("{}/{}.d/{}".format, st.sampled_from(FOLDERS), names, st.sampled_from(["1.conf", "2.conf", "x"])),
)
presets = st.sampled_from(
    [
        "disable *\n",
        "enable a.*\ndisable *\n",
        "enable c@.service x\ndisable c*\n",
        "disable [^a].service\nenable x y\n",
    ]
)


class Unit:
    """A regular file, or a link."""

    def __init__(self, text: str, *, is_link: bool) -> None:
        self.text, self.is_link = text, is_link

    def __repr__(self) -> str:
        return f"-> {self.text}" if self.is_link else repr(self.text)


units = st.one_of(
    st.builds(lambda text: Unit(text, is_link=False), contents),
    st.builds(lambda text: Unit(text, is_link=True), targets),
)


@pytest.fixture(scope="module", autouse=True)
def has_systemctl() -> None:
    if programs.find_program("systemctl") is None:
        cannot("install package systemd", "systemctl")
    version = programs.run(["systemctl", "--version"]).split()[1].decode()
    if version != "252":
        cannot(f"corners differ from version to version; the rules are those of 252, this is {version}", "systemctl")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(merged=st.booleans(), files=st.dictionaries(places, units, min_size=1, max_size=14), preset=presets)
def test_states_of_any_tree_are_those_that_systemctl_lists(merged: bool, files: dict[str, Unit], preset: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        write(root, files, preset, merged=merged)
        found = {name: (each.state, each.preset) for name, each in read_services(make_tree(root, {})).items()}
        assert found == listed(root)


def write(root: Path, files: dict[str, Unit], preset: str, *, merged: bool) -> None:
    for folder in ("usr/lib/systemd/system", "etc/systemd/system-preset"):
        (root / folder).mkdir(parents=True)
    (root / "etc/systemd/system-preset/50.preset").write_text(preset)
    if merged:
        (root / "lib").symlink_to("usr/lib")
    for name, unit in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path):  # writing through a link would write to this machine
            continue
        if unit.is_link:
            path.symlink_to(unit.text)
        else:
            path.write_text(unit.text)


def listed(root: Path) -> dict[str, tuple[str, str | None]]:
    # It ends with status 1 where there is no unit.
    command = f"systemctl --root={root} --no-pager --no-legend --full list-unit-files || test $? = 1"
    printed = programs.run(["/bin/sh", "-c", command], extra_environment={"SYSTEMD_LOG_LEVEL": "emerg"}).decode()
    rows = [line.split() for line in printed.splitlines()]
    return {name: (state, None if preset == "-" else preset) for name, state, preset in rows}
