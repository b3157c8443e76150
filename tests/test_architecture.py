"""Imports point one way, every module imports fresh, and the content folders hold no Python."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from pdessl import catalog

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pdessl"

# What a folder (or top-level module) of the package may import from the rest of it, besides itself. 'trajectory',
# 'errors' and 'catalog' are open to all and import nothing of the others.
OPEN = {"trajectory", "errors", "catalog", "schema", "files", "written", "units", "conventions"}
TORCH_ONLY = {"errors", "catalog", "files"}  # models and objectives: torch and our error classes, nothing of the data
ALLOWED = {
    "errors": set(),
    "catalog": {"errors", "schema"},
    "schema": {"errors"},
    "files": {"errors"},
    "written": set(),
    "units": set(),
    "conventions": set(),
    "trajectory": {"errors", "conventions"},
    "equations": OPEN,
    "symmetry": OPEN | {"equations"},
    "augmentation": OPEN | {"equations", "symmetry"},
    "solvers": OPEN | {"equations"},
    "data": OPEN | {"equations", "symmetry", "solvers"},
    # models: a learned law is an encoder; solvers.pseudo_spectral: laws are integrated by the scheme of the simulators
    "operators": OPEN | {"equations", "models", "solvers.pseudo_spectral"},
    "models": TORCH_ONLY,
    "objectives": TORCH_ONLY,
    # equations: the classical estimate, which every learned one must face, is made of the equation's own terms
    "evaluation": OPEN | {"models", "equations", "operators"},
    "tasks": OPEN
    | {"models", "objectives", "augmentation", "symmetry", "equations", "evaluation.metrics", "evaluation.probes"},
    "inference": OPEN
    | {
        "data",
        "operators",
        "models",
        "augmentation",
        "symmetry",
        "evaluation",
        "equations",
        "solvers",
        "objectives.neighbours",
    },
    "control": OPEN | {"solvers", "models"},
    "testing": OPEN | {"equations", "symmetry", "augmentation", "solvers"},
}
BELOW_EXPERIMENTS = {
    "equations", "symmetry", "augmentation", "solvers", "data", "models", "objectives", "tasks", "evaluation",
    "inference", "operators", "control",
}  # fmt: skip
ALLOWED["experiments"] = OPEN | BELOW_EXPERIMENTS
ALLOWED["__main__"] = {"cli"}
ALLOWED["cli"] = OPEN | BELOW_EXPERIMENTS | {"experiments"}
NOT_IN_MODELS = {"lightning", "xarray", "h5py", "h5netcdf", "sympy", "matplotlib", "jsonargparse"}


def modules():
    return sorted(p for p in PACKAGE.rglob("*.py") if "_content" not in p.parts)


def dotted(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path):
    """Every module named by an import statement or ``import_module`` anywhere in the file, also inside functions."""
    package = dotted(path).split(".") if path.name == "__init__.py" else dotted(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            name = ".".join(p for p in (base, node.module) if p)
            # 'from pdessl.evaluation import metrics' imports pdessl.evaluation.metrics
            yield from (f"{name}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", None))
            if called in ("import_module", "__import__") and str(node.args[0].value).startswith("pdessl"):
                yield node.args[0].value


def violations(path):
    home = dotted(path).split(".")[1] if "." in dotted(path) else None
    if home is None:
        return []  # pdessl/__init__.py loads its public names lazily by name
    allowed = ALLOWED[home]
    found = []
    for name in imported(path):
        if not name.startswith("pdessl."):
            continue
        inner = name.removeprefix("pdessl.")
        top = inner.split(".")[0]
        if top == home or top in ("__version__",) or top in allowed:
            continue
        if not any(inner == a or inner.startswith(a + ".") for a in allowed):
            found.append(
                f"{dotted(path)} imports {name}; '{home}' may import {', '.join(sorted(allowed)) or 'nothing'}"
            )
    return found


def test_every_part_of_the_package_is_in_the_table():
    parts = {
        p.stem
        for p in PACKAGE.iterdir()
        if (p.suffix == ".py" or (p / "__init__.py").is_file()) and p.stem not in ("__init__", "__main__")
    }
    assert parts <= set(ALLOWED), f"not in the import table: {sorted(parts - set(ALLOWED))}"
    assert not {p.name for p in PACKAGE.rglob("*") if p.is_dir()} & {"utils", "common", "helpers", "misc"}


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_point_one_way(path):
    assert not violations(path), "\n".join(violations(path))


def circles(graph):
    """Strongly connected sets of more than one file: those that can reach each other."""

    def reached(start):
        found, todo = set(), [start]
        while todo:
            for name in graph[todo.pop()] - found:
                found.add(name)
                todo.append(name)
        return found

    return {name for name in graph if name in reached(name)}


def test_no_two_files_import_each_other():
    """Also not for the sake of a type, or inside a function: what needs each other is one thing."""
    files = {dotted(p): p for p in modules() if p.name != "__init__.py"}
    graph = {}
    for name, path in files.items():
        used = set(imported(path))
        used |= {n.rpartition(".")[0] for n in used}  # 'from pdessl.a.b import c' names pdessl.a.b.c
        graph[name] = {other for other in files if other in used} - {name}
    assert not circles(graph)
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == {"b", "c"}


def test_the_table_catches_a_wrong_import(tmp_path, monkeypatch):
    wrong = tmp_path / "pdessl" / "models" / "encoder.py"
    wrong.parent.mkdir(parents=True)
    wrong.write_text(
        "def f():\n    from ..data import open\n    from pdessl.evaluation import metrics\n"
        "    importlib.import_module('pdessl.data')\n    import_module('pdessl.symmetry')\n"
        "    importlib.import_module('pdessl.models')\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    found = violations(wrong)
    assert len(found) == 4
    assert "pdessl.models.encoder imports pdessl.data.open" in found[0]


@pytest.mark.parametrize("path", [p for p in modules() if p.parent.name in ("models", "objectives")], ids=dotted)
def test_models_and_objectives_are_torch_only(path):
    tops = {name.split(".")[0] for name in imported(path)}
    assert not tops & NOT_IN_MODELS


def test_each_public_module_declares_its_names():
    missing = [
        dotted(p)
        for p in modules()
        if p.name not in ("__main__.py",)
        and not any(
            isinstance(n, ast.Assign) and any(getattr(t, "id", None) == "__all__" for t in n.targets)
            for n in ast.parse(p.read_text(encoding="utf-8")).body
        )
    ]
    assert not missing, f"no __all__ in {missing}"


@pytest.mark.slow
def test_every_module_imports_in_a_fresh_interpreter():
    # Importing a module runs its package first, so that within a room there is one order only. Each room and each
    # module at the top is imported first once, the package's own having been dropped: importing torch so often is slow.
    names = [dotted(p) for p in modules() if p.name != "__main__.py"]
    first = [name for name in names if name.count(".") < 2]
    code = (
        "import importlib, sys\n"
        "names, first = sys.argv[1].split(), sys.argv[2].split()\n"
        "for name in [*first, *names]:\n"
        "    if name in first:\n"
        "        for loaded in [m for m in sys.modules if m == 'pdessl' or m.startswith('pdessl.')]:\n"
        "            del sys.modules[loaded]\n"
        "    try:\n"
        "        module = importlib.import_module(name)\n"
        "    except ImportError as error:\n"
        "        if type(error).__name__ != 'DependencyError':\n"  # an extra that is not installed, and it says so
        "            raise\n"
        "        continue\n"
        "    for public in getattr(module, '__all__', []):\n"
        "        getattr(module, public)\n"
    )
    words = [" ".join(sorted(set(names) - set(first))), " ".join(first)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("module", ["pdessl", "pdessl.cli"])
def test_the_command_is_a_module_too(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 and done.stdout.startswith("pdessl ")


def test_the_command_line_starts_without_torch():
    code = "import sys, pdessl.cli; sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


@pytest.mark.parametrize("kind", catalog.KINDS)
def test_content_folders_are_pure_content(kind):
    kinds = {p.suffix for p in (ROOT / kind).rglob("*") if p.is_file()}
    assert kinds <= {".yaml", ".md"}, f"{kind}/ holds {kinds}; only YAML and Markdown belong there"
