// SPDX-License-Identifier: Apache-2.0
// The checks of cpu/simd.h's primitives, one function for each target (tests/cpp/targets/*_simd.cpp). Each prints
// and returns the number of wrong results. The memory from page_start to page_end can be used, its neighbours
// cannot.
#pragma once

#include <cstdio>

#include "cpu/targets/common.h"

int simd_checks_avx512(void* page_start, void* page_end);
int simd_checks_wide(void* page_start, void* page_end);
int simd_checks_avx2(void* page_start, void* page_end);
int simd_checks_generic(void* page_start, void* page_end);
