# SPDX-License-Identifier: Apache-2.0
"""Compiles every csrc/cuda/**/*.cu with nvcc for several architectures, warnings as errors, and reads what ptxas says
of each kernel: registers, shared memory, spills. Fails on a spill, on local memory in a scan, and where registers
times threads do not leave room for the blocks that must be resident. `make cuda-check`; no GPU needed.

Only what changed is compiled: what a file, its headers (without their comments), the flags and the compiler gave is
kept in build/cuda-check, or in $CUDA_CHECK_CACHE, which several checkouts may share.
"""

import argparse
import hashlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = ("75", "80", "90", "120")
FLAGS = ("-std=c++17", "-Icsrc", "--expt-relaxed-constexpr", "-O3", "-Werror", "all-warnings", "-Xptxas", "-v")
REGISTERS = 65536  # of a multiprocessor, on every architecture here
WARP, GRANULE = 32, 8  # registers of a thread are given out in eights

NO_NVCC = "no nvcc (CUDA toolkit 12.8 or newer): set NVCC or CUDA_HOME, or put it in PATH"


@dataclass
class Kernel:
    """What ptxas says of one kernel on one architecture."""

    name: str
    registers: int = 0
    shared: int = 0  # static, bytes
    stack: int = 0  # local memory, bytes
    spill_stores: int = 0
    spill_loads: int = 0
    threads: int = 0  # __launch_bounds__: of a block, at most; 0: not said
    blocks: int = 1  # ... blocks that must be resident on a multiprocessor

    @property
    def resident(self) -> int:
        """Blocks of so many threads that the registers of a multiprocessor hold."""
        warps = -(-max(self.threads, 1) // WARP)
        each = -(-max(self.registers, 1) // GRANULE) * GRANULE
        return REGISTERS // (each * WARP * warps)


def parse_ptxas(text: str) -> list[Kernel]:
    """The kernels of `nvcc -Xptxas -v`'s output, mangled names."""
    kernels: list[Kernel] = []
    properties = ""
    for line in text.splitlines():
        if found := re.search(r"Compiling entry function '(\S+)' for", line):
            kernels.append(Kernel(found[1]))
            properties = found[1]
        elif found := re.search(r"Function properties for (\S+)", line):
            properties = found[1]
        elif not kernels or properties != kernels[-1].name:
            continue  # of a device function that was not inlined: its stack counts in the kernel's own line
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            kernels[-1].stack, kernels[-1].spill_stores, kernels[-1].spill_loads = map(int, found.groups())
        elif found := re.search(r"Used (\d+) registers", line):
            kernels[-1].registers = int(found[1])
            if found := re.search(r"(\d+) bytes smem", line):
                kernels[-1].shared = int(found[1])
            if found := re.search(r"(\d+) bytes cumulative stack size", line):
                kernels[-1].stack = max(kernels[-1].stack, int(found[1]))
    return kernels


def read_launch_bounds(ptx: str, kernels: list[Kernel]) -> None:
    """Fills in threads and blocks from PTX's .maxntid and .minnctapersm."""
    bounds = {}
    for entry in re.finditer(r"\.entry\s+(\w+)\s*\(.*?\)(.*?)\{", ptx, re.DOTALL):
        threads = re.search(r"\.maxntid\s+(\d+)(?:,\s*(\d+))?(?:,\s*(\d+))?", entry[2])
        blocks = re.search(r"\.minnctapersm\s+(\d+)", entry[2])
        product = 1
        for count in threads.groups() if threads else ():
            product *= int(count or 1)
        bounds[entry[1]] = (product if threads else 0, int(blocks[1]) if blocks else 1)
    for kernel in kernels:
        kernel.threads, kernel.blocks = bounds.get(kernel.name, (0, 1))


def demangle(names: list[str]) -> list[str]:
    """As our sources write them: `scan_forward<LstmCell, float, 4>`; as they are where there is no c++filt."""
    if not names or shutil.which("c++filt") is None:
        return names
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return [readable(line) for line in text.splitlines()]


def readable(name: str) -> str:
    """Without return type, namespaces, parameters and the compiler's names of types."""
    name = name.removeprefix("void ")
    spellings = (
        ("", "rnnfast::cuda::"),
        ("", "rnnfast::"),
        ("", "(anonymous namespace)::"),
        ("Half", "__half"),
        ("BFloat16", "__nv_bfloat16"),
    )
    for ours, theirs in spellings:
        name = name.replace(theirs, ours)
    name = re.sub(r"\((?:int|bool|unsigned int)\)", "", name)  # template arguments: (int)4
    while "> >" in name:
        name = name.replace("> >", ">>")
    depth = 0
    for i, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            return name[:i]
    return name


def scan_threads() -> int:
    """kScanThreads of csrc/cuda/plan.h: what the plan counts with."""
    found = re.search(r"kScanThreads = (\d+)", (ROOT / "csrc/cuda/plan.h").read_text())
    assert found, "csrc/cuda/plan.h names no kScanThreads"
    return int(found[1])


def complaints(kernel: Kernel, threads_of_scan: int) -> list[str]:
    """What is wrong with a kernel."""
    wrong = []
    scan = kernel.name.startswith("scan_")
    if kernel.spill_stores or kernel.spill_loads:
        wrong.append(f"spills: {kernel.spill_stores} bytes stored, {kernel.spill_loads} loaded")
    elif kernel.stack and scan:
        wrong.append(f"{kernel.stack} bytes of local memory in a scan: an array that is not indexed by constants")
    if kernel.threads == 0:
        wrong.append("no launch bounds (RNNFAST_KERNEL)")
    elif kernel.resident < kernel.blocks:
        wrong.append(
            f"{kernel.registers} registers x {kernel.threads} threads: {kernel.resident} blocks fit a multiprocessor, "
            f"{kernel.blocks} must"
        )
    if scan and (kernel.threads, kernel.blocks) != (threads_of_scan, 1):
        wrong.append(
            f"launch bounds ({kernel.threads}, {kernel.blocks}); the plan counts on ({threads_of_scan}, 1) for a scan"
        )
    return wrong


def find_nvcc() -> str | None:
    """The compiler: $NVCC, $CUDA_HOME's, PATH's, the usual place."""
    home = os.environ.get("CUDA_HOME")
    for name in (os.environ.get("NVCC"), f"{home}/bin/nvcc" if home else None, "nvcc", "/usr/local/cuda/bin/nvcc"):
        if name and shutil.which(name):
            return shutil.which(name)
    return None


def sources_of(path: Path, seen: set[Path] | None = None) -> set[Path]:
    """A file and all of ours that it includes."""
    seen = set() if seen is None else seen
    if path in seen:
        return seen
    seen.add(path)
    for name in re.findall(r'^\s*#\s*include\s*"(.+?)"', path.read_text(), re.MULTILINE):
        for folder in (path.parent, ROOT / "csrc"):
            if (folder / name).is_file():
                sources_of((folder / name).resolve(), seen)
                break
    return seen


def code_of(path: Path) -> str:
    """A source without its comments and blank space at the ends of lines."""
    kept = re.sub(r'("(?:\\.|[^"\\\n])*")|//[^\n]*', lambda m: m[1] or "", path.read_text())
    return "\n".join(line.strip() for line in kept.splitlines() if line.strip())


def digest_of(paths: list[Path], *more: object) -> str:
    """Changes with the code of the files and of all of ours that they include."""
    digest = hashlib.sha256(repr(more).encode())
    for source in sorted({source for path in paths for source in sources_of(path.resolve())}):
        digest.update(f"{source.relative_to(ROOT) if source.is_relative_to(ROOT) else source}".encode())
        digest.update(code_of(source).encode())
    return digest.hexdigest()


def key_of(path: Path, architecture: str, compiler: str) -> str:
    """Changes with anything that the result depends on."""
    reading = [inspect.getsource(part) for part in (Kernel, parse_ptxas, read_launch_bounds, demangle, readable)]
    return digest_of([path], FLAGS, architecture, compiler, reading)


def all_sources() -> list[Path]:
    """Every .cu file of the kernels."""
    return sorted((ROOT / "csrc/cuda").rglob("*.cu"))


@dataclass
class Outcome:
    """One file compiled for one architecture, now or before."""

    path: Path
    architecture: str
    kernels: list[Kernel]
    seconds: float = 0
    kept: bool = False  # nothing had changed
    error: str = ""


def compile_one(path: Path, architecture: str, nvcc: str, compiler: str, cache: Path) -> Outcome:
    """Compiles, or reads what compiling gave."""
    label = "-".join(path.resolve().relative_to(ROOT).with_suffix("").parts) if path.is_relative_to(ROOT) else path.stem
    record = cache / f"{label}.sm_{architecture}.json"
    key = key_of(path, architecture, compiler)
    if record.exists():
        kept = json.loads(record.read_text())
        if kept["key"] == key:
            return Outcome(path, architecture, [Kernel(**k) for k in kept["kernels"]], kept["seconds"], kept=True)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cuda-check-") as folder:
        target = f"arch=compute_{architecture},code=sm_{architecture}"
        command = [nvcc, *FLAGS, "-gencode", target, "--keep", "--keep-dir", folder, "-c", str(path)]
        done = subprocess.run(
            [*command, "-o", f"{folder}/object.o"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        output = done.stdout + done.stderr
        if done.returncode:
            return Outcome(path, architecture, [], time.monotonic() - begin, error=output.strip())
        kernels = parse_ptxas(output)
        for ptx in Path(folder).glob("*.ptx"):
            read_launch_bounds(ptx.read_text(), kernels)
    for kernel, name in zip(kernels, demangle([k.name for k in kernels]), strict=True):
        kernel.name = name
    seconds = time.monotonic() - begin
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"key": key, "seconds": seconds, "kernels": [asdict(k) for k in kernels]}))
    return Outcome(path, architecture, kernels, seconds)


def table(outcomes: list[Outcome], compiler: str, digest: str) -> str:
    """docs/cuda-kernels.md: a row for each kernel, a column for each architecture."""
    architectures = list(dict.fromkeys(o.architecture for o in outcomes))
    rows: dict[str, dict[str, Kernel]] = {}
    for outcome in outcomes:
        for kernel in outcome.kernels:
            rows.setdefault(kernel.name, {})[outcome.architecture] = kernel
    lines = [
        "# CUDA kernels: what the compiler says",
        "",
        f"Written by `make cuda-check` ({compiler}). Registers of a thread; bytes of static shared memory, spills and",
        "local memory where there are any. Threads, blocks: the launch bounds, i.e. threads of a block at most, and",
        "blocks that must be resident on a multiprocessor; what registers leave room for is checked. Dynamic shared",
        f"memory is the plan's (csrc/cuda/footprint.h; docs/cuda.md). Sources: {digest[:16]}.",
        "",
        "| kernel | threads, blocks | " + " | ".join(f"sm_{a}" for a in architectures) + " |",
        "| --- | --- |" + " --- |" * len(architectures),
    ]
    for name in sorted(rows):
        kernels = rows[name]
        first = next(iter(kernels.values()))
        cells = [_cell(kernels.get(a)) for a in architectures]
        lines.append(f"| `{name}` | {first.threads}, {first.blocks} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(kernel: Kernel | None) -> str:
    if kernel is None:
        return "not built"
    parts = [str(kernel.registers)]
    if kernel.shared:
        parts.append(f"{kernel.shared} B shared")
    if kernel.spill_stores or kernel.spill_loads:
        parts.append(f"SPILLS {kernel.spill_stores} + {kernel.spill_loads} B")
    if kernel.stack:
        parts.append(f"{kernel.stack} B local")
    return "; ".join(parts)


def check(paths: list[Path], architectures: list[str], nvcc: str, cache: Path, jobs: int) -> tuple[list[Outcome], str]:
    """Compiles all; what each gave, in order, and the compiler's version."""
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"V(\d+\.\d+\.\d+)", version)
    compiler = f"nvcc {found[1] if found else version.strip()}"
    work = [(path, architecture) for path in paths for architecture in architectures]
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(lambda w: compile_one(*w, nvcc, compiler, cache), work))
    return outcomes, compiler


