"""The library that draws the charts in the browser, as one script. Bundling it takes two seconds, so it begins early and beside the rest."""

from __future__ import annotations

import functools
import subprocess
import sys

_BUNDLING = "import sys, vl_convert; sys.stdout.write(vl_convert.javascript_bundle('window.vegaEmbed = vegaEmbed;'))"


@functools.cache
def begin() -> subprocess.Popen[str]:
    """Starts to bundle in a process of its own: vl-convert does not let other threads run meanwhile."""
    command = [sys.executable, "-X", "utf8", "-c", _BUNDLING]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")  # noqa: S603 - this Python, our code


@functools.cache
def bundle() -> str:
    """Defines `vegaEmbed`, which draws with Vega-Lite. Raises RuntimeError with what the process said."""
    process = begin()
    script, complaint = process.communicate()
    if process.returncode:
        raise RuntimeError(f"vl-convert could not bundle the charts' JavaScript: {complaint}")
    return script
