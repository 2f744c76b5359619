"""The smallest experiment in which attention cannot be idle: variational attention must learn to route by the whole picture.

What it is, and what the systems reach there: bench/results/routing.md.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import torch

SCRIPT = Path(__file__).parents[2] / "experiments" / "routing.py"


def test_variational_attention_routes_where_only_the_whole_picture_tells_the_domain(monkeypatch):
    spec = importlib.util.spec_from_file_location("routing", SCRIPT)
    routing = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "routing", routing)
    spec.loader.exec_module(routing)
    args = argparse.Namespace(
        side=48, crosses=3, steps=800, pictures=1000, batch=16, lr=2e-3, labels="true", num_sub=1, doubled=False,
        w_kl=1.0, w_lse=1.0, w_logdet=1.0,
    )  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    experiment = routing.Experiment("global", 0, args)
    found = experiment.run("va")
    torch.set_num_threads(threads)
    assert found["told"] > 0.95, "the latent does not know the domain"
    assert found["mae"] < 0.5, "without the domain, nobody can be better than 0.8"
    # It is the attention that routes: one vector for all pictures loses what was gained.
    experiment.va.attention.register_forward_hook(
        lambda *call: call[-1]._replace(attention=call[-1].attention.mean(0, True).expand_as(call[-1].attention))
    )
    assert routing.evaluate(experiment.va, experiment.fresh)["mae"] > 0.7
