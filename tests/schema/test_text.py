"""The dialect of YAML: what scalars mean, what is refused, and that what is written is read back equal."""

import math
import time

import pytest

from pdessl import catalog
from pdessl.errors import SchemaError
from pdessl.schema import dump_yaml, parse_yaml, read_words, read_yaml
from pdessl.schema.text import dump_value

# The core schema of YAML 1.2.2, section 10.3.2, and what version 1.1 made of the same scalars.
SCALARS = {
    "1e-3": 1e-3, "1E3": 1e3, "1.": 1.0, "+.5e3": 500.0, ".5": 0.5, "-.INF": -math.inf, "12": 12, "017": 17,
    "0o17": 15, "0x1F": 31, "-0": 0, "true": True, "FALSE": False, "null": None, "~": None, "": None,
    "yes": "yes", "no": "no", "On": "On", "off": "off", "y": "y", "nan": "nan", "inf": "inf", "1_000": "1_000",
    "1:30": "1:30", "2024-01-01": "2024-01-01", "0b1": "0b1", "=": "=", "1e": "1e", "e3": "e3", "tRue": "tRue",
}  # fmt: skip


@pytest.mark.parametrize("text", SCALARS)
def test_a_scalar_means_the_same_in_a_file_and_in_a_word(text, tmp_path):
    (tmp_path / "f.yaml").write_text(f"key: {text}\nlist: [{text or 'null'}]\n")
    content = read_yaml(tmp_path / "f.yaml")
    for value in (content["key"], content["list"][0], read_words([f"key={text}"])["key"]):
        assert value == SCALARS[text] and type(value) is type(SCALARS[text])
    assert math.isnan(parse_yaml(".nan", "here"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' is given twice"),
        ("{a: {b: 1, b: 1}}", "the key 'b' is given twice"),
        ("a: &x [*x]", "an alias stands inside what it names"),
        ("a: &x {b: {c: *x}}", "an alias stands inside what it names"),
        ("[" * 1000, "nested deeper than 64 levels"),
        ("{a: " * 1000, "nested deeper than 64 levels"),
        ("- " * 100000, "nested deeper than 64 levels"),
        ("a: !!python/object/apply:os.system [echo]", "tag:yaml.org,2002:python/object/apply:os.system"),
        ("a: !mine 3", "!mine"),
        ("a: !!binary aGk=", "binary"),
        ("a: !!timestamp 2020-01-01", "timestamp"),
        ("a: " + "9" * 5000, "not a whole number"),
        ("a: !!float x", "not a number"),
        ("a: [1, 2", "line 1, column 9"),
        ("a: 1\n---\nb: 2", "found another document"),
        ("? [1]\n: 2", "found unhashable key"),
        ("a: \x07", "special characters are not allowed"),
    ],
)
def test_what_is_no_plain_data_is_refused_at_its_place(text, said, tmp_path):
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(SchemaError) as caught:
        read_yaml(tmp_path / "f.yaml")
    assert "f.yaml: not YAML that can be read" in str(caught.value) and said in str(caught.value)


@pytest.mark.parametrize("level", ["[{0}]", "{{k: [{0}]}}", "{{<<: [{0}]}}"])
def test_aliases_that_multiply_are_refused_before_they_do(level):
    text = "a0: &a0 {x: 1}\n"
    for i in range(30):
        text += f"a{i + 1}: &a{i + 1} {level.format(', '.join([f'*a{i}'] * 10))}\n"
    started = time.process_time()
    with pytest.raises(SchemaError, match="more than 100000 values, aliases written out"):
        parse_yaml(text, "here")
    assert time.process_time() - started < 2  # written out they are 10^30 values


def test_a_file_that_is_no_mapping_or_no_text_is_refused(tmp_path):
    path = tmp_path / "f.yaml"
    for content, said in ((b"- a\n", "found list"), (b"", "found NoneType"), (b"a: \xff\n", "not YAML that can be")):
        path.write_bytes(content)
        with pytest.raises(SchemaError, match=said):
            read_yaml(path)


def test_merge_keys_share_settings_and_own_keys_win():
    content = parse_yaml("a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: *b, z: 4}", "here")
    assert content["b"] == {"x": 1, "y": 3} and content["c"] == {"x": 1, "y": 3, "z": 4}


@pytest.mark.parametrize(
    "value",
    [
        *SCALARS, *SCALARS.values(), 1e-5, 1 / 3, -1e300, "a: b", "- x", "ü", "x\ny", " x ", "#", "a=b", [], {},
        [[1, 2]], {"y": 1}, {"1e-3": 1, "no": [None]}, "<<", "0o7", "\u2028",
    ],
)  # fmt: skip
def test_what_is_written_is_read_back_equal(value):
    same = parse_yaml(dump_yaml({"key": value}), "here")["key"]
    word = read_words([f"key={dump_value(value)}"])["key"]
    for found in (same, word):
        assert found == value and type(found) is type(value)
    if isinstance(value, str):
        assert parse_yaml(dump_yaml({value: 1}), "here") == {value: 1}
    assert "\n" not in dump_value(value)


@pytest.mark.parametrize("kind", catalog.KINDS)
def test_every_shipped_file_is_read_and_written_back_equal(kind):
    for name in catalog.names(kind):
        content = catalog.read(kind, name)
        assert parse_yaml(dump_yaml(content), name) == content
