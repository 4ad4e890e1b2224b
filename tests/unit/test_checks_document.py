"""Check files as values with places: what YAML means here, and what is refused."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount.checks.document import MOST_BYTES, load_documents, written
from pytest_imagemount.checks.place import Place
from pytest_imagemount.errors import CapabilityMissing, CheckFileInvalid

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "base.imagecheck.yaml"


def load(file: Path, text: str) -> Any:
    file.write_text(text)
    (document,) = load_documents(file, "base.imagecheck.yaml")
    return document.value


def refusal(file: Path, text: str | bytes) -> str:
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(CheckFileInvalid) as caught:
        load_documents(file, "base.imagecheck.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-1", -1),
        ("1.5", 1.5),
        ("0644", "0644"),
        ("0x1f", "0x1f"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1e3", "1e3"),
        ("=", "="),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", 12),
    ],
)
def test_scalars_are_those_of_json_and_all_else_is_text(file: Path, text: str, value: object) -> None:
    found = load(file, f"key: {text}\n")["key"]
    assert found == value
    assert isinstance(found, type(value))


@pytest.mark.parametrize("text", ["3.10", "22.04", "0", "007", "12"])
def test_a_number_knows_how_it_was_written(file: Path, text: str) -> None:
    assert written(load(file, f"key: {text}\n")["key"]) == text


def test_true_is_written_as_in_yaml(file: Path) -> None:
    assert written(load(file, "key: true\n")["key"]) == "true"


def test_keys_are_text_as_written(file: Path) -> None:
    assert list(load(file, "1: a\nno: b\n0644: c\n")) == ["1", "no", "0644"]


def test_every_value_has_its_place(file: Path) -> None:
    file.write_text("files:\n  /etc/hosts:\n    contains: [a, b]\n")
    (document,) = load_documents(file)
    assert document.place(("files", "/etc/hosts", "contains", 1)) == Place(3, 19)
    assert document.key_place(("files", "/etc/hosts")) == Place(2, 3)
    assert document.place(("files", "/etc/hosts", "mode")) == Place(3, 5), "of what is not there, the nearest above"


def test_a_file_holds_several_documents(file: Path) -> None:
    file.write_text("a: 1\n---\nb: 2\n")
    assert [document.value for document in load_documents(file)] == [{"a": 1}, {"b": 2}]


def test_an_alias_repeats_a_value(file: Path) -> None:
    assert load(file, "a: &x [1, 2]\nb: *x\n")["b"] == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "base.imagecheck.yaml:3:1: key 'a' is there twice, first in line 1"),
        ("os:\n  id: x\n  'id': y\n", "base.imagecheck.yaml:3:3: key 'id' is there twice, first in line 2"),
        ("a: !!python/object:os.system x\n", "base.imagecheck.yaml:1:4: tags (tag:yaml.org,2002:python/object:"),
        ("a: !mine 1\n", "base.imagecheck.yaml:1:4: tags (!mine) have no meaning here"),
        ("a: [1, 2\nb: 3\n", "base.imagecheck.yaml:2:2: not YAML: "),
        ("a:\n\tb: 1\n", "base.imagecheck.yaml:2:1: not YAML: found character '\\t'"),
        ("[a, b]: 1\n", "base.imagecheck.yaml:1:1: a key must be text"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "base.imagecheck.yaml:3:3: merge keys (<<) have no meaning here"),
        ("a: *x\n", "base.imagecheck.yaml:1:4: not YAML: found undefined alias 'x'"),
        ("a: &x [*x]\n", "nested too deeply"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: " + "[" * 30 + "]" * 30, "nested too deeply"),
        ("# nothing\n", "base.imagecheck.yaml:1:1: the file is empty: it checks nothing"),
        ("a: \x07\n", "base.imagecheck.yaml:1:1: not YAML: "),
        (b"a: \xff\n", "base.imagecheck.yaml:1:1: the text is not UTF-8"),
        ("#" * (MOST_BYTES + 1), "base.imagecheck.yaml:1:1: the file is larger than 256 KiB"),
    ],
)
def test_what_is_no_check_file_is_refused_with_its_place(file: Path, text: str | bytes, message: str) -> None:
    assert message in refusal(file, text)


def test_aliases_cannot_make_a_small_file_large(file: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "more than 20,000 values, those that aliases repeat included" in refusal(file, "\n".join(lines))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckFileInvalid, match=r"x\.yaml:1:1: cannot be read: No such file"):
        load_documents(tmp_path / "x.yaml", "x.yaml")


@pytest.mark.parametrize(("module", "library"), [("yaml", "PyYAML"), ("jsonschema", "jsonschema")])
def test_a_missing_library_is_told_with_the_command_that_installs_it(
    module: str, library: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_imagemount.checks import schema
    from pytest_imagemount.checks.plan import load_plans

    real_import = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == module:
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    file.write_text("os: {id: debian}\n")
    schema._validator.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        CapabilityMissing, match=rf"{library} is not installed; pip install 'pytest-imagemount\[checks\]"
    ):
        load_plans(file)
