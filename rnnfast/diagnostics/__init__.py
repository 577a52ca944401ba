# SPDX-License-Identifier: Apache-2.0
"""What a recurrent module does to the error signal on its way back through time."""

from rnnfast.diagnostics.flow import GradientFlow, gradient_flow

__all__ = ["GradientFlow", "gradient_flow"]
