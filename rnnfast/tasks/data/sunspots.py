# SPDX-License-Identifier: Apache-2.0
"""Yearly sunspot numbers, 1700 to 2008 (statsmodels)."""

from rnnfast.tasks.data.files import package

SEASON = 11  # years of a solar cycle, about


def sunspots() -> list[float]:
    """309 yearly values.

    Raises:
        InputError: statsmodels is not installed.
    """
    data = package("statsmodels.datasets", "the sunspot series").sunspots.load_pandas().data
    return [float(v) for v in data["SUNACTIVITY"]]
