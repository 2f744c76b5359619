"""Feature backbones: timm's networks, truncated where their features are as fine as a density map needs."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError

# The part of timm's (and the official) HRNet up to stage 3: branches at 1/4, 1/8 and 1/16.
_HRNET_PARTS = (
    "conv1", "bn1", "act1", "conv2", "bn2", "act2",
    "layer1", "transition1", "stage2", "transition2", "stage3",
)  # fmt: skip


class _Nearest(nn.Module):
    """`nn.Upsample` by a whole factor in the dtype of its input: a GPU's autocast makes it float32, and all that is added."""

    is_whole = True  # for `folding`

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(x.device.type):
            return F.interpolate(x, scale_factor=self.factor, mode="nearest")
        with torch.autocast(x.device.type, enabled=False):
            return F.interpolate(x, scale_factor=self.factor, mode="nearest")


class TruncatedHRNet(nn.Module):
    """HRNet without stage 4 and classifier, as in the DKPNet paper (W40: 11,980,576 parameters).

    Parameter names are timm's, which are the official checkpoint's.

    Args:
        name: a timm HRNet, such as ``hrnet_w40`` or ``hrnet_w18_small``.
    """

    conv1: nn.Module
    bn1: nn.Module
    act1: nn.Module
    conv2: nn.Module
    bn2: nn.Module
    act2: nn.Module
    layer1: nn.Module
    transition1: nn.ModuleList
    stage2: nn.Module
    transition2: nn.ModuleList
    stage3: nn.Module

    def __init__(self, name: str) -> None:
        super().__init__()
        import timm

        full: Any = timm.create_model(name, pretrained=False)
        for part in _HRNET_PARTS:
            self.add_module(part, getattr(full, part))
        for fusion in [m for m in self.modules() if isinstance(m, nn.Sequential)]:
            for key, module in fusion.named_children():
                if isinstance(module, nn.Upsample):
                    fusion.add_module(key, _Nearest(cast(float, module.scale_factor)))
        self.reductions = (4, 8, 16)
        # The last fusion's first convolution of each branch carries the branch's width.
        self.channels = tuple(full.stage3[-1].num_in_chs)

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [B, 3, H, W], H and W multiples of 16 -> branches [B, C_j, H/4, W/4], [.., H/8, ..], [.., H/16, ..]."""
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.act2(self.bn2(self.conv2(x)))
        x = self.layer1(x)
        branches = self.stage2([t(x) for t in self.transition1])
        branches = [
            branches[i] if isinstance(t, nn.Identity) else t(branches[-1]) for i, t in enumerate(self.transition2)
        ]
        return self.stage3(branches)


class TimmFeatures(nn.Module):
    """The 1/4, 1/8 and 1/16 features of any timm backbone that offers them; deeper blocks are dropped."""

    def __init__(self, name: str) -> None:
        super().__init__()
        import timm

        try:
            probe: Any = timm.create_model(name, pretrained=False, features_only=True)
            wanted = [i for i, r in enumerate(probe.feature_info.reduction()) if r in (4, 8, 16)]
        except (RuntimeError, AttributeError, TypeError, ValueError) as error:
            raise UserError(f"backbone {name}: timm offers no feature pyramid for it ({error})") from None
        if 4 not in probe.feature_info.reduction():
            raise UserError(f"backbone {name}: has no features at 1/4 of the image; choose a convolutional network")
        net: Any = timm.create_model(name, pretrained=False, features_only=True, out_indices=wanted)
        last = net.feature_info.module_name()[-1].split(".")
        if last[0] == "blocks" and hasattr(net, "blocks"):  # EfficientNet-like features keep unused blocks
            net.blocks = net.blocks[: int(last[1]) + 1]
        self.net = net
        self.reductions = tuple(net.feature_info.reduction())
        self.channels = tuple(net.feature_info.channels())
        expected = [(c, 64 // r, 64 // r) for r, c in zip((4, 8, 16), self.channels, strict=False)]
        try:
            with torch.no_grad():
                given = [tuple(f.shape[1:]) for f in net.eval()(torch.zeros(1, 3, 64, 64))]
        except Exception as error:  # networks for one size of image, and timm's own faults
            raise UserError(f"backbone {name}: does not take images of any size ({error})") from None
        if given != expected:
            raise UserError(
                f"backbone {name}: its features for 64 x 64 pixels are {given}, not {expected}; choose another network"
            )
        net.train()

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [B, 3, H, W] -> one [B, C_j, H/r_j, W/r_j] per reduction r_j, finest first."""
        return self.net(x)


