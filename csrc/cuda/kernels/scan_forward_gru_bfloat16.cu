// SPDX-License-Identifier: Apache-2.0
#include "cuda/scan_forward.h"

namespace RNNFAST_NAMESPACE {

template Status scan_forward<GruCell, BFloat16>(const ScanForward<BFloat16>&, const CudaPlan&, Stream);

}  // namespace RNNFAST_NAMESPACE
