# SPDX-License-Identifier: Apache-2.0
"""The benchmark: `rnnfast bench`. In a checkout this folder is the package `benchmarks`, in a wheel
`rnnfast.benchmarks`; its modules therefore import each other relatively."""
