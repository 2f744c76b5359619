"""Files that are whole or not there, and folders that one process has."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from disk import largest_file

from dkpnet_ext.errors import UserError
from dkpnet_ext.files import OutputError, create_folder, locked, remove_partial, write_atomically


@pytest.mark.parametrize("content", ["new text", b"new bytes", lambda path: path.write_text("new call")])
def test_a_file_is_replaced(tmp_path, content):
    target = tmp_path / ("x" * 240 + ".json")  # near the longest name that there is
    target.write_text("old")
    write_atomically(target, content)
    assert target.read_bytes().startswith(b"new") and list(tmp_path.iterdir()) == [target]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    target = tmp_path / "config.json"
    write_atomically(target, "old")
    with pytest.raises(OutputError, match="config.json: cannot be written"), largest_file(1000):
        write_atomically(target, "new" * 1000)
    with pytest.raises(ValueError, match="damaged"):
        write_atomically(target, "new", check=lambda path: (_ for _ in ()).throw(ValueError("damaged")))
    with pytest.raises(OutputError, match="No such file or directory"):
        write_atomically(tmp_path / "gone" / "config.json", "new")
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_full_disk_in_a_new_folder_and_a_folder_for_a_file(tmp_path):
    def full(work):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="new: cannot be written .No space left on device"):
        create_folder(tmp_path / "new", full)
    assert list(tmp_path.iterdir()) == []
    for name in (".", "/", ""):
        with pytest.raises(OutputError, match="is a folder, name a file"):
            write_atomically(Path(name), "")


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".0123456789ab.tmp.pt").write_text("half")
    (tmp_path / "kept.tmp").write_text("somebody's")
    remove_partial(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.tmp"]


def test_a_folder_belongs_to_one_process_until_it_ends(tmp_path):
    code = (
        "import sys, pathlib, dkpnet_ext.files as f\n"
        f"with f.locked(pathlib.Path({str(tmp_path)!r})):\n    print('has it', flush=True)\n    sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "has it\n"
    with pytest.raises(UserError, match="another process is writing"), locked(tmp_path):
        pass
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    with locked(tmp_path):
        pass
