"""The command `pydln`; also ``python -m pydln``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; without the extra ``cli`` say how to get it."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError:
        print("the command pydln needs typer and rich: pip install 'pydln[cli]'", file=sys.stderr)
        raise SystemExit(2) from None
    from pydln.cli import app

    app(prog_name="pydln")


if __name__ == "__main__":
    main()
