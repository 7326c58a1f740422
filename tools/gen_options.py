#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes docs/options.md from the server's one table of options (src/main/option_table.c).

    tools/gen_options.py                writes docs/options.md
    tools/gen_options.py --check        writes nothing; ends with 1 when it is not what it would be
    tools/gen_options.py --dump FILE    takes the table from this build of option_dump

Without --dump the helper is compiled on the spot: it is a few C files that need nothing installed.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "options.md"
OWN_SOURCES = ["option_dump.c", "option_refused.c", "option_table.c", "settings.c"]
OWN_SOURCES += ["settings_check.c"]

INTRO = """\
# Options

<!-- Written by tools/gen_options.py from src/main/option_table.c; change that, not this. -->

    {program} {usage}

Where uWSGI has an option, its name is the name here too. `--name value` and `--name=value` mean the
same; a value in brackets is optional and needs the `=`. An option that is given more than once counts
with its last value, unless it says that it may be repeated. Flags take `=true` and `=false` as well.
Times are in seconds where nothing else is said, with fractions (`0.5`) or a unit (`500ms`, `2m`, `1h`);
sizes are in bytes or with `k`, `m` or `g` behind them.

An option that {program} doesn't know, a value that doesn't fit, and options that exclude each other are
errors: {program} says what is wrong and doesn't start.
"""

REFUSED = """\
## Refused by name

Options of uWSGI's that {program} knows and doesn't serve. They are errors, so that a configuration is
never half obeyed. A name that ends in `*` stands for all that begin so.

| option | what to do |
|---|---|
"""


def compile_and_dump() -> str:
    """The table as JSON, from a helper that is compiled for this one run."""
    sources = [ROOT / "src" / "main" / name for name in OWN_SOURCES]
    for room in ("base", "config"):
        sources += sorted((ROOT / "src" / room).glob("*.c"))
    flags = ["-std=gnu11", "-O0", "-w", "-D_GNU_SOURCE", "-pthread", f"-I{ROOT / 'src'}"]
    with tempfile.TemporaryDirectory() as folder:
        helper = pathlib.Path(folder) / "option_dump"
        compiler = os.environ.get("CC", "cc").split()
        subprocess.run([*compiler, *flags, "-o", helper, *sources], check=True)
        return subprocess.run([helper], check=True, capture_output=True, text=True).stdout


def cell(text: str) -> str:
    """TEXT as it may stand in a table's cell."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def code(text: str) -> str:
    return f"`{text}`"


def spelling(option: dict) -> str:
    """How an option is written: short form, name, value."""
    value = ""
    if option["metavar"]:
        value = f"[={option['metavar']}]" if option["value_optional"] else f" {option['metavar']}"
    names = [f"-{option['letter']}"] if option["letter"] else []
    return ", ".join([*names, f"--{option['name']}"]) + value


def remarks(option: dict) -> str:
    """What follows an option's sentence: other names, what it takes."""
    found = []
    if option["aliases"]:
        found.append("Also " + ", ".join(code(f"--{name}") for name in option["aliases"]) + ".")
    if option["negatable"] and f"--no-{option['name']}" not in option["help"]:
        found.append(f"Off: {code('--no-' + option['name'])}.")
    if option["type"] in ("int", "duration", "size", "mode"):
        expects = option["expects"].split(" (or with")[0]  # the introduction has said that
        found.append(f"Takes {expects}.")
    return " ".join(found)


def option_rows(table: dict, group: int) -> str:
    """One group of options as a table; accepted ones have no default."""
    members = [option for option in table["options"] if option["group"] == group]
    accepted = all(option["accepted"] for option in members)
    lines = [
        "| option | why |\n|---|---|\n" if accepted else "| option | default | |\n|---|---|---|\n"
    ]
    for option in members:
        text = cell(" ".join(filter(None, [option["help"], remarks(option)])))
        preset = option["preset"]
        if preset is None or (option["type"] == "flag" and preset == "false"):
            preset = ""
        middle = "" if accepted else f" {code(preset) if preset else ''} |".replace("  |", " |")
        lines.append(f"| {code(cell(spelling(option)))} |{middle} {text} |\n")
    return "".join(lines)


def render(table: dict) -> str:
    """The whole document."""
    parts = [INTRO.format(**table)]
    for index, group in enumerate(table["groups"]):
        intro = f"{group['intro']}\n\n" if group["intro"] else ""
        parts.append(f"## {group['title']}\n\n{intro}{option_rows(table, index)}")
    refused = [REFUSED.format(**table)]
    for refusal in table["refusals"]:
        names = [f"--{name}" for name in refusal["names"]]
        names += [f"-{letter}" for letter in refusal["letters"] or ""]
        state = "Not supported" if refusal["never"] else "Not built yet"
        spelled = ", ".join(code(name) for name in names)
        refused.append(f"| {spelled} | {state}: {cell(refusal['reason'])}. |\n")
    parts.append("".join(refused))
    return "\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare only")
    parser.add_argument("--dump", metavar="FILE", help="a built option_dump")
    arguments = parser.parse_args()
    if arguments.dump:
        dump = subprocess.run([arguments.dump], check=True, capture_output=True, text=True).stdout
    else:
        dump = compile_and_dump()
    text = render(json.loads(dump))
    if not arguments.check:
        DOCUMENT.write_text(text)
        return 0
    if not DOCUMENT.exists() or DOCUMENT.read_text() != text:
        print(f"{DOCUMENT.relative_to(ROOT)} is not what its table says: run tools/gen_options.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
