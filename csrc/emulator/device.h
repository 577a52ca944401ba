// SPDX-License-Identifier: Apache-2.0
// What csrc/cuda/primitives needs of the emulator (docs/emulator.md).
#pragma once

#include "emulator/half.h"
#include "emulator/machine.h"
#include "emulator/thread.h"
#include "emulator/views.h"
#include "emulator/warp.h"
