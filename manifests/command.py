"""How the three commands run: errors that a person can mend are one screen, not a traceback."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from typing import Any

from frame.manifests.errors import InputError


def run_command(app: Callable[..., Any], name: str, *, terminated: Callable[..., None]) -> None:
    """Run a typer app as the console command ``name``; ``--debug`` shows tracebacks, ``terminated`` answers SIGTERM."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    signal.signal(signal.SIGTERM, terminated)
    try:
        app(args=arguments, prog_name=name)
    except InputError as error:
        if debug:
            raise
        if "--json" in arguments:
            print(json.dumps({"error": {"what": error.what, "where": error.where, "why": error.why, "do": error.fix}}))
        print(error.screen(), file=sys.stderr)
        sys.exit(1)
