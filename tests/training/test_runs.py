"""Whole runs as a user starts them: both stages, every system, interruption, several processes."""

import glob
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import seed_everything
from safetensors.torch import load_file

from dkpnet_ext import evaluate
from dkpnet_ext.data import Domain
from dkpnet_ext.errors import UserError
from dkpnet_ext.models import DKPNet, MultiBranch, load_model
from dkpnet_ext.train import parse
from dkpnet_ext.training import Config, train
from dkpnet_ext.training import stage as stage_module
from dkpnet_ext.training.interruption import Interrupted
from dkpnet_ext.training.run import build_model

from .conftest import records


@pytest.fixture(scope="module")
def whole(tmp_path_factory, run):
    """One uninterrupted run of both stages, three epochs each, and what it printed."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        folder = run("--epochs", 3, "--output", tmp_path_factory.mktemp("whole") / "run")
    return folder, printed.getvalue()


def resume(folder) -> None:
    train(parse(["--resume", str(folder)]))


def test_a_run_leaves_everything_behind(whole):
    folder, printed = whole
    card = (folder / "model" / "README.md").read_text()
    assert "Trained on bright, dark" in card and "MAE" in card and "research only" in card
    for name in ("config.json", "metrics.jsonl", "clusters.json", "results.md", "tsne.png"):
        assert (folder / name).stat().st_size > 0, name
    assert len(list((folder / "density").glob("*.png"))) == 4
    assert list((folder / "tensorboard").glob("events*"))
    table = (folder / "results.md").read_text()
    for text in ("bright", "dark", "training mean", "ridge", "MAE", "RMSE (papers: MSE)", "NAE"):
        assert text in table, text
    assert all(line in printed for line in table.splitlines()[2:])
    assert f"predict photo.jpg --checkpoint {folder}" in printed and f"tensorboard --logdir {folder}" in printed
    assert re.search(r"- bright: (no )?better than", table)
    lines = [line for line in printed.splitlines() if "validation" in line]
    assert len(lines) == 6 and lines[4].startswith("stage2, epoch 2 of 3: validation bright MAE "), printed
    stages = [r["stage"] for r in records(folder)]
    assert stages == ["stage1"] * 3 + ["stage2"] * 3 + ["test"]
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()][:6]
    assert all(0 < epoch["waiting"] < 1 for epoch in epochs)


@pytest.mark.parametrize("start", ["stage1", "pretrained"])
def test_where_stage_two_starts(run, tmp_path, start):
    """At a learning rate of next to nothing it ends where it starts."""
    folder = run("--epochs", 1, "--lr", "1e-9", "--stage2-from", start, "--output", tmp_path / "run")
    first, second = (load_model(folder / stage / "best").state_dict() for stage in ("stage1", "stage2"))
    for name in ("backbone.conv1.weight", "head.neck.weight", "head.conv3.weight"):
        same = torch.allclose(first[name], second[name], atol=1e-5)
        assert same == (start == "stage1"), name


def test_evaluate_prints_the_runs_own_table_again(whole, domains, tmp_path, monkeypatch, capsys):
    """Its limits on the images' sides are the model's, not the command's."""
    folder, _ = whole
    monkeypatch.setattr(sys, "argv", ["evaluate", str(folder), *domains, "--output", str(tmp_path / "out")])
    evaluate.main()
    rows = [line for line in (folder / "results.md").read_text().splitlines() if re.match(r"\| (bright|dark) \|", line)]
    printed = capsys.readouterr().out
    assert len(rows) == 2 and all(row in printed for row in rows), printed


def test_stage_two_is_inva_on_the_clusters(whole):
    model = load_model(whole[0] / "stage2" / "best")
    assert isinstance(model, DKPNet)
    assert model.attention.centers.shape[:2] == (2, 2)
    assert load_model(whole[0] / "stage1" / "best").attention.centers.shape[:2] == (2, 1)


def stop_in_second_epoch(process: subprocess.Popen, number: int, workers: bool = False) -> str:
    """Send a signal in the middle of the second epoch (16 images an epoch, 4 a step; the bar counts images).

    ``workers``: before, and to the processes that prepare batches, too.
    """
    seen = ""
    while (character := process.stderr.read(1)) and not re.search(r"stage1:.*\b20/48", seen):
        seen += character
    if workers:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert children
        for child in children:
            os.kill(int(child), number)
        time.sleep(0.2)
    process.send_signal(number)
    rest = process.stderr.read()
    process.wait()
    assert "20/48" in seen, seen
    return rest


