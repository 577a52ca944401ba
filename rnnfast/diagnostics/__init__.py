# SPDX-License-Identifier: Apache-2.0
"""What a recurrent module does to the error signal on its way back through time."""

from rnnfast.diagnostics.flow import GradientFlow, gradient_flow
from rnnfast.diagnostics.spectral import MemoryRow, SpectralReport, SpectralRow, spectral_report

__all__ = ["GradientFlow", "MemoryRow", "SpectralReport", "SpectralRow", "gradient_flow", "spectral_report"]
