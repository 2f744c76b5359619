"""Networks: parameter counts, the head's two forms, weights files, saving and loading, prediction."""

import json

import numpy as np
import pytest
import timm
import torch
from counters import alive
from safetensors.torch import save_file

from dkpnet_ext.errors import UserError
from dkpnet_ext.models import DKPNet, MultiBranch, load_model
from dkpnet_ext.models.backbones import create_backbone, load_backbone_weights, stages

SMALL = "hrnet_w18_small"


def small(**kwargs) -> DKPNet:
    torch.manual_seed(0)
    arguments = {"attention": "inva", "num_domains": 3, "num_sub": 2} | kwargs
    return alive(DKPNet(SMALL, channels=32, latent_dim=8, **arguments))


def test_truncated_hrnet_w40_has_the_papers_parameter_count():
    backbone = create_backbone("hrnet_w40")
    assert sum(p.numel() for p in backbone.parameters()) == 11_980_576
    assert backbone.channels == (40, 80, 160)
    assert backbone.reductions == (4, 8, 16)


@pytest.mark.parametrize("name", ["hrnet_w18_small", "tf_efficientnet_lite0", "resnet18"])
def test_branches_have_the_promised_widths_and_strides(name):
    backbone = create_backbone(name).eval()
    branches = backbone(torch.zeros(1, 3, 64, 96))
    assert [b.shape[1] for b in branches] == list(backbone.channels)
    assert [(64 // b.shape[2], 96 // b.shape[3]) for b in branches] == [(r, r) for r in backbone.reductions]


def test_unknown_backbone_and_backbone_without_pyramid_are_one_line():
    with pytest.raises(UserError, match="timm knows no such model"):
        create_backbone("hrnet_w41")
    with pytest.raises(UserError, match="no features at 1/4"):
        create_backbone("vit_tiny_patch16_224")


@pytest.mark.parametrize("attention", ["none", "se", "va", "inva"])
@pytest.mark.parametrize("out_stride", [4, 2])
def test_folded_and_literal_head_agree_in_values_and_gradients(attention, out_stride):
    kwargs = {"attention": attention, "num_sub": 2 if attention == "inva" else 1, "out_stride": out_stride}
    folded, literal = small(head="folded", **kwargs).double(), small(head="literal", **kwargs).double()
    literal.load_state_dict(folded.state_dict())
    images, labels = torch.rand(2, 3, 48, 80, dtype=torch.float64), torch.tensor([0, 2])
    results = []
    for model in (folded.eval(), literal.eval()):  # eval: the same z in both
        out = model(images, labels)
        loss = out.density.square().sum() + (0 if out.kl is None else out.kl.sum() + out.lse.sum())
        results.append((out.density, torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-9, atol=1e-12)
    for (name, _), a, b in zip(folded.named_parameters(), results[0][1], results[1][1], strict=True):
        if a is None:
            assert b is None, name
        else:
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9, msg=name)


def test_training_noise_changes_with_the_call_and_not_with_the_seed():
    model = small().train()
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
    for module in model.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    torch.manual_seed(1)
    a, b = model(images, labels).density, model(images, labels).density
    torch.manual_seed(1)
    assert not torch.equal(a, b)
    assert torch.equal(a, model(images, labels).density)


def test_several_latent_samples_stack_in_the_batch():
    model = small(num_samples=3).train()
    out = model(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))
    assert out.density.shape == (6, 1, 8, 8)
    assert out.kl.shape == out.lse.shape == (2,)
    assert model.eval()(torch.rand(2, 3, 32, 32)).density.shape == (2, 1, 8, 8)


@pytest.mark.parametrize("height, width", [(32, 32), (33, 50), (17, 16), (100, 7)])
def test_any_image_size_counts_without_label(height, width):
    model = small().eval()
    density = model(torch.rand(1, 3, height, width)).density
    assert density.shape == (1, 1, -(-height // 4), -(-width // 4))
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    assert model.count(image) == pytest.approx(float(model.density(image).sum()))


def test_uint8_and_float_images_mean_the_same():
    model = small().eval()
    image = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
    torch.testing.assert_close(model(image).density, model(image.float() / 255).density)


def test_save_and_load_every_kind(tmp_path):
    image = torch.rand(1, 3, 32, 32)
    for number, model in enumerate(
        (small(), small(attention="none"), alive(MultiBranch(SMALL, channels=32, domains=["A", "B"])))
    ):
        model.eval().save_pretrained(tmp_path / str(number))
        loaded = load_model(tmp_path / str(number))
        assert type(loaded) is type(model)
        assert torch.equal(loaded(image).density, model(image).density)
        assert not list((tmp_path / str(number)).glob("*.bin")), "never a pickle"


def test_density_scale_divides_the_output():
    a, b = small(density_scale=1.0).eval(), small(density_scale=100.0).eval()
    b.load_state_dict(a.state_dict())
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(a(image).density, b(image).density * 100)


def test_a_checkpoint_that_does_not_fit_is_one_line(tmp_path):
    small().save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"channels": 64}))
    with pytest.raises(UserError, match="other shapes for") as caught:
        load_model(tmp_path / "model")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such folder"):
        load_model(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="config.json is missing"):
        load_model(tmp_path / "empty")


