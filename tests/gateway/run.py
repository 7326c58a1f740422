# SPDX-License-Identifier: Apache-2.0
"""Runs test functions without pytest: ``run.py FILE...``; ends with 1 when one of them failed."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def main() -> int:
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    wanted = [a[2:] for a in sys.argv[1:] if a.startswith("-k")]
    passed = failed = 0
    for name in (a for a in sys.argv[1:] if not a.startswith("-k")):
        module = load(Path(name))
        tests = [v for k, v in vars(module).items() if k.startswith("test_") and callable(v)]
        for test in tests:
            if wanted and not any(w in test.__name__ for w in wanted):
                continue
            try:
                test()
            except BaseException:
                failed += 1
                print(f"FAILED {module.__name__}.{test.__name__}", flush=True)
                traceback.print_exc()
            else:
                passed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
