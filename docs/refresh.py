"""`make readme`: fills in what README.md and the pages beside this file quote, and draws the picture.

A block stands between `<!-- NAME -->` and `<!-- end -->`, in a code fence where there is one. A transcript is a console block that begins with
its command and goes on with what it prints. tests/test_readme.py looks whether they are fresh.
"""

from __future__ import annotations

import io
import re
import shlex
import subprocess
from contextlib import chdir, redirect_stdout
from functools import cache
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REFERENCE = "results/reference/cpu.json"
REAL = "results/reference/real.json results/reference/real_compiled.json"
PICTURE = f"python -m analysis report {REFERENCE} --charts docs/pictures"
COMMANDS = {
    "answer": f"python -m analysis advise {REFERENCE} | awk '/^[^ ]/ {{ n++ }} n > 3 {{ exit }} 1'",  # three sentences
    "rows": f"python -m analysis summarise {REFERENCE} | sed -n '1,/^$/p; /^lstm medium/,/^$/p' | sed '$d'",
    "real": f"python -m analysis summarise {REAL} --by model | sed -E '/^speedup:/,$d; s/ +[^ ]+( ±[0-9.]+)? +(cases|1) +(runs|1)$//; /^$/d'",
    "modes": "python -m benchmarks.guide --modes",
    "faults": "cat results/reference/faults.txt",  # a copy of what `selfcheck faults` saved: it takes half an hour
}

_BLOCK = re.compile(rf"(<!-- ({'|'.join(COMMANDS)}) -->\n\n(?:```\w*\n)?)(.*?)((?:```\n)?\n<!-- end -->)", re.DOTALL)
TRANSCRIPT = re.compile(r"(```console\n\$ (.+)\n)((?:(?!\$ |```).*\n)+)(```\n)")
"""A console block of one command and its output."""


@cache
def printed_by(command: str) -> str:
    """What a shell prints in the checkout. Raises CalledProcessError. What stands before the first ` | ` is run once."""
    program, _, filters = command.partition(" | ")
    arguments = ["sh", "-c", filters] if filters else shlex.split(program)
    if arguments[:2] == ["python", "-m"]:  # in this process, because another takes a second to begin
        with redirect_stdout(io.StringIO()) as stdout, chdir(ROOT):
            status = import_module(f"{arguments[2]}.__main__").main(arguments[3:])
        done = subprocess.CompletedProcess(arguments, status, stdout.getvalue())
    else:
        given = printed_by(program) if filters else ""
        done = subprocess.run(arguments, cwd=ROOT, input=given, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - ours
    done.check_returncode()
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def refreshed(text: str) -> str:
    """A page with every block and transcript as its command prints it now."""
    text = _BLOCK.sub(lambda block: block[1] + printed_by(COMMANDS[block[2]]) + block[4], text)
    return TRANSCRIPT.sub(lambda block: f"{block[1]}{printed_by(block[2]).rstrip()}\n{block[4]}", text)


def main() -> None:
    printed_by(PICTURE)
    for page in PAGES:
        page.write_text(refreshed(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