def main(arguments: list[str] | None = None) -> int:
    """0: all is well; 1: something is not; 2: nothing could be checked (0 with --ci)."""
    parser = argparse.ArgumentParser(prog="cuda-check", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="default: csrc/cuda/**/*.cu")
    parser.add_argument("--archs", default=" ".join(ARCHITECTURES), help='as "80 90" (default: %(default)s)')
    parser.add_argument("--jobs", type=int, default=2)
    cache = Path(os.environ.get("CUDA_CHECK_CACHE") or ROOT / "build/cuda-check")
    parser.add_argument("--cache", type=Path, default=cache, help="(default: $CUDA_CHECK_CACHE, or build/cuda-check)")
    parser.add_argument("--table", type=Path, help="write the table there, where all architectures are checked")
    parser.add_argument("--ci", action="store_true", help="no nvcc is no failure, but said")
    args = parser.parse_args(arguments)
    nvcc = find_nvcc()
    if nvcc is None:
        print(f"CUDA kernels NOT CHECKED: {NO_NVCC}")
        return 0 if args.ci else 2
    paths = [p.resolve() for p in args.files] or all_sources()
    architectures = [a.removeprefix("sm_") for a in re.split(r"[\s,;]+", args.archs) if a]
    if not paths:
        print("CUDA kernels NOT CHECKED: no .cu files in csrc/cuda")
        return 0
    begin = time.monotonic()
    outcomes, compiler = check(paths, architectures, nvcc, args.cache, args.jobs)
    failed = False
    threads = scan_threads()
    for outcome in outcomes:
        path = outcome.path.relative_to(ROOT) if outcome.path.is_relative_to(ROOT) else outcome.path
        if outcome.error:
            failed = True
            print(f"{path}, sm_{outcome.architecture}: does not compile\n{outcome.error}")
        for kernel in outcome.kernels:
            for wrong in complaints(kernel, threads):
                failed = True
                print(f"{path}, sm_{outcome.architecture}: {kernel.name}: {wrong}")
    whole = not args.files and tuple(architectures) == ARCHITECTURES
    if args.table and (whole or args.files) and not failed:
        args.table.write_text(table(outcomes, compiler, digest_of(paths)))
    slowest = max(outcomes, key=lambda o: o.seconds)
    fresh = [o for o in outcomes if not o.kept]
    print(
        f"{sum(len(o.kernels) for o in outcomes)} kernels of {len(paths)} files for "
        f"{', '.join(f'sm_{a}' for a in architectures)} ({compiler}): {'FAILED' if failed else 'no complaint'}; "
        f"{len(fresh)} of {len(outcomes)} compilations due, {time.monotonic() - begin:.0f} s with {args.jobs} jobs "
        f"(slowest: {slowest.path.name}, sm_{slowest.architecture}, {slowest.seconds:.0f} s)"
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
