"""Models on disk and on the hub: config.json, model.safetensors and a model card, read back through one door."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from safetensors.torch import load_file
from torch import Tensor

from ..errors import UserError
from .calibration import FILE as CALIBRATION
from .calibration import Calibration
from .network import Network

STARTER = Path(__file__).parents[1] / "assets" / "starter"
"""Folder of the packaged model."""

CARD_SECTION = "Intervals"  # heading in a model card
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_RUN = ("model", "stage2/best", "stage1/best")  # of a training run that has ended, or not yet

_CARD = """---
library_name: dkpnet_ext
tags: [crowd-counting]
license: other
---
# {kind} crowd counter

Backbone {backbone}, attention {attention}, {parameters:,} parameters, one density cell per {stride} x {stride} pixels.
Use it with `dkpnet_ext.load_model(FOLDER).count("photo.jpg")`; no label is needed.

## Data and results

{notes}
{calibration}
## Limits

It counts heads like those it was trained on: other cameras, densities or head sizes than its training images' need a
check against some counted images first. {confidence} It finds no identities and is not
meant to. The weights carry the terms of the training data; public crowd-counting data sets are for research only.
"""


class SavedNetwork(Network, PyTorchModelHubMixin, library_name="dkpnet_ext", tags=["crowd-counting"]):
    """A network that can be saved, loaded and pushed to a hub."""

    systems: ClassVar[tuple[str, ...]] = ()
    """Names under which the class is registered (see `registry.register`)."""
    added: ClassVar[Mapping[str, Any]] = {"link": "relu", "fold_norms": False, "neck": "paper"}
    """Constructor arguments that came after the first checkpoints, with the values of a config.json that lacks them."""
    without_attention: ClassVar[str] = "none"
    """What the card says of the attention of a network whose constructor takes none."""
    folded: bool = False
    """Whether `CrowdCounter.for_inference` changed the network, which config.json then no longer describes."""
    calibration: Calibration | None = None
    """Its intervals, see `calibration`; None for a model that is not calibrated."""
    notes: str = "Not recorded."
    """Markdown on training data and results, for the model card that `save_pretrained` writes."""

    @property
    def system(self) -> str:
        """The system's name, which config.json keeps."""
        return self.systems[0]

    def save_pretrained(  # type: ignore[override]  # the others pass through
        self, save_directory: str | Path, *, config: dict[str, Any] | None = None, **kwargs: Any
    ) -> str | None:
        """Write config.json, model.safetensors, a model card, and what `calibration` knows.

        Args:
            save_directory: created.
            config: by default the system's name and the constructor's arguments.
            kwargs: see huggingface_hub's `ModelHubMixin.save_pretrained`.

        Raises:
            UserError: after `for_inference`.
        """
        if self.folded:
            raise UserError("a model made ready by for_inference cannot be saved; save it before, or load it anew")
        config = config or {"system": self.system, **self.arguments}
        pushed = super().save_pretrained(save_directory, config=config, **kwargs)
        weights = Path(save_directory) / _WEIGHTS  # safetensors leaves its files to their owner alone: written anew
        content = weights.read_bytes()
        weights.unlink()
        weights.write_bytes(content)
        if self.calibration is not None:
            self.calibration.save(Path(save_directory))
        else:  # of other weights that lay here
            (Path(save_directory) / CALIBRATION).unlink(missing_ok=True)
        return pushed

    @classmethod
    def from_pretrained(cls, source: str | Path | None = None, *, revision: str | None = None, **changes: Any) -> Self:  # type: ignore[override]
        """Load a model of this class, in evaluation mode; `load_model` finds out the class itself.

        Args:
            source, revision: see `find_checkpoint`.
            changes: constructor arguments in place of the saved ones, such as ``head="literal"``.

        Raises:
            UserError: nothing to load there; a configuration that is no model's, or another class'; weights that do
                not fit it in names, shapes or types, or that are not finite. One line each.
        """
        folder = find_checkpoint(source, revision)
        config = read_config(folder)
        if config.get("system", cls.systems[0]) not in cls.systems:
            raise UserError(f"checkpoint {folder}: holds system {config['system']}; open it with load_model")
        try:
            model = cls(**cls._arguments_from(config, folder) | changes)
        except ValueError as error:
            raise UserError(f"checkpoint {folder}: {_CONFIG}: {error}") from None
        load_weights(model, folder)
        model.calibration = Calibration.load(folder)
        return model.eval()

    @classmethod
    def _arguments_from(cls, config: dict[str, Any], folder: Path) -> dict[str, Any]:
        """The constructor's arguments: each must be there, for a default might not be what the model was trained with."""
        if config.get("neck_norm"):
            raise UserError(f"checkpoint {folder}: neck_norm, a batch norm after the neck, is no longer supported")
        names = [name for name in cls._hub_mixin_init_parameters if name != "self"]
        known = {**cls.added, **config}
        if missing := [name for name in names if name not in known]:
            raise UserError(f"checkpoint {folder}: {_CONFIG} lacks {', '.join(missing)}")
        return {name: known[name] for name in names}

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._hub_mixin_config)  # type: ignore[arg-type]  # a dictionary, since no dataclass is passed

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card that `save_pretrained` puts beside the weights."""
        return ModelCard(
            _CARD.format(
                kind=type(self).__name__,
                backbone=self.backbone_name,
                attention=self.arguments.get("attention", self.without_attention),
                parameters=sum(p.numel() for p in self.parameters()),
                stride=self.out_stride,
                notes=self.notes,
                confidence="A count is an estimate without a confidence."
                if self.calibration is None
                else "Intervals hold for pictures like the validation pictures, not for others.",
                calibration="" if self.calibration is None else f"\n## {CARD_SECTION}\n\n{self.calibration.card()}\n",
            )
        )


def find_checkpoint(source: str | Path | None = None, revision: str | None = None) -> Path:
    """The folder that holds a checkpoint's config.json and model.safetensors.

    Args:
        source: None or ``"starter"`` is the packaged model; a folder written by `save_pretrained`; the folder of a
            training run (its final model, before its end the best so far); or ``OWNER/NAME`` on the hub, which is
            asked only if no folder OWNER exists here and OWNER is not ``runs``.
        revision: branch, tag or commit on the hub.

    Raises:
        UserError: no such folder, a file missing in it, a hub that does not have it or cannot be reached.
    """
    if source is None or (str(source) == "starter" and not os.path.exists("starter")):
        if not (STARTER / _WEIGHTS).is_file():
            raise UserError("the starter model is not part of this installation; name a checkpoint's folder")
        return STARTER
    folder = Path(source).expanduser()
    if os.path.isdir(folder):
        folder = next((folder / name for name in ("", *_RUN) if os.path.isfile(folder / name / _WEIGHTS)), folder)
        for name in (_CONFIG, _WEIGHTS):
            if not os.path.isfile(folder / name):
                raise UserError(f"checkpoint {source}: {name} is missing; give a model's folder or a training run's")
        return folder
    owner, *rest = folder.parts or ("",)
    if len(rest) == 1 and owner not in ("runs", ".", "..", "/") and not os.path.exists(owner):
        return _download(str(source), revision)
    raise UserError(f"checkpoint {source}: no such folder; give one that holds {_CONFIG} and {_WEIGHTS}")


def _download(name: str, revision: str | None) -> Path:
    """The folder of a hub model's files in the hub's cache, which also serves where the hub cannot be reached."""
    from huggingface_hub import get_session, hf_hub_download, hf_hub_url

    offline = False
    try:  # once: the client itself tries for half a minute
        get_session().head(hf_hub_url(name, _CONFIG), timeout=5)
    except Exception:
        offline = True
    try:
        for file in (_CONFIG, _WEIGHTS):  # never a pickle
            path = Path(hf_hub_download(name, file, revision=revision, local_files_only=offline))
        with suppress(Exception):  # most models have none
            hf_hub_download(name, CALIBRATION, revision=revision, local_files_only=offline)
    except Exception as error:  # the client has many kinds, for absent, private, gated ...
        reason = "which cannot be reached" if offline else _reason(error)
        raise UserError(f"checkpoint {name}: no such folder, and not on the hub ({reason})") from None
    return path.parent


def read_config(folder: Path) -> dict[str, Any]:
    """A checkpoint's config.json. Raises `UserError` for what is no JSON object."""
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"checkpoint {folder}: {_CONFIG} cannot be read ({_reason(error)})") from None
    if not isinstance(config, dict):
        raise UserError(f"checkpoint {folder}: {_CONFIG} holds no JSON object")
    return config


