"""Networks of the literature: sizes, gradients, tiles, attention, released checkpoints, exported graphs."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from dkpnet_ext.counting.export import ExportGraph, export_model
from dkpnet_ext.errors import UserError
from dkpnet_ext.models import (
    MCNN,
    SFCN,
    CANet,
    CSRNet,
    DSSINet,
    PrunedDSSINet,
    VGG19Regressor,
    load_model,
    load_released,
    registry,
    tiling,
)  # fmt: skip
from dkpnet_ext.models.backbones import freeze_stages
from dkpnet_ext.models.released import convert_released

NETWORKS = [
    (CSRNet, 16_263_489, 8), (CANet, 18_103_489, 8), (SFCN, 38_596_801, 1), (DSSINet, 8_857_788, 1),
    (PrunedDSSINet, 1_785_602, 1),
    (VGG19Regressor, 21_499_457, 8), (MCNN, 133_705, 4),
]  # fmt: skip
KINDS = [network[0] for network in NETWORKS]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def model(request):
    return make(request.param)


def make(kind, **arguments):
    """A network whose density is positive everywhere, with features that vary over the image."""
    torch.manual_seed(0)
    model = kind(**{"link": "abs", **arguments})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 4 and not name.startswith("backbone.features"):
                torch.nn.init.kaiming_normal_(parameter)
            elif parameter.ndim == 1:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def noise(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("kind", "parameters", "stride"), NETWORKS)
def test_parameters_and_cells_are_the_published_ones(kind, parameters, stride):
    model = kind().eval()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.out_stride == stride
    with torch.no_grad():
        for height, width in ((64, 64), (37, 50), (1, 9)):
            density = model(noise(1, 3, height, width)).density
            assert density.shape == (1, 1, -(-height // stride), -(-width // stride))
            assert bool((density >= 0).all()) and bool(torch.isfinite(density).all())


@pytest.mark.parametrize("kind", KINDS)
def test_thin_networks_keep_their_cells_and_come_back(kind, tmp_path):
    """A quarter of the channels: about a sixteenth of the parameters; another checkpoint than the published size's."""
    model = kind(width=0.25, link="abs").eval()
    whole, own = (sum(p.numel() for p in m.parameters()) for m in (kind(), model))
    assert own < whole / 10
    density = model(noise(1, 3, 40, 56)).density
    assert density.shape == (1, 1, 40 // model.out_stride, 56 // model.out_stride)
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.arguments["width"] == 0.25
    torch.testing.assert_close(loaded(noise(1, 3, 40, 56)).density, density)
    with pytest.raises(UserError, match="has no pretrained weights; use --weights None"):
        model.load_backbone("imagenet")


def test_checkpoints_from_before_thin_networks_have_all_channels(tmp_path):
    MCNN().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["width"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_model(tmp_path).arguments["width"] == 1.0


def test_gradients_reach_every_parameter(model):
    model.train()
    model.zero_grad()
    (model(noise(2, 3, 48, 48)).density - 1).square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    # The published network has an activation for each convolution; two of them never run.
    assert without == (["backbone.acts.3.weight", "backbone.acts.6.weight"] if isinstance(model, DSSINet) else [])
    model.zero_grad()


@pytest.mark.parametrize(
    ("kind", "reach", "arguments"),
    [
        (MCNN, None, {"attention": "se"}),
        (CSRNet, None, {"attention": "inva", "num_domains": 2, "num_sub": 2, "latent_dim": 8}),
        (CANet, 48, {}),  # the same features as CSRNet's
        (VGG19Regressor, 128, {}),
        (DSSINet, 160, {}),
        (SFCN, 240, {}),  # its sweeps run over the whole image
    ],
)
def test_tiles_equal_the_whole(kind, reach, arguments, monkeypatch):
    """Pyramids, attention and align_corners look at the whole image, and see it."""
    model = make(kind, **arguments).eval()
    monkeypatch.setattr(tiling, "TILE", 64 if kind is SFCN else 208)  # else its reach is the image
    monkeypatch.setattr(tiling, "MAX_REACH", 128)
    if reach is not None:
        monkeypatch.setattr(tiling, "reach", lambda model: reach)
        monkeypatch.setattr(tiling, "MAX_REACH", 768)
    image = F.interpolate(noise(1, 3, 50, 2), size=(397, 13))[0]
    image[:, 200:] //= 4
    whole = model.examine(image, as_is=True)
    monkeypatch.setattr(tiling, "LIMIT", 1)
    tiled = model.examine(image, as_is=True)
    assert float(whole.density.max()) > 0 and tiled.density.shape == whole.density.shape
    torch.testing.assert_close(tiled.density, whole.density, rtol=0, atol=1e-3 * float(whole.density.max()))
    if whole.attention is not None:
        torch.testing.assert_close(tiled.attention, whole.attention, rtol=0, atol=1e-5)


def test_attention_weighs_the_features():
    """Attention of one leaves the network as it is; another one changes the count; N samples have N rows an image."""
    model = make(MCNN, attention="va", num_domains=2, latent_dim=8, num_samples=3)
    images, labels = noise(2, 3, 32, 32), torch.tensor([0, 1])
    output = model.train()(images, labels)
    assert output.density.shape == (6, 1, 8, 8) and output.attention.shape == (6, 30) and output.kl.shape == (2,)
    plain = make(MCNN)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("attention.")})
    last = model.attention.decoder[2]
    torch.nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.fill_(20.0)
        torch.testing.assert_close(model.eval()(images).density, plain.eval()(images).density)
        last.bias.fill_(0.0)
        features = plain.features(images)[0][0]
        torch.testing.assert_close(model(images).density, plain.unscale(plain.head(features / 2)))


