"""States of systemd's units; and OpenRC and System V init. What systemctl itself says is in the system tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.contents.services import Services, read_services
from pytest_imagemount.errors import FactsMissing

from .system_tree import Link, make_tree

if TYPE_CHECKING:
    from pathlib import Path

Files = dict[str, str | bytes | Link]
VENDOR, ETC, RUN = "usr/lib/systemd/system", "etc/systemd/system", "run/systemd/system"
UNIT = "[Unit]\nDescription=x\n"
WANTED = "[Install]\nWantedBy=multi-user.target\n"


def services(folder: Path, files: Files) -> Services:
    return read_services(make_tree(folder, {"usr/lib/systemd/systemd": "", **files}))


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ({f"{VENDOR}/a.service": UNIT}, "static"),
        ({f"{VENDOR}/a.service": WANTED}, "disabled"),
        ({f"{VENDOR}/a.service": "[Install]\nAlso=b.socket\n"}, "indirect"),
        ({f"{VENDOR}/a.service": WANTED, f"{ETC}/multi-user.target.wants/a.service": Link("/x/a.service")}, "enabled"),
        ({f"{VENDOR}/a.service": UNIT, f"{ETC}/b.target.requires/a.service": Link("dangling")}, "enabled"),
        ({f"{VENDOR}/a.service": WANTED, f"{RUN}/b.target.wants/a.service": Link("x")}, "enabled-runtime"),
        ({f"{VENDOR}/a.service": WANTED, f"{VENDOR}/b.target.wants/a.service": Link("../a.service")}, "disabled"),
        ({f"{VENDOR}/a.service": UNIT, f"{ETC}/a.service": Link("/dev/null")}, "masked"),
        ({f"{VENDOR}/a.service": UNIT, f"{ETC}/a.service": ""}, "masked"),
        ({f"{VENDOR}/a.service": UNIT, f"{RUN}/a.service": Link("/dev/null")}, "masked-runtime"),
        ({"opt/a.service": WANTED, f"{ETC}/a.service": Link("/opt/a.service")}, "linked"),
        ({"opt/a.service": WANTED, f"{RUN}/a.service": Link("/opt/a.service")}, "linked-runtime"),
        ({f"{VENDOR}/b.service": UNIT, f"{VENDOR}/a.service": Link("b.service")}, "alias"),
        ({f"{VENDOR}/b.service": UNIT, f"{ETC}/a.service": Link(f"/{VENDOR}/b.service")}, "alias"),
        ({"run/systemd/generator/a.service": UNIT}, "generated"),
        ({"run/systemd/transient/a.service": UNIT}, "transient"),
        ({f"{VENDOR}/a.service": UNIT, f"{ETC}/a.service/": ""}, "bad"),
        ({f"{VENDOR}/a.service": Link("b.socket"), f"{VENDOR}/b.socket": UNIT}, "bad"),
        ({f"{VENDOR}/a.service": Link("b.service"), f"{VENDOR}/b.service": Link("a.service")}, "bad"),
        ({f"{VENDOR}/a.service": Link("missing.service")}, "bad"),
        ({f"{VENDOR}/a.service": "[Install\n"}, "bad"),
        ({f"{VENDOR}/a.service": b"[Install]\nWantedBy=\xff\n"}, "bad"),
        ({f"{VENDOR}/a.service": UNIT, f"{ETC}/a.service.d/x.conf": WANTED}, "disabled"),
        ({f"{VENDOR}/a.service": WANTED, f"{ETC}/a.service.d/x.conf": "[Install]\nWantedBy=\n"}, "static"),
        (
            {f"{VENDOR}/a.service": UNIT, f"{VENDOR}/a.service.d/x.conf": WANTED, f"{ETC}/a.service.d/x.conf": ""},
            "static",
        ),
        ({f"{VENDOR}/a.service": UNIT, f"{ETC}/b.service": Link(f"/{VENDOR}/a.service")}, "indirect"),
        (
            {f"{VENDOR}/a.service": "[Install]\nAlias=b.service\n", f"{ETC}/b.service": Link(f"/{VENDOR}/a.service")},
            "enabled",
        ),
        ({f"{VENDOR}/a.service": "# [Install]\n[Unit] \\\n[Install]\nWantedBy=x\n"}, "static"),
        ({f"{VENDOR}/a.service": "[Install]\nWantedBy \\\n# between\n = x.target\n"}, "disabled"),
    ],
)
def test_the_state_of_a_unit(files: Files, state: str, tmp_path: Path) -> None:
    assert services(tmp_path, files)["a.service"].state == state


def test_a_unit_of_etc_hides_that_of_the_vendor(tmp_path: Path) -> None:
    found = services(tmp_path, {f"{VENDOR}/a.service": WANTED, f"{ETC}/a.service": UNIT})
    assert (found["a.service"].state, found["a.service"].path) == ("static", f"/{ETC}/a.service")


def test_templates_and_their_instances(tmp_path: Path) -> None:
    files: Files = {
        f"{VENDOR}/a@.service": "[Install]\nWantedBy=x.target\nDefaultInstance=one\n",
        f"{VENDOR}/b@.service": WANTED,
        f"{ETC}/x.target.wants/a@one.service": Link(f"/{VENDOR}/a@.service"),
        f"{ETC}/x.target.wants/b@two.service": Link(f"/{VENDOR}/b@.service"),
    }
    found = services(tmp_path, files)
    assert list(found) == ["a@.service", "b@.service"]
    assert {name: each.state for name, each in found.items()} == {"a@.service": "enabled", "b@.service": "indirect"}
    assert (found["b@two.service"].state, found["b@two.service"].wanted_by) == ("enabled", ("x.target",))
    assert found["b@other.service"].state == "disabled"
    assert "c@two.service" not in found
    assert "b@two.nonsense" not in found


def test_folders_of_a_merged_and_of_a_split_usr(tmp_path: Path) -> None:
    merged = services(tmp_path / "a", {f"{VENDOR}/a.service": UNIT, "lib": Link("usr/lib")})
    assert merged["a.service"].path == f"/{VENDOR}/a.service"
    split = services(tmp_path / "b", {f"{VENDOR}/a.service": UNIT, "lib/systemd/system/a.service": WANTED})
    assert split["a.service"].path == "/lib/systemd/system/a.service"


def test_what_wants_a_unit(tmp_path: Path) -> None:
    files: Files = {
        f"{VENDOR}/a.service": UNIT,
        f"{VENDOR}/b.target.wants/a.service": Link("../a.service"),
        f"{ETC}/b.target.wants/a.service": Link("x"),
        f"{ETC}/c.socket.requires/a.service": Link("x"),
        f"{ETC}/d.target.wants/a.service": "no link",
    }
    assert services(tmp_path, files)["a.service"].wanted_by == ("b.target", "c.socket")


def test_presets_by_the_first_rule_that_matches(tmp_path: Path) -> None:
    files: Files = {
        **{f"{VENDOR}/{name}.service": WANTED for name in ("a", "b", "c", "d", "e")},
        f"{VENDOR}/static.service": UNIT,
        "etc/systemd/system-preset/10-x.preset": "# note\nenable a.service\ndisable [!b-z].service\nignore e.*\n",
        "usr/lib/systemd/system-preset/10-x.preset": "disable b.service\n",
        "usr/lib/systemd/system-preset/20-y.preset": "disable c.*\nenable d.service one two\nenable *\n",
        "usr/lib/systemd/system-preset/30-z.preset": "disable *\n",
        "usr/lib/systemd/system-preset/15-masked.preset": "disable *\n",
        "etc/systemd/system-preset/15-masked.preset": Link("/dev/null"),
    }
    found = {name: each.preset for name, each in services(tmp_path, files).items()}
    assert found == {
        "a.service": "enabled",
        "b.service": "enabled",
        "c.service": "disabled",
        "d.service": "enabled",
        "e.service": "ignored",
        "static.service": None,
    }


def test_names_that_are_no_units_are_not_listed(tmp_path: Path) -> None:
    names = ("a.service", "a.conf", "@.service", "b c.service", ".service", "a.nonsense", "README")
    assert list(services(tmp_path, {f"{VENDOR}/{name}": UNIT for name in names})) == ["a.service"]


def test_links_are_followed_inside_the_image_only(tmp_path: Path) -> None:
    (tmp_path / "outside.service").write_text(WANTED)
    climbing = "../" * 30
    files: Files = {
        f"{ETC}/a.service": Link(str(tmp_path / "outside.service")),
        f"{ETC}/b.service": Link(f"{climbing}opt/b.service"),
        "opt/b.service": WANTED,
    }
    found = services(tmp_path / "root", files)
    assert {name: each.state for name, each in found.items()} == {"a.service": "bad", "b.service": "linked"}


def test_services_of_openrc(tmp_path: Path) -> None:
    files: Files = {
        **{f"etc/init.d/{name}": "#!/sbin/openrc-run\n" for name in ("sshd", "crond", "functions.sh")},
        "etc/init.d/notes.txt": "",
        "etc/runlevels/default/sshd": Link("/etc/init.d/sshd"),
        "etc/runlevels/boot/sshd": Link("/etc/init.d/sshd"),
        f"{VENDOR}/sshd.service": UNIT,
    }
    tree = make_tree(tmp_path, files)
    for name in ("sshd", "crond", "functions.sh"):
        (tmp_path / "etc/init.d" / name).chmod(0o755)
    found = read_services(tree)
    assert {name: (each.state, each.wanted_by) for name, each in found.items()} == {
        "crond": ("disabled", ()),
        "sshd": ("enabled", ("boot", "default")),
    }
    assert found["sshd"].path == "/etc/init.d/sshd"


@pytest.mark.parametrize("folder", ["etc", "etc/rc.d"])
def test_services_of_system_v_init(folder: str, tmp_path: Path) -> None:
    files: Files = {
        "etc/init.d/ssh": "#!/bin/sh\n",
        "etc/init.d/cron": "#!/bin/sh\n",
        f"{folder}/rc2.d/S01ssh": Link("../init.d/ssh"),
        f"{folder}/rc3.d/S01ssh": Link("../init.d/ssh"),
        f"{folder}/rc0.d/K01cron": Link("../init.d/cron"),
    }
    tree = make_tree(tmp_path, files)
    for name in ("ssh", "cron"):
        (tmp_path / "etc/init.d" / name).chmod(0o755)
    found = {name: (each.state, each.wanted_by) for name, each in read_services(tree).items()}
    assert found == {"cron": ("disabled", ()), "ssh": ("enabled", ("2", "3"))}


def test_services_of_busybox_init(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"etc/init.d/S50sshd": "#!/bin/sh\n", "etc/init.d/rcK": "#!/bin/sh\n"})
    for name in ("S50sshd", "rcK"):
        (tmp_path / "etc/init.d" / name).chmod(0o755)
    assert {name: each.state for name, each in read_services(tree).items()} == {"S50sshd": "enabled", "rcK": "disabled"}


def test_no_init_is_an_error_that_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FactsMissing, match="has no services") as caught:
        read_services(make_tree(tmp_path, {"etc/": ""}))
    assert {"/etc/systemd/system", "/etc/runlevels", "/etc/init.d"} <= set(caught.value.looked)
