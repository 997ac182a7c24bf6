"""The argument parser of raftload: errors of one line that name the command whose help has the answer."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, Generic, NoReturn, TypeVar

from cluster.base import exits
from cluster.base.errors import RaftloadError, UsageError
from cluster.base.units import parse_duration, parse_whole

N = TypeVar("N", int, float)
# The names that options had before, and what they are called now. Every command that has the new one also takes the old
# one. No help shows these; docs/cli.md has this table.
OLD_NAMES = {"--cluster": "--backend", "--peer-links": "--links", "--etcd-version": "--etcd", "--binary": "--etcd"}


class _Bounded(Generic[N]):
    """A ``type`` for options that take a number from ``least`` to ``most``."""

    def __init__(self, read: Callable[[str], N], unit: str, least: float, most: float) -> None:
        self._read: Callable[[str], N] = read
        self._unit, self._least, self._most = unit, least, most

    def __call__(self, text: str) -> N:
        """Return the number. Raises ArgumentTypeError."""
        try:
            number = self._read(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from exc
        if not self._least <= number <= self._most:
            bound = f"at least {self._least:g}" if number < self._least else f"at most {self._most:g}"
            raise argparse.ArgumentTypeError(f"must be {bound}{self._unit}, not {text}")
        return number


class Duration(_Bounded[float]):
    """A ``type`` for options that take a duration, in seconds: from ``least`` to ``most``."""

    def __init__(self, least: float = 0.0, most: float = math.inf) -> None:
        super().__init__(parse_duration, "s", least, most)


class Whole(_Bounded[int]):
    """A ``type`` for options that take a whole number, from ``least`` to ``most``."""

    def __init__(self, least: float = -math.inf, most: float = math.inf) -> None:
        super().__init__(parse_whole, "", least, most)


class Parser(argparse.ArgumentParser):
    """Errors are one line, name the command whose help has the answer, and exit 2."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse has it, but what is not known is an error."""
        # A subcommand would hand what it does not know to its parent, whose error then names the parent's help.
        words = self._by_new_names(sys.argv[1:] if args is None else args)
        found, unknown = super().parse_known_args(words, namespace)
        if unknown:
            self.error("unrecognized arguments: " + " ".join(unknown) + self._meant(unknown[0]))
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end the process."""
        program = self.prog.partition(" ")[0]
        self.exit(UsageError.exit_code, f"{program}: error: {message} (see '{self.prog} --help')\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End the process, with a message on stderr if there is one."""
        if message and sys.stderr is not None:
            with contextlib.suppress(OSError):  # the exit code still says it
                sys.stderr.write(message)
        exits.forget_unwritten()
        raise SystemExit(status)

    def tell(self, text: str) -> None:
        """Print a text on stdout. Where that cannot be written, say so and end the process."""
        try:
            print(text, end="", flush=True)
        except BrokenPipeError:
            self.exit(exits.UNREAD)
        except OSError as error:
            program = self.prog.partition(" ")[0]
            self.exit(RaftloadError.exit_code, f"{program}: error: cannot write to stdout: {error.strerror or error}\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is not None and file is sys.stdout:
            self.tell(message)
            return
        with contextlib.suppress(OSError):
            super()._print_message(message, file)

    @property
    def _old_names(self) -> dict[str, str]:
        """Those of its options; an option of its own that is called so is none of them."""
        own = self._option_string_actions
        return {old: new for old, new in OLD_NAMES.items() if new in own and old not in own}

    def _by_new_names(self, words: Sequence[str]) -> list[str]:
        # As words, and not as further names of the options: of what is abbreviated they would make something ambiguous.
        end = words.index("--") if "--" in words else len(words)
        new, parts = self._old_names, [word.partition("=") for word in words[:end]]
        return [new.get(name, name) + sign + value for name, sign, value in parts] + [*words[end:]]

    def _meant(self, word: str) -> str:
        import difflib

        known = [*self._option_string_actions, *self._old_names]
        near = difflib.get_close_matches(word.partition("=")[0], known, n=1, cutoff=0.7)
        return f"; did you mean {OLD_NAMES.get(near[0], near[0])}?" if near else ""