@pytest.mark.parametrize("name", ["csrnet-se", "vgg19-va", "canet-se", "sfcn-se"])
def test_attention_of_the_large_ones(name):
    model = registry.create(name, num_domains=2, latent_dim=8)
    assert model.system == name and model.attention is not None
    output = model.eval()(noise(1, 3, 16, 16))
    assert output.attention.shape == (1, model.channels)


def test_refusals():
    with pytest.raises(ValueError, match="attention is 'se'; none"):
        DSSINet(attention="se")
    with pytest.raises(ValueError, match="num_domains or the domains' names"):
        MCNN(attention="va")
    with pytest.raises(ValueError, match="num_sub 2 is 'inva'"):
        MCNN(attention="va", num_domains=2, num_sub=2)
    with pytest.raises(ValueError, match="width"):
        MCNN(width=0.01)
    with pytest.raises(UserError, match="mcnn: has no pretrained weights; use --weights None"):
        MCNN().load_backbone("imagenet")


def test_backbones_take_vgg_weights_by_name(tmp_path, monkeypatch):
    torch.manual_seed(1)
    state = CSRNet().backbone.state_dict()
    deeper = {"features.28.weight": torch.empty(512, 512, 3, 3), "features.28.bias": torch.empty(512)}
    torch.save(state | deeper, tmp_path / "vgg16.pth")
    model = CSRNet()
    model.load_backbone(tmp_path / "vgg16.pth")
    assert all(torch.equal(value, state[name]) for name, value in model.backbone.state_dict().items())
    asked = []
    monkeypatch.setattr("dkpnet_ext.models.dssinet.load_backbone_weights", lambda *arguments: asked.append(arguments))
    other = DSSINet()
    other.load_backbone("imagenet")
    assert asked == [(other.backbone.front, "vgg16", "imagenet")]
    assert other.backbone.front.state_dict().keys() == state.keys()


@pytest.mark.parametrize("kind, frozen", [(CSRNet, 260_160), (DSSINet, 260_160), (MCNN, 0)])
def test_frozen_stages_are_vggs_blocks(kind, frozen):
    """The first two blocks: 64, 64, 128 and 128 channels."""
    model = kind()
    freeze_stages(model.backbone, 2)
    assert sum(p.numel() for p in model.parameters() if not p.requires_grad) == frozen


def test_folded_for_inference_counts_the_same():
    model = make(CSRNet).eval()
    image = noise(3, 40, 48)
    before = model.count(image, as_is=True)
    assert model.for_inference().count(image, as_is=True) == pytest.approx(before, rel=1e-4)


