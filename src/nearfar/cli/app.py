"""The application: its commands, and what happens when one of them fails."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from nearfar import __version__
from nearfar.cli import console
from nearfar.errors import NearfarError

app = typer.Typer(
    name="nearfar",
    help="Learn, search and diagnose by contrast: near what is alike, far what is not.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


# typer carries a click of its own in later versions; this is the base of its usage errors in all of them
_CallError: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"nearfar {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error. May stand anywhere.")] = False,
) -> None:
    """Learn, search and diagnose by contrast: near what is alike, far what is not.

    Start with `nearfar demo`, or on your own pairs with
    `nearfar train pairs.jsonl --encoder static --output runs/mine`.
    """


def run(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 when all went well, 1 when something failed, 2 when the call was wrong."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    console.quiet_libraries()
    console.show_warnings()
    from nearfar.cli import commands  # noqa: F401  registers the commands

    try:
        code = app(args=arguments, prog_name="nearfar", standalone_mode=False)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except _CallError as error:
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        console.failure("interrupted")
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of the pipe has gone (`| head`): nothing is wrong and nothing can be told
        sys.exit(0)
    except NearfarError as error:
        if debug:
            raise
        console.failure(error.message, where=error.where, hint=error.hint)
        sys.exit(error.exit_code)
    except Exception as error:
        if debug:
            raise
        console.failure(
            f"{type(error).__name__}: {error}",
            hint="this should not have happened; run it again with --debug for the traceback",
        )
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
