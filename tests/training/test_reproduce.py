"""The paper's tables: which runs they need, what is said of them, and all of it end to end on tiny data."""

import copy
import csv
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from counters import alive

from dkpnet_ext.data import Domain
from dkpnet_ext.errors import UserError
from dkpnet_ext.models import DKPNet, load_model, registry, tiling
from dkpnet_ext.reproduce import parse
from dkpnet_ext.reproduction import analysis
from dkpnet_ext.reproduction.report import check_counts, reproduce
from dkpnet_ext.reproduction.runs import Run, configure, digest, execute, read_counts
from dkpnet_ext.reproduction.systems import LITERATURE, LOSSES, systems
from dkpnet_ext.reproduction.tables import PAGES, Context
from dkpnet_ext.reproduction.tables.base import errors
from dkpnet_ext.reproduction.verdict import spread, verdict
from dkpnet_ext.training import PRESETS
from dkpnet_ext.training import run as run_module
from dkpnet_ext.training.checkpoint import save_model
from dkpnet_ext.training.clustering import save_clusters
from dkpnet_ext.training.interruption import Interrupted

from .conftest import ARGUMENTS

BASE = PRESETS["scratch"].config


def test_every_page_names_systems_that_exist():
    known = systems(["a", "b", "c"], BASE)
    for name, page in PAGES.items():
        assert page.needs(known), name


def test_all_systems_see_as_many_images():
    specs = {"a": "a=x", "b": "b=y"}
    for system in systems(["a", "b"], BASE).values():
        config = configure(system, 3, BASE, specs)
        stages = 2 if config.model.system == "dkpnet" else 1
        assert config.optim.epochs * stages == 2 * BASE.optim.epochs, system.name
        assert config.seed == 3 and len(config.data.data) == len(system.domains)
    assert BASE.optim.epochs == PRESETS["scratch"].config.optim.epochs, "the base is left alone"


def test_a_run_is_known_by_what_determines_it():
    same, other = copy.deepcopy(BASE), copy.deepcopy(BASE)
    same.data.workers, same.device = 7, "cuda"
    assert digest(same) == digest(BASE)
    other.cluster.num_sub += 1
    assert digest(other) != digest(BASE) and digest(other, stage1=True) == digest(BASE, stage1=True)
    other.optim.lr *= 2
    assert digest(other, stage1=True) != digest(BASE, stage1=True)


@pytest.mark.parametrize(
    "better, expected",
    [
        ([[0.5, 0.5], [0.52, 0.5], [0.5, 0.48]], "holds ("),
        ([[0.3, 1.1], [0.31, 1.1], [0.3, 1.12]], "holds on average ("),
        ([[1.5, 1.5], [1.52, 1.5], [1.5, 1.48]], "does not hold ("),
        ([[0.5, 1.0], [1.5, 1.0], [1.02, 1.0]], "within noise ("),
        ([[0.5, 0.5]], "one seed, no verdict ("),
    ],
)
def test_verdicts(better, expected):
    better = np.array(better)
    assert verdict(better, np.ones_like(better), ["a", "b"]).startswith(expected)


def test_spread_is_over_seeds():
    assert spread(np.array([1.0])) == "1.00" and spread(np.array([1.0, 3.0])) == "2.00 ± 1.41"
    assert spread(np.array([np.nan])) == "-"


def test_separation_tells_separable_from_random():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    apart = rng.normal(size=(60, 8)) + 10 * np.eye(8)[labels]
    good, chance = analysis.separation(apart, labels), analysis.separation(rng.normal(size=(60, 8)), labels)
    assert good.accuracy == 1 and good.silhouette > 0.5
    assert chance.accuracy < 0.6 and chance.silhouette < 0.1 and chance.majority == pytest.approx(1 / 3)
    assert np.isnan(analysis.separation(apart[:20], labels[:20]).accuracy)
    assert np.isnan(analysis.separation(np.ones((60, 8)), labels).accuracy), "a collapsed attention"


def test_fixed_attention(monkeypatch):
    torch.manual_seed(0)
    model = alive(DKPNet("tf_efficientnet_lite0", attention="va", num_domains=2, latent_dim=4, channels=16)).eval()
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    own, y = model.density(image), model.attend(image).numpy()
    with analysis.fixed_attention(model, y):
        assert torch.allclose(model.density(image), own, atol=1e-6)
    with analysis.fixed_attention(model, 0 * y):
        nothing = model.density(image)
        monkeypatch.setattr(tiling, "LIMIT", 64 * 64)
        assert torch.allclose(model.density(image), nothing, atol=1e-6), "in tiles too"
    assert not torch.allclose(nothing, own, atol=1e-6)
    assert torch.allclose(model.density(image), own, atol=1e-5), "the model has its own attention again"
    with (
        pytest.raises(ValueError, match="no attention"),
        analysis.fixed_attention(DKPNet("tf_efficientnet_lite0", "none"), y),
    ):
        pass


