# SPDX-License-Identifier: Apache-2.0
"""The main job: a character language model trained on real text through rnnfast's kernels."""
