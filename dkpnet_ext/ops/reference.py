"""Plain PyTorch versions of every operator: any dtype including float64, any device, differentiable twice.

They define what is right; the compiled and Triton backends are tested against them in float64.
Equation numbers are those of the DKPNet paper (ICCV 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from . import philox
from .backend import wide_dtype


def select_centers(
    mu: Tensor, centers: Tensor, *, seed: Tensor | None = None, dropout: float = 0.0, batch_offset: int = 0
) -> Tensor:
    """Eq. 8: the sub-component of every domain whose centre agrees most with mu.

    Args:
        mu: [B, d]; centers: [C, k, d]; seed: int64 [1], needed for dropout > 0.

    Returns:
        int64 [B, C], i*(c) = argmax_i dropout(u_{c,i} . mu); ties take the lowest index. Never differentiated.
    """
    num_domains, num_sub, _ = centers.shape
    scores = torch.einsum("bd,ckd->bck", mu.detach(), centers.detach())
    if dropout > 0 and num_sub > 1:
        if seed is None:
            raise ValueError("select_centers: dropout > 0 needs a seed")
        elements = torch.arange(scores.numel(), device=mu.device) + batch_offset * num_domains * num_sub
        kept = philox.words(seed, elements, philox.DROPOUT_STREAM) >= int(dropout * 2**32)
        scores = torch.where(kept.view(scores.shape), scores / (1.0 - dropout), torch.zeros_like(scores))
    # torch.argmax does not promise the first of equal values.
    is_max = scores == scores.amax(dim=-1, keepdim=True)
    order = torch.arange(num_sub, device=mu.device).expand_as(scores)
    return torch.where(is_max, order, num_sub).amin(dim=-1) % num_sub  # the first one where all are NaN, too


def variational(
    mu: Tensor,
    logvar: Tensor,
    centers: Tensor,
    prior_logvar: Tensor,
    labels: Tensor,
    *,
    seed: Tensor | None,
    eps: Tensor | None,
    num_samples: int,
    dropout: float,
    batch_offset: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Sampling, KL (Eq. 3), log-sum-exp regulariser (Eq. 6) and log^2 det (Eq. 7, 9) of one batch.

    Shapes as in `dkpnet_ext.ops.variational`; returns (z [N, B, d], kl [B], lse [B], logdet2 [B], selected [B, C]).
    """
    batch, dim = mu.shape
    dtype = mu.dtype
    wide = wide_dtype(dtype)
    mu, logvar, centers, prior_logvar = (t.to(wide) for t in (mu, logvar, centers, prior_logvar))
    if eps is None:
        assert seed is not None
        index = torch.arange(batch * num_samples * dim, device=mu.device) + batch_offset * num_samples * dim
        eps = philox.normals(seed, index.view(batch, num_samples, dim)).transpose(0, 1)
    z = mu + torch.exp(0.5 * logvar) * eps.to(wide)

    selected = select_centers(mu, centers, seed=seed, dropout=dropout, batch_offset=batch_offset)
    domains = torch.arange(centers.shape[0], device=mu.device)
    chosen = centers[domains, selected]  # [B, C, d]
    valid = (labels >= 0) & (labels < centers.shape[0])
    safe = torch.where(valid, labels, 0)
    own = chosen[torch.arange(batch, device=mu.device), safe]  # u_c, [B, d]
    own_logvar = prior_logvar[safe]  # Lambda_c, [B, d]
    # The terms of an image with a wrong label: NaN, with NaN for gradients to its mu and logvar and none to the parameters.
    undefined = torch.where(valid, 0.0, torch.nan).to(wide) * (mu + logvar).sum(-1)

    precision = torch.exp(-own_logvar)
    # e^x - 1 - x, which is x^2 / 2 near the prior: in float64, since it cancels.
    x = (logvar - own_logvar).double()
    kl = 0.5 * ((torch.expm1(x) - x).to(wide) + (own - mu).square() * precision).sum(-1)
    logits = torch.einsum("nbd,bcd->nbc", z, chosen)
    target = safe.expand(num_samples, batch).unsqueeze(-1)
    lse = (torch.logsumexp(logits, -1) - logits.gather(-1, target).squeeze(-1)).mean(0)
    logdet2 = own_logvar.double().sum(-1).square().to(wide)  # its summands cancel
    kl, lse, logdet2 = (torch.where(valid, term, undefined) for term in (kl, lse, logdet2))
    return z.to(dtype), kl, lse, logdet2, selected