def test_levels():
    rows = analysis.level_errors(np.array([[10, 12], [10, 8], [150, 100], [5000, 4000]]))
    assert rows[0] == (2, 2.0) and rows[2] == (1, 50.0) and rows[4] == (1, 1000.0) and rows[1][0] == 0


def test_every_page_is_written_from_untrained_runs(tmp_path):
    """All pages but the one that needs three data sets, in seconds: models are random, counts made up."""
    rng = np.random.default_rng(0)
    sets = [
        Domain.from_arrays(
            name, [(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), rng.uniform(0, 32, (i % 4 + 1, 2))) for i in range(7)],
            test=[(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), [[3, 4]])] * 1, min_side=32, max_side=64,
        )
        for name in ("a", "b")
    ]  # fmt: skip
    items = [item for d in sets for item in d.train]
    config = copy.deepcopy(BASE)
    config.cluster.num_clusters = 2
    runs = []
    for i, system in enumerate(systems(["a", "b"], config).values()):
        name = dict(system.changes)["model.system"]
        settings = {"backbone": "resnet18", "channels": 8, "latent_dim": 4, "domains": system.domains, "num_domains": 2}
        for seed in (0, 1):
            folder = tmp_path / "runs" / f"{i}-{seed}"
            if "," not in system.name and (name in ("va", "se", "dkpnet") or (seed == 0 and name in ("jt", "mb"))):
                model = registry.create(name, 2 if system.two_stage else 1, num_sub=2, **settings)
                save_model(alive(model), folder / "model")
            folder.mkdir(parents=True, exist_ok=True)
            if system.two_stage:
                save_clusters(folder / "clusters.json", items, np.arange(len(items)) % 2)
            counts = {d: np.array([[1.0, rng.uniform(0, 3)]]) for d in system.domains}
            runs.append(Run(system, seed, folder, counts))
    output = tmp_path / "out"
    output.mkdir()
    context = Context(runs, ["a", "b"], {d.name: d.train for d in sets}, {d.name: d.test for d in sets}, config, output)
    known = systems(["a", "b"], config)
    for name, page in PAGES.items():
        if needs := page.needs(known):
            text = page.write(context, name, needs)
            assert text.startswith(("| ", "![", "Not drawn")), (name, text)
    written = {path.name for path in output.iterdir()}
    assert written >= {"table1.csv", "table6.csv", "table6.png", "table7.csv", "table9.csv", "fig4.png", "levels.csv"}
    assert not [name for name in written if ".tmp" in name]


def test_a_published_system_is_a_row(settings, domains, tmp_path, monkeypatch):
    """Trained on each data set and on all, under its own loss; its published figures say how their epoch was chosen."""
    monkeypatch.setitem(LITERATURE, "DM-Count", ("mcnn", "dm"))  # for VGG19
    config = settings("--epochs", 1)
    names = ["SHA", "SHB"]
    wanted = [system for name, system in systems(names, config).items() if name.startswith("DM-Count")]
    assert [system.name for system in wanted] == ["DM-Count on SHA", "DM-Count on SHB", "DM-Count"]
    specs = {name: f"{name}={word.partition('=')[2]}" for name, word in zip(names, domains[1:3], strict=True)}
    runs = list(execute(wanted, [0], config, specs, tmp_path / "runs", lambda line: None))
    assert all(0 < run.validation < 1000 for run in runs) and not (runs[0].folder / "density").exists()
    told = (runs[0].folder / "results.md").read_text()
    assert (
        "| SHA " in told and "training mean" not in told and "trivial" not in told
    )  # no table shows those: they cost time
    model = load_model(runs[-1].folder)
    assert (model.system, model.link, model.density_scale) == ("mcnn", "relu", 1.0)
    text = PAGES["table2"].write(Context(runs, names, {}, {}, config, tmp_path), "table2", [s.name for s in wanted])
    rows = [line for line in text.splitlines() if line.startswith("| DM-Count")]
    assert rows[0].startswith("| DM-Count, IT | ") and rows[2].startswith("| DM-Count | ") and len(rows) == 3
    assert rows[1] == "| DM-Count, published (epoch: on the test set) | 59.7 | 7.4 | - | - |", (
        "beside the models of one data set, as published"
    )
    assert (tmp_path / "table2.png").exists() and (tmp_path / "table2.csv").exists()


def test_the_grid_is_every_loss_with_every_attention():
    known = systems(["a", "b"], BASE)
    needed = [known[name] for name in PAGES["losses"].needs(known)]
    pairs = {(c.loss.loss, c.model.system) for c in (configure(s, 0, BASE, {"a": "a", "b": "b"}) for s in needed)}
    assert pairs == {(loss, system) for loss in LOSSES for system in ("jt", "se", "va", "dkpnet")} and len(needed) == 20


