# SPDX-License-Identifier: Apache-2.0
"""The one place where the version stands (setup.py and pyproject.toml read it from here)."""

__version__ = "0.1.0"
