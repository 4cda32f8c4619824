"""``python -m nearfar`` and the ``nearfar`` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; without its packages say what to install."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        print(f"nearfar's command line needs {error.name}: pip install 'nearfar[all]'", file=sys.stderr)
        sys.exit(1)
    from nearfar.cli.app import run

    run()


if __name__ == "__main__":
    main()
