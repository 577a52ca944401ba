# SPDX-License-Identifier: Apache-2.0
"""Readers of data, one file a format. Whatever is wrong with a file, they raise InputError: file, line, what was
expected, what was there."""
