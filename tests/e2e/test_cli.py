"""What all commands share: words for any stream, how a command ends, arguments that do not fit, `dkpnet`."""

import logging
import os
import signal
import subprocess
import sys
import tomllib
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from dkpnet_ext import cli
from dkpnet_ext.errors import UserError, printable, say

ROOT = Path(__file__).parents[2]
PRINTS = "from dkpnet_ext.cli import run_command; from dkpnet_ext.errors import say, UserError\n"


def python(code: str, shell: str = "{}", **environment: str) -> subprocess.CompletedProcess:
    """Run a program; ``shell`` says where its streams go."""
    line = shell.format(f"{sys.executable} -c '{PRINTS}{code}'")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **environment}
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, errors="replace", env=environment)


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("photo of Zoë 東京.jpg", "utf-8", "photo of Zoë 東京.jpg"),
        ("two\nlines\r.jpg", "utf-8", r"two\nlines\r.jpg"),
        ("\x1b[31mred\x07", "utf-8", r"\x1b[31mred\x07"),
        (os.fsdecode(b"\xff\xfe.jpg"), "utf-8", r"\udcff\udcfe.jpg"),
        ("Zoë 東.jpg", "ascii", r"Zo\xeb \u6771.jpg"),
        ("Zoë 東.jpg", "latin-1", r"Zoë \u6771.jpg"),
        ("gpj.\u202eexe", "utf-8", r"gpj.\u202eexe"),
        ("\u2028", "utf-8", r"\u2028"),
    ],
)
def test_one_printable_line(text, encoding, expected):
    assert printable(text, encoding) == expected


def test_words_on_an_ascii_stream():
    done = python('run_command(lambda: say("Zo\\xeb \\udcff \\u6771"))', PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Zo\\xeb \\udcff \\u6771\n", "")


@pytest.mark.parametrize(
    ("shell", "status", "out", "err"),
    [
        ("{} 2>&-", 0, "one\ntwo\n", ""),
        ("{} >&-", 0, "", "problem\n"),
        ("{} 2>/dev/full", 0, "one\ntwo\n", ""),
        ("{} >/dev/full", 2, "", "error: standard output: No space left on device; results so far are kept\n"),
        ("({}; echo $? >&2) | true", 0, "", "error: standard output: Broken pipe; results so far are kept\n141\n"),
    ],
)
def test_streams_that_take_no_words(shell, status, out, err):
    code = """
import time
def main():
    time.sleep(0.1)  # until the reader has gone
    say("one")
    say("problem", error=True)
    say("two")
run_command(main)
"""
    done = python(code, shell)
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_command_in_one_line(number, capsys):
    kept = []

    def main():
        try:
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 5)
        finally:
            os.kill(os.getpid(), number)  # a second one does not keep results from being written
            kept.append("results")

    outside = signal.signal(number, signal.SIG_DFL)  # under nohup it is ignored, and a command leaves that so
    try:
        with pytest.raises(SystemExit) as ended:
            cli.run_command(main)
        after = signal.getsignal(number)
    finally:
        signal.signal(number, outside)
    assert ended.value.code == 128 + number and kept == ["results"]
    assert capsys.readouterr().err == f"stopped by {number.name}; results so far are kept\n"
    assert after is signal.SIG_DFL


def test_the_decoder_adds_no_lines(recwarn, caplog):
    def main():
        warnings.warn_explicit("Tag data larger than file", UserWarning, "TiffImagePlugin.py", 1, "PIL.TiffImagePlugin")
        logging.getLogger("PIL.TiffImagePlugin").error("More samples per pixel than can be decoded")

    with pytest.raises(SystemExit):
        cli.run_command(main)
    assert not recwarn.list and not caplog.records


def test_other_ends(capsys):
    def fail(error):
        raise error

    for error, status, line in (
        (UserError("photo\n.jpg: no such file"), 2, "error: photo\\n.jpg: no such file\n"),
        (MemoryError(), 2, "error: not enough memory\n"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "error: not enough memory\n"),
        (KeyboardInterrupt(), 130, ""),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.run_command(lambda error=error: fail(error))
        assert (ended.value.code, capsys.readouterr().err) == (status, line)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "--nope"], "Unrecognized options: --nope; see dkpnet predict --help"),
        (["predict", "a.jpg", "--device", "tpu"], "invalid choice 'tpu' for argument '--device'"),
        (["evaluate"], "Missing from dkpnet evaluate: "),
        (["demo", "--port", "x"], "x"),
        (["perdict"], "dkpnet perdict: unknown; there are train, evaluate, predict"),
        (["completion", "cmd.exe"], "name your shell"),
    ],
)
def test_wrong_arguments_are_one_line(words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dkpnet", *words])
    with pytest.raises(SystemExit) as ended:
        cli.console()
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.startswith("error: ") and message in err and err.count("\n") == 1


def test_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "1")  # tyro alone takes forever
    monkeypatch.setattr(sys, "argv", ["dkpnet", "predict", "--help"])
    with pytest.raises(SystemExit) as ended:
        cli.console()
    assert not ended.value.code and "--output" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--help", "--help-all"])
def test_help_whose_reader_has_gone(option):
    for command in ("train", "predict"):
        line = f"({sys.executable} -m dkpnet_ext.{command} {option}; echo $? >&2) | true"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT)
        assert done.stderr == "error: standard output: Broken pipe; results so far are kept\n141\n"


def test_the_console_script(monkeypatch, capsys):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    console = EntryPoint("dkpnet", scripts["dkpnet"], "console_scripts").load()
    for words, expected in (
        ([], "usage: dkpnet COMMAND"),
        (["predict", "--help"], "usage: dkpnet predict"),
        (["predict", "--help-all"], "usage: dkpnet predict"),
        (["train", "--help"], "usage: dkpnet train [PRESET]"),
        (["info"], "dkpnet_ext "),
    ):
        monkeypatch.setattr(sys, "argv", ["dkpnet", *words])
        with pytest.raises(SystemExit) as ended:
            console()
        assert not ended.value.code and capsys.readouterr().out.startswith(expected)
    modules = {path.stem for path in (ROOT / "dkpnet_ext").glob("*.py") if "__main__" in path.read_text()}
    assert modules == set(cli.COMMANDS)


def test_completion(tmp_path):
    (tmp_path / "dkpnet.bash").write_text(cli.completion("bash"))
    assert "predict" in cli.completion("zsh")

    def complete(*words: str) -> list[str]:
        script = f"source {tmp_path}/dkpnet.bash; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        script += 'COMP_LINE="${COMP_WORDS[*]}"; COMP_POINT=${#COMP_LINE}; _tyro_dkpnet; echo ${COMPREPLY[@]}'
        return subprocess.run(["bash", "-c", script], capture_output=True, text=True).stdout.split()

    assert complete("dkpnet", "pr") == ["predict", "prepare"]
    assert complete("dkpnet", "predict", "--dev") == ["--device"]
    assert complete("dkpnet", "predict", "--device", "c") == ["cpu", "cuda"]
    assert "--batch" in complete("dkpnet", "train", "--bat")


def test_say_keeps_to_one_line(capsys):
    say("a\nb")
    say("c", error=True)
    assert tuple(capsys.readouterr()) == ("a\\nb\n", "c\n")
