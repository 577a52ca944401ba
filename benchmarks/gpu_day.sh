#!/usr/bin/env bash
# The day of a GPU: builds for the device here, runs the kernel tests on it, compute-sanitizer on a few calls, and
# every path against torch.nn (cuDNN). One command, under nine minutes, no network; torch with CUDA, nvcc, ninja, numpy
# and pytest are there.
#
#   benchmarks/gpu_day.sh [--out DIR] [--minutes N] [--rehearse]
#
# DIR (default: benchmarks/results/local/gpu-day) gets summary.txt, gpu.json (the benchmark), device.txt, the results
# of the tests as XML, and a log of each part. Each part has its time, more of it with --minutes above 8.5; one that
# does not finish in it is stopped and reported, and the next begins. What the benchmark needs is kept for it.
# Exit status: 0, all done and right; 1, something failed; 2, nothing to run on; 3, something was not run or not finished.
# --rehearse: the same on a machine without a GPU: the extension as it stands, the tests on the emulator, the
# benchmark's program on the CPU with tiny shapes. PYTHON: the interpreter (default: .venv/bin/python, else python3).
set -uo pipefail
cd "$(dirname "$0")/.."
out=benchmarks/results/local/gpu-day minutes=8.5 rehearse=
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=${2:?--out needs a folder}; shift ;;
    --minutes) minutes=${2:?--minutes needs a number}; shift ;;
    --rehearse) rehearse=1 ;;
    *) echo "gpu_day: expected --out DIR, --minutes N or --rehearse, got '$1'" >&2; exit 2 ;;
  esac
  shift
done
[[ $minutes =~ ^[0-9]+(\.[0-9]+)?$ ]] || { echo "gpu_day: --minutes: expected a number, got '$minutes'" >&2; exit 2; }
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || command -v python3)}
total=$(awk "BEGIN { print int(60 * $minutes) }")
mkdir -p "$out"
rm -f "$out"/*.log "$out/gpu.json" "$out/tests.xml" "$out/device.txt"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
failed=0 incomplete=0
reserve=$((130 * total / 510)) # seconds that are the benchmark's

say() { echo "$1" | tee -a "$out/summary.txt"; }
left() { echo $((total - SECONDS)); }
# So many seconds of the 510, or their share of a longer day.
share() { echo $(($1 * (total > 510 ? total : 510) / 510)); }

# The exit status so far.
status() { echo $((failed ? 1 : incomplete ? 3 : 0)); }

# part NAME SECONDS COMMAND...: within its own time and what is left of the whole; 0 where it succeeded.
part() {
  local name=$1 limit=$2 code=0 begin=$SECONDS
  shift 2
  local most=$(($(left) - reserve))
  [ "$limit" -le "$most" ] || limit=$most
  if [ "$limit" -lt 5 ]; then
    say "$name: NOT RUN, no time left"
    incomplete=1
    return 1
  fi
  # An interrupt, also where a script in the background ignores it: pytest then still tells what failed.
  timeout --signal=INT --kill-after=10 "$limit" env --default-signal=INT "$@" >"$out/$name.log" 2>&1 || code=$?
  local took=$((SECONDS - begin)) last
  last=$(grep -v '^ *$' "$out/$name.log" | tail -n 1 | cut -c 1-200)
  case $code in
    0) say "$name: done in $took s: $last" ;;
    124 | 137) say "$name: UNFINISHED, stopped after $took s: $last"; incomplete=1 ;;
    3) say "$name: UNFINISHED in its time, $took s: $last"; incomplete=1 ;;
    *) say "$name: FAILED ($code) after $took s: $last"; failed=1 ;;
  esac
  return $code
}

: >"$out/summary.txt"
say "gpu day, at most $total s$([ -n "$rehearse" ] && echo ', a rehearsal without a GPU')"
say "commit $(git describe --always --dirty 2>/dev/null || echo unknown), $(date -u +%Y-%m-%dT%H:%MZ)"
if [ -z "$rehearse" ]; then
  "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null ||
    { say "NOT RUN: torch sees no CUDA device (--rehearse needs none)"; exit 2; }
  {
    nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,clocks.sm,temperature.gpu --format=csv,noheader
    nvidia-smi -q -d CLOCK,COMPUTE,PERFORMANCE
    "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" --version || nvcc --version
  } >"$out/device.txt" 2>&1
  head -n 1 "$out/device.txt"
  # For the device that is here, whatever an image's environment lists.
  part build "$(share 270)" env -u TORCH_CUDA_ARCH_LIST RNNFAST_CUDA=1 RNNFAST_EMULATOR=0 MAX_JOBS="$(nproc)" "$python" setup.py --quiet build_ext --inplace ||
    { say "nothing can be measured without the extension: $out/build.log"; exit "$(status)"; }
fi
part info 30 "$python" -m rnnfast info

# The kernels' tests, those of tests/cuda_devices.py, are of two devices, emulated and cuda, the modules' of cpu and
# cuda. Of the build above the emulator is no part; conftest.py needs packages that need not be here, and these tests nothing of it.
where=$([ -n "$rehearse" ] && echo "emulated or cpu" || echo "not emulated and not cpu")
files=$(grep -lE '^from tests\.cuda_devices import .*DEVICES\b' tests/test_*.py || true)
if [ -z "$files" ]; then
  say "tests: NOT RUN, no test has the devices of tests/cuda_devices.py"
  failed=1
else
  part tests "$(share 120)" "$python" -m pytest $files -q --no-header --noconftest -p no:cacheprovider \
    -m "not full and not slow" -k "$where" --maxfail=20 --durations=5 --junit-xml "$out/tests.xml"
fi

sanitizer=$(command -v compute-sanitizer || command -v "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")
if [ -n "$rehearse" ]; then
  part smoke 60 "$python" -m benchmarks.gpu --smoke --rehearse --seconds 20
elif [ -z "$sanitizer" ]; then
  say "sanitizer: NOT RUN, no compute-sanitizer"
  incomplete=1
  part smoke 60 "$python" -m benchmarks.gpu --smoke --seconds 30
else
  # Of a longer day also the barriers.
  for tool in memcheck racecheck $([ "$total" -lt 900 ] || echo synccheck); do
    part "$tool" "$(share 45)" "$sanitizer" --tool $tool --error-exitcode 7 --print-limit 20 \
      "$python" -m benchmarks.gpu --smoke --seconds "$(share 20)"
  done
fi

# torch's import and the case at work do not count in the benchmark's own seconds.
reserve=0
rest=$(($(left) - 25))
[ -z "$rehearse" ] || [ "$rest" -lt 40 ] || rest=40
part benchmark $((rest + 20)) "$python" -m benchmarks.gpu --seconds "$rest" --out "$out/gpu.json" \
  ${rehearse:+--rehearse}
cat "$out/benchmark.log" 2>/dev/null
echo
cat "$out/summary.txt"
exit "$(status)"
