# SPDX-License-Identifier: Apache-2.0
"""The emulator's module: settings and the boundary. Its core is tested in C++ (tests/cpp/emulator), the kernels in
tests/cpp/cuda and in the tests that run on every device."""

import threading

import numpy as np
import pytest

from rnnfast import _emulator

T, B, I, H = 3, 5, 4, 6


@pytest.fixture(autouse=True)
def settings():
    _emulator.set_device("sm_80", processors=3)
    yield
    _emulator.set_device("sm_80")
    _emulator.set_seed(0)
    _emulator.set_mutation(None)


def gru(seed: int = 1, dtype: type = np.float32) -> tuple:
    """Arguments of a GRU layer up to `has_biases`."""
    rng = np.random.default_rng(seed)
    shapes = [(3 * H, I), (3 * H, H), (3 * H,), (3 * H,)]
    weights = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    return "gru", rng.standard_normal((T, B, I)).astype(dtype), None, None, weights, None, True


def plain_gru(cell, x, h0, c0, weights, batch_sizes, has_biases) -> np.ndarray:
    """y in float64."""
    w_ih, w_hh, b_ih, b_hh = (w.astype(np.float64) for w in weights)
    h, y = np.zeros((B, H)), []
    for x_t in x.astype(np.float64):
        from_x, from_h = np.split(x_t @ w_ih.T + b_ih, 3, axis=1), np.split(h @ w_hh.T + b_hh, 3, axis=1)
        r, z = (1 / (1 + np.exp(-from_x[i] - from_h[i])) for i in range(2))
        n = np.tanh(from_x[2] + r * from_h[2])
        h = (1 - z) * n + z * h
        y.append(h)
    return np.array(y)


@pytest.mark.parametrize("path", ["step", "persistent"])
def test_forward_is_the_layer_in_every_order(path):
    expected = plain_gru(*gru())
    first = None
    for seed in range(3):
        _emulator.set_seed(seed)
        out = _emulator.layer_forward(*gru(), False, True, path=path)
        assert out["plan"]["path"] == path
        np.testing.assert_allclose(out["y"], expected, atol=1e-5, err_msg=f"order {seed}")
        np.testing.assert_array_equal(out["h_n"][0], out["y"][-1])
        assert out["saved"].shape == (1, T * B, 4 * H)
        assert out["cells"].shape == (0, T * B, H)
        first = out["y"] if first is None else first
        np.testing.assert_array_equal(out["y"], first, err_msg=f"order {seed}: other bits than order 0")


def test_x_may_have_a_batch_first_layout():
    cell, x, *rest = gru()
    batch_first = np.ascontiguousarray(x.transpose(1, 0, 2)).transpose(1, 0, 2)
    for path in ("step", "persistent"):
        y = _emulator.layer_forward(cell, batch_first, *rest, False, False, path=path)["y"]
        np.testing.assert_array_equal(y, _emulator.layer_forward(cell, x, *rest, False, False, path=path)["y"])


def test_gradients_are_made_where_asked_for():
    out = _emulator.layer_forward(*gru(), False, True)
    grad_y = np.ones_like(out["y"])
    kept = (out["y"], out["saved"], out["cells"])
    full = _emulator.layer_backward(grad_y, None, None, *gru(), False, *kept, [True] * 7)
    assert not any(np.isnan(g).any() for g in [full["grad_x"], full["grad_h0"], *full["grad_weights"]])
    assert full["grad_c0"] is None  # a GRU has none
    some = _emulator.layer_backward(grad_y, None, None, *gru(), False, *kept, [False] * 4 + [True] + [False] * 2)
    assert some["grad_x"] is None
    assert some["grad_h0"] is None
    assert [g is None for g in some["grad_weights"]] == [True, False, True, True]
    np.testing.assert_array_equal(some["grad_weights"][1], full["grad_weights"][1])
    half = _emulator.layer_backward(grad_y, None, None, *gru(), False, *kept, [True] * 7, clip_value=1e-3)
    assert not np.array_equal(half["grad_x"], full["grad_x"])


def test_statistics_count_launches():
    before = _emulator.launches()
    _emulator.layer_forward(*gru(), False, False, path="persistent")
    after = _emulator.launches()
    assert after["launches"] > before["launches"]
    assert all(after[name] > before[name] for name in ("fibers", "switches", "accesses"))


def test_launches_from_several_threads():
    expected = _emulator.layer_forward(*gru(), False, False, path="persistent")["y"]
    results: list[np.ndarray] = []

    def work() -> None:
        results.extend(_emulator.layer_forward(*gru(), False, False, path="persistent")["y"] for _ in range(3))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 9
    for y in results:
        np.testing.assert_array_equal(y, expected)


def test_an_unknown_mutation_is_never_met():
    _emulator.set_mutation("no such place")
    np.testing.assert_allclose(_emulator.layer_forward(*gru(), False, False)["y"], plain_gru(*gru()), atol=1e-5)
    assert _emulator.mutation_hits() == 0


def changed(index: int, value) -> tuple:
    arguments = list(gru())
    arguments[index] = value
    return tuple(arguments)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (changed(0, "grv"), {}, "cell: expected one of 'lstm', .* got 'grv'"),
        (gru(), {"dtype": "float8"}, "dtype: expected one of 'float32', .* got 'float8'"),
        (gru(), {"path": "fast"}, "path: expected one of 'best', 'step', 'persistent', got 'fast'"),
        (gru(dtype=np.float64), {}, "x: expected float32, got float64"),
        (gru(), {"dtype": "float16"}, "x: expected uint16, got float32"),
        (changed(1, np.zeros((T, B), np.float32)), {}, "x: expected 3 dimensions, got 2"),
        (changed(1, np.zeros((T, B, 2 * I), np.float32)[:, :, ::2]), {}, "x: expected contiguous rows"),
        (changed(2, np.zeros((1, B, H + 1), np.float32)), {}, r"h0: expected shape \[1, 5, 6\], got \[1, 5, 7\]"),
        (changed(4, gru()[4][:3]), {}, "weights: expected 4 of a direction"),
        (changed(4, [gru()[4][0][:, :3], *gru()[4][1:]]), {}, r"weights\[0\]: expected shape \[18, 4\]"),
        (changed(5, [B, B + 1]), {}, "x: expected 2 dimensions, got 3"),
    ],
)
def test_bad_arguments_are_named(arguments, options, message):
    with pytest.raises(ValueError, match=f"layer_forward: {message}"):
        _emulator.layer_forward(*arguments, False, False, **options)


def test_batch_sizes_must_not_grow():
    cell, x, h0, c0, weights, _, has_biases = gru()
    with pytest.raises(ValueError, match="batch_sizes: expected sizes of at least 1 that never grow"):
        _emulator.layer_forward(cell, x[0], h0, c0, weights, [2, 3], has_biases, False, False)


def test_settings_are_checked():
    assert "sm_90" in _emulator.devices()
    with pytest.raises(ValueError, match=r"set_device: expected one of devices\(\).* got 'sm_1'"):
        _emulator.set_device("sm_1")
    assert _emulator.device() == "sm_80"


def test_a_path_that_cannot_run_says_why():
    rng = np.random.default_rng(2)
    shapes = [(4 * H, I), (4 * H, 2), (4 * H,), (4 * H,), (2, H)]
    weights = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    x = rng.standard_normal((T, B, I)).astype(np.float32)
    with pytest.raises(ValueError, match="persistent one was asked for, and cannot run; .*projection"):
        _emulator.layer_forward("lstm", x, None, None, weights, None, True, False, False, path="persistent")
