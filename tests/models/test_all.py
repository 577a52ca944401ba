# SPDX-License-Identifier: Apache-2.0
"""What holds for every model: padding is never read, files bring it back bit by bit, torch.nn gives the same."""

import inspect
import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rnnfast.models
from rnnfast.init import Init
from rnnfast.models import Model, Vocabulary
from tests.models.samples import MODELS, Batch


@pytest.mark.parametrize("name", MODELS)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    garbage=st.sampled_from(["nan", "huge", "other"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=8, deadline=None)
def test_padding_has_no_influence(name: str, lengths: list[int], garbage: str, seed: int) -> None:
    """Whatever stands in the padding, results and gradients are the same bits; and NaN never gets in."""
    torch.manual_seed(seed)
    model = MODELS[name]().eval()
    if model.kind == "forecast" and max(lengths) < 2:
        lengths = [*lengths, 2]
    batch, other = (Batch(model, 6, lengths, seed) for _ in range(2))
    outside = ~other.inside()
    x = {"nan": float("nan"), "huge": 1e30, "other": -1.5} if other.x.is_floating_point() else {
        "nan": -1, "huge": 10**9, "other": 3}  # fmt: skip
    other.x[outside] = x[garbage]
    for target in (other.labels, other.next):
        target[outside] = {"nan": -1, "huge": 10**9, "other": 2}[garbage]
    if other.spelling is not None:
        ids, counts = other.spelling
        ids[outside] = -1
        counts[outside] = 0
        ids.masked_fill_(torch.arange(ids.shape[2]) >= counts[..., None], 10**6)
    for b, n in enumerate(other.target_lengths):
        other.target[n:, b] = -1

    for i, (a, b) in enumerate(zip(batch.outputs(), other.outputs(), strict=True)):
        assert torch.equal(a, b), f"output {i} differs, seed {seed}"
        assert a.isfinite().all() or model.kind == "seq2seq"
    gradients = []
    for one in (batch, other):
        model.zero_grad()
        one.loss().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b), f"gradient differs, seed {seed}"
        assert a.isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_more_padding_and_other_samples_have_no_influence(name: str) -> None:
    """A sample alone, without padding, gives what it gives within a padded batch."""
    model = MODELS[name]().double().eval()
    batch = Batch(model)
    whole = batch.outputs()
    for b, n in enumerate(batch.lengths):
        alone = Batch(model)
        alone.x, alone.lengths = batch.x[:n, b : b + 1], [n]
        alone.target, alone.target_lengths = batch.target[:, b : b + 1], batch.target_lengths[b : b + 1]
        if batch.spelling is not None:
            alone.spelling = (batch.spelling[0][:n, b : b + 1], batch.spelling[1][:n, b : b + 1])
        of_step = batch.inside().nonzero()[:, 1] == b
        for got, all_samples in zip(alone.outputs(), whole, strict=True):
            want = all_samples[of_step] if len(all_samples) == len(of_step) else all_samples[b : b + 1]
            torch.testing.assert_close(got[..., : want.shape[-1]], want[..., : got.shape[-1]], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_full_lengths_are_as_none(name: str) -> None:
    model = MODELS[name]().double().eval()
    packed = Batch(model, 5, [5, 5])
    packed.target_lengths = [4, 4]
    dense = Batch(model, 5, [5, 5])
    for_lengths = packed.outputs()
    loss = packed.loss()
    dense.lengths, dense.target_lengths = None, None  # type: ignore[assignment]
    dense.inside = packed.inside  # type: ignore[method-assign]
    torch.testing.assert_close(dense.outputs(), for_lengths)
    torch.testing.assert_close(dense.loss(), loss)


@pytest.mark.parametrize("name", MODELS)
def test_save_load_is_bitwise(name: str, tmp_path: Path) -> None:
    model = MODELS[name]().eval()
    vocabulary = {"words": Vocabulary.build(["ab", "bcä\n"]), "labels": Vocabulary(["O", "B-x"])}
    model.save(tmp_path / "m.pt", vocabulary, {"seed": 3, "note": "é"})
    before = torch.get_rng_state()
    back = rnnfast.models.load(tmp_path / "m.pt")
    assert torch.equal(torch.get_rng_state(), before), "loading drew random numbers"
    assert type(back) is type(model)
    assert not back.training
    assert back.config() == model.config()
    assert (back.vocabulary, back.extra) == (vocabulary, {"seed": 3, "note": "é"})
    batch = Batch(model)
    for a, b in zip(batch.outputs(), batch.outputs(back), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(batch.loss(), batch.loss(back))
    back.save(tmp_path / "again.pt")  # with what was loaded
    assert rnnfast.models.load(tmp_path / "again.pt").vocabulary == vocabulary
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.pt", "m.pt"]


@pytest.mark.parametrize("name", MODELS)
def test_torch_backend_is_the_same_net(name: str, tmp_path: Path) -> None:
    """Same seed, same parameters; same results but for rounding; and a file of one opens as the other."""
    torch.manual_seed(5)
    ours = MODELS[name]().double().eval()
    torch.manual_seed(5)
    theirs = MODELS[name](backend="torch").double().eval()
    assert any(type(m).__module__.startswith("torch.nn.modules.rnn") for m in theirs.modules()) == ("none" not in name)
    assert not any(type(m).__module__.startswith("torch.nn.modules.rnn") for m in ours.modules())
    state = ours.state_dict()
    assert list(state) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        assert torch.equal(value, state[key]), key
    batch = Batch(ours)
    torch.testing.assert_close(batch.outputs(theirs), batch.outputs(ours))
    torch.testing.assert_close(batch.loss(theirs), batch.loss(ours))
    ours.save(tmp_path / "m.pt")
    switched = rnnfast.models.load(tmp_path / "m.pt", backend="torch")
    assert switched.config()["backend"] == "torch"
    torch.testing.assert_close(batch.outputs(switched), batch.outputs(theirs), rtol=0, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_config_names_every_argument(name: str) -> None:
    model = MODELS[name]()
    assert set(model.config()) == set(inspect.signature(type(model)).parameters) - {"init"}
    twin = type(model)(**model.config())
    assert twin.config() == model.config()
    assert {k: v.shape for k, v in twin.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


@pytest.mark.parametrize("name", MODELS)
def test_learns(name: str) -> None:
    """A few updates make the loss smaller: every parameter gets a gradient that leads downhill."""
    torch.manual_seed(3)
    model: Model = MODELS[name]()
    batch = Batch(model)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    model.eval()
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = batch.loss()
        loss.backward()
        if not losses:
            idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
            assert not idle, f"no gradient: {idle}"
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05, losses


@pytest.mark.parametrize("name", MODELS)
def test_lengths_are_checked(name: str) -> None:
    model = MODELS[name]()
    batch = Batch(model)
    for wrong, message in (
        ([6, 0, 5], "an empty sequence for sample 1"),
        ([6, 7, 5], "expected 1 to 6, got 7 for sample 1"),
        ([6, 2], "expected 3 integers"),
        ([6.0, 2.0, 5.0], "expected 3 integers"),
    ):
        batch.lengths = wrong  # type: ignore[assignment]
        with pytest.raises(ValueError, match=message):
            batch.loss()
    batch = Batch(model)
    for x in (batch.x[0], batch.x[:0], batch.x[:, :0]):
        batch.x = x
        with pytest.raises((ValueError, RuntimeError)):
            batch.loss()


@pytest.mark.parametrize("backend", ["rnnfast", "torch"])
def test_init_by_name(backend: str) -> None:
    """The names of rnnfast.init do on both backends what its functions do."""

    def weights(cell: str, init: Init) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        return rnnfast.models.recurrent(cell, 3, 5, 2, backend=backend, init=init, bidirectional=True).state_dict()

    for cell, name, function in (
        ("gru", "orthogonal", rnnfast.init.orthogonal_),
        ("lstm", "forget_bias", rnnfast.init.forget_bias_),
        ("lstm", ("chrono", 20), lambda module: rnnfast.init.chrono_(module, 20)),
        ("rnn", ("identity", 0.9), lambda module: rnnfast.init.identity_(module, 0.9)),
        ("rnn_relu", "irnn", rnnfast.init.irnn_),
    ):
        plain, named, done = weights(cell, None), weights(cell, name), weights(cell, function)
        assert all(torch.equal(named[key], done[key]) for key in done), (cell, name)
        assert not all(torch.equal(named[key], plain[key]) for key in plain), (cell, name)
    named, own = weights("rnn_relu", "irnn"), weights("irnn", None)
    assert all(torch.equal(named[key], own[key]) for key in own)
    with pytest.raises(ValueError, match=r"GRU: init: expected None, one of 'irnn', .*, got 'chronos'"):
        weights("gru", "chronos")
    with pytest.raises(ValueError, match="forget_bias_: GRU: expected an LSTM"):
        weights("gru", "forget_bias")


@pytest.mark.parametrize("cell", ["rnn", "rnn_relu", "irnn", "lstm", "gru"])
def test_recurrent_options(cell: str) -> None:
    """init is called; irnn is a ReLU net that begins as the identity; dropout only where there are layers between."""
    seen = []
    options = {"bias": False, "bidirectional": True, "init": seen.append}
    for backend, layers in itertools.product(("rnnfast", "torch"), (1, 2)):
        module = rnnfast.models.recurrent(cell, 3, 4, layers, backend=backend, dropout=0.5, **options)
        assert seen.pop() is module
        assert (module.num_layers, module.bias, module.bidirectional) == (layers, False, True)
        assert module.dropout == (0.5 if layers == 2 else 0.0)
        if cell in ("rnn_relu", "irnn"):
            assert module.nonlinearity == "relu"
        identity = all(torch.equal(p, torch.eye(4)) for n, p in module.named_parameters() if "weight_hh" in n)
        assert identity == (cell == "irnn")
    with pytest.raises(ValueError, match="cell: expected one of rnn, rnn_relu, irnn, lstm, gru, got 'elman'"):
        rnnfast.models.recurrent("elman", 3, 4)
    with pytest.raises(ValueError, match="backend: expected one of rnnfast, torch, got 'jax'"):
        rnnfast.models.recurrent(cell, 3, 4, backend="jax")
