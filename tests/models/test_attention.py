"""Attention modules against the formulas of MATH: what training adds, what prediction leaves out."""

import torch

from dkpnet_ext import ops
from dkpnet_ext.models.attention import SqueezeExcitation, VariationalAttention


def make(num_sub: int = 2) -> VariationalAttention:
    torch.manual_seed(0)
    return VariationalAttention(16, 8, num_domains=3, num_sub=num_sub)


def test_prediction_takes_the_mean_and_needs_no_label():
    module, pooled = make().train(), torch.randn(4, 16)
    mu, _ = module.encoder(pooled).chunk(2, -1)
    out = module(pooled)
    torch.testing.assert_close(out.attention, torch.sigmoid(module.decoder(mu)))
    assert out.kl is None
    evaluated = module.eval()(pooled, torch.tensor([0, 1, 2, 0]))  # with labels: the terms, without noise
    torch.testing.assert_close(evaluated.attention, out.attention)
    assert evaluated.kl.shape == (4,)


def test_training_terms_are_the_operators():
    module, pooled, labels = make().train(), torch.randn(4, 16), torch.tensor([0, 1, 2, 0])
    torch.manual_seed(5)
    out = module(pooled, labels)
    mu, logvar = module.encoder(pooled).chunk(2, -1)
    torch.manual_seed(5)
    terms = ops.variational(mu, logvar, module.centers, module.prior_logvar, labels, dropout=0.2)
    torch.testing.assert_close(out.kl, terms.kl)
    torch.testing.assert_close(out.lse, terms.lse)
    torch.testing.assert_close(out.attention, torch.sigmoid(module.decoder(terms.z[0])))


def test_ranks_draw_what_one_process_would():
    module, pooled, labels = make().train(), torch.randn(6, 16), torch.tensor([0, 1, 2, 0, 1, 2])
    torch.manual_seed(3)
    whole = module(pooled, labels)
    for rank in range(2):
        part = slice(3 * rank, 3 * rank + 3)
        torch.manual_seed(3)
        own = module(pooled[part], labels[part], batch_offset=3 * rank)
        torch.testing.assert_close(own.attention, whole.attention[part])


def test_every_parameter_gets_a_gradient():
    for module in (make(1), make(2)):
        out = module.train()(torch.randn(6, 16), torch.tensor([0, 1, 2, 0, 1, 2]))
        (out.attention.sum() + out.kl.sum() + out.lse.sum() + out.logdet2.sum()).backward()
        assert all(p.grad is not None for p in module.parameters())


def test_squeeze_excitation_ignores_labels():
    module, pooled = SqueezeExcitation(32), torch.randn(2, 32)
    assert torch.equal(module(pooled).attention, module(pooled, torch.tensor([0, 1])).attention)
    assert ((module(pooled).attention > 0) & (module(pooled).attention < 1)).all()
