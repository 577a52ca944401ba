// SPDX-License-Identifier: Apache-2.0
#include "cuda/scan_forward.h"

namespace RNNFAST_NAMESPACE {

template Status scan_forward<GruCell, Half>(const ScanForward<Half>&, const CudaPlan&, Stream);

}  // namespace RNNFAST_NAMESPACE
