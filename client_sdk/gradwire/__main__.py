"""Runs the command `gradwire` as python -m gradwire."""

from gradwire.cli.main import app

if __name__ == "__main__":
    app()
