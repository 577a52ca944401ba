# SPDX-License-Identifier: Apache-2.0
"""`python -m rnnfast`."""

import sys

from rnnfast.cli import main

sys.exit(main())
