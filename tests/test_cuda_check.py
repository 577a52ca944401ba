# SPDX-License-Identifier: Apache-2.0
"""The compiler gate (.ci/cuda_check.py): what it reads of ptxas, what it refuses, what it compiles again."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent

# nvcc 13.0 -Xptxas -v, as it stands.
RECORDED = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN7rnnfast4cuda10step_spillINS0_8LstmCellEfLi64EEEvNS0_1PE' for 'sm_80'
ptxas info    : Function properties for _ZN7rnnfast4cuda10step_spillINS0_8LstmCellEfLi64EEEvNS0_1PE
    312 bytes stack frame, 356 bytes spill stores, 360 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 312 bytes cumulative stack size, 368 bytes cmem[0]
ptxas info    : Compile time = 14.229 ms
ptxas info    : Function properties for __internal_trig_reduction_slowpathd
    40 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Compiling entry function '_ZN7rnnfast4cuda12scan_forwardINS0_7GruCellE6__halfLi4EEEvNS0_1PE' for 'sm_80'
ptxas info    : Function properties for _ZN7rnnfast4cuda12scan_forwardINS0_7GruCellE6__halfLi4EEEvNS0_1PE
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 18 registers, used 1 barriers, 1024 bytes smem, 368 bytes cmem[0]
ptxas info    : Compile time = 1.963 ms
"""
SPILLING, CLEAN = (
    "_ZN7rnnfast4cuda10step_spillINS0_8LstmCellEfLi64EEEvNS0_1PE",
    ("_ZN7rnnfast4cuda12scan_forwardINS0_7GruCellE6__halfLi4EEEvNS0_1PE"),
)
PTX = f"""
.visible .entry {SPILLING}(
\t.param .align 8 .b8 {SPILLING}_param_0[16]
)
.maxntid 512, 2, 1
.minnctapersm 2
{{
\tret;
}}
.visible .entry {CLEAN}(
\t.param .align 8 .b8 {CLEAN}_param_0[16]
)
.maxntid 256
.minnctapersm 1
{{
\tret;
}}
"""
KERNEL = """
namespace rnnfast::cuda {
struct Params { float* a; };
template <class S, int N>
__global__ void __launch_bounds__(THREADS, BLOCKS) NAME(Params p) {
  S x[N];
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = p.a[threadIdx.x * N + i];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < N; ++i) p.a[threadIdx.x * N + i] = x[i] * x[(i + 7) % N];
}
template __global__ void NAME<float, SIZE>(Params);
}
"""


@pytest.fixture(scope="module")
def gate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cuda_check", ROOT / ".ci/cuda_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cuda_check"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def kernel(name: str, threads: int, blocks: int, size: int) -> str:
    text = KERNEL.replace("NAME", name).replace("SIZE", str(size))
    return text.replace("THREADS", str(threads)).replace("BLOCKS", str(blocks))


def test_reads_what_ptxas_says(gate: ModuleType) -> None:
    spilling, clean = gate.parse_ptxas(RECORDED)
    assert (spilling.name, clean.name) == (SPILLING, CLEAN)
    assert (spilling.registers, spilling.stack, spilling.spill_stores, spilling.spill_loads) == (32, 312, 356, 360)
    assert (clean.registers, clean.shared, clean.stack, clean.spill_stores) == (18, 1024, 0, 0)
    gate.read_launch_bounds(PTX, [spilling, clean])
    assert (spilling.threads, spilling.blocks) == (1024, 2)
    assert (clean.threads, clean.blocks) == (256, 1)


def test_names_are_those_of_our_sources(gate: ModuleType) -> None:
    assert gate.readable(
        "void rnnfast::cuda::scan_forward<rnnfast::cuda::LstmCell, __half, (int)4>(rnnfast::cuda::P)"
    ) == ("scan_forward<LstmCell, Half, 4>")
    assert gate.readable("void rnnfast::cuda::copy(float*, int)") == "copy"
    assert gate.readable("void rnnfast::cuda::(anonymous namespace)::copy<float>(P)") == "copy<float>"
    assert gate.readable("void f<rnnfast::cuda::A<__nv_bfloat16, 8> >(P)") == "f<A<BFloat16, 8>>"


def test_registers_leave_room_for_the_blocks(gate: ModuleType) -> None:
    assert gate.Kernel("a", registers=255, threads=256).resident == 1
    assert gate.Kernel("a", registers=128, threads=256).resident == 2
    assert gate.Kernel("a", registers=129, threads=256).resident == 1  # given out in eights
    assert gate.Kernel("a", registers=32, threads=1024).resident == 2
    assert gate.Kernel("a", registers=32, threads=33).resident == 32  # whole warps


