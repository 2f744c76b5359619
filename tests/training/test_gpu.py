"""Counting and training on a GPU, beside the CPU: what the operators' own tests (tests/ops) do not reach."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from lightning import Fabric
from PIL import Image

from dkpnet_ext.counting.prediction import predict_files
from dkpnet_ext.models import DKPNet, load_model
from dkpnet_ext.synthetic.scenes import render
from dkpnet_ext.train import parse
from dkpnet_ext.training import losses, stage, train
from dkpnet_ext.training.config import LossConfig

from .conftest import records

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore:dkpnet_ext"),
]
DEVICE = "cuda"
ON_GPU = ("--device", DEVICE, "--precision", "auto", "--channels-last")
SYSTEMS = (
    "dkpnet",
    "va",
    "se",
    "jt",
    "mb",
    "film",
    "mdknet",
    "csrnet",
    "canet",
    "sfcn",
    "dssinet-pruned",
    "vgg19",
    "mcnn",
)


def scene(index: int) -> torch.Tensor:
    """A drawn picture [3, H, W], uint8."""
    return torch.from_numpy(render("street", "test", index)[0]).permute(2, 0, 1).contiguous()


def test_the_packaged_counter_counts_as_on_the_cpu():
    cpu, gpu = load_model(), load_model().to(DEVICE)
    for index in range(3):
        image = scene(index)
        expected = cpu.count(image)
        assert gpu.count(image.to(DEVICE)) == pytest.approx(expected, rel=1e-3, abs=1e-2)
        fast = load_model().to(DEVICE).for_inference("torch", precision="bf16")
        assert fast.count(image.to(DEVICE)) == pytest.approx(expected, rel=0.05, abs=0.5)


def test_a_large_image_is_counted_in_tiles_as_on_the_cpu():
    image = scene(0).repeat(1, 4, 5)
    assert load_model().to(DEVICE).count(image) == pytest.approx(load_model().count(image), rel=1e-3)


def network(system: str = "inva", link: str = "relu") -> DKPNet:
    torch.manual_seed(0)
    return DKPNet("resnet18", system, channels=16, num_domains=2, num_sub=2, density_scale=100.0, link=link)


@pytest.mark.parametrize("loss, sigma", [("mse", 4.0), ("mse", 0.0), ("poisson", 0.0), ("zip", 0.0), ("ssim", 4.0)])
def test_a_training_pass_never_waits_for_the_gpu(loss, sigma):
    """Forward and backward; PyTorch raises at every call that waits (tests/training/test_waits.py has no GPU and no backward)."""
    model = network(link=losses.LINKS[loss]).to(DEVICE).train()
    fabric = Fabric(accelerator=DEVICE, devices=1, precision="bf16-mixed")
    optim = SimpleNamespace(batch=4, accumulate=1)
    setting = SimpleNamespace(loss=LossConfig(loss=loss, sigma=sigma), optim=optim)
    batch = SimpleNamespace(
        images=torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8).to(DEVICE),
        labels=torch.tensor([0, 1, 0, 1]).to(DEVICE), points=(torch.rand(9, 2) * 64).to(DEVICE),
        offsets=torch.tensor([0, 3, 3, 8, 9]).to(DEVICE), sides=torch.full((4,), 64.0).to(DEVICE), targets=None,
    )  # fmt: skip
    wrapped = fabric.setup(model)
    run = SimpleNamespace(config=setting, fabric=fabric, model=model, wrapped=wrapped, images=4)
    stage.forward_backward(run, batch, True)  # cuDNN's and Triton's first calls may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        _, _, terms = stage.forward_backward(run, batch, True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert terms["total"].isfinite() and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_as_a_cuda_graph(precision):
    """The recipe of docs/python.md: replays take the same steps as plain calls. Without attention, so that nothing is drawn."""
    start = network("none").to(DEVICE, memory_format=torch.channels_last).train()
    images = torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8, device=DEVICE)
    labels, target = torch.tensor([0, 1, 0, 1], device=DEVICE), torch.rand(4, 1, 16, 16, device=DEVICE) * 0.1

    def steps(model):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True, capturable=True)

        def step():
            with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
                out = model(images, labels)
            loss = ((out.density.float() - target) * model.density_scale).square().sum() / 8
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    plain = steps(copy.deepcopy(start))
    expected = [plain().item() for _ in range(8)]
    step = steps(start)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        found = [step() for _ in range(3)]
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    for _ in range(5):
        graph.replay()
        found.append(loss.clone())
    assert expected[-1] < expected[0]
    assert [value.item() for value in found] == pytest.approx(expected, rel=0.02)


def test_a_step_with_attention_as_a_cuda_graph_draws_new_noise():
    model = network().to(DEVICE).train()
    images = torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8, device=DEVICE)
    labels = torch.tensor([0, 1, 0, 1], device=DEVICE)

    def step():
        out = model(images, labels)
        loss = out.density.sum() + (out.kl + out.lse + out.logdet2).mean()
        model.zero_grad()
        loss.backward()
        return out.density.detach()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        density = step()
    seen = []
    for _ in range(2):
        graph.replay()
        seen.append(density.clone())
    assert all(d.isfinite().all() for d in seen) and not torch.equal(*seen)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_trains(system, run, tmp_path):
    extra = ("--width", "0.125") if system in ("csrnet", "canet", "sfcn", "dssinet-pruned", "vgg19") else ()
    folder = run("--system", system, *extra, "--epochs", 1, "--output", tmp_path / "run", *ON_GPU)
    assert "MAE" in (folder / "results.md").read_text()
    model = load_model(folder)
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("loss", ["poisson", "zip", "bayesian", "dm", "ssim"])
def test_every_loss_trains(loss, run, tmp_path):
    folder = run("--system", "jt", "--loss", loss, "--epochs", 1, "--output", tmp_path / "run", *ON_GPU)
    assert "MAE" in (folder / "results.md").read_text()


def stop(record: dict) -> None:
    raise KeyboardInterrupt


def test_workers_resume_and_points(settings, tmp_path):
    """Batches from worker processes; the second half of a run from its saved state; a picture counted in every precision."""
    folder = tmp_path / "run"
    config = settings("--system", "va", "--workers", 2, "--epochs", 3, "--output", folder, *ON_GPU)
    with pytest.raises(KeyboardInterrupt):
        train(config, callback=stop)
    train(parse(["--resume", str(folder)]))
    assert [r["epoch"] for r in records(folder) if r["stage"] == "stage1"] == [1, 2, 3]
    picture = tmp_path / "bright.png"
    Image.fromarray(scene(1).permute(1, 2, 0).numpy()).save(picture)
    model = load_model(folder).to(DEVICE)
    for precision in ("fp32", "bf16", "fp16"):
        (result,) = predict_files(model, [picture], tmp_path / precision, precision=precision, points=True)
        assert result.error is None and result.count >= 0
