"""Completion of `python -m analysis` in bash.

typer's own binds to the first word of a program's name, which is `python`, and takes `-m` for an argument of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

BASH = """\
# completes `python -m analysis`
_gradtax_analysis() {
    COMPREPLY=()
    [[ "${COMP_WORDS[1]} ${COMP_WORDS[2]}" == "-m analysis" ]] || return
    local IFS=$'\\n'
    COMPREPLY=($(COMP_WORDS="analysis ${COMP_WORDS[*]:3}" COMP_CWORD=$((COMP_CWORD - 2)) _ANALYSIS_COMPLETE=complete_bash "$1" -m analysis))
}
complete -o default -F _gradtax_analysis python python3"""


def runs(incomplete: str) -> list[str]:
    """Names of saved runs; where none begins like that, bash completes a file."""
    from analysis import find

    return [name for name in (find.LATEST, *find.stored_numbers()) if name.startswith(incomplete)]


def of(names: Sequence[str]) -> Callable[[str], list[str]]:
    """What completes the last of comma-separated `names`."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names if name.startswith(last)]

    return complete
