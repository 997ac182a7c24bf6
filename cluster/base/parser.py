"""The command lines of raftload: errors of one line that say where the help is."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from cluster.base.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Errors are one line, name the command whose help has the answer, and exit 2."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse has it, but what is not known is an error."""
        # A subcommand would hand what it does not know to its parent, whose error then names the parent's help.
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error("unrecognized arguments: " + " ".join(unknown) + self._meant(unknown[0]))
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Says what is wrong and ends the process."""
        program = self.prog.partition(" ")[0]
        self.exit(UsageError.exit_code, f"{program}: error: {message} (see '{self.prog} --help')\n")

    def _meant(self, word: str) -> str:
        import difflib

        near = difflib.get_close_matches(word.partition("=")[0], self._option_string_actions, n=1, cutoff=0.7)
        return f"; did you mean {near[0]}?" if near else ""
