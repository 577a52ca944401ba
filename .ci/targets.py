# SPDX-License-Identifier: Apache-2.0
"""Which kernels were built and tested, and by what means: the table that .ci/run ends with. Reads what the C++ tests
left in build/ (the line `targets: ...` of tests/cpp/main.cpp) and asks the extension."""

import platform
from pathlib import Path

BUILD = Path(__file__).resolve().parent.parent / "build"


def ran(build: str) -> set[str]:
    """The targets of a C++ build whose tests ran."""
    log = BUILD / build / "Testing/Temporary/LastTest.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return {name for line in lines if line.startswith("targets:") for name in line.split()[1:]}


def neon() -> str:
    """How NEON was tested."""
    if ran("neon"):
        return "natively" if platform.machine() == "aarch64" else "under an emulator (qemu-aarch64)"
    why = BUILD / "neon/not-run"
    return f"NOT TESTED: {why.read_text().strip() if why.exists() else 'make neon-test was not run'}"


def rows() -> list[tuple[str, str, str]]:
    """Target, its C++ tests, the Python tests."""
    import rnnfast._C as extension

    built, available = set(extension.isas_built()), set(extension.isas_available())
    builds = (("asan", "ASan+UBSan"), ("tsan", "TSan"), ("wide", "no sanitizer"))
    sanitizers = {name: title for name, title in builds if ran(name)}
    missing = "" if sanitizers else "C++ tests not run"
    table = []
    for target in ("avx512", "wide", "avx2", "generic"):
        by = [title for name, title in sanitizers.items() if target in ran(name)]
        how = "lowered to AVX2" if target == "wide" else "natively"
        why = "make wide-test was not run" if target == "wide" else "this processor lacks its instructions"
        core = f"{how} ({', '.join(by)})" if by else missing or f"NOT TESTED: {why}"
        if target in available:
            python = how
        elif target in built:
            python = "built; NOT TESTED: this processor lacks its instructions"
        else:
            python = "not in the product (RNNFAST_WIDE=1)" if target == "wide" else "not built"
        label = {"avx512": "avx512", "wide": "wide (AVX-512's shape)"}.get(target, target)
        table.append((f"generic ({platform.machine()})" if target == "generic" else label, core, python))
    if platform.machine() != "aarch64":
        table.append(("generic (NEON)", neon(), "another machine's"))
    return table


def main() -> None:
    table = [("target", "C++ tests", "Python tests"), *rows()]
    widths = [max(len(row[i]) for row in table) for i in range(3)]
    for i, row in enumerate(table):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if i == 0:
            print("  ".join("-" * width for width in widths))


if __name__ == "__main__":
    main()
