# SPDX-License-Identifier: Apache-2.0
"""The version stands in two places: what Meson builds, and what `import pelton` says."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_package_says_the_version_that_is_built() -> None:
    built = re.search(r"version: '([^']+)'", (ROOT / "meson.build").read_text())
    said = re.search(r'__version__ = "([^"]+)"', (ROOT / "pelton" / "__init__.py").read_text())
    assert built
    assert said
    assert built[1] == said[1]
