"""The trainer's parts: configuration, loss, schedule, clustering, state files."""

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

from dkpnet_ext.data import Batch
from dkpnet_ext.errors import UserError
from dkpnet_ext.models import CounterOutput, DKPNet
from dkpnet_ext.train import parse
from dkpnet_ext.training import PRESETS, Config
from dkpnet_ext.training.batch_norm import recalibrate
from dkpnet_ext.training.checkpoint import load_state, restore_rng, save_state
from dkpnet_ext.training.clustering import cluster_attention
from dkpnet_ext.training.config import LossConfig
from dkpnet_ext.training.losses import loss_terms
from dkpnet_ext.training.monitor import LatentMonitor
from dkpnet_ext.training.schedule import learning_rate


@pytest.mark.parametrize("preset", PRESETS)
def test_configuration_survives_its_file(preset, tmp_path):
    config = parse([preset, "--data", "A=x", "B=y", "--output", "somewhere"])
    config.save(tmp_path / "config.json")
    assert Config.load(tmp_path / "config.json") == config


def test_paper_presets_are_the_papers():
    for name, clusters, sub in (("paper-3joint", 3, 3), ("paper-4joint", 5, 2)):
        config = PRESETS[name].config
        assert (config.cluster.num_clusters, config.cluster.num_sub, config.cluster.method) == (clusters, sub, "gmm")
        assert config.model.backbone == "hrnet_w40" and config.model.weights == "imagenet"
        assert (config.optim.epochs, config.optim.batch, config.optim.lr) == (450, 32, 5e-5)
        assert (config.data.crop, config.data.min_side, config.data.max_side) == (400, 416, 2048)
        loss = config.loss
        assert (loss.w_density, loss.w_kl, loss.w_lse, loss.w_logdet, loss.sigma) == (1, 1, 1, 1, 4)
        assert config.model.density_scale == 1.0


def test_unknown_preset_and_foreign_configuration_are_one_line(tmp_path):
    with pytest.raises(UserError, match="preset fast: unknown; there are quick"):
        parse(["fast"])
    (tmp_path / "config.json").write_text('{"seed": 1}')
    with pytest.raises(UserError, match="not a run's configuration"):
        Config.load(tmp_path / "config.json")


def test_paper_schedule_divides_by_two_and_a_half_at_epoch_250():
    config = PRESETS["paper-4joint"].config
    assert learning_rate(config.optim, 249.99 / 450) == 5e-5
    assert learning_rate(config.optim, 250 / 450) == pytest.approx(2e-5)


def test_one_cycle_rises_and_falls_to_zero():
    config = PRESETS["quick"].config
    rates = [learning_rate(config.optim, p) for p in np.linspace(0, 0.9999, 101)]
    assert max(rates) == pytest.approx(config.optim.lr, rel=1e-2)
    assert int(np.argmax(rates)) == 10
    assert rates[-1] < 1e-4 * config.optim.lr


def test_recalibration_is_the_mean_over_batches():
    """Of every norm's input, whatever the running averages were; nothing is trained."""
    torch.manual_seed(0)
    model = DKPNet("resnet18", channels=16, attention="none")
    before = {name: p.clone() for name, p in model.named_parameters()}
    batches = [
        Batch(
            torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8),
            torch.empty(0, 2),
            torch.zeros(3),
            torch.zeros(2),
            [],
            torch.full((2,), 64.0),
        )
        for _ in range(3)
    ]
    norm = next(m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d))
    inputs = []
    norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    for _ in range(2):  # the second time from what the first has left
        inputs.clear()
        recalibrate(Fabric(accelerator="cpu"), model, batches)
        x = torch.stack(inputs).transpose(1, 2).flatten(2)  # [3, channels, values]
        torch.testing.assert_close(norm.running_mean, x.mean(2).mean(0))
        torch.testing.assert_close(norm.running_var, x.var(2).mean(0))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_loss_is_equation_9():
    density = torch.rand(3, 1, 4, 5)
    kl, lse, det = torch.rand(3), torch.rand(3), torch.rand(3)
    output = CounterOutput(density, kl=kl, lse=lse, logdet2=det)
    loss = torch.tensor(5.0)
    terms = loss_terms(output, loss, torch.tensor([0, 1, 2]), LossConfig())
    torch.testing.assert_close(terms["total"], loss + kl.mean() + lse.mean() + det.mean())
    weights = LossConfig(w_density=2, w_kl=3, w_lse=5, w_logdet=7)
    terms = loss_terms(output, loss, torch.tensor([0, 1, 2]), weights)
    torch.testing.assert_close(terms["total"], 2 * loss + 3 * kl.mean() + 5 * lse.mean() + 7 * det.mean())


def test_monitor_of_the_latent():
    model = DKPNet("resnet18", domains=("a", "b"), channels=16, latent_dim=2)
    with torch.no_grad():
        model.attention.centers.copy_(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))
    monitor = LatentMonitor(2)
    assert monitor.summary() == {}
    mu = torch.tensor([[3.0, 1.0], [1.0, 3.0], [2.0, 1.0]])  # of domains a, b and b: the last is wrong
    y = torch.tensor([0.2, 0.4, 0.8])[:, None].expand(3, 16)
    samples = torch.cat([y - 0.1, y + 0.1])
    labels = torch.tensor([0, 1, 1])
    for _ in range(2):
        monitor.add(model, CounterOutput(torch.zeros(6, 1, 1, 1), samples, mu), labels)
    summary = monitor.summary()
    assert summary["domain_accuracy"] == pytest.approx(2 / 3)
    assert summary["attention_between"] == pytest.approx(0.2)  # means 0.2 and 0.6
    assert summary["attention_deviation"] == pytest.approx(float(samples[:, 0].std(correction=0)))

    plain = LatentMonitor(2)
    plain.add(model, CounterOutput(torch.zeros(3, 1, 1, 1)), labels)  # joint training has no attention
    assert plain.summary() == {}


@pytest.mark.parametrize("method", ["gmm", "kmeans", "dbscan"])
def test_clustering_finds_separated_groups(method):
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [60, 40, 20])
    vectors = (rng.normal(size=(3, 64))[truth] + 0.05 * rng.normal(size=(120, 64))).astype(np.float32)
    labels = cluster_attention(vectors, 3, method, seed=0)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, truth)  # numbered from the largest cluster on
    np.testing.assert_array_equal(labels, cluster_attention(vectors, 3, method, seed=0))


def test_clustering_refuses_what_it_cannot_do():
    with pytest.raises(UserError, match="2 training images cannot form 3"):
        cluster_attention(np.random.rand(2, 8), 3)
    with pytest.raises(UserError, match="DBSCAN finds 1 clusters, not 9"):
        cluster_attention(np.random.default_rng(0).normal(size=(50, 2)), 9, "dbscan")


def test_state_restores_random_numbers_and_damage_is_one_line(tmp_path):
    values = {"epoch": 3, "batch": 0, "best": 0.5, "fingerprint": "2:0", "model": {}, "optimizer": {}}
    save_state(tmp_path / "state.pt", values)
    expected = torch.rand(4)
    state = load_state(tmp_path / "state.pt")
    restore_rng(state)
    assert state["epoch"] == 3 and torch.equal(torch.rand(4), expected)
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:100])
    with pytest.raises(UserError, match="damaged training state"):
        load_state(tmp_path / "state.pt")
    with pytest.raises(UserError, match="no training state here"):
        load_state(tmp_path / "absent.pt")