def same_dtype(features: list[Tensor]) -> list[Tensor]:
    """Features for the head, which takes one dtype: autocast leaves those of some backbones in two."""
    if len({f.dtype for f in features}) == 1:
        return features
    return [f.to(torch.get_autocast_dtype(f.device.type)) for f in features]


def check_backbone(name: str) -> None:
    """Raises `UserError`, which proposes the nearest names, for a name that timm does not know."""
    import timm

    if not timm.is_model(name):
        known = timm.list_models()
        near = difflib.get_close_matches(name, known, 3) or timm.list_models(f"*{name.split('_')[0]}*")[:3]
        raise UserError(f"backbone {name}: timm knows no such model; near it: {', '.join(near) or 'none'}")


def stages(backbone: Any) -> list[list[nn.Module]]:
    """The backbone's modules in the order in which an image passes them; the first is the stem. Others have their own."""
    if not isinstance(backbone, TruncatedHRNet | TimmFeatures):
        return backbone.stages()
    parts = dict((backbone.net if isinstance(backbone, TimmFeatures) else backbone).named_children())
    if isinstance(backbone, TruncatedHRNet):
        names = [_HRNET_PARTS[:6], ("layer1",), ("transition1", "stage2"), ("transition2", "stage3")]
        return [[parts[name] for name in group] for group in names]
    blocks = parts.pop("blocks", None)
    stem = list(parts.values())
    if isinstance(blocks, nn.Module):
        return [stem, *([block] for block in blocks.children())]
    first = next((i for i, name in enumerate(parts) if name.startswith(("layer", "stage", "block"))), 1)
    return [stem[:first], *([part] for part in stem[first:])]


def freeze_stages(backbone: Any, count: int) -> None:
    """The first stages keep their weights: no gradient, and none of its cost."""
    for stage in stages(backbone)[:count]:
        for module in stage:
            module.requires_grad_(False)


def create_backbone(name: str, weights: str | Path | None = None) -> TruncatedHRNet | TimmFeatures:
    """Build a backbone by timm name and load its weights.

    Args:
        name: ``hrnet_*`` gives the truncated HRNet, any other timm name its 1/4 to 1/16 features.
        weights: None (random), ``"imagenet"`` (timm's pretrained weights, needs a network or timm's cache) or a
            file: safetensors, or a .pth such as the official HRNet's.

    Raises:
        UserError: unknown name; unreadable file; names that do not match the architecture (they are listed).
    """
    check_backbone(name)
    backbone = TruncatedHRNet(name) if name.startswith("hrnet_") else TimmFeatures(name)
    if weights is not None:
        load_backbone_weights(backbone, name, weights)
    return backbone


def load_backbone_weights(backbone: nn.Module, name: str, weights: str | Path) -> None:
    """Load ImageNet weights strictly: every parameter of the backbone, and no name that the full network lacks."""
    import timm

    if str(weights) == "imagenet":
        try:
            state = timm.create_model(name, pretrained=True).state_dict()
        except Exception as error:  # timm and the hub raise many kinds; all mean "not to be had here"
            raise UserError(
                f"weights of {name}: cannot be fetched ({type(error).__name__}); give a local file with --weights"
            ) from None
    else:
        state = read_weights(Path(weights))
    target = backbone.net if isinstance(backbone, TimmFeatures) else backbone
    known = set(timm.create_model(name, pretrained=False).state_dict())
    own = target.state_dict()
    # timm's features of some networks call "stages.0.weight" "stages_0.weight".
    flat = {k: k.replace(".", "_", 1) for k in state}
    state = {flat[k] if k not in own and flat[k] in own else k: v for k, v in state.items()}
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    # torchvision calls the layers behind a VGG's features so.
    unknown = [k for k in state if k not in known and k not in own and not k.startswith("classifier.")]
    wrong = [k for k in own if k in state and own[k].shape != state[k].shape]
    for problem, names in (("lacks", missing), ("has unknown", unknown), ("has other shapes for", wrong)):
        if names:
            listed = ", ".join(names[:8]) + (f" ... ({len(names)} in all)" if len(names) > 8 else "")
            raise UserError(f"weights {weights} do not fit {name}: the file {problem} {listed}")
    target.load_state_dict({k: state[k] for k in own if k in state}, strict=False)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, without ``module.`` before them. Raises `UserError`; code is never run."""
    if not path.is_file():
        raise UserError(f"weights {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpicklable, truncated, not a checkpoint
        raise UserError(f"weights {path}: not a readable weight file ({type(error).__name__})") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"weights {path}: holds no dictionary of tensors")
    return {str(k).removeprefix("module."): v for k, v in state.items()}
