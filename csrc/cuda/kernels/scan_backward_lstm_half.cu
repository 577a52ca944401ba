// SPDX-License-Identifier: Apache-2.0
#include "cuda/scan_backward.h"

namespace RNNFAST_NAMESPACE {

template Status scan_backward<LstmCell, Half>(const ScanBackward<Half>&, const CudaPlan&, Stream);

}  // namespace RNNFAST_NAMESPACE
