from dataclasses import dataclass, field
from typing import Any

import pytest

from pdessl.errors import SchemaError
from pdessl.schema import assign, fill, flatten, merge


@dataclass(frozen=True)
class Inner:
    rates: tuple[float, ...] = (1e-3,)
    window: tuple[int, int] | None = None
    strengths: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner()
    anything: Any = None
    on: bool = True
    some: bool | tuple[str, ...] = False


def test_nested_values_are_converted():
    settings = fill(
        Outer,
        {"name": "a", "inner": {"rates": [1, 2.5], "window": [3, 4], "strengths": {"boost": 1}}, "on": False},
        "f.yaml",
    )
    assert settings == Outer("a", Inner((1.0, 2.5), (3, 4), {"boost": 1.0}), None, False)
    assert isinstance(settings.inner.rates[0], float)
    assert fill(Outer, {"name": "a", "some": ["x", "y"]}, "f.yaml").some == ("x", "y")
    assert fill(Outer, {"name": "a", "some": True}, "f.yaml").some is True


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"name": "a", "iner": {}}, "f.yaml: no key 'iner'. Did you mean 'inner'?"),
        ({"name": "a", "inner": {"rates": 3}}, "f.yaml.inner.rates: expected a list, found 3"),
        ({"name": "a", "inner": {"rates": ["x"]}}, r"f.yaml.inner.rates\[0\]: expected a number, found 'x'"),
        ({"name": "a", "inner": {"window": [1, 2, 3]}}, "expected 2 values"),
        ({"name": "a", "inner": {"strengths": [1]}}, "strengths: expected a mapping"),
        ({"name": "a", "inner": None}, "f.yaml.inner: expected a mapping"),
        ({"name": "a", "on": 1}, "f.yaml.on: expected true or false"),
        ({"name": "a", "some": [1]}, r"f.yaml.some\[0\]: expected text"),
        ({"name": 1}, "f.yaml.name: expected text, found 1"),
        ({}, "f.yaml: missing key 'name'"),
    ],
)
def test_every_mistake_names_the_key_and_what_was_expected(content, said):
    with pytest.raises(SchemaError, match=said):
        fill(Outer, content, "f.yaml")


def test_words_are_laid_over_a_mapping():
    content = assign({"a": {"b": 1, "c": 2}}, ["a.b=1e-3", "a.d=[32, 64]", "e=text"])
    assert content == {"a": {"b": 1e-3, "c": 2, "d": [32, 64]}, "e": "text"}
    content = assign({}, ["rates=[1e-2, 3E-3, 5, x]", "shifts={noisy: {noise: 1e-1, without: [u]}}"])
    assert content == {"rates": [1e-2, 3e-3, 5, "x"], "shifts": {"noisy": {"noise": 0.1, "without": ["u"]}}}
    assert fill(Outer, assign({}, ["name=a", "inner.rates=[1e-2]"]), "words").inner.rates == (1e-2,)
    with pytest.raises(SchemaError, match="not like section.key=value"):
        assign({}, ["a.b"])


def test_another_class_does_not_inherit_the_arguments_of_the_old_one():
    old = {"encoder": {"class_path": "A", "init_args": {"x": 1}}}
    new = {"encoder": {"class_path": "B", "init_args": {"y": 1}}}
    assert merge(old, new) == new
    assert merge(old, {"encoder": {"init_args": {"x": 2}}})["encoder"] == {"class_path": "A", "init_args": {"x": 2}}


def test_nested_and_dotted_keys_mean_the_same():
    encoder = {"class_path": "A", "init_args": {"x": 1}}
    assert flatten({"trainer": {"max_epochs": 1}, "model.encoder": encoder}) == {
        "trainer.max_epochs": 1,
        "model.encoder": encoder,
    }
    assert flatten(assign({}, ["observation.noise=0.5"])) == {"observation.noise": 0.5}
