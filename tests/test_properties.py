# SPDX-License-Identifier: Apache-2.0
"""Properties over shapes and options that hypothesis draws: torch.nn's results, and relations that hold by themselves.

More examples: HYPOTHESIS_EXAMPLES=1000. A failing example prints its arguments, and the line that replays it.
"""

import copy
import os
from typing import Any

import pytest
import torch
from torch import nn

import rnnfast
from tests.torchs import assert_near, flat, pair, run, state_of

hypothesis = pytest.importorskip("hypothesis", reason="pip install 'rnnfast[test]'")

from hypothesis import given, note, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "25"))
few = settings(
    max_examples=EXAMPLES,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)

sizes = st.one_of(st.integers(1, 9), st.sampled_from([15, 16, 17, 31, 32, 33, 47, 48, 49]))


@st.composite
def modules(draw: Any) -> tuple[str, dict[str, Any]]:
    """A module's name and arguments."""
    name = draw(st.sampled_from(["RNN", "LSTM", "GRU"]))
    options = {
        "input_size": draw(sizes),
        "hidden_size": draw(sizes),
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
    }
    if options["num_layers"] > 1:
        options["dropout"] = draw(st.sampled_from([0.0, 0.3]))
    if name == "RNN":
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    if name == "LSTM" and options["hidden_size"] > 1:
        options["proj_size"] = draw(st.integers(0, options["hidden_size"] - 1))
    return name, options


@st.composite
def inputs(draw: Any, options: dict[str, Any], module: nn.Module, seed: int) -> tuple[Any, Any]:
    """Input (dense, unbatched or packed, float64) and states or None."""
    gen = torch.Generator().manual_seed(seed)
    form = draw(st.sampled_from(["dense", "unbatched", "packed"]))
    features = options["input_size"]

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=gen, dtype=torch.float64)

    batch: int | None
    if form == "packed":
        lengths = draw(st.lists(st.integers(1, 7), min_size=1, max_size=8))
        batch = len(lengths)
        x: Any = nn.utils.rnn.pack_sequence([random(n, features) for n in lengths], enforce_sorted=False)
    elif form == "unbatched":
        batch, x = None, random(draw(st.integers(1, 9)), features)
    else:
        steps, batch = draw(st.integers(1, 9)), draw(st.integers(0, 9))
        x = random(batch, steps, features) if options["batch_first"] else random(steps, batch, features)
        if draw(st.booleans()):
            x = x.transpose(0, 1).contiguous().transpose(0, 1)
    hx = state_of(module, batch, torch.float64, seed) if draw(st.booleans()) else None
    return x, hx


@given(data=st.data(), made=modules(), seed=st.integers(0, 2**31))
@few
def test_torchs_results(data: Any, made: tuple[str, dict], seed: int) -> None:
    """Outputs and every gradient, in float64 to its last digits, with torch's dropout masks."""
    name, options = made
    theirs, ours = pair(name, **options, dtype=torch.float64, seed=seed)
    x, hx = data.draw(inputs(options, ours, seed))
    note(f"seed {seed}, {ours}, hx {'given' if hx is not None else 'None'}")
    expected, got = run(theirs, x, hx, seed), run(ours, x, hx, seed)
    assert got.keys() == expected.keys()
    for key, value in got.items():
        assert_near(key, value, [expected[key]], expected[key], f"{ours}, seed {seed}")


@given(made=modules(), seed=st.integers(0, 2**31), lengths=st.lists(st.integers(1, 6), min_size=1, max_size=6))
@few
def test_packed_is_each_sample_alone(made: tuple[str, dict], seed: int, lengths: list[int]) -> None:
    name, options = made
    torch.manual_seed(seed)
    ours = getattr(rnnfast, name)(**options, dtype=torch.float64).eval()
    rows = [torch.randn(n, options["input_size"], dtype=torch.float64) for n in lengths]
    hx = state_of(ours, len(lengths), torch.float64, seed)
    y, state = ours(nn.utils.rnn.pack_sequence(rows, enforce_sorted=False), hx)
    padded, _ = nn.utils.rnn.pad_packed_sequence(y)
    for i, row in enumerate(rows):
        alone = ours(row, tuple(s[:, i] for s in hx) if isinstance(hx, tuple) else hx[:, i])
        together = [padded[: len(row), i], *(s[:, i] for s in flat(state))]
        torch.testing.assert_close(together, flat(alone), rtol=1e-12, atol=1e-12)


@given(made=modules(), seed=st.integers(0, 2**31), cut=st.integers(1, 5), rest=st.integers(1, 5))
@few
def test_state_carries_on(made: tuple[str, dict], seed: int, cut: int, rest: int) -> None:
    """Two halves of a sequence, the state handed over, are the whole (one direction, no dropout)."""
    name, options = made
    options = copy.copy(options) | {"bidirectional": False}
    torch.manual_seed(seed)
    ours = getattr(rnnfast, name)(**options, dtype=torch.float64).eval()
    x = torch.randn(cut + rest, options["input_size"], dtype=torch.float64)
    whole, state = ours(x)
    first, between = ours(x[:cut])
    second, last = ours(x[cut:], between)
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(flat(last), flat(state), rtol=1e-12, atol=1e-12)


@given(made=modules(), seed=st.integers(0, 2**31), steps=st.integers(1, 5), batch=st.integers(1, 4))
@few
def test_directions_mirror(made: tuple[str, dict], seed: int, steps: int, batch: int) -> None:
    """Reversing time and exchanging the directions' weights reverses the output and exchanges its halves."""
    name, options = made
    options = copy.copy(options) | {"bidirectional": True, "num_layers": 1, "dropout": 0.0, "batch_first": False}
    torch.manual_seed(seed)
    ours = getattr(rnnfast, name)(**options, dtype=torch.float64)
    mirror = copy.deepcopy(ours)
    weights = dict(ours.named_parameters())
    with torch.no_grad():
        for n, p in mirror.named_parameters():
            p.copy_(weights[n.removesuffix("_reverse") if n.endswith("_reverse") else f"{n}_reverse"])
    x = torch.randn(steps, batch, options["input_size"], dtype=torch.float64)
    y, z = ours(x)[0], mirror(x.flip(0))[0].flip(0)
    half = y.shape[-1] // 2
    torch.testing.assert_close(torch.cat([z[..., half:], z[..., :half]], -1), y, rtol=1e-12, atol=1e-12)


@given(
    name=st.sampled_from(["RNNCell", "LSTMCell", "GRUCell"]), size=sizes, hidden=sizes, bias=st.booleans(),
    batch=st.one_of(st.none(), st.integers(0, 9)), given_state=st.booleans(), seed=st.integers(0, 2**31),
)  # fmt: skip
@few
def test_cells_are_torchs(
    name: str, size: int, hidden: int, bias: bool, batch: int | None, given_state: bool, seed: int
) -> None:
    theirs, ours = pair(name, size, hidden, bias, dtype=torch.float64, seed=seed)
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(*([size] if batch is None else [batch, size]), generator=gen, dtype=torch.float64)
    hx = state_of(ours, batch, torch.float64, seed) if given_state else None
    expected, got = run(theirs, x, hx, seed), run(ours, x, hx, seed)
    for key, value in got.items():
        assert_near(key, value, [expected[key]], expected[key], f"{ours}, seed {seed}")