def test_backbone_weights_load_strictly(tmp_path):
    import timm

    full = timm.create_model(SMALL, pretrained=False).state_dict()
    backbone = create_backbone(SMALL)
    save_file(full, tmp_path / "full.safetensors")
    load_backbone_weights(backbone, SMALL, tmp_path / "full.safetensors")
    assert torch.equal(
        backbone.state_dict()["stage2.0.branches.0.0.conv1.weight"], full["stage2.0.branches.0.0.conv1.weight"]
    )
    torch.save({"state_dict": full}, tmp_path / "official.pth")  # the official HRNet files are pickled dictionaries
    load_backbone_weights(create_backbone(SMALL), SMALL, tmp_path / "official.pth")

    save_file({k: v for k, v in full.items() if k != "conv1.weight"}, tmp_path / "missing.safetensors")
    with pytest.raises(UserError, match=r"lacks conv1\.weight"):
        load_backbone_weights(backbone, SMALL, tmp_path / "missing.safetensors")
    save_file(full | {"surprise.weight": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(UserError, match=r"has unknown surprise\.weight"):
        load_backbone_weights(backbone, SMALL, tmp_path / "more.safetensors")
    save_file(full | {"conv1.weight": torch.zeros(1)}, tmp_path / "shape.safetensors")
    with pytest.raises(UserError, match=r"other shapes for conv1\.weight"):
        load_backbone_weights(backbone, SMALL, tmp_path / "shape.safetensors")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match="not a readable weight file"):
        load_backbone_weights(backbone, SMALL, tmp_path / "broken.pth")
    with pytest.raises(UserError, match="no such file"):
        load_backbone_weights(backbone, SMALL, tmp_path / "absent.pth")


def test_multi_branch_uses_the_label_in_training_and_the_classifier_without():
    torch.manual_seed(0)
    model = alive(MultiBranch(SMALL, channels=32, domains=["A", "B"])).eval()
    images = torch.rand(3, 3, 32, 32)
    by_a, by_b = (model(images, torch.full((3,), c)).density for c in (0, 1))
    assert not torch.allclose(by_a, by_b)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([-1e3, 1e3]))
    torch.testing.assert_close(model(images).density, by_b)
    assert sum(p is model.heads[0].neck.weight for p in model.parameters()) == 1, "one neck for all heads"


def test_exported_model_equals_eager():
    model = small().eval()
    images = torch.rand(2, 3, 32, 48)
    program = torch.export.export(model, (images,))
    torch.testing.assert_close(program.module()(images).density, model(images).density)


class Pyramid(torch.nn.Module):
    """A backbone that compiles within seconds."""

    reductions, channels = (4, 8, 16), (4, 6, 8)

    def __init__(self):
        super().__init__()
        self.convs = torch.nn.ModuleList(
            torch.nn.Conv2d(3, c, r, stride=r) for c, r in zip(self.channels, self.reductions)
        )

    def forward(self, x):
        return [conv(x).relu() for conv in self.convs]


def test_compiled_model_equals_eager(monkeypatch):
    monkeypatch.setattr("dkpnet_ext.models.network.create_backbone", lambda name: Pyramid())
    model = small().eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True)  # a break in the graph is an error
    images, labels = torch.rand(2, 3, 30, 46), torch.tensor([0, 2])
    results = []
    for form in (compiled, model):
        out = form(images, labels)
        loss = out.density.square().sum() + out.kl.sum() + out.lse.sum()
        results.append((out.density, *torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)))
    assert len(results[0]) > 10
    for got, want in zip(*results):
        torch.testing.assert_close(got, want)


def test_density_is_never_negative_and_training_can_leave_zero():
    model, images = small(), torch.rand(2, 3, 48, 64)
    torch.nn.init.constant_(model.head.conv3.bias, -1.0)  # below zero everywhere
    assert not model.eval()(images).density.any()
    model.train()(images, torch.tensor([0, 1])).density.sum().backward()
    assert model.head.conv3.bias.grad > 0


def test_for_inference_counts_the_same():
    model = small()
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    count = model.count(image)
    fast = model.for_inference()
    assert fast is model and not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.backbone.modules())
    assert count > 0 and fast.count(image) == pytest.approx(count, rel=1e-4)


def test_a_pyramid_that_timm_gives_at_other_sizes_is_refused():
    """At commit 25e2632 a network with DLA counted the upper left quarter of a picture."""
    with pytest.raises(UserError, match="backbone dla34: its features for 64 x 64 pixels are"):
        create_backbone("dla34")


def test_a_backbone_takes_timms_own_weights(tmp_path):
    """timm's features have other names than its networks; torchvision's VGG brings its classifier."""
    state = timm.create_model("convnext_atto").state_dict()
    torch.save(state, tmp_path / "weights.pth")
    own = create_backbone("convnext_atto", tmp_path / "weights.pth").state_dict()
    assert torch.equal(own["net.stages_0.blocks.0.mlp.fc1.weight"], state["stages.0.blocks.0.mlp.fc1.weight"])


@pytest.mark.parametrize("name, stem", [("resnet18", 4), ("convnext_atto", 2)])
def test_the_stem_is_one_stage(name, stem):
    """At commit 25e2632 --frozen-stages 3 froze a convolution and its norm."""
    assert [len(stage) for stage in stages(create_backbone(name))] == [stem, 1, 1, 1]
