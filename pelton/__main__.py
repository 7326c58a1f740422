# SPDX-License-Identifier: Apache-2.0
"""``python -m pelton``: the same as the ``pelton`` command."""

import sys

from pelton import main

if __name__ == "__main__":
    sys.exit(main())
