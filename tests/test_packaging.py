"""The wheel holds the package and the content folders, and works away from the checkout."""

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from oldest import pins

from pdessl import catalog

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Rooms whose types were not strict when the checker was brought in. Take a name out here when it leaves the list in
# pyproject.toml; nothing is ever added.
NOT_STRICT = {"cli", "data", "experiments", "inference", "models", "objectives", "schema", "tasks"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    # --no-isolation: hatchling comes from the test environment, so that no network is needed.
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (path,) = out.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_every_content_file(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "pdessl").rglob("*.py") if "_content" not in p.parts}
    content = {
        f"pdessl/_content/{p.relative_to(ROOT).as_posix()}"
        for kind in catalog.KINDS
        for p in (ROOT / kind).rglob("*.yaml")
    }
    assert not (modules | content | {"pdessl/py.typed"}) - held
    assert not [name for name in held if name.endswith((".h5", ".nc")) or name.startswith(("tests/", "benchmarks/"))]


@pytest.mark.slow
def test_the_wheel_works_away_from_the_checkout(wheel, tmp_path):
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--target",
            str(target),
            str(wheel),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # The wheel's folder goes before the editable checkout, and the result says where the package came from.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import json, pdessl\n"
        "from pdessl import catalog\n"
        "from pdessl.cli import main\n"
        "names = {kind: catalog.names(kind) for kind in catalog.KINDS}\n"
        "where = [str(p) for kind in catalog.KINDS for p in catalog.folders(kind)]\n"
        "read = [catalog.read(kind, name) and name for kind in names for name in names[kind]]\n"
        "print(json.dumps({'file': pdessl.__file__, 'names': names, 'where': where, 'read': read}))\n"
        "sys.exit(main(['list', 'datasets']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(target)],
        capture_output=True,
        text=True,
        cwd=elsewhere,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, *listed = done.stdout.splitlines()
    found = json.loads(first)
    assert Path(found["file"]).is_relative_to(target)
    assert all(Path(p).is_relative_to(target) for p in found["where"])
    for kind in catalog.KINDS:
        assert found["names"][kind] == sorted(
            p.relative_to(ROOT / kind).with_suffix("").as_posix() for p in (ROOT / kind).rglob("*.yaml")
        )
        assert found["names"][kind], f"the wheel lists no {kind}"
    assert any("burgers" in line for line in listed)


def test_the_list_of_rooms_without_strict_types_only_shrinks():
    settings = PROJECT["tool"]["mypy"]
    assert settings["strict"] and settings["files"] == ["pdessl"]
    loosened = [o for o in settings["overrides"] if set(o) - {"module", "ignore_missing_imports"}]
    (entry,) = loosened
    rooms = {re.fullmatch(r"pdessl\.([a-z_]+)(\.\*)?", name).group(1) for name in entry["module"]}
    assert rooms <= NOT_STRICT
    assert all((ROOT / "pdessl" / room).is_dir() or (ROOT / "pdessl" / f"{room}.py").is_file() for room in rooms)
    # No module gets out of the checker by other words.
    for other in settings["overrides"]:
        assert "ignore_errors" not in other and other.get("follow_imports", "normal") == "normal"
        if "ignore_missing_imports" in other:
            assert not [name for name in other["module"] if name.startswith("pdessl")]
    said = re.compile(r"#\s*mypy:|#\s*type:\s*ignore(?!\[)")
    sources = {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in (ROOT / "pdessl").rglob("*.py")}
    assert not [name for name, text in sources.items() if said.search(text)]


def test_the_type_checker_with_our_settings_sees_a_wrong_type(tmp_path):
    (tmp_path / "right.py").write_text("def name(value: int) -> str:\n    return str(value)\n")
    (tmp_path / "wrong.py").write_text("def name(value: int) -> str:\n    return value\n\n\ndef bare(value): ...\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")),
            *("--cache-dir", str(tmp_path / "cache"), str(tmp_path / "right.py"), str(tmp_path / "wrong.py")),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    complaints = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert [("wrong.py:2:" in c, c.rpartition("[")[2]) for c in complaints[:1]] == [(True, "return-value]")]
    assert len(complaints) == 2 and "[no-untyped-def]" in complaints[1], done.stdout


def test_every_dependency_has_a_lower_bound_and_the_bound_a_reason():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = pins(text)
    assert len(found) >= len(PROJECT["project"]["dependencies"]) + 8
    section = text[text.index("\ndependencies = [") : text.index("\n[project.optional-dependencies]")]
    lines = [line for line in section.splitlines() if line.strip().startswith('"')]
    assert len(lines) == len(PROJECT["project"]["dependencies"])
    assert not [line for line in lines if not re.search(r'",  # \S.{10,}', line)]
    # An extra that users install does not fall behind the one that is tested.
    for extra in ("dask", "zarr"):
        for said in PROJECT["project"]["optional-dependencies"][extra]:
            assert said in PROJECT["project"]["optional-dependencies"]["test"]
    newest = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    known = {name.lower().replace("_", "-"): version for name, version in newest.items()}
    numbers = {name: [int(n) for n in re.findall(r"\d+", version)[:2]] for name, version in known.items()}
    for name, version in found.items():
        assert [int(n) for n in version.split(".")[:2]] <= numbers[name.lower()], f"{name} is not tested at its bound"
