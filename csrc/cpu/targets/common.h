// SPDX-License-Identifier: Apache-2.0
// What every target includes before its `#pragma GCC target`: all inline code here is compiled for the baseline.
#pragma once

#include <cstdint>

#include "cells/list.h"
#include "core/params.h"
#include "cpu/job.h"
#include "cpu/kernels.h"
#include "cpu/plan.h"
#include "cpu/team.h"
