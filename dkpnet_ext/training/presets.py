"""The settings that people start from, by name."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from .config import ClusterConfig, Config, DataConfig, LossConfig, ModelConfig, OptimConfig


def _paper(name: str, clusters: int, sub: int) -> Config:
    return Config(
        preset=name,
        data=DataConfig(data=(), workers=8),
        cluster=ClusterConfig(num_clusters=clusters, num_sub=sub),
        optim=OptimConfig(),
        eval_every=5,
    )


@dataclass(frozen=True)
class Preset:
    """Settings to start from; ``about`` describes them in one line."""

    about: str
    _config: Config = field(repr=False)

    @property
    def config(self) -> Config:
        """A copy of the settings; changing it does not change the preset."""
        return copy.deepcopy(self._config)


PRESETS: dict[str, Preset] = {
    "quick": Preset(
        "synthetic scenes, from the packaged model's weights; minutes on two CPU cores",
        Config(
            preset="quick",
            # How these were chosen: bench/results/synthetic-quick.md.
            # No worker: beside two threads of training it would take more than it saves.
            data=DataConfig(crop=256, min_side=384, jitter=0.0, sampling="balanced", workers=0),
            model=ModelConfig(
                backbone="tf_efficientnet_lite0",
                weights="starter",
                channels=64,
                latent_dim=16,
                neck="fpn",
                out_stride=8,
                density_scale=10.0,
            ),
            cluster=ClusterConfig(num_clusters=4, num_sub=2),
            optim=OptimConfig(
                epochs=14,
                stage2_from="stage1",
                batch=8,
                lr=1e-3,
                weight_decay=1e-4,
                ema=0.99,
                schedule="onecycle",
                batch_norm="folded",
            ),
            eval_every=7,
            precision="auto",
        ),
    ),
    "small": Preset(
        "real images on a small machine, for counting: EfficientNet-Lite0, one stage; the packaged model's recipe",
        Config(
            preset="small",
            # Each choice's gain: bench/results/counter.md.
            data=DataConfig(
                data=(),
                # Larger than 256: inside a whole picture no cell sees a border's zeros, in a small crop most do.
                crop=384,
                min_side=256,
                crops="covering",
                scale=(0.5, 2.0),
                jitter=0.3,
                negatives=("drawn",),
                sampling="balanced",
                workers=1,
            ),
            model=ModelConfig(
                system="jt", backbone="tf_efficientnet_lite0", channels=64, latent_dim=16, neck="fpn", out_stride=8
            ),
            cluster=ClusterConfig(num_clusters=3, num_sub=3),
            loss=LossConfig(loss="zip"),
            optim=OptimConfig(
                epochs=62,
                batch=5,
                lr=1e-3,
                backbone_lr=0.5,
                weight_decay=0.05,
                beta2=0.999,
                # Lower limits cut the gradients of dense crowds that are counted too low, and so count all crowds too low. The
                # loss is a sum over a crop's cells: those of an image are hundreds.
                clip=1000.0,
                ema=0.999,
                schedule="cosine",
                batch_norm="folded",
                frozen_stages=3,
            ),
            eval_every=4,
            precision="auto",
        ),
    ),
    "adapt": Preset(
        "a trained counter (--from, by default the packaged one) adapted to 5 to 100 pictures of your own, in minutes",
        Config(
            preset="adapt",
            start="starter",
            # Few pictures say little: a large part of them chooses, and the first layers stay.
            data=DataConfig(
                data=(), crop=384, crops="covering", scale=(0.6, 1.7), sampling="balanced", val_fraction=0.2, workers=1
            ),
            model=ModelConfig(weights=None),
            loss=LossConfig(loss="poisson", w_density=0.01),
            optim=OptimConfig(
                epochs=12,
                batch=5,
                lr=2e-4,
                backbone_lr=0.5,
                weight_decay=1e-4,
                clip=10.0,
                ema=0.98,
                schedule="cosine",
                frozen_stages=3,
            ),
            precision="auto",
        ),
    ),
    "scratch": Preset(
        "synthetic scenes, HRNet-W18-small from random weights: the base of `reproduce`",
        Config(
            preset="scratch",
            # No jitter and few latent dimensions: see bench/results/latent.md; balanced: remedies.md.
            data=DataConfig(crop=208, min_side=384, jitter=0.0, sampling="balanced", workers=1),
            model=ModelConfig(backbone="hrnet_w18_small", weights=None, latent_dim=16, density_scale=100.0),
            cluster=ClusterConfig(num_clusters=4, num_sub=2),
            loss=LossConfig(w_density=0.01),
            # Nothing is pretrained here: a second start from random weights would waste the first stage.
            optim=OptimConfig(
                epochs=32,
                stage2_from="stage1",
                batch=8,
                lr=2e-3,
                weight_decay=1e-4,
                schedule="onecycle",
                batch_norm="recalibrated",
            ),
            eval_every=8,
            precision="auto",
        ),
    ),
    "paper-3joint": Preset("the paper's SHA + SHB + QNRF: HRNet-W40, c=3, k=3", _paper("paper-3joint", 3, 3)),
    "paper-4joint": Preset(
        "the paper's SHA + SHB + QNRF + NWPU: HRNet-W40, c=5, k=2",
        _paper("paper-4joint", 5, 2),
    ),
}
