// SPDX-License-Identifier: Apache-2.0
// What every target includes before its RNNFAST_TARGET_BEGIN: all inline code here is compiled for the baseline.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "cells/list.h"
#include "core/params.h"
#include "cpu/job.h"
#include "cpu/kernels.h"
#include "cpu/plan.h"
#include "cpu/team.h"

#define RNNFAST_PRAGMA(text) _Pragma(#text)

// Functions between the two are compiled for these instructions.
#if defined(__clang__)
#define RNNFAST_TARGET_BEGIN(features) \
  RNNFAST_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define RNNFAST_TARGET_END RNNFAST_PRAGMA(clang attribute pop)
#else
#define RNNFAST_TARGET_BEGIN(features) RNNFAST_PRAGMA(GCC push_options) RNNFAST_PRAGMA(GCC target(features))
#define RNNFAST_TARGET_END RNNFAST_PRAGMA(GCC pop_options)
#endif

#define RNNFAST_AVX2_FEATURES "avx2,fma,bmi,bmi2"
#define RNNFAST_AVX512_FEATURES "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,bmi,bmi2"
