"""What a failed assertion about an image shows, as pytest prints it."""

from __future__ import annotations

import re

import pytest

# Images without a mount: two folders stand for the file systems, so that no privilege is needed.
IMAGES = """
    import os
    from pathlib import Path

    import pytest

    def mounted(folder, name, partition):
        from pytest_imagemount.facts import MountFacts
        from pytest_imagemount.mounted_image import MountedImage

        (folder / "etc").mkdir(parents=True)
        (folder / "etc/passwd").write_text(f"root:x:0:0::/:\\nmary:x:{os.geteuid()}:0::/:\\n")
        (folder / "etc/hostname").write_text("web01\\n")
        (folder / "etc/hostname").chmod(0o644)
        facts = MountFacts(
            source=Path("/images") / name, format="raw", partition=partition, device="/dev/loop3", fstype="ext4",
            label=None, uuid=None, mode="rw", backend="loop", mountpoint=folder,
        )
        return MountedImage(facts, lambda: None)

    @pytest.fixture
    def one(tmp_path):
        return mounted(tmp_path / "one", "one.qcow2", 2)

    @pytest.fixture
    def two(tmp_path):
        return mounted(tmp_path / "two", "two.raw", None)
"""
CHANGED = """
(one / "etc/hostname").chmod(0o4711)
(two / "etc/motd").touch()
"""
CHANGES = [
    "one.qcow2 partition 2 (-) and two.raw (+) differ: 1 added, 0 removed, 1 changed",
    "~ /etc/hostname: mode 0o4711 -> 0o644",
    "+ /etc/motd: file 0o*",
]


@pytest.fixture
def failures(pytester: pytest.Pytester) -> Failures:
    pytester.makeconftest(IMAGES)
    return Failures(pytester)


class Failures:
    """Runs tests that must fail, and gives of each the lines in which pytest says why, without their margin."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester

    def __call__(self, *bodies: str, options: tuple[str, ...] = ()) -> list[pytest.LineMatcher]:
        tests = []
        for number, body in enumerate(bodies):
            lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
            tests.append(f"def test_{number:02}(one, two):\n{lines}\n")
        self._pytester.makepyfile("from pytest_imagemount import diff\n\n" + "\n".join(tests))
        result = self._pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)
        result.assert_outcomes(failed=len(bodies))
        said: dict[int, list[str]] = {number: [] for number in range(len(bodies))}
        at = -1
        for line in result.stdout.lines:
            if heading := re.fullmatch(r"_+ test_(\d+) _+", line):
                at = int(heading[1])
            elif line.startswith("==="):
                at = -1
            elif at >= 0 and (line.startswith("E ") or "--tb=native" in options):
                said[at].append(line.removeprefix("E ").strip())
        return [pytest.LineMatcher(lines) for lines in said.values()]


@pytest.mark.parametrize("options", [(), ("-n", "1"), ("-vv",), ("--tb=short",), ("--tb=native",)], ids=" ".join)
def test_a_failed_assertion_shows_image_partition_and_path(failures: Failures, options: tuple[str, ...]) -> None:
    all_said = failures(
        'assert (one / "etc/hostname").read_text() == "web02\\n"',
        'assert (one / "etc/hostname").read_text() == "x\\n" * 100',
        'path = one / "etc/hostname"\nassert path.read_text() == "web02\\n"',
        'path = one / "etc/hostname"\nassert path.read_text().strip() == "web02"',
        'path = one / "etc/hostname"\ntext = path.read_text()\nassert text == "web02\\n"',
        'assert "web02" in (one / "etc/hostname").read_text()',
        'assert (one / "etc/hostname").is_dir()',
        'assert (one / "etc/hostname").owner() == "nobody"',
        'assert (one / "etc/hostname").facts().mode == 0o4755',
        'assert not (one / "etc/hostname").exists()',
        options=options,
    )
    for said in all_said:
        said.fnmatch_lines(["*one.qcow2 partition 2:/etc/hostname*"])


def test_only_the_paths_of_the_assertion_are_named_where_it_has_any(failures: Failures) -> None:
    of_paths, of_images = failures(
        'other = two / "etc/passwd"\npath = one / "etc/hostname"\nassert path.read_text() == "x"',
        'text = (one / "etc/hostname").read_text()\nassert text == "web02"',
    )
    of_paths.fnmatch_lines(["image: one.qcow2 partition 2:/etc/hostname"])
    of_paths.no_fnmatch_line("*two.raw*")
    of_images.fnmatch_lines(["image: one.qcow2 partition 2, two.raw"])


def test_facts_are_compared_field_by_field(failures: Failures) -> None:
    fields, names = failures(
        """
