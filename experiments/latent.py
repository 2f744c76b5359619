"""Does the latent learn its domain? Neck and attention alone, on stored backbone features, by KL, LSE and log² det.

`python experiments/latent.py WEIGHTS NAME=FOLDER ...`: ImageNet features of two random crops of every training image; a fifth
of the images is held out. Minutes where whole trainings take hours; prints a Markdown table. The density loss plays no
part, so this says what the regularisers can do, not what they are good for.
"""

import math
import sys
from pathlib import Path

import torch
from torch import nn

from dkpnet_ext.data import TrainTransform, load_domains
from dkpnet_ext.models import DKPNet
from dkpnet_ext.models.attention import CENTER_NORM, VariationalAttention

STEPS, BATCH, RATE = 600, 12, 1e-3
VARIANTS: dict[str, dict] = {
    "as packaged": {},
    "norm 1": {"norm": 1.0},
    "norm 2": {"norm": 2.0},
    "norm 11": {"norm": 128**0.5},
    "norm 1, centres' rate / 10": {"norm": 1.0, "centers_rate": 0.1},
    "norm 1, KL warm-up over 30 %": {"norm": 1.0, "warm_up": 0.3},
    "norm 1, without layer norm": {"norm": 1.0, "layer_norm": False},
    "norm 1, 3000 steps": {"norm": 1.0, "steps": 3000},
    "16 dimensions": {"dim": 16},
    "16 dimensions, norm 1": {"dim": 16, "norm": 1.0},
}


def features(weights: str, specs: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pooled backbone features [n, channels], labels [n], and which images [n] they are of."""
    model = DKPNet("tf_efficientnet_lite0", "va", domains=[s.split("=")[0] for s in specs]).eval()
    model.load_backbone(weights)
    cut = TrainTransform(256)
    domains = load_domains(specs, min_side=256)
    items = [(item, label) for label, domain in enumerate(domains) for item in domain.train]
    rows = []
    torch.manual_seed(0)
    with torch.inference_mode():
        for start in range(0, len(items), 16):
            for _ in range(2):
                crops = [cut(item.read(), item.points)[0] for item, _ in items[start : start + 16]]
                pooled = torch.cat([b.mean((2, 3)) for b in model.features(torch.stack(crops))[0]], 1)
                rows += list(zip(pooled, items[start : start + 16], range(start, start + 16), strict=False))
    return torch.stack([r[0] for r in rows]), torch.tensor([r[1][1] for r in rows]), torch.tensor([r[2] for r in rows])


def study(
    x, labels, held, norm=CENTER_NORM, dim=128, steps=STEPS, centers_rate=1.0, warm_up=0.0, layer_norm=True
) -> str:
    """Train one variant; the cells of its row."""
    torch.manual_seed(0)
    count = int(labels.max()) + 1
    neck, attention = nn.Linear(x.shape[1], 512), VariationalAttention(512, dim, count)
    if not layer_norm:
        attention.encoder[0] = nn.Identity()
    attention.centers.data *= norm / CENTER_NORM
    priors = [attention.centers, attention.prior_logvar]
    rest = [p for p in [*neck.parameters(), *attention.parameters()] if all(p is not q for q in priors)]
    optimizer = torch.optim.AdamW(
        [{"params": rest, "rate": RATE}, {"params": priors, "rate": RATE * centers_rate}], weight_decay=1e-4
    )
    own = [torch.where((labels == c) & ~held)[0] for c in range(count)]
    for step in range(steps):
        progress = step / steps
        scale = 0.04 + 9.6 * progress if progress < 0.1 else 0.5 + 0.5 * math.cos(math.pi * (progress - 0.1) / 0.9)
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * scale
        batch = torch.cat([i[torch.randint(len(i), (BATCH // count,))] for i in own])
        out = attention(neck(x[batch]), labels[batch])
        kl = out.kl.mean() * (min(1, progress / warm_up) if warm_up else 1)
        optimizer.zero_grad()
        (kl + out.lse.mean() + out.logdet2.mean()).backward()
        optimizer.step()
    with torch.no_grad():
        noisy = attention(neck(x[held]), labels[held])
        accuracy = ((noisy.mu @ attention.centers[:, 0].T).argmax(1) == labels[held]).float().mean()
    figures = [noisy.kl.mean(), noisy.lse.mean(), attention.centers.norm(dim=-1).mean(), 100 * accuracy]
    return " | ".join(f"{float(f):.2f}" for f in figures)


def main() -> None:
    weights, *specs = sys.argv[1:]
    x, labels, images = features(str(Path(weights)), specs)
    held = torch.zeros(int(images.max()) + 1, dtype=torch.bool)
    held[torch.randperm(len(held), generator=torch.Generator().manual_seed(5))[: len(held) // 5]] = True
    print("| variant | KL | LSE | norm of the centres | domain read off mu.u, % |\n|---|---:|---:|---:|---:|")
    for name, settings in VARIANTS.items():
        print(f"| {name} | {study(x, labels, held[images], **settings)} |", flush=True)


if __name__ == "__main__":
    main()
