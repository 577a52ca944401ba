// SPDX-License-Identifier: Apache-2.0
#include "cuda/scan_forward.h"

namespace RNNFAST_NAMESPACE {

template Status scan_forward<ElmanCell, double>(const ScanForward<double>&, const CudaPlan&, Stream);

}  // namespace RNNFAST_NAMESPACE
