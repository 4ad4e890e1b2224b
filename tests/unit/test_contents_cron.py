"""What cron runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.contents.cron import CronJob, read_cron
from pytest_imagemount.errors import FactsInvalid, FactsMissing

from .system_tree import Link, make_tree

if TYPE_CHECKING:
    from pathlib import Path


def test_jobs_of_the_system_table(tmp_path: Path) -> None:
    text = (
        '# comment\nSHELL=/bin/sh\nPATH = /bin\n"A"=x\n17 *\t* * *\troot\tcd / && x %y\n'
        "@daily ann job\n*/5 0-3,7 1 jan mon-fri ben  a = b\n"
    )
    assert read_cron(make_tree(tmp_path, {"etc/crontab": text})) == (
        CronJob("17 * * * *", "root", "cd / && x %y", "/etc/crontab"),
        CronJob("@daily", "ann", "job", "/etc/crontab"),
        CronJob("*/5 0-3,7 1 jan mon-fri", "ben", "a = b", "/etc/crontab"),
    )


def test_tables_of_cron_d_but_not_backups(tmp_path: Path) -> None:
    line = "1 2 3 4 5 root x\n"
    names = ("b", "a.conf", ".hidden", "old~", "x.dpkg-dist", "y.rpmsave", "#z#")
    jobs = read_cron(make_tree(tmp_path, {f"etc/cron.d/{name}": line for name in names}))
    assert [job.source for job in jobs] == ["/etc/cron.d/a.conf", "/etc/cron.d/b"]


def test_scripts_that_are_executable(tmp_path: Path) -> None:
    names = ("etc/cron.daily/run", "etc/cron.daily/not", "etc/cron.hourly/h", "etc/periodic/15min/p")
    tree = make_tree(tmp_path, dict.fromkeys(names, "#!/bin/sh\n"))
    for name in names:
        (tmp_path / name).chmod(0o644 if name.endswith("not") else 0o755)
    assert [(job.schedule, job.user, job.command) for job in read_cron(tree)] == [
        ("@hourly", "root", "/etc/cron.hourly/h"),
        ("@daily", "root", "/etc/cron.daily/run"),
        ("*/15 * * * *", "root", "/etc/periodic/15min/p"),
    ]


@pytest.mark.parametrize("folder", ["var/spool/cron/crontabs", "etc/crontabs", "var/spool/cron/tabs", "var/spool/cron"])
def test_tables_of_users(folder: str, tmp_path: Path) -> None:
    jobs = read_cron(make_tree(tmp_path, {f"{folder}/ann": "MAILTO=x\n0 1 * * * a job\n"}))
    assert jobs == (CronJob("0 1 * * *", "ann", "a job", f"/{folder}/ann"),)


def test_a_folder_with_two_names_counts_once(tmp_path: Path) -> None:
    files: dict[str, str | bytes | Link] = {
        "etc/crontabs/root": "0 1 * * * a job\n",
        "var/spool/cron/crontabs": Link("/etc/crontabs"),
    }
    assert len(read_cron(make_tree(tmp_path, files))) == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nonsense", "does not start with a time"),
        ("1 2 3 4 ! root x", "does not start with a time"),
        ("1 2 3 4 5", "has no command"),
        ("1 2 3 4 5 root", "has no command"),
        ("@daily root", "has no command"),
    ],
)
def test_a_malformed_line_is_an_error_with_its_number(line: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(FactsInvalid, match=reason) as caught:
        read_cron(make_tree(tmp_path, {"etc/crontab": f"# one\n{line}\n"}))
    assert (caught.value.line, caught.value.path) == (2, "/etc/crontab")


def test_nothing_of_cron_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FactsMissing, match="has no crontab"):
        read_cron(make_tree(tmp_path / "a", {"etc/": ""}))
    assert read_cron(make_tree(tmp_path / "b", {"etc/cron.d/": ""})) == ()
