// SPDX-License-Identifier: Apache-2.0
// What a kernel's source may use of the machine: threads, blocks, barriers. One body for CUDA, one for the emulator
// (csrc/emulator), which runs the same source on the host. All else in csrc/cuda is C++17 that both compilers
// accept; only the headers of this folder hold intrinsics.
//
// Grids have up to two dimensions, blocks one. Threads of a block: a multiple of 32.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define RNNFAST_NAMESPACE rnnfast::cuda
#define RNNFAST_DEVICE __device__ __forceinline__
// The threads a block may have at most, and the blocks of a multiprocessor that must be resident: the compiler's
// limit of registers follows from both.
#define RNNFAST_KERNEL(max_threads, min_blocks) __global__ void __launch_bounds__(max_threads, min_blocks)
#elif defined(RNNFAST_EMULATE)
#define RNNFAST_NAMESPACE rnnfast::emulated
#define RNNFAST_DEVICE inline
#define RNNFAST_KERNEL(max_threads, min_blocks) void
#include "emulator/device.h"
#else
#error "csrc/cuda is compiled by nvcc, or by the host compiler with RNNFAST_EMULATE (csrc/emulator)"
#endif

// A place at which a test may break the kernel on the emulator: if (!RNNFAST_MUTATION("name")) sync_block(); the
// device's code is as if it were not there.
#if defined(__CUDACC__)
#define RNNFAST_MUTATION(name) false
#else
#define RNNFAST_MUTATION(name) ::rnnfast::emulator::mutation(name)
#endif

namespace RNNFAST_NAMESPACE {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

#if defined(__CUDACC__)

RNNFAST_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
RNNFAST_DEVICE int block_threads() { return static_cast<int>(blockDim.x); }
RNNFAST_DEVICE int block_index() { return static_cast<int>(blockIdx.x); }
RNNFAST_DEVICE int block_index_y() { return static_cast<int>(blockIdx.y); }
RNNFAST_DEVICE int grid_blocks() { return static_cast<int>(gridDim.x); }
RNNFAST_DEVICE int grid_blocks_y() { return static_cast<int>(gridDim.y); }

// All threads of the block must reach it; orders their accesses to shared and global memory.
RNNFAST_DEVICE void sync_block() { __syncthreads(); }
// All lanes of the warp must reach it; orders their accesses.
RNNFAST_DEVICE void sync_warp() { __syncwarp(kAllLanes); }

#else

inline int thread_index() { return emulator::thread().index; }
inline int block_threads() { return emulator::thread().block_threads; }
inline int block_index() { return emulator::thread().block_x; }
inline int block_index_y() { return emulator::thread().block_y; }
inline int grid_blocks() { return emulator::thread().grid_x; }
inline int grid_blocks_y() { return emulator::thread().grid_y; }
inline void sync_block() { emulator::sync_block(); }
inline void sync_warp() { emulator::sync_warp(); }

#endif

RNNFAST_DEVICE int lane_index() { return thread_index() % kWarp; }
RNNFAST_DEVICE int warp_index() { return thread_index() / kWarp; }
RNNFAST_DEVICE int block_warps() { return block_threads() / kWarp; }

}  // namespace RNNFAST_NAMESPACE
