"""Other values are laid over a file by one rule, however they are spelled."""

import pytest

from pdessl.errors import SchemaError
from pdessl.schema import merge, override, read_words, write_words

BASE = {
    "a": {"b": 1, "c": [1, 2]},
    "encoder": {"class_path": "A", "init_args": {"x": 1}},
    "parameters": {"nu": {"distribution": "uniform", "low": 1, "high": 2, "unit": "m"}},
}
CHANGES = {
    "a.b": 1e-3,
    "a.new.deep": [32, 64],
    "encoder.init_args.y": "yes",
    "e": None,
    "text": "1e-3",
    "names": {"noise 0.1": {"level": 0.1}},
    "empty": {},
    "lines": "x\ny",
}


def test_words_dotted_keys_and_nested_mappings_say_the_same():
    dotted = override(BASE, CHANGES)
    assert dotted["a"] == {"b": 1e-3, "c": [1, 2], "new": {"deep": [32, 64]}} and dotted["e"] is None
    assert dotted["names"] == {"noise 0.1": {"level": 0.1}} and dotted["text"] == "1e-3"
    nested = {"a": {"b": 1e-3, "new": {"deep": [32, 64]}}, "encoder": {"init_args": {"y": "yes"}}}
    assert override(BASE, nested | {k: v for k, v in CHANGES.items() if "." not in k}) == dotted
    for changes in (CHANGES, nested):
        words = write_words(changes)
        assert override(BASE, words) == override(BASE, changes)
        assert override({}, read_words(words)) == override({}, changes)


def test_later_changes_win_and_the_given_is_not_changed():
    assert override(BASE, ["a.b=1", "a.b=2"])["a"]["b"] == 2
    changed = override(BASE, {"a.c": (values := [3])})
    values.append(4)
    assert changed["a"]["c"] == [3] and BASE["a"] == {"b": 1, "c": [1, 2]}
    changed["encoder"]["init_args"]["x"] = 5
    assert BASE["encoder"]["init_args"] == {"x": 1}


def test_another_class_or_distribution_does_not_inherit_the_arguments_of_the_old_one():
    new = {"class_path": "B", "init_args": {"y": 1}}
    assert override(BASE, {"encoder": new})["encoder"] == new
    assert override(BASE, ["encoder.class_path=B", "encoder.init_args.y=1"])["encoder"] == new
    assert override(BASE, ["encoder.init_args.x=2"])["encoder"] == {"class_path": "A", "init_args": {"x": 2}}
    log = {"distribution": "log_uniform", "low": 1, "high": 3}
    assert override(BASE, {"parameters.nu": log})["parameters"]["nu"] == log
    assert override(BASE, ["parameters.nu.low=0.5"])["parameters"]["nu"]["unit"] == "m"
    assert override(BASE, write_words({"encoder": new, "parameters": {"nu": log}}))["parameters"]["nu"] == log
    assert merge(BASE, {"a": {"c": None}})["a"] == {"b": 1, "c": None}


@pytest.mark.parametrize("word", ["a.b", "=1", "a..b=1", ".a=1", "--a=1", "a.=1"])
def test_what_is_no_word_is_refused(word):
    with pytest.raises(SchemaError, match=r"is not like section\.key=value"):
        override({}, [word])


def test_a_value_that_is_no_yaml_and_a_text_for_a_list_of_words_are_refused():
    with pytest.raises(SchemaError, match=r"'a=\[1': not YAML that can be read"):
        override({}, ["a=[1"])
    with pytest.raises(SchemaError, match="at most 64 names joined by dots, found 5000"):
        override({}, ["a." * 4999 + "a=1"])
    with pytest.raises(SchemaError, match="expected a list of words"):
        override({}, "a=1")