(one / "etc/hostname").write_text("longer\\n")
(one / "etc/hostname").chmod(0o4711)
assert (one / "etc/hostname").facts() == (two / "etc/hostname").facts()
""",
        """
from dataclasses import replace
facts = (one / "etc/hostname").facts()
assert facts == replace(facts, uid=7, owner="lp", gid=5, group=None)
""",
    )
    fields.fnmatch_lines(
        [
            "assert facts of one.qcow2 partition 2:/etc/hostname == facts of two.raw:/etc/hostname",
            "mode:   0o4711 != 0o644",
            "size:   7 bytes != 6 bytes",
            "sha256: *… != *…",
        ],
        consecutive=True,
    )
    names.fnmatch_lines(["owner: * (*) != lp (7)", "group: * != 5"], consecutive=True)


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=" ".join)
def test_differences_of_images_are_listed_with_their_reasons(failures: Failures, options: tuple[str, ...]) -> None:
    all_said = failures(
        f"{CHANGED}assert one.manifest() == two.manifest()",
        f"{CHANGED}assert diff(one, two) == []",
        f"{CHANGED}assert not diff(one, two)",
        f"{CHANGED}found = diff(one, two)\nassert not found",
        f'{CHANGED}assert not diff(one, two), "must be equal"',
        options=options,
    )
    for said in all_said:
        said.fnmatch_lines([f"*{CHANGES[0]}", *CHANGES[1:]], consecutive=True)
        assert sum(line == CHANGES[1] for line in said.lines) == 1, "once"


def test_an_assertion_that_is_not_rewritten_has_its_differences_too(failures: Failures) -> None:
    (said,) = failures(f"{CHANGED}found = diff(one, two)\nassert not found", options=("--assert=plain",))
    said.fnmatch_lines(CHANGES)


def test_two_diffs_are_compared_by_what_only_one_of_them_says(failures: Failures) -> None:
    (said,) = failures(
        f"{CHANGED}before = diff(one, two)\n(two / 'etc/motd').unlink()\nassert diff(one, two) == before"
    )
    said.fnmatch_lines(["assert * 1 changed == * 1 changed", "right: + /etc/motd: file *"], consecutive=True)
    said.no_fnmatch_line("*~ /etc/hostname*")


@pytest.mark.parametrize(("options", "shown"), [((), 20), (("-vv",), 40)], ids=["quiet", "verbose"])
def test_many_differences_are_cut_and_counted(failures: Failures, options: tuple[str, ...], shown: int) -> None:
    body = "for number in range(40): (two / f'etc/{number:02}').touch()\nassert not diff(one, two)"
    (said,) = failures(body, options=options)
    said.fnmatch_lines(["*differ: 40 added, 0 removed, 0 changed"])
    assert sum(line.startswith("+ /etc/") for line in said.lines) == shown
    if shown < 40:
        said.fnmatch_lines([f"+ /etc/{shown - 1}: file *", "… and 20 more"], consecutive=True)


def test_names_that_would_move_the_cursor_are_escaped(failures: Failures) -> None:
    (said,) = failures("(two / 'etc/\\x1b[2J\\udcff').touch()\nassert not diff(one, two)")
    said.fnmatch_lines([r"+ /etc/\x1b[[]2J\udcff: file *"])
    assert "\x1b" not in said.str()


def test_other_comparisons_are_left_to_pytest(failures: Failures) -> None:
    of_list, unequal = failures("assert [one.manifest()] == 3", "assert one.manifest() != one.manifest()")
    of_list.fnmatch_lines(["*assert [[]<Manifest of one.qcow2 partition 2, * files>] == 3"])
    unequal.fnmatch_lines(["*assert <Manifest of * != <Manifest of *"])


def test_a_failure_without_an_image_imports_nothing_of_the_package(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        class Proxy:
            @property
            def __class__(self):
                raise RuntimeError("no context")

        def test_it():
            assert 1 == 2

        def test_nothing_was_imported():
            assert not {f"pytest_imagemount.{name}" for name in ("image_diff", "image_path")} & set(sys.modules)

        def test_no_variable_is_asked_for_its_class():
            import pytest_imagemount.image_path, pytest_imagemount.image_diff
            proxy = Proxy()
            assert 3 == 4
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines(["*assert 1 == 2", "*assert 3 == 4"])
    result.stdout.no_fnmatch_line("*no context*")
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