def reweight(x: Tensor, attention: Tensor) -> Tensor:
    """Channel re-weighting: x [B, K, H, W] * attention [B, K]."""
    return x * attention.to(x.dtype)[:, :, None, None]


def _source_weights(source: int, target: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """How much each of ``source`` pixels weighs in the mean of its bilinear upsampling to ``target`` pixels: [source]."""
    ones = torch.eye(source, dtype=dtype, device=device).unsqueeze(0)  # [1, source, source]
    return F.interpolate(ones, size=target, mode="linear", align_corners=False).mean(-1).squeeze(0)


def upsampled_mean(branch: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean over the pixels of the branch's bilinear upsampling to ``size``: [B, C], float32 (float64 for float64)."""
    wide = wide_dtype(branch.dtype)
    rows = _source_weights(branch.shape[-2], size[0], wide, branch.device)
    columns = _source_weights(branch.shape[-1], size[1], wide, branch.device)
    return branch.to(wide) @ columns @ rows


def pool(branches: Sequence[Tensor], neck_weight: Tensor, neck_bias: Tensor | None, size: tuple[int, int]) -> Tensor:
    """Global average of the neck's output, computed from the branches: g = Wn pool(f) + bn, [B, K]."""
    pooled = torch.cat([upsampled_mean(branch, size) for branch in branches], dim=1)
    return F.linear(pooled, neck_weight.to(pooled.dtype), None if neck_bias is None else neck_bias.to(pooled.dtype))


def head(
    branches: Sequence[Tensor],
    attention: Tensor | None,
    neck_weight: Tensor,
    neck_bias: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    weight3: Tensor,
    bias3: Tensor,
    size: tuple[int, int],
) -> Tensor:
    """The folded head: per-image effective weights E_b = W2 diag(y_b) W1 act on each branch before upsampling."""
    batch = branches[0].shape[0]
    dtype = branches[0].dtype
    scaled = weight1 if attention is None else weight1.unsqueeze(0) * attention.unsqueeze(1)
    effective = (scaled @ neck_weight.to(scaled.dtype)).to(dtype)
    bias = (scaled @ neck_bias.to(scaled.dtype)).to(dtype) + bias1.to(dtype)
    hidden = bias.expand(batch, -1)[:, :, None, None]
    start = 0
    for branch in branches:
        end = start + branch.shape[1]
        weight = effective[..., start:end].expand(batch, -1, -1)
        product = torch.bmm(weight, branch.flatten(2)).unflatten(2, branch.shape[2:])
        if tuple(product.shape[2:]) != tuple(size):
            product = F.interpolate(product, size=size, mode="bilinear", align_corners=False)
        hidden = hidden + product
        start = end
    hidden = F.relu(hidden)
    hidden = F.relu(F.conv2d(hidden, weight2.to(dtype)[:, :, None, None], bias2.to(dtype)))
    return F.conv2d(hidden, weight3.to(dtype)[:, :, None, None], bias3.to(dtype))


def density(
    points: Tensor, offsets: Tensor, size: tuple[int, int], *, stride: int, sigma: float | Tensor, truncate: float
) -> Tensor:
    """Exact density targets [B, 1, ceil(H/stride), ceil(W/stride)], float32; see `dkpnet_ext.ops.density`."""
    height, width = size
    batch = len(offsets) - 1
    rows, columns = -(-height // stride), -(-width // stride)
    pixel = torch.floor(points.double())
    image = torch.bucketize(torch.arange(len(points), device=points.device), offsets[1:], right=True)
    inside = (pixel >= 0).all(1) & (pixel[:, 0] < width) & (pixel[:, 1] < height)  # false for NaN, too
    pixel, image = pixel[inside], image[inside]
    # Rounded to float32 first, as the kernels get them: the product is then exact, and so is the radius.
    spread = torch.as_tensor(sigma, dtype=torch.float32, device=points.device).expand(len(points))[inside].double()
    reach = torch.floor(torch.tensor(truncate, dtype=torch.float32).item() * spread + 0.5)
    wide = reach >= 1  # false for a sigma of 0, below 0 or NaN: all mass on one pixel
    radius = torch.where(wide, reach, 0.0).clamp_max(max(size))[:, None]
    scale = torch.where(wide, 1.0 / spread, 0.0)[:, None]

    def axis(center: Tensor, mine: Tensor, length: int, cells: int) -> Tensor:
        """Mass per output cell along one axis of every head of an image: [n, cells], rows sum to 1."""
        distance = torch.arange(length, device=points.device).double() - center[mine, None]
        weight = torch.exp(-0.5 * (distance * scale[mine]).square()) * (distance.abs() <= radius[mine])
        weight = weight / weight.sum(1, keepdim=True)
        return F.pad(weight, (0, cells * stride - length)).view(-1, cells, stride).sum(2)

    out = torch.zeros(batch, 1, rows, columns, dtype=torch.float64, device=points.device)
    for b in range(batch):
        mine = image == b
        out[b, 0] = axis(pixel[:, 1], mine, height, rows).T @ axis(pixel[:, 0], mine, width, columns)
    return out.float()


def knn_sigma(points: Tensor, offsets: Tensor, k: int, beta: float, default: float) -> Tensor:
    """Geometry-adaptive sigmas [M], float32, by brute force in blocks of rows; see `dkpnet_ext.ops.density`."""
    index = torch.arange(len(points), device=points.device)
    image = torch.bucketize(index, offsets[1:], right=True)
    finite = points.isfinite().all(1)
    x, y = points.unbind(1)
    sigmas = [points.new_empty(0)]
    for rows in index.split(1024):
        # By differences: cdist's matrix product would cancel (heads are close to each other and far from the origin), and with its
        # other form 16,000 heads took 327 ms on an H100.
        square = (x[rows, None] - x).square() + (y[rows, None] - y).square()
        other = (image[rows, None] == image) & (rows[:, None] != index) & finite & finite[rows, None]
        nearest = torch.where(other, square, torch.inf).topk(min(k, len(points)), largest=False).values.sqrt()
        found = nearest.isfinite()
        mean = torch.where(found, nearest, 0.0).sum(1) / found.sum(1)
        sigmas.append(torch.where(found.any(1), beta * mean, default))
    return torch.cat(sigmas)


def _activated(x: Tensor, activation: str) -> Tensor:
    return {"none": lambda t: t, "relu": F.relu, "relu6": F.relu6}[activation](x)


def depthwise(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: tuple[int, int, int, int], activation: str
) -> Tensor:
    """Depthwise convolution, zero padding (left, right, top, bottom); see `dkpnet_ext.ops.depthwise`."""
    left, right, top, bottom = padding
    if left == right and top == bottom:
        sides = (top, left)
    else:
        x, sides = F.pad(x, padding), (0, 0)
    weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    return _activated(F.conv2d(x, weight, bias, stride, sides, groups=x.shape[1]), activation)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """1x1 convolution; see `dkpnet_ext.ops.pointwise`."""
    return _activated(F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype)), activation)


def looked_up(x: Tensor, table: Tensor) -> Tensor:
    """What the bytes x [B, C, H, W] stand for in a table [C, 256]."""
    return table[torch.arange(len(table), device=x.device)[:, None, None], x.long()]


def projection(
    x: Tensor, weight: Tensor, bias: Tensor, activation: str, coarse: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """1x1 convolution to a dtype, plus coarser features; see `dkpnet_ext.ops.projection`."""
    y = F.conv2d(x.to(dtype), weight.to(dtype), bias.to(dtype))
    return _activated(y if coarse is None else y + F.interpolate(coarse, scale_factor=2.0, mode="nearest"), activation)


def inverted_residual(
    x: Tensor,
    expand: tuple[Tensor, Tensor] | None,
    filters: tuple[Tensor, Tensor],
    project: tuple[Tensor, Tensor],
    expand_window: tuple[int, tuple[int, int, int, int]],
    window: tuple[int, tuple[int, int, int, int]],
    activation: str,
    residual: bool,
) -> Tensor:
    """Inverted residual, windows being (stride, padding); see `dkpnet_ext.ops.inverted_residual`."""
    y = x
    if expand is not None:
        weight, bias = (t.to(x.dtype) for t in expand)
        y = _activated(F.conv2d(F.pad(x, expand_window[1]), weight, bias, expand_window[0]), activation)
    y = pointwise(depthwise(y, *filters, *window, activation), *project, "none")
    return y + x if residual else y


def transport(
    density: Tensor,
    points: Tensor,
    offsets: Tensor,
    stride: int,
    scale: tuple[float, float],
    regularisation: float,
    iterations: int,
) -> tuple[Tensor, Tensor]:
    """Sinkhorn's iterations in the separable form, in float64; see `dkpnet_ext.ops.transport`.

    K_n,(i,j) = down_ni across_nj: K^T u is one matrix product, K v a product and a row sum; N x H x W is never stored.
    ``scale``: of distances in pixels along x and y, before they are squared.
    """
    guard, (height, width) = 1e-16, density.shape[2:]
    objective = density.new_zeros(len(density), dtype=torch.float64)
    potential = density.new_zeros(density.shape, dtype=torch.float64)

    def axis(coordinates: Tensor, cells: int, scale: float) -> Tensor:
        centers = (torch.arange(cells, device=points.device, dtype=torch.float64) + 0.5) * stride
        return torch.exp(-((coordinates[:, None] - centers) * scale).square() / regularisation)

    for image, (begin, end) in enumerate(pairwise(offsets.tolist())):
        if begin == end:
            continue
        heads, a = points[begin:end].double(), 1.0 / (end - begin)
        across, down = axis(heads[:, 0], width, scale[0]), axis(heads[:, 1], height, scale[1])
        b = density[image, 0].double()
        b = b / (b.sum() + 1e-6)
        ktu = down.T @ (a * across)
        for iteration in range(1, iterations + 1):
            v = b / (ktu + guard)
            u = a / (((down @ v) * across).sum(1, keepdim=True) + guard)
            ktu = down.T @ (u * across)
            if iteration % 10 == 0 and (b - ktu * v).square().sum() <= 1e-9:
                break
        potential[image, 0] = regularisation * torch.log(v + guard)
        objective[image] = (b * potential[image, 0]).sum()
    return objective.to(density.dtype), potential.to(density.dtype)


def bayesian(
    density: Tensor,
    points: Tensor,
    offsets: Tensor,
    targets: Tensor | None,
    sides: Tensor,
    stride: int,
    sigma: float,
    form: str,
    ratio: float,
) -> tuple[Tensor, Tensor]:
    """The Bayesian loss [B] and its derivative by the density, in float64; see `dkpnet_ext.ops.bayesian`."""
    height, width = density.shape[2:]
    y, x = (
        (torch.arange(n, device=density.device, dtype=torch.float64) + 0.5) * stride for n in (height, width)
    )  # centres of the cells
    cells = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, 2)
    losses, slopes = [], []
    for image, (begin, end) in enumerate(pairwise(offsets.tolist())):
        mass = density[image].double().flatten()
        if begin == end:
            losses.append(mass.sum().abs())
            slopes.append(mass.sum().sign().expand_as(mass))
            continue
        distance = (points[begin:end, None].double() - cells).square().sum(-1)  # [N, h w]
        nearest, reach = distance.amin(0), ratio * sides[image].double()
        ground = reach**2 / (nearest + 1e-5) if form == "2021" else (reach - nearest.sqrt()) ** 2
        posterior = torch.softmax(torch.cat([distance, ground[None]]) / (-2 * sigma**2), 0)
        wanted = mass.new_ones(end - begin) if targets is None else targets[begin:end].double()
        excess = posterior @ mass - F.pad(wanted, (0, 1))  # the background's last, of which nothing is wanted
        losses.append(excess.abs().sum())
        slopes.append(excess.sign() @ posterior)
    if not losses:
        return density.new_zeros(0), torch.zeros_like(density)
    return torch.stack(losses).to(density.dtype), torch.stack(slopes).to(density.dtype).view_as(density)