def test_the_grid_is_judged_over_what_was_held_fixed(tmp_path):
    """One seed: each loss has as many pairs as forms of attention, each attention as many as losses; gaps are left out."""
    known = systems(["a"], BASE)
    wrong = {"JT": 10, "SE": 12, "VA": 8, "JT, zip": 5, "SE, zip": 6.3, "VA, zip": 3.9, "VA, dm": 30}
    runs = [Run(known[name], 0, Path(), {"a": np.array([[50.0, 50 + e]])}) for name, e in wrong.items()]
    text = PAGES["losses"].write(Context(runs, ["a"], {}, {}, BASE, tmp_path), "losses", list(wrong))
    assert "- zip beats mse, 3 pairs: **one seed, no verdict (-49.6 % in MAE over the data sets)" in text
    assert (
        "- SE beats no attention, 2 pairs: **one seed, no verdict (+23.0 %" in text
        and "- poisson beats mse: **not trained**" in text
    )
    assert "- dm beats mse, 1 pairs: **one seed, no verdict (+275.0 %" in text
    more = [replace(run, seed=1, counts={"a": np.array([[50.0, 50 + 1.1 * wrong[run.system.name]]])}) for run in runs]
    text = PAGES["losses"].write(Context(runs + more, ["a"], {}, {}, BASE, tmp_path), "losses", list(wrong))
    assert (
        "- zip beats mse, 3 pairs: **holds (-49.6 % in MAE over the data sets, 2 seeds, standard error 0.0 %)" in text
    )


def test_runs_that_are_missing_leave_gaps():
    """A grid that was stopped: a seed that one of two systems lacks has no part in the verdict."""
    known = systems(["a"], BASE)
    runs = [
        Run(known[name], seed, Path(), {"a": np.array([[10.0, 10 + error]])})
        for name, seed, error in (("JT", 0, 2.0), ("JT", 1, 3.0), ("SE", 0, 1.0))
    ]
    mae = errors(Context(runs, ["a"], {}, {}, BASE, Path()), ["JT", "SE", "VA"])
    np.testing.assert_equal(mae["SE"], [[1.0], [np.nan]])
    assert np.isnan(mae["VA"]).all()
    assert verdict(mae["SE"], mae["JT"], ["a"]).startswith("one seed, no verdict (-50.0 %")
    assert verdict(mae["VA"], mae["JT"], ["a"]).startswith("no seed has both")
    assert spread(mae["SE"][:, 0]) == "1.00" and spread(mae["JT"][:, 0]) == "2.50 ± 0.71"


def test_what_is_finished_is_written_when_training_stops(settings, domains, tmp_path, monkeypatch):
    config = settings("--epochs", 1, "--output", tmp_path)
    config.data.data = tuple(word for word in domains[1:3])
    real, trained = run_module.train, []

    def train(own, **options):
        if trained:
            raise Interrupted(own.output)
        trained.append(own.output)
        return real(own, **options)

    monkeypatch.setattr(run_module, "train", train)
    with pytest.raises(Interrupted):
        reproduce(["table3"], config, [0], tmp_path / "out")
    page = (tmp_path / "out" / "README.md").read_text()
    assert "**1 of 2 runs are finished;**" in page and "| SE | " in page and "| DKPNet |" not in page


