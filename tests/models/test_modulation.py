"""FiLM and the system after MDKNet: what a domain changes, and how virtual classes take over."""

import pytest
import torch
import torch.nn.functional as F
from counters import alive

from dkpnet_ext.models import FiLM, MDKNet

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def make(kind, **changes):
    torch.manual_seed(0)
    return alive(kind("hrnet_w18_small", channels=16, domains=["A", "B", "C"], **changes))


def test_film_is_the_same_for_all_domains_at_the_start_and_follows_label_or_classifier_later():
    model = make(FiLM).eval()
    first = model(IMAGES).density
    assert torch.equal(model(IMAGES, torch.tensor([0, 1, 2, 0])).density, first)
    with torch.no_grad():
        model.gains.weight[2] = 0.5
        model.offsets.weight[2] = torch.linspace(-1, 1, 16)
        model.classifier.bias.copy_(torch.tensor([0.0, 0.0, 1e3]))
    labelled = model(IMAGES, torch.full((4,), 2)).density
    assert not torch.allclose(labelled, first)
    assert torch.equal(model(IMAGES).density, labelled)
    assert torch.equal(model(IMAGES, torch.zeros(4, dtype=torch.long)).density, first)


def test_film_computes_gain_times_x_plus_offset():
    model = make(FiLM).eval()
    torch.nn.init.normal_(model.gains.weight)
    torch.nn.init.normal_(model.offsets.weight)
    labels = torch.tensor([0, 1, 2, 1])
    branches, size, _ = model.features(IMAGES)
    x = model.head.pool(branches, size)[1]
    x = torch.stack(
        [
            model.gains.weight[c][:, None, None] * one + model.offsets.weight[c][:, None, None]
            for c, one in zip(labels, x, strict=True)
        ]
    )
    expected = model.unscale(model.head.conv3(F.relu(model.head.conv2(F.relu(model.head.conv1(x))))))
    torch.testing.assert_close(model(IMAGES, labels).density, expected)


def test_mdknet_scales_normalised_features_by_each_images_latent():
    model = make(MDKNet, latent_dim=6).train()
    torch.nn.init.normal_(model.gain.weight)
    torch.nn.init.normal_(model.offset.weight)
    out = model.eval()(IMAGES)
    branches, size, _ = model.features(IMAGES)
    pooled, x = model.head.pool(branches, size)
    z = model.guide[1](F.layer_norm(pooled, (16,), model.guide[0].weight, model.guide[0].bias))
    torch.testing.assert_close(out.mu, z)
    x = (x - model.norm.running_mean[:, None, None]) / (model.norm.running_var[:, None, None] + model.norm.eps).sqrt()
    x = F.relu(x * model.gain(z)[:, :, None, None] + model.offset(z)[:, :, None, None])
    expected = model.unscale(model.head.conv3(F.relu(model.head.conv2(F.relu(model.head.conv1(x))))))
    torch.testing.assert_close(out.density, expected)
    assert out.domain_logits.shape == (4, 6), "three data sets and three pairs of them"


def test_an_image_that_is_taken_for_another_data_sets_learns_their_virtual_class():
    model = make(MDKNet)
    logits = torch.tensor([
        [0.0, 9.0, 0.0, 1.0, 2.0, 3.0],  # of A, taken for B with certainty: their class is the first virtual one
        [0.0, 9.0, 0.0, 1.0, 2.0, 3.0],  # of B: its own
        [0.0, 1.0, 0.0, 1.0, 2.0, 3.0],  # of A, perhaps of B: stays
        [0.0, 9.0, 0.0, 1.0, 2.0, 3.0],  # of C, taken for B: the last virtual class
    ])  # fmt: skip
    labels, classes = torch.tensor([0, 1, 0, 2]), torch.tensor([3, 1, 0, 5])
    found = F.cross_entropy(model._reassigned(logits, labels), labels, reduction="none")
    torch.testing.assert_close(found, F.cross_entropy(logits, classes, reduction="none"))


@pytest.mark.parametrize("kind", [FiLM, MDKNet])
def test_every_parameter_gets_a_gradient_and_prediction_needs_no_label(kind):
    model = make(kind).train()
    out = model(IMAGES, torch.tensor([0, 1, 2, 0]))
    (out.density.sum() + F.cross_entropy(out.domain_logits, torch.tensor([0, 1, 2, 0]))).backward()
    assert all(p.grad is not None for p in [*model.head.parameters(), *model.classifier.parameters()])
    assert model.eval()(IMAGES).density.shape == (4, 1, 8, 8)
