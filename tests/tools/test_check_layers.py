# SPDX-License-Identifier: Apache-2.0
"""tools/check_layers.py: a small tree with one breach of each kind, and one without any."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "check_layers.py"
SPDX = "/* SPDX-License-Identifier: Apache-2.0 */\n"

spec = importlib.util.spec_from_file_location("check_layers", TOOL)
check_layers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_layers)


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write(tmp_path, "src/base/list.h", SPDX)
    write(tmp_path, "src/http/h1.c", SPDX + '#include "base/list.h"\n#include <errno.h>\n')
    write(tmp_path, "src/gateway/wsgi.c", SPDX + '#include <Python.h>\n#include "cores/core.h"\n')
    write(tmp_path, "src/main/module.c", SPDX + "#include <Python.h>\n")
    return tmp_path


def test_a_good_tree_is_in_order(tree: Path) -> None:
    assert check_layers.check(tree) == []


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("src/base/bad.c", '#include "loop/loop.h"', "base must not include loop"),
        ("src/http/bad.c", '#include "gateway/wsgi.h"', "http must not include gateway"),
        ("src/http/bad.c", '#include "cores/core.h"', "http must not include cores"),
        ("src/cores/bad.c", '#include "wait/hooks.h"', "cores must not include wait"),
        ("src/manager/bad.c", '#  include "http/exchange.h"', "manager must not include http"),
        ("src/gateway/bad.c", '#include "main/start.h"', "gateway must not include main"),
        ("src/loop/bad.c", "#include <Python.h>", "Python.h belongs in"),
        ("src/main/start.c", "#include <Python.h>", "Python.h belongs in"),
        ("src/loop/bad.c", '#include "timer.h"', "must name its room"),
        ("src/loop/bad.c", '#include "vendor/x.h"', "in no room"),
    ],
)
def test_an_include_in_the_wrong_direction(tree: Path, name: str, line: str, said: str) -> None:
    write(tree, name, SPDX + "\n" + line + "\n")
    found = check_layers.check(tree)
    assert len(found) == 1
    assert found[0].startswith(f"{name}:3: ")
    assert said in found[0]


def test_a_folder_that_is_no_room(tree: Path) -> None:
    write(tree, "src/utils/x.c", SPDX)
    assert check_layers.check(tree) == ["src/utils/x.c:1: src/utils is no room of the house"]


def test_a_missing_licence_line_and_a_long_file(tree: Path) -> None:
    write(tree, "src/base/bare.c", "int x;\n")
    write(tree, "src/base/long.c", SPDX + "\n" * 800)
    found = check_layers.check(tree)
    assert [line.split(":")[0] for line in found] == ["src/base/bare.c", "src/base/long.c"]


def test_a_list_that_disagrees_with_its_folder(tree: Path) -> None:
    write(
        tree,
        "tests/unit/meson.build",
        "# SPDX-License-Identifier: Apache-2.0\n"
        "unit_tests = [\n  ['test_list', ['test_list.c'], 'base'],\n"
        "  # ['test_off', ['test_off.c'], 'base'],\n]\n",
    )
    write(tree, "tests/unit/test_heap.c", SPDX)
    assert check_layers.check(tree) == [
        "tests/unit/meson.build:1: lists test_list.c, which is not there",
        "tests/unit/test_heap.c:1: not listed in tests/unit/meson.build",
    ]


def test_the_program_ends_with_one_when_something_is_wrong(tree: Path) -> None:
    run = [sys.executable, str(TOOL), str(tree)]
    assert subprocess.run(run, capture_output=True, check=False).returncode == 0
    write(tree, "src/base/bad.c", SPDX + '#include "net/conn.h"\n')
    result = subprocess.run(run, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "base must not include net" in result.stdout