def test_what_is_refused(gate: ModuleType) -> None:
    def complaints(name: str = "step_forward", **facts: int) -> str:
        return "; ".join(gate.complaints(gate.Kernel(name, **{"registers": 64, "threads": 256, **facts}), 256))

    assert complaints() == complaints(stack=16) == complaints("scan_forward", registers=255) == ""
    assert "spills: 4 bytes stored" in complaints(spill_stores=4)
    assert "spills" in complaints(spill_loads=4)
    assert "local memory in a scan" in complaints("scan_forward", stack=16)
    assert "no launch bounds" in complaints(threads=0)
    assert "65 registers x 256 threads: 3 blocks fit a multiprocessor, 4 must" in complaints(registers=65, blocks=4)
    assert "the plan counts on (256, 1)" in complaints("scan_forward", threads=128)
    assert gate.scan_threads() == 256


def test_the_table(gate: ModuleType) -> None:
    a = gate.Kernel("scan<A>", registers=96, threads=256)
    b = gate.Kernel("scan<A>", registers=255, threads=256, spill_stores=8, spill_loads=12, stack=8, shared=64)
    outcomes = [gate.Outcome(Path("a.cu"), "80", [a]), gate.Outcome(Path("a.cu"), "90", [b])]
    outcomes.append(gate.Outcome(Path("b.cu"), "80", [gate.Kernel("copy", registers=8, threads=128)]))
    rows = [line for line in gate.table(outcomes, "nvcc 1", "0123").splitlines() if line.startswith("|")]
    assert rows[0] == "| kernel | threads, blocks | sm_80 | sm_90 |"
    assert rows[2] == "| `copy` | 128, 1 | 8 | not built |"
    assert rows[3] == "| `scan<A>` | 256, 1 | 96 | 255; 64 B shared; SPILLS 8 + 12 B; 8 B local |"


def test_without_a_compiler(gate: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(gate, "find_nvcc", lambda: None)
    assert gate.main([]) == 2
    assert gate.main(["--ci"]) == 0
    assert capsys.readouterr().out.count("NOT CHECKED: no nvcc") == 2


def test_compiles_and_complains(gate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """For real: a clean kernel, one that spills, one that does not compile; unchanged ones are not compiled again."""
    if gate.find_nvcc() is None:
        pytest.skip("no nvcc")
    clean, spills, wrong = (tmp_path / f"{name}.cu" for name in ("clean", "spills", "wrong"))
    header = tmp_path / "size.h"
    header.write_text("#define SIZE 4\n")
    clean.write_text('#include "size.h"\n' + kernel("scan_clean", 256, 1, 4).replace(", 4>", ", SIZE>"))
    spills.write_text(kernel("step_spills", 1024, 2, 64))
    wrong.write_text("int main() { int unused = 0; }\n")

    def check(*paths: Path) -> tuple[int, str]:
        arguments = [*map(str, paths), "--archs", "80", "--cache", str(tmp_path / "cache"), "--jobs", "1"]
        code = gate.main([*arguments, "--table", str(tmp_path / "table.md")])
        return code, capsys.readouterr().out

    code, output = check(clean)
    assert code == 0, output
    assert "1 of 1 compilations due" in output
    assert "| `scan_clean<float, 4>` | 256, 1 | " in (tmp_path / "table.md").read_text()
    code, output = check(clean, spills)
    assert code == 1
    assert "sm_80: step_spills<float, 64>: spills: " in output
    assert "1 of 2 compilations due" in output
    code, output = check(clean, spills)
    assert code == 1, "a kept result must go on failing"
    assert "0 of 2 compilations due" in output
    header.write_text("#define SIZE 8\n")
    assert "1 of 2 compilations due" in check(clean, spills)[1]
    code, output = check(wrong)
    assert code == 1
    assert "wrong.cu, sm_80: does not compile" in output, "warnings are errors"
    assert "1 of 1 compilations due" in check(wrong)[1], "a failure is not kept"


def test_comments_do_not_count(gate: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "kernel.cu"
    file.write_text('int x = 1;  // one\n\n// of "them"\nconst char* at = "https://host";\n')
    plain = gate.digest_of([file])
    file.write_text('// first\nint x = 1;\nconst char* at = "https://host";  // where\n')
    assert gate.digest_of([file]) == plain
    assert '"https://host"' in gate.code_of(file)
    file.write_text('int x = 2;\nconst char* at = "https://host";\n')
    assert gate.digest_of([file]) != plain


def test_the_kept_table_is_of_these_kernels(gate: ModuleType) -> None:
    """docs/cuda-kernels.md, of the sources as they stand (`make cuda-check` writes it), has no spill."""
    text = (ROOT / "docs/cuda-kernels.md").read_text(encoding="utf-8")
    assert f"Sources: {gate.digest_of(gate.all_sources())[:16]}." in text, "make cuda-check writes the table anew"
    assert "SPILLS" not in text
    assert all(f"sm_{architecture}" in text for architecture in gate.ARCHITECTURES)
