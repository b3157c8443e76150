import errno
import subprocess
import sys

import pytest

from pdessl import cli
from pdessl.errors import PdesslError


@pytest.mark.parametrize("arguments", [[], ["--help"], ["help"]])
def test_the_overview_names_every_verb(arguments, capsys):
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    for verb in (
        "quickstart",
        "list",
        "symmetries",
        "generate",
        "inspect",
        "pretrain",
        "regress",
        "timestep",
        "report",
    ):
        assert f"  {verb} " in printed


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("pdessl 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["quikstart"], "Did you mean 'quickstart'?"),
        (["generate", "burgers"], "--out"),
        (["generate", "burgers", "--out", "x", "--size", "many"], "'many' is not a list of whole numbers"),
        (["generate", "burgers", "--out", "x", "--size", "test=-4"], "must be positive"),
        (["list", "dataset"], "Did you mean 'datasets'?"),
        (["list", "--nothing"], "'pdessl list --help' explains"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert "Traceback" not in printed.err
    assert not list(tmp_path.iterdir())


def replace_verb(monkeypatch, action):
    module = type(sys)("a_verb")
    module.main = action
    monkeypatch.setitem(sys.modules, "a_verb", module)
    monkeypatch.setitem(cli.VERBS, "verb", ("a_verb", "for this test"))


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PdesslError("found this, expected that"), 2, "PdesslError: found this, expected that"),
        (OSError(errno.ENOSPC, "No space left on device", "data/x.h5"), 2, "No space left on device: data/x.h5"),
        (PermissionError(errno.EACCES, "Permission denied", "out"), 2, "PermissionError: Permission denied: out"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_become_exit_codes(error, code, said, monkeypatch, capsys):
    def fail(arguments):
        raise error

    replace_verb(monkeypatch, fail)
    assert cli.main(["verb"]) == code
    assert said in capsys.readouterr().err


def test_a_bug_is_not_hidden(monkeypatch):
    def fail(arguments):
        raise ZeroDivisionError

    replace_verb(monkeypatch, fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["verb"])


def test_a_reader_that_goes_away_is_no_error():
    code = "import sys; from pdessl.cli import main; [main(['--help']) for _ in range(3000)]"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


def test_list_prints_names_and_titles_of_your_own_folders(tmp_path, monkeypatch, capsys):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "my_runs.yaml").write_text("title: Runs of mine\n")
    (tmp_path / "datasets" / "broken.yaml").write_text("- a list\n")
    monkeypatch.setenv("PDESSL_PATH", str(tmp_path))
    assert cli.main(["list", "datasets"]) == 0
    printed = capsys.readouterr().out
    assert "Runs of mine" in printed
    assert "cannot be read" in printed
