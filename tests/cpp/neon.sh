#!/usr/bin/env bash
# The C++ tests of the torch-free core for AArch64 (the generic target becomes NEON code), under qemu's user mode. The
# cross compiler and the emulator are installed where they can be (Debian's packages, as root). Where they cannot,
# build/neon/not-run says why, and so does the last line printed; that is no failure.
set -euo pipefail
cd "$(dirname "$0")/../.."
CMAKE=${CMAKE:-cmake} CTEST=${CTEST:-ctest}
PACKAGES="g++-aarch64-linux-gnu qemu-user"
build=build/neon

not_run() {
  mkdir -p $build
  echo "$1" >$build/not-run
  echo "NEON WAS NOT TESTED: $1"
  exit 0
}
found() { command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null; }

mkdir -p $build
rm -f $build/not-run $build/Testing/Temporary/LastTest.log
if [ "$(uname -m)" = aarch64 ]; then
  "$CMAKE" -S . -B $build -Wno-dev >/dev/null
else
  if ! found; then
    command -v apt-get >/dev/null || not_run "needs aarch64-linux-gnu-g++ and qemu-aarch64 (Debian: $PACKAGES)"
    [ "$(id -u)" = 0 ] || not_run "not root, so not installed: apt-get install $PACKAGES"
    # A package that is not to be had answers at once; a network that hangs must not hold up the rest.
    { timeout 300 apt-get update -qq && timeout 600 apt-get install -y -qq --no-install-recommends $PACKAGES; } \
      >$build/apt.log 2>&1 || not_run "apt-get install $PACKAGES failed: $(tail -n 1 $build/apt.log)"
    found || not_run "$PACKAGES are installed, but not in PATH"
  fi
  qemu-aarch64 --version | head -n 1
  "$CMAKE" -S . -B $build -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
    "-DCMAKE_CROSSCOMPILING_EMULATOR=$(command -v qemu-aarch64);-L;/usr/aarch64-linux-gnu" -Wno-dev >/dev/null
fi
"$CMAKE" --build $build -j "${JOBS:-2}"
"$CTEST" --test-dir $build --output-on-failure
