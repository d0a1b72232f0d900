"""Behaviour of every command: errors in two lines, fixed exit codes."""

import os
import signal
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click
import cloup

from pipeline.common.errors import PipelineError
from pipeline.common.files import one_line
from pipeline.common.progress import log_json
from pipeline.common.startup import how_to_install

EXIT_CODES = """
Exit codes: 0 done, 1 nothing usable, 2 wrong arguments or settings, 3 done but more was rejected
than --max-rejects or undecidable than --max-undecidable, 4 a leaking split or a damaged cache, 130
interrupted.
"""


def _fail(message: str, hint: str, code: int) -> NoReturn:
    click.echo(f"error: {one_line(message)}\nhint: {one_line(hint)}", err=True)
    sys.exit(code)


def _terminated(signum: int, frame: types.FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


class Command(cloup.Command):
    """A command that fails in two lines, ``error:`` and ``hint:``, unless ``--debug`` is given."""

    def __init__(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        kwargs.setdefault("context_settings", {}).update(
            help_option_names=["-h", "--help"], show_default=True, max_content_width=100
        )
        kwargs["epilog"] = EXIT_CODES
        debug = cloup.Option(["--debug"], is_flag=True, expose_value=False, help="Show tracebacks.")
        kwargs["params"] = [*kwargs.get("params", ()), debug]
        super().__init__(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse an empty argument: as a path it would be the working directory."""
        if "" in args:
            raise click.UsageError("an argument is empty: perhaps a variable that is not set", ctx)
        return super().parse_args(ctx, args)

    def main(self, *args: Any, standalone_mode: bool = True, **kwargs: Any) -> Any:
        """Run the command and, in standalone mode, exit the process."""
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **kwargs)  # type: ignore[call-overload]
        sys.excepthook = sys.__excepthook__  # `pipeline.common.startup` set it for imports
        signal.signal(signal.SIGTERM, _terminated)
        for stream in (sys.stdout, sys.stderr):  # file names need not be text
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        debug = "--debug" in sys.argv
        name = kwargs.get("prog_name") or _command_name()
        kwargs["prog_name"] = name
        try:
            code = super().main(*args, standalone_mode=False, **kwargs)  # type: ignore[call-overload]
            sys.exit(code if isinstance(code, int) else 0)
        except click.UsageError as error:
            _fail(error.format_message(), f"{name} --help lists what it takes", 2)
        except (KeyboardInterrupt, click.Abort):
            _fail(
                "interrupted",
                "the same command resumes, or starts again where there is nothing to resume",
                130,
            )
        except BrokenPipeError:  # `| head` closed the output, which is no error
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except (PipelineError, OSError, ImportError) as error:
            if debug:
                traceback.print_exc()
            _fail(*_explained(error))
        except Exception as error:
            if debug:
                raise
            _fail(
                f"{type(error).__name__}: {error}",
                "this is a bug; please report it with the output of the same command and --debug",
                2,
            )


def _explained(error: PipelineError | OSError | ImportError) -> tuple[str, str, int]:
    if isinstance(error, PipelineError):
        return str(error), error.hint, error.exit_code
    if isinstance(error, ImportError):
        return str(error), how_to_install(str(error)), 2
    paths = " -> ".join(str(name) for name in (error.filename, error.filename2) if name)
    message = f"{error.strerror or error}" + (f" ({paths})" if paths else "")
    return message, "check the path, its rights and the space", 2


def some_of(
    choices: Sequence[str],
) -> Callable[[click.Context, click.Parameter, str], tuple[str, ...]]:
    """Return a callback for comma-separated values, which it gives in the order of ``choices``."""

    def parse(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
        asked = {name.strip() for name in value.split(",")}
        if not asked <= set(choices):
            raise click.BadParameter(f"{value!r} is not some of {', '.join(choices)}")
        return tuple(name for name in choices if name in asked)

    return parse


def number_or(
    word: str, what: str, *, below: float
) -> Callable[[click.Context, click.Parameter, str], float | None]:
    """Return a callback for a positive number below a bound; it gives None for the word."""

    def parse(context: click.Context, parameter: click.Parameter, value: str) -> float | None:
        if value == word:
            return None
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if not 0 < number < below:
            raise click.BadParameter(f"{value!r} is neither {word} nor {what}")
        return number

    return parse


log_json_option = cloup.option(
    "--log-json",
    is_flag=True,
    expose_value=False,
    callback=lambda context, parameter, value: log_json() if value else None,
    help="Write progress and warnings to stderr as JSON lines.",
)


def _command_name() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name}" if spec else sys.argv[0]
