"""The equations against plain loops, the fast TopK against the plain one, and every refusal by its words."""

import pytest
import torch

from mechkit.methods import sae_steps
from mechkit.methods.sae import SAE, JumpReLU, ReLU, TopK, sae_loss

ACTIVATIONS = (ReLU(), TopK(3), JumpReLU())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_sae(activation, d_out=None, seed=0):
    """Small, with every weight and bias away from zero."""
    sae = SAE(4, 7, activation, d_out=d_out, seed=seed)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            if name != "W_dec":
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator(seed)))
        if sae.threshold is not None:
            sae.threshold.abs_()
    return sae


def hidden_by_loop(sae, x):
    W_enc, b_enc, b_dec = sae.W_enc.tolist(), sae.b_enc.tolist(), sae.b_dec.tolist()
    offset = [0.0] * sae.d_in if sae.is_transcoder else b_dec
    read = [sum((x[i] - offset[i]) * W_enc[i][j] for i in range(sae.d_in)) + b_enc[j] for j in range(sae.d_sae)]
    if isinstance(sae.activation, TopK):
        best = sorted(range(sae.d_sae), key=lambda j: read[j], reverse=True)[: sae.activation.k]
        return [max(0.0, read[j]) if j in best else 0.0 for j in range(sae.d_sae)]
    if isinstance(sae.activation, JumpReLU):
        return [z if z > limit else 0.0 for z, limit in zip(read, sae.threshold.tolist(), strict=True)]
    return [max(0.0, z) for z in read]


def rebuilt_by_loop(sae, hidden):
    W_dec, b_dec = sae.W_dec.tolist(), sae.b_dec.tolist()
    return [sum(hidden[j] * W_dec[j][i] for j in range(sae.d_sae)) + b_dec[i] for i in range(sae.d_out)]


@pytest.mark.parametrize("d_out", [None, 5])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_sae_is_the_equations_of_the_paper(activation, d_out):
    sae, x = random_sae(activation, d_out), torch.randn(6, 4, generator=generator(1))
    hidden = torch.tensor([hidden_by_loop(sae, row) for row in x.tolist()])
    torch.testing.assert_close(sae.encode(x), hidden)
    assert 0 < (hidden > 0).float().mean() < 1
    rebuilt = torch.tensor([rebuilt_by_loop(sae, row) for row in hidden.tolist()])
    torch.testing.assert_close(sae(x), rebuilt)
    torch.testing.assert_close(sae.decode(hidden), rebuilt)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_leading_axes_are_kept(activation):
    sae, x = random_sae(activation), torch.randn(2, 3, 4, generator=generator(1))
    assert sae.encode(x).shape == (2, 3, 7)
    torch.testing.assert_close(sae(x)[1, 2], sae(x[1, 2:])[0])


def test_rows_of_the_decoder_have_length_one_and_the_encoder_starts_along_them():
    sae = SAE(4, 7, ReLU())
    assert sae.W_dec.norm(dim=-1).tolist() == pytest.approx([1.0] * 7)
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    with torch.no_grad():
        sae.W_dec.mul_(3)
    sae.normalise_decoder()
    assert sae.W_dec.norm(dim=-1).tolist() == pytest.approx([1.0] * 7)


def test_a_seed_gives_one_sae():
    assert torch.equal(SAE(4, 7, ReLU(), seed=2).W_dec, SAE(4, 7, TopK(1), seed=2).W_dec)
    assert not torch.equal(SAE(4, 7, ReLU(), seed=2).W_dec, SAE(4, 7, ReLU(), seed=3).W_dec)


@pytest.mark.parametrize("d_out", [None, 5])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_loss_is_the_squared_error_and_the_penalty(activation, d_out):
    sae, x = random_sae(activation, d_out), torch.randn(6, 4, generator=generator(1))
    target = torch.randn(6, sae.d_out, generator=generator(2))
    expected = 0.0
    for row, wanted in zip(x.tolist(), target.tolist(), strict=True):
        hidden = hidden_by_loop(sae, row)
        expected += sum((a - b) ** 2 for a, b in zip(wanted, rebuilt_by_loop(sae, hidden), strict=True))
        count = sum(h > 0 for h in hidden)
        expected += 0.7 * (count if isinstance(activation, JumpReLU) else sum(hidden))
    assert sae_loss(sae, x, target=target, penalty=0.7).item() == pytest.approx(expected / 6, rel=1e-5)
    if d_out is None:
        assert torch.equal(sae_loss(sae, x), sae_loss(sae, x, target=x))


@pytest.mark.parametrize("d_out", [None, 5])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_training_step_has_the_losses_own_gradient(activation, d_out):
    """TopK is trained without computing what is off; the loss and every gradient are those of the plain equations."""
    x, target = torch.randn(9, 4, generator=generator(1)), torch.randn(9, d_out or 4, generator=generator(2))
    plain, fast = random_sae(activation, d_out), random_sae(activation, d_out)
    sae_loss(plain, x, target=target, penalty=0.7).backward()
    rebuilt, cost, on = sae_steps.rebuild(fast, x, 0.7)
    ((target - rebuilt).square().sum(-1).mean() + cost).backward()
    assert torch.equal(on, (plain.encode(x) > 0).sum(0))
    for one, other in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_the_threshold_learns_from_what_is_near_it():
    """The estimated slopes of Rajamanoharan et al., eq. 11 and 12, written out for one feature."""
    pre = torch.tensor([[0.4], [0.52], [0.58], [0.9]])
    threshold = torch.tensor([0.5], requires_grad=True)
    jump = JumpReLU(bandwidth=0.1)
    jump(pre, threshold).sum().backward()
    near = 1  # only 0.52 is within 0.05
    assert threshold.grad.item() == pytest.approx(-0.5 / 0.1 * near)
    threshold.grad = None
    counted = jump.count(pre, threshold)
    assert counted.flatten().tolist() == [0, 1, 1, 1]
    counted.sum().backward()
    assert threshold.grad.item() == pytest.approx(-1 / 0.1 * near)


def test_what_cannot_be_built_is_said():
    with pytest.raises(ValueError, match=r"at least as many features as dimensions; came d_sae = 3 for d_in = 4"):
        SAE(4, 3, ReLU())
    with pytest.raises(ValueError, match=r"wanted k from 1 to d_sae, which is 7; came k = 8: at most all"):
        SAE(4, 7, TopK(8))
    with pytest.raises(ValueError, match=r"which is 7; came k = 0"):
        SAE(4, 7, TopK(0))


def test_it_says_what_it_is():
    sae = SAE(4, 7, TopK(2), d_out=4)
    sae.site, sae.layer = ("mlp_in", "mlp_out"), 3
    assert repr(sae) == "transcoder(4 to 7 features to 4, TopK(k=2)) of mlp_in to mlp_out at layer 3"
