# SPDX-License-Identifier: Apache-2.0
"""The classic uses of a recurrent net on real data: `rnnfast train TASK` and `rnnfast run MODEL`.

`data/` reads files, `training.py` is the loop that all tasks share, and one file a task says what is special about it.
"""
