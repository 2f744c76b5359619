"""The end of a run: errors on test images and what they mean, the final model, pictures, what to do next."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from lightning.fabric import Fabric
from PIL import Image

from ..data import Domain, Item
from ..errors import say
from ..evaluation.baselines import MEAN, RIDGE
from ..evaluation.calibration import calibrate
from ..evaluation.evaluate import score, write_counts
from ..evaluation.inference import attention_vectors
from ..evaluation.metrics import Metrics, markdown_table
from ..files import output_folder, write_atomically
from ..models import CrowdCounter, load_model
from ..plots import overlay, tsne_plot
from .adapt import SPARE, interval_words, verdict
from .checkpoint import save_model
from .clustering import load_clusters
from .config import Config
from .log import Record
from .validation import predict_all

if TYPE_CHECKING:
    from .factor import Factor
    from .stage import StageData

_PLOTTED = 300  # at most as many images in the t-SNE plot


def finish(
    fabric: Fabric,
    best: Path,
    domains: Sequence[Domain],
    data: StageData,
    config: Config,
    folder: Path,
    log: Callable[[Record], None],
    began: float,
    extras: bool = True,
    factor: Factor | None = None,
    crossed: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> None:
    """Evaluate the best model and write ``model/``, ``counts.csv``, pictures and, last of all, ``results.md``.

    Args:
        best: folder of the model; data: of stage I; began: `time.monotonic` of the start.
        extras: whether to compare with the trivial counters, measure the counter's intervals and draw pictures.
        factor: of `try_factor`; crossed: of `crossed_errors`.
    """
    model = load_model(best).to(fabric.device).for_inference("torch")
    tested = {d.name: d.test for d in domains if d.test}
    held_out = {d.name: [item for item in data.val if item.domain == d.name] for d in domains}
    shown = tested or {name: items for name, items in held_out.items() if items}
    counts = {name: predict_all(fabric, model, items, "fp32") for name, items in shown.items()}
    if fabric.is_global_zero:
        held = {item.name for item in data.val}
        train = {d.name: [item for item in d.train if tested or item.name not in held] for d in domains}
        rows = score(shown, counts, train if extras else None)
        errors = {f"test/{name}": row._asdict() for name, row in rows.items()} if tested else {}
        log({"stage": "test", "seconds": time.monotonic() - began} | errors)
        write_counts(folder / "counts.csv", shown, counts)
        final = load_model(best)
        train_of, val_of = (
            {d.name: [item for item in items if item.domain == d.name] for d in domains}
            for items in (data.train, data.val)
        )
        if extras:
            spare = 0 if config.start is None else SPARE
            final.calibration = calibrate(model, train_of, val_of, device=fabric.device, spare=spare, crossed=crossed)
        text = results(rows, domains)
        if config.start is not None:
            said = [verdict(folder, data.val, factor), interval_words(final.calibration, crossed)]
            text = f"{' '.join(filter(None, said))}\n\n{text}"
        final.notes = (
            f"Trained on {', '.join(d.name for d in domains)} ({len(data.train)} images; {len(data.val)} more chose the "
            f"checkpoint), system {config.model.system}, preset {config.preset}, seed {config.seed}. {text}"
        )
        save_model(final, folder / "model")
        write_atomically(folder / "results.md", f"# {folder.name}: {config.model.system}\n\n{text}\n")
        if extras:
            write_pictures(model, domains, data, config, folder, fabric)
        say("")
        for line in [*text.splitlines(), "", *next_steps(folder).splitlines()]:
            say(line)
        say(f"minutes: {(time.monotonic() - began) / 60:.1f}")
    fabric.barrier()


def results(rows: Mapping[str, Metrics], domains: Sequence[Domain]) -> str:
    """Markdown: the table of errors, where it comes from, and what it says where the trivial counters are in it."""
    untested = [d.name for d in domains if not d.test]
    if len(untested) == len(domains):
        what = (
            "There are no test images (a list or folder called test). These are the validation images, which chose the "
            "model: errors on new images will be larger."
        )
        without = [d.name for d in domains if d.name not in rows]
        what += f" Of {', '.join(without)} no picture is held out." if without else ""
    else:
        what = "Test images:" + (f" ({', '.join(untested)} has none)" if untested else "")
    judged = [judge(rows, d.name) for d in domains if d.name + MEAN in rows]
    return "\n".join([what, "", markdown_table(rows), *([""] if judged else []), *judged])


def judge(rows: Mapping[str, Metrics], name: str) -> str:
    """In words: is a data set counted better than by the two counters that look at no person?"""
    model = rows[name].mae
    if not rows[name + MEAN].mae and np.isnan(rows[name].nae):
        return f"- {name}: {model:.2f} heads on average on a picture without people."
    trivial = {
        "always its training mean": rows[name + MEAN].mae,
        "a regression on image statistics": rows[name + RIDGE].mae,
    }
    beaten = [what for what, mae in trivial.items() if model < mae]
    others = [what for what in trivial if what not in beaten]
    few = f" ({rows[name].images} images say little)" if rows[name].images < 20 else ""
    if not others:
        return f"- {name}: better than both trivial counters ({' and '.join(beaten)}){few}."
    if beaten:
        return f"- {name}: better than {beaten[0]}, but not than {others[0]}{few}: train longer, or on more images."
    return f"- {name}: no better than {' or '.join(others)}{few}: it has not learned to count here yet; train longer."


def next_steps(folder: Path) -> str:
    """The commands that people need after a training."""
    run = shlex.quote(str(folder))
    lines = [
        f"results: {folder / 'results.md'}, pictures: {folder / 'density'}, model: {folder / 'model'}",
        "next:",
        f"  python -m dkpnet_ext.predict photo.jpg --checkpoint {run}",
        f"  python -m dkpnet_ext.demo --checkpoint {run}",
        f"  tensorboard --logdir {run}",
    ]
    return "\n".join(lines)


def write_pictures(
    model: CrowdCounter, domains: Sequence[Domain], data: StageData, config: Config, folder: Path, fabric: Fabric
) -> None:
    """Density maps of two test images per data set, and where the attention vectors lie. One that fails is named and
    left out: the run is finished."""

    def attempt(path: Path, write: Callable[[Path], object]) -> None:
        try:
            output_folder(path.parent)
            write_atomically(path, write)
        except Exception as error:  # a picture is never worth the run
            reason = str(error).strip().splitlines() or [type(error).__name__]
            say(f"{path}: left out ({reason[0]})", error=True)

    for domain in domains:
        for item in (domain.test or [i for i in data.val if i.domain == domain.name])[:2]:
            stem = f"{domain.name}-{item.source.stem}".encode()[:200].decode(errors="ignore")
            attempt(folder / "density" / f"{stem}.png", partial(_density, model, item))
    if getattr(model, "attention", None) is not None:
        attempt(folder / "tsne.png", lambda path: _tsne(path, model, domains, data, config, folder, fabric))


def _density(model: CrowdCounter, item: Item, path: Path) -> None:
    image = np.array(item.read())
    density = model.density(image).cpu().numpy()
    overlay(Image.fromarray(image), density, float(density.sum())).save(path)


def _tsne(
    path: Path,
    model: CrowdCounter,
    domains: Sequence[Domain],
    data: StageData,
    config: Config,
    folder: Path,
    fabric: Fabric,
) -> None:
    every = -(-len(data.train) // _PLOTTED)
    items = data.train[::every]
    groups = {"data set": [domains[i].name for i in data.sources[::every]]}
    if (folder / "clusters.json").exists():
        clusters = load_clusters(folder / "clusters.json", items, config.cluster.num_clusters)
        groups["cluster"] = [str(c) for c in clusters]
    tsne_plot(attention_vectors(model, items, device=fabric.device, precision=config.precision), groups, path)
