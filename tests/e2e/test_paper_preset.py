"""The paper's four-set preset, started as a user would: HRNet-W40 on the four original layouts, both stages."""

import json
import subprocess
import sys

import layouts

from dkpnet_ext.models import load_model


def test_paper_4joint_trains_on_the_original_layouts(tmp_path):
    data = [
        f"SHA={layouts.shanghaitech(tmp_path / 'part_A_final')}",
        f"SHB={layouts.shanghaitech(tmp_path / 'part_B', 'ground-truth')}",
        f"QNRF={layouts.ucf_qnrf(tmp_path / 'UCF-QNRF_ECCV18')}",
        f"NWPU={layouts.nwpu(tmp_path / 'NWPU-Crowd', folders=('images_part1', 'images_part2'))}",
    ]
    run = tmp_path / "run"
    # Made-up data and one epoch of batch 2; all else, the network and both stages, is the preset's.
    done = subprocess.run(
        [
            sys.executable, "-m", "dkpnet_ext.train", "paper-4joint", "--data", *data, "--cache", str(tmp_path / "cache"),
            "--weights", "None", "--batch", "2", "--epochs", "1", "--crop", "64", "--min-side", "64", "--workers", "0",
            "--device", "cpu", "--output", str(run),
        ],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for layout in ("shanghaitech", "ucf-qnrf", "nwpu"):
        assert f"layout {layout}" in done.stderr
    config = json.loads((run / "config.json").read_text())
    assert config["model"]["backbone"] == "hrnet_w40" and config["optim"]["lr"] == 5e-5
    model = load_model(run / "model")
    assert model.attention.centers.shape == (5, 2, 128)
    assert sum(p.numel() for p in model.backbone.parameters()) == 11_980_576
    table = (run / "results.md").read_text()
    assert all(f"| {name} |" in table for name in ("SHA", "SHB", "QNRF", "NWPU"))