RELEASED = {  # names and shapes as the authors saved them: a convolution is (name, out, in, kernel)
    "csrnet": (
        [("frontend.", (0, 2, 5, 7, 10, 12, 14, 17, 19, 21), (64, 64, 128, 128, 256, 256, 256, 512, 512, 512), 3),
         ("backend.", (0, 2, 4, 6, 8, 10), (512, 512, 512, 256, 128, 64), 3), ("output_layer", ("",), (1,), 1)],
        CSRNet, "relu",
    ),
    "bayesian": (
        [("features.", (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
          (64, 64, 128, 128, 256, 256, 256, 256) + (512,) * 8, 3),
         ("reg_layer.", (0, 2), (256, 128), 3), ("reg_layer.", (4,), (1,), 1)],
        VGG19Regressor, "abs",
    ),
    "dm-count": (
        [("features.", (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
          (64, 64, 128, 128, 256, 256, 256, 256) + (512,) * 8, 3),
         ("reg_layer.", (0, 2), (256, 128), 3), ("density_layer.", (0,), (1,), 1)],
        VGG19Regressor, "relu",
    ),
}  # fmt: skip


def released(name):
    generator, state, channels = torch.Generator().manual_seed(0), {}, 3
    for prefix, indices, widths, kernel in RELEASED[name][0]:
        for index, width in zip(indices, widths, strict=True):
            scale = (2 / (channels * kernel * kernel)) ** 0.5
            weight = scale * torch.randn(width, channels, kernel, kernel, generator=generator)
            state[f"{prefix}{index}.weight"] = weight
            state[f"{prefix}{index}.bias"] = 0.1 * torch.randn(width, generator=generator)
            channels = width
    return state


def forward(name, state, x):
    """The released network, written out."""

    def conv(key, x, dilation=1):
        weight = state[f"{key}.weight"]
        return F.conv2d(x, weight, state[f"{key}.bias"], padding=dilation * (weight.shape[2] // 2), dilation=dilation)

    (prefix, indices, *_), *_ = RELEASED[name][0]
    for before, index in zip((-2, *indices), indices, strict=False):
        if index - before == 3:
            x = F.max_pool2d(x, 2)
        x = F.relu(conv(f"{prefix}{index}", x))
    if name == "csrnet":
        for index in (0, 2, 4, 6, 8, 10):
            x = F.relu(conv(f"backend.{index}", x, 2))
        return F.relu(conv("output_layer", x))
    x = F.interpolate(x, size=(2 * x.shape[2], 2 * x.shape[3]), mode="bilinear", align_corners=True)
    x = F.relu(conv("reg_layer.2", F.relu(conv("reg_layer.0", x))))
    return conv("reg_layer.4", x).abs() if name == "bayesian" else F.relu(conv("density_layer.0", x))


@pytest.mark.parametrize("name", RELEASED)
def test_released_checkpoints_load_by_name(name, tmp_path):
    state, (_, kind, link) = {k.replace("r..", "r."): v for k, v in released(name).items()}, RELEASED[name]
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "best.pth.tar")
    model = load_released(tmp_path / "best.pth.tar", min_side=512)
    assert type(model) is kind and model.link == link and model.min_side == 512 and not model.training
    image = noise(1, 3, 64, 96)
    with torch.no_grad():
        expected = forward(name, state, (image / 255 - model.pixel_mean) / model.pixel_std)
        assert float(expected.sum()) > 0
        torch.testing.assert_close(model(image).density, expected, rtol=1e-4, atol=1e-5)


def test_what_is_no_released_checkpoint_is_one_line(tmp_path):
    class Code:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"state_dict": Code()}, tmp_path / "code.pth")
    with pytest.raises(UserError, match="not a readable weight file"):
        load_released(tmp_path / "code.pth")
    with pytest.raises(UserError, match="not a released checkpoint of CSRNet, Bayesian, DM-Count"):
        convert_released({"conv.weight": torch.zeros(1)})
    state = released("csrnet")
    for changed, message in (
        ({k: v for k, v in state.items() if k != "backend.4.bias"}, "lacks head.backend.4.bias"),
        (state | {"extra.weight": torch.zeros(1)}, "has unknown extra.weight"),
        (state | {"backend.4.bias": torch.zeros(3)}, "has other shapes for head.backend.4.bias"),
    ):
        with pytest.raises(UserError, match=message):
            convert_released(changed)


def test_exported_graphs_are_the_models(tmp_path):
    for kind, arguments in ((MCNN, {"attention": "se"}), (VGG19Regressor, {})):
        model = make(kind, **arguments).eval()
        with torch.no_grad():
            for shape in ((1, 3, 45, 70), (2, 3, 64, 32)):
                torch.testing.assert_close(
                    ExportGraph(model)(noise(*shape))[0], model(noise(*shape)).density, rtol=1e-4, atol=1e-5
                )
    for kind in (CANet, SFCN):
        with pytest.raises(UserError, match="cannot be exported"):
            export_model(kind(), tmp_path / "counter.onnx")


def test_a_network_exports(tmp_path):
    from dkpnet_ext.counting.export import check_exported

    model = make(MCNN).eval()
    export_model(model, tmp_path / "counter.pt2")
    assert check_exported(model, tmp_path / "counter.pt2") < 1e-3


def test_saved_with_its_link_and_attention(tmp_path):
    model = make(MCNN, attention="inva", domains=["A", "B", "C"], num_sub=2, latent_dim=4).eval()
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.system == "mcnn-inva" and loaded.link == "abs" and loaded.arguments == model.arguments
    assert torch.equal(loaded(noise(1, 3, 32, 32)).density, model(noise(1, 3, 32, 32)).density)
