# SPDX-License-Identifier: Apache-2.0
"""Models built of rnnfast's modules."""

from rnnfast.models.language_model import LanguageModel

__all__ = ["LanguageModel"]
