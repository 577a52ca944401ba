// SPDX-License-Identifier: Apache-2.0
// Every cell's mathematics, in the namespace RNNFAST_NAMESPACE.
#pragma once

#include "cells/elman.h"
#include "cells/gru.h"
#include "cells/lstm.h"