def load_weights(model: Network, folder: Path) -> None:
    """Load model.safetensors into a model, after all of it has been checked: names, shapes, types, finite values.

    Raises:
        UserError: the first thing that does not fit.
    """
    try:
        state = load_file(folder / _WEIGHTS)
    except Exception as error:  # safetensors and the disk each raise their own
        raise UserError(f"checkpoint {folder}: {_WEIGHTS} cannot be read ({_reason(error)})") from None
    own = model.state_dict()
    # A tensor that several modules share is written once.
    written = {value.data_ptr() for name, value in own.items() if name in state}
    problems = {
        "lacks": [n for n, v in own.items() if n not in state and v.data_ptr() not in written],
        "has unknown": [n for n in state if n not in own],
        "has other shapes for": [n for n, v in state.items() if n in own and v.shape != own[n].shape],
        "has numbers of another type for": [n for n, v in state.items() if n in own and _other_type(v, own[n])],
        "has values that are not finite in": [n for n, v in state.items() if not bool(torch.isfinite(v).all())],
    }
    for problem, names in problems.items():
        if names:
            listed = ", ".join(names[:4]) + (f" ... ({len(names)} in all)" if len(names) > 4 else "")
            raise UserError(f"checkpoint {folder}: {_WEIGHTS} does not fit {_CONFIG}: it {problem} {listed}")
    model.load_state_dict(state, strict=False)


def _other_type(value: Tensor, own: Tensor) -> bool:
    return value.is_floating_point() != own.is_floating_point() or value.is_complex()


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
