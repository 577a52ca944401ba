// SPDX-License-Identifier: Apache-2.0
// What every target includes before its `#pragma GCC target`: all inline code here is compiled for the baseline.
#pragma once

#include <cstdint>

#include "core/params.h"
#include "cpu/kernels.h"
#include "cpu/lstm_job.h"
#include "cpu/plan.h"
#include "cpu/team.h"