def test_killed_and_resumed_equals_never_killed(whole, command, tmp_path):
    folder = tmp_path / "run"
    stop_in_second_epoch(command("--epochs", 3, "--output", folder), signal.SIGKILL)
    assert len(records(folder)) == 1, "one epoch was finished"
    resume(folder)
    assert records(folder) == records(whole[0])
    for stage in ("stage1", "stage2"):
        a, b = (load_file(f / stage / "best" / "model.safetensors") for f in (folder, whole[0]))
        assert all(torch.equal(a[k], b[k]) for k in b)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_saves_in_mid_epoch_and_resumes_exactly(whole, command, tmp_path, number):
    folder = tmp_path / "run"
    process = command("--epochs", 3, "--output", folder)
    rest = stop_in_second_epoch(process, number)
    assert process.returncode == 130, rest
    assert rest.splitlines()[-1] == f"stopped, and saved; go on with: python -m dkpnet_ext.train --resume {folder}"
    state = torch.load(folder / "stage1" / "state.pt", weights_only=True)
    assert state["epoch"] == 1 and 0 < state["batch"] < 4
    if number != signal.SIGTERM:
        return
    resume(folder)
    # The interrupted epoch's mean loss covers only its rest; all that follows from the weights is the same.
    kept = [{k: v for k, v in r.items() if not k.startswith(("loss/", "latent/"))} for r in records(folder)]
    assert kept == [{k: v for k, v in r.items() if not k.startswith(("loss/", "latent/"))} for r in records(whole[0])]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_run_saves(command, tmp_path, number):
    """As Slurm sends it. At commit 3418349 SIGTERM killed the workers first: a full disk or lack of memory, said the line."""
    folder = tmp_path / "run"
    process = command("--epochs", 3, "--workers", 1, "--output", folder)
    began = time.monotonic()
    rest = stop_in_second_epoch(process, number, workers=True)
    assert process.returncode == 130, rest
    assert rest.splitlines()[-1] == f"stopped, and saved; go on with: python -m dkpnet_ext.train --resume {folder}"
    assert time.monotonic() - began < 60, "waited for its workers"


@pytest.mark.parametrize("system", ["va", "se", "jt", "mb"])
def test_comparison_systems_train_in_one_stage(system, run, tmp_path):
    folder = run("--system", system, "--epochs", 1, "--output", tmp_path / "run")
    model = load_model(folder / "stage1" / "best")
    assert isinstance(model, MultiBranch if system == "mb" else DKPNet)
    assert not (folder / "stage2").exists()
    assert (folder / "results.md").exists()


def relative_difference(one, two) -> float:
    """Of two runs' stage I: the norm of the difference of the weights over the norm of what training changed in them.

    Not element by element: Adam turns a gradient that is zero up to rounding into a step of full size.
    """
    config = Config.load(one / "config.json")
    seed_everything(config.seed, verbose=False)
    start = build_model(config, 1, ["bright", "dark"]).state_dict()
    a, b = (torch.load(f / "stage1" / "state.pt", weights_only=True)["model"] for f in (one, two))
    assert a.keys() == b.keys() == start.keys()
    names = [k for k, v in a.items() if v.is_floating_point()]
    difference = torch.cat([(a[k] - b[k]).flatten() for k in names]).norm()
    return float(difference / torch.cat([(a[k] - start[k]).flatten() for k in names]).norm())


@pytest.mark.parametrize("system, machines", [("dkpnet", 1), ("jt", 2)])
def test_two_processes_equal_one(system, machines, run, command, tmp_path):
    """Two ranks of two images train to the weights of one process with four (batch statistics frozen).

    As two processes of one torchrun, and of two torchruns that find each other as on two machines.
    """
    common = ["--system", system, "--epochs", 1, "--batch-norm", "frozen", "--lr", "1e-3", "--head", "folded"]
    one, two = run(*common, "--output", tmp_path / "one"), tmp_path / "two"
    where = ["--standalone", "--nproc_per_node=2"]
    if machines == 2:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        where = ["--nnodes=2", "--nproc_per_node=1", "--rdzv_backend=c10d", f"--rdzv_endpoint={address}"]
    launcher = ("-m", "torch.distributed.run", *where, "-m")
    for process in [command(*common, "--output", two, prefix=launcher) for _ in range(machines)]:
        shown = process.stderr.read()
        assert process.wait() == 0, shown
    steps = torch.load(one / "stage1" / "state.pt", weights_only=True)["optimizer"]["state"]
    assert all(s["step"] == 4 for s in steps.values())
    assert relative_difference(one, two) < 0.02, relative_difference(one, two)


def stop_when(monkeypatch, name: str, number: int) -> None:
    """SIGTERM at the beginning of the ``number``th call of a function of stage.py."""
    real, calls = getattr(stage_module, name), []

    def call(*arguments, **options):
        calls.append(None)
        if len(calls) == number:
            signal.raise_signal(signal.SIGTERM)
        return real(*arguments, **options)

    monkeypatch.setattr(stage_module, name, call)