def test_tables_end_to_end(domains, environment, tmp_path):
    output = tmp_path / "out"
    tables = ["table1", "table4", "table6", "table7", "table9", "fig4", "fig6", "latent", "attention", "levels"]
    command = [
        sys.executable, "-m", "dkpnet_ext.reproduce", *tables, *ARGUMENTS, *domains,
        "--epochs", "1", "--seeds", "0", "1", "--output", str(output),
    ]  # fmt: skip
    first = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert first.returncode == 0, first.stdout + first.stderr
    assert re.search(r"run 1 of \d+: IT on bright, seed 0", first.stderr)
    page = (output / "README.md").read_text()
    for text in (
        "IT",
        "JT",
        "VA",
        "InVA(2)",
        "Joint training alone beats individual training: **",
        "seeds 0, 1",
        "InVA(2) beats VA",
        "±",
    ):
        assert text in page, text
    with (output / "table1.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(r["system"], r["seed"]) for r in rows} >= {("JT", "0"), ("JT", "1"), ("IT on dark", "1")}
    assert all(float(r["mae"]) >= 0 and int(r["images"]) == 2 for r in rows)
    with (output / "attention.csv").open() as file:
        effect = list(csv.DictReader(file))
    assert len(effect) == 3 * 2 * 3 * 2, "systems, seeds, kinds of attention, domains"
    for picture in ("table1.png", "table6.png", "fig4.png", "fig6.png"):
        assert (output / picture).stat().st_size > 1000
    # Stage I was trained once per seed for InVA(2) and DKPNet.
    intrinsic = [folder for folder in output.glob("runs/*-seed0") if (folder / "stage2").is_dir()]
    states = {(folder / "stage1" / "best" / "model.safetensors").read_bytes() for folder in intrinsic}
    assert len(intrinsic) == 2 and len(states) == 1

    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0 and "0 to train" in again.stderr, again.stderr
    assert (output / "README.md").read_text() == page


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "which table?"),
        (["table99"], "table99: neither a table nor a preset"),
        (["table1", "--system", "va"], "Unrecognized options: --system"),
        (["table1", "--seed", "3"], "--seed"),
        (["table1", "--seeds"], "--seeds"),
        (["table1", "--seeds", "-1"], "--seeds"),
        (["table1", "--resume", "x"], "Unrecognized options: --resume"),
        (["table1", "--crop", "0"], "--crop 0: must be"),
    ],
)
def test_bad_arguments_are_one_line(words, message):
    with pytest.raises(UserError) as error:
        parse(words)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_help_is_short(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 50 and "table9: " in shown and "--help-all" in shown
    assert "--output FOLDER         where the run is written (reproduction)" in shown and "--resume" not in shown


def test_all_options_show_the_defaults_that_count(capsys):
    with pytest.raises(SystemExit):
        parse(["--help-all"])
    shown = " ".join(re.sub("[│|]", " ", capsys.readouterr().out).split())
    assert "(default: reproduction)" in shown and "PRESET-DATE-TIME" not in shown
    assert not re.search(r"--(system|resume|seed) ", shown)
    assert parse(["table1"])[1].config.output == Path("reproduction")


@pytest.mark.parametrize(
    "text", [None, "", "domain,annotated,predicted\n", "a\n1\n", "domain,annotated,predicted\nx,y,1\n"]
)
def test_damaged_counts_are_one_line(tmp_path, text):
    path = tmp_path / "counts.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match="counts.csv: damaged") as error:
        read_counts(path)
    assert "\n" not in str(error.value)


def test_pages_are_in_the_papers_order():
    assert list(PAGES)[:9] == [f"table{i}" for i in range(1, 10)]
    assert set(PAGES) >= {"clustering", "fig4", "fig5", "fig6", "latent", "attention", "levels", "unseen"}


def test_an_unseen_set_is_paired_by_seed(tmp_path):
    """At commit 4eb5a94 a missing run was a traceback, or one seed was compared with another."""
    domains = ["a", "b", "c"]
    known = systems(domains, BASE)
    runs = [
        Run(known[f"{kind} without {d}"], seed, Path(), {d: np.array([[10.0, 10 + error + seed]])})
        for kind, error in (("JT", 2.0), ("SE", 2.0), ("MB", 2.0), ("DKPNet", 1.0))
        for d in domains
        for seed in (0, 1)
        if not (kind == "DKPNet" and (seed == 0 or d == "c"))
    ]
    context = Context(runs, domains, {}, {}, BASE, tmp_path)
    text = PAGES["unseen"].write(context, "unseen", list({run.system.name for run in runs}))
    assert "| JT | 2.50 ± 0.71 | 2.50 ± 0.71 | 2.50 ± 0.71 |" in text and "| DKPNet | 2.00 | 2.00 | - |" in text
    assert "better than JT on a data set it never saw: **one seed, no verdict (-33.3 %" in text


def test_levels_are_of_crowds(tmp_path):
    """At commit 4eb5a94 the drawn textures of `small` were counted as sparse crowds."""
    known = systems(["a", "b"], BASE)
    counts = {d: np.array([[10.0, 12.0], [150.0, 100.0]]) for d in "ab"}
    runs = [Run(known["JT"], 0, Path(), counts | {"negatives": np.zeros((70, 2))})]
    text = PAGES["levels"].write(Context(runs, ["a", "b"], {}, {}, BASE, tmp_path), "levels", ["JT"])
    assert "| images | 2 | 0 | 2 |" in text and "| JT | 2.00 |" in text


def test_a_finished_run_of_other_labels_is_refused(tmp_path):
    """At commit 4eb5a94 its old errors stood beside pages of the new labels."""
    known = systems(["a", "b"], BASE)
    picture = np.zeros((32, 32, 3), np.uint8)
    domain = Domain.from_arrays("a", [(picture, [[3, 4]])], test=[(picture, [[3, 4], [5, 6]])])
    check_counts(Run(known["JT"], 0, tmp_path, {"a": np.array([[2.0, 1.5]])}), [domain])
    for counts in ([[3.0, 1.5]], [[2.0, 1.5], [2.0, 1.0]]):
        with pytest.raises(UserError, match=f"{tmp_path}: a's test images have changed since this run; delete"):
            check_counts(Run(known["JT"], 0, tmp_path, {"a": np.array(counts)}), [domain])
