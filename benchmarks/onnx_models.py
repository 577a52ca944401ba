# SPDX-License-Identifier: Apache-2.0
"""A torch.nn recurrent module as an ONNX graph, for ONNX Runtime and OpenVINO.

Built node by node rather than by torch.onnx.export, so that the graph holds nothing but the recurrent operators: one
node a layer, the module's own weights in ONNX's order of gates, fixed T and B, and between layers what brings
[T, D, B, H] to [T, B, D*H]. The last layer's output stays [T, D, B, H]: the rival need not copy it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .cases import Case

OPSET = 17
IR_VERSION = 8  # the one of this opset: a newer package would write one that older runtimes refuse
# torch: LSTM i, f, g, o; GRU r, z, n. ONNX: LSTM i, o, f, c; GRU z, r, h.
GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn_tanh": (0,)}


def state_names(case: Case) -> list[str]:
    """The initial states that the graph takes, if the case has any: h0_0, c0_0, h0_1, ..., each [D, B, H]."""
    kinds = ("h0", "c0") if case.cell == "lstm" else ("h0",)
    return [f"{kind}_{layer}" for layer in range(case.layers) for kind in kinds] if case.has_state else []


def output_names(case: Case) -> list[str]:
    """y [T, D, B, H], then the final states in the order of state_names."""
    kinds = ("h", "c") if case.cell == "lstm" else ("h",)
    return ["y", *(f"{kind}_{layer}" for layer in range(case.layers) for kind in kinds)]


def model(case: Case, module: nn.Module) -> bytes:
    """The serialized ONNX model of `module`, which is torch.nn's for this case."""
    from onnx import TensorProto, helper, numpy_helper

    operator = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN"}[case.cell]
    attributes: dict[str, Any] = {
        "hidden_size": case.H,
        "direction": "bidirectional" if case.directions == 2 else "forward",
    }
    if case.cell == "gru":
        attributes["linear_before_reset"] = 1  # torch's GRU: the reset gate acts on U h + b
    nodes, constants = [], []

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    x = "x"
    for layer in range(case.layers):
        weights = [
            constant(f"{n}_{layer}", t.numpy()) for n, t in zip("WRB", _weights(case, module, layer), strict=True)
        ]
        states = [name for name in state_names(case) if name.endswith(f"_{layer}")]
        last = layer == case.layers - 1
        y = "y" if last else f"y_{layer}"
        finals = [name for name in output_names(case) if name.endswith(f"_{layer}")]
        # the empty name: no sequence lengths
        nodes.append(helper.make_node(operator, [x, *weights, "", *states], [y, *finals], **attributes))
        if last:
            break
        shape = constant(f"shape_{layer}", torch.tensor([case.T, case.B, case.directions * case.H]).numpy())
        if case.directions == 2:
            nodes.append(helper.make_node("Transpose", [y], [f"t_{layer}"], perm=[0, 2, 1, 3]))
            y = f"t_{layer}"
        x = f"x_{layer + 1}"
        nodes.append(helper.make_node("Reshape", [y, shape], [x]))

    def value(name: str, shape: list[int]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    state = [case.directions, case.B, case.H]
    graph = helper.make_graph(
        nodes,
        "rnnfast",
        [value("x", [case.T, case.B, case.I]), *(value(name, state) for name in state_names(case))],
        [value(name, [case.T, *state] if name == "y" else state) for name in output_names(case)],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    serialized: bytes = made.SerializeToString()
    return serialized


def results(case: Case, outputs: dict[str, Tensor]) -> list[Tensor]:
    """What the graph gave, as torch.nn has it: y [T, B, D*H], h_n [L*D, B, H] and, of an LSTM, c_n."""
    y = outputs["y"].permute(0, 2, 1, 3).reshape(case.T, case.B, case.directions * case.H)
    kinds = ("h", "c") if case.cell == "lstm" else ("h",)
    return [y, *(torch.cat([outputs[f"{kind}_{layer}"] for layer in range(case.layers)]) for kind in kinds)]


def states(case: Case, state: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """torch.nn's h_0 (and c_0), [L*D, B, H], under the graph's names."""
    kinds = dict(zip(("h0", "c0"), state, strict=False))
    chunks = {kind: tensor.split(case.directions) for kind, tensor in kinds.items()}
    return {name: chunks[name[:2]][int(name[3:])].contiguous() for name in state_names(case)}


def _weights(case: Case, module: nn.Module, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """W [D, G*H, I], R [D, G*H, H] and B [D, 2*G*H] in ONNX's order of gates."""
    order = list(GATES[case.cell])

    def reordered(name: str, suffix: str) -> Tensor:
        tensor = module.get_parameter(f"{name}_l{layer}{suffix}").detach()
        return torch.cat([tensor.chunk(len(order))[gate] for gate in order])

    suffixes = ("", "_reverse")[: case.directions]
    w = torch.stack([reordered("weight_ih", suffix) for suffix in suffixes])
    r = torch.stack([reordered("weight_hh", suffix) for suffix in suffixes])
    b = torch.stack([torch.cat([reordered("bias_ih", s), reordered("bias_hh", s)]) for s in suffixes])
    return w, r, b
