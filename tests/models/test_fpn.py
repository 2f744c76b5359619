"""The fpn neck, the exp link and batch norms folded for training."""

import math

import pytest
import torch

from dkpnet_ext.models import DKPNet, load_model
from dkpnet_ext.models.backbones import create_backbone


def make(attention="none", **arguments):
    torch.manual_seed(0)
    settings = dict(channels=64, neck="fpn", out_stride=8, link="exp", num_domains=2, latent_dim=4)
    return DKPNet("tf_efficientnet_lite0", attention, **settings | arguments)


@pytest.mark.parametrize("attention", ["none", "se", "va", "inva"])
def test_every_attention_runs_on_it_and_all_parameters_get_gradients(attention):
    model = make(attention, num_sub=2 if attention == "inva" else 1).train()
    output = model(torch.rand(2, 3, 96, 64), torch.tensor([0, 1]))
    assert output.density.shape == (2, 1, 12, 8)
    terms = [t.sum() for t in (output.kl, output.lse, output.logdet2) if t is not None]
    (output.density.sum() + sum(terms)).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # Of four blocks' ReLU6 some channel may be silent; whole tensors never are. Only 1/8 and 1/16 are looked at.
    assert not idle


def test_the_exp_link_is_positive_bounded_and_the_same_density_at_every_stride():
    output = torch.tensor([-100.0, 0.0, 1.0, 100.0])
    eighth = make().unscale(output)
    assert eighth.tolist() == pytest.approx([0, math.exp(-3), math.exp(-2), math.exp(3)], rel=1e-6)
    quarter = make(neck="paper", out_stride=4).unscale(output)
    torch.testing.assert_close(quarter * 4, eighth)


@pytest.mark.parametrize("arguments", [{"neck": "fpn", "out_stride": 4}, {"neck": "paper", "out_stride": 8}])
def test_a_neck_at_another_stride_is_refused(arguments):
    with pytest.raises(ValueError, match="fpn has cells of 8 pixels"):
        make(**arguments)


def test_folded_norms_count_the_same_and_train_their_biases(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(1)
    plain = make()
    for name, buffer in plain.backbone.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    source = create_backbone("tf_efficientnet_lite0")
    source.load_state_dict(plain.backbone.state_dict())
    import timm

    full = timm.create_model("tf_efficientnet_lite0").state_dict()
    save_file({**full, **source.net.state_dict()}, tmp_path / "weights.safetensors")
    folded = make(fold_norms=True)
    folded.load_backbone(tmp_path / "weights.safetensors")
    folded.head.load_state_dict(plain.head.state_dict())
    image = torch.randint(0, 256, (3, 70, 90), dtype=torch.uint8)
    assert folded.count(image) == pytest.approx(plain.count(image), rel=1e-4)
    assert all(p.requires_grad for p in folded.parameters())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())

    folded.save_pretrained(tmp_path / "model")
    assert load_model(tmp_path / "model").count(image) == folded.count(image)