def test_stopped_in_the_last_pass_of_an_epoch(run, tmp_path, monkeypatch):
    """At commit 4eb5a94 such a run could never be resumed: KeyError for the loss of no batch."""
    common = ["--system", "jt", "--epochs", 2, "--batch-norm", "frozen"]
    whole = run(*common, "--output", tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_when(patch, "forward_backward", 4)
        with pytest.raises(Interrupted):
            run(*common, "--output", tmp_path / "run")
    state = torch.load(tmp_path / "run" / "stage1" / "state.pt", weights_only=True)
    assert (state["epoch"], state["batch"]) == (0, 4)
    resume(tmp_path / "run")
    a, b = (load_file(f / "stage1" / "best" / "model.safetensors") for f in (tmp_path / "run", whole))
    assert all(torch.equal(a[k], b[k]) for k in b)


def test_stopped_in_the_last_validation(run, tmp_path, monkeypatch):
    """At commit 4eb5a94 the signal, and all after it, were forgotten."""
    common = ["--system", "jt", "--epochs", 1, "--batch-norm", "frozen"]
    with monkeypatch.context() as patch:
        stop_when(patch, "validate", 1)
        with pytest.raises(Interrupted):
            run(*common, "--output", tmp_path / "run")
    assert not (tmp_path / "run" / "results.md").exists()
    resume(tmp_path / "run")
    assert (tmp_path / "run" / "results.md").exists()


def test_nobody_on_the_held_out_pictures(tmp_path):
    """At commit 4eb5a94 it trained to the end, and kept nothing."""
    picture = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    domain = Domain.from_arrays("a", [(picture, [[5, 5]])] * 4, val=[(picture, [])], min_side=96, max_side=96)
    config = parse(["small", "--data", "a=x", "--output", str(tmp_path / "run"), "--weights", "None"])
    config.data.negatives = ()
    with pytest.raises(UserError, match=r"no head is labelled on the held-out pictures \(1\)"):
        train(config, domains=[domain])


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the processes of torchrun are found in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_all_processes_stop_at_one_step(command, tmp_path, number):
    """A signal that reaches one of two processes. At commit 4eb5a94 the other one went on into an exchange of gradients, and
    nothing was saved."""
    folder = tmp_path / "run"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m")
    process = command("--system", "jt", "--epochs", 40, "--output", folder, prefix=launcher)
    seen = ""
    while (character := process.stderr.read(1)) and not re.search(r"stage1:.*\b20/640", seen):
        seen += character
    children = [Path(p) for p in glob.glob("/proc/[0-9]*/environ")]
    ours = [p for p in children if "\0RANK=1\0" in _read(p) and str(folder) in _read(p.with_name("cmdline"))]
    assert len(ours) == 1, seen
    os.kill(int(ours[0].parent.name), number)
    rest = process.stderr.read()
    process.wait()
    state = torch.load(folder / "stage1" / "state.pt", weights_only=True)
    assert state["epoch"] >= 1 and 0 <= state["batch"] <= 4, rest
    assert f"stopped, and saved; go on with: python -m dkpnet_ext.train --resume {folder}" in rest


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def test_ratio_chooses_what_is_trained_on(run, tmp_path):
    def density_loss(*arguments) -> float:
        folder = tmp_path / "-".join(map(str, arguments))
        run("--system", "jt", "--epochs", 1, "--batch-norm", "frozen", *arguments, "--output", folder)
        return json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["loss/density"]

    both = density_loss("--ratio", 2, 2)
    assert both == density_loss("--sampling", "balanced")
    assert len({both, density_loss("--ratio", 1, 0), density_loss("--ratio", 0, 1)}) == 3


def test_accumulation_equals_the_whole_batch(run, tmp_path):
    common = ["--system", "jt", "--epochs", 1, "--batch-norm", "frozen"]
    one = run(*common, "--output", tmp_path / "one")
    two = run(*common, "--accumulate", 2, "--output", tmp_path / "two")
    assert relative_difference(one, two) < 0.02, relative_difference(one, two)


def test_an_existing_run_is_never_overwritten(whole, run):
    with pytest.raises(UserError, match="holds a run"):
        run("--output", whole[0])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--batch", "5", "--accumulate", "2"], "--batch 5: cannot be split into 2 passes"),
        (["--weights", "absent.pth"], "weights absent.pth: no such file"),
        (["--ratio", "1", "2", "3"], "ratio has 3 shares for 2 domains"),
        (["--ratio", "1", "-1"], "--ratio 1.0 -1.0: must be from 0"),
        (["--precision", "fp16"], "needs a GPU"),
        (["--device", "cuda"], "no usable GPU"),
        (["--num-clusters", "50"], "14 training images cannot form 50 clusters; set --num-clusters to at most 14"),
        (["--system", "dkpnets"], "system dkpnets: unknown"),
        (["--backbone", "hrnet_w18_smal"], "near it: hrnet_w18_small"),
    ],
)
def test_bad_settings_are_one_line_and_leave_no_folder(arguments, message, run, tmp_path):
    with pytest.raises(UserError) as error:
        run(*arguments, "--epochs", 1, "--output", tmp_path / "run")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
