r"""Records the terminal output of a command in real time, as an animated SVG.

To record the picture in the README, with a server at GRADWIRE_ADDRESS and MNIST in mnist.npz, run:

    python docs/images/record_terminal.py docs/images/train.svg gradwire train --data mnist.npz --layers 784,128,10 \
        --scale 0.00392157 --epochs 8 --name mnist
"""

import os
import pty
import re
import select
import shlex
import sys
import time
from html import escape
from pathlib import Path
from typing import TypeAlias

COLUMNS, MIN_ROWS = 100, 12
CHARACTER_WIDTH, LINE_HEIGHT, MARGIN = 7.8, 16, 16
# How long the last frame is shown.
END_SECONDS = 3.0
# Output that arrives within this time belongs to one frame.
FRAME_SECONDS = 0.03

# Characters with their styles: "", "bold" or "italic".
Line: TypeAlias = list[tuple[str, str]]
Frame: TypeAlias = tuple[float, list[Line]]

# The control sequences that rich writes for a live table: styles, line and cursor movements, and modes.
_SEQUENCE = re.compile(r"\x1b\[\??([\d;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


class Screen:
    """A terminal emulator that supports only the features that a live table needs."""

    def __init__(self) -> None:
        self.lines: list[Line] = [[]]
        self._row = self._column = 0
        self._style = ""

    def write(self, text: str) -> None:
        for code, letter, carriage_return, newline, plain in _SEQUENCE.findall(text):
            if letter == "A":
                self._row = max(0, self._row - int(code or 1))
            elif letter == "K":
                self.lines[self._row] = []
            elif letter == "m":
                self._style = {"1": "bold", "3": "italic"}.get(code, "")
            elif carriage_return:
                self._column = 0
            elif newline:
                self._row, self._column = self._row + 1, 0
                if self._row == len(self.lines):
                    self.lines.append([])
            for character in plain:
                line = self.lines[self._row]
                line.extend([(" ", "")] * (self._column + 1 - len(line)))
                line[self._column] = (character, self._style)
                self._column += 1

    def copy(self) -> list[Line]:
        return [list(line) for line in self.lines]


def record(command: list[str]) -> list[Frame]:
    """Run a command, and return the screen after each change, with the time since the start in seconds."""
    screen = Screen()
    screen.write(f"\x1b[1m$ {shlex.join(command)}\x1b[0m\r\n")
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm", COLUMNS=str(COLUMNS), LINES="40", NO_COLOR="1")
        os.execvp(command[0], command)
    started = time.monotonic()
    frames = [(0.0, screen.copy())]
    open_end = True
    while open_end:
        output = b""
        while select.select([terminal], [], [], FRAME_SECONDS if output else None)[0]:
            try:
                output += os.read(terminal, 65536)
            except OSError:  # The command has ended.
                open_end = False
                break
        screen.write(output.decode())
        if screen.lines != frames[-1][1]:
            frames.append((time.monotonic() - started, screen.copy()))
    os.waitpid(child, 0)
    return frames


def svg(frames: list[Frame]) -> str:
    """Return an SVG that shows the frames repeatedly. Viewers that do not animate SVGs show the last frame."""
    total = frames[-1][0] + END_SECONDS
    height = 2 * MARGIN + LINE_HEIGHT * max(MIN_ROWS, *(len(lines) for _, lines in frames))
    width = round(2 * MARGIN + COLUMNS * CHARACTER_WIDTH)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="13">',
        f'<rect width="{width}" height="{height}" rx="8" fill="#0f172a"/>',
    ]
    ends = [began for began, _ in frames[1:]] + [total]
    for (began, lines), end in zip(frames, ends, strict=True):
        parts.append(f'<g fill="#e2e8f0" visibility="{"visible" if end == total else "hidden"}">')
        # The times are fractions of the total. The frame is visible between the second time and the third time.
        times = [0.0, began / total, end / total]
        values = ["hidden", "visible", "hidden"]
        if began == 0.0:
            times, values = times[1:], values[1:]
        if end == total:
            times, values = times[:-1], values[:-1]
        parts.append(
            f'<animate attributeName="visibility" calcMode="discrete" dur="{total:.2f}s" repeatCount="indefinite" '
            f'values="{";".join(values)}" keyTimes="{";".join(f"{each:.4f}" for each in times)}"/>'
        )
        parts += [_line(line, MARGIN + LINE_HEIGHT * (row + 0.8)) for row, line in enumerate(lines) if line]
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def _line(line: Line, y: float) -> str:
    spans, start = [], 0
    for column in range(1, len(line) + 1):
        style = line[start][1]
        if column == len(line) or line[column][1] != style:
            text = escape("".join(character for character, _ in line[start:column]))
            weight = {"bold": ' font-weight="bold"', "italic": ' font-style="italic"'}.get(style, "")
            spans.append(f"<tspan{weight}>{text}</tspan>" if weight else text)
            start = column
    length = len(line) * CHARACTER_WIDTH
    return f'<text x="{MARGIN}" y="{y:.1f}" xml:space="preserve" textLength="{length:.1f}">{"".join(spans)}</text>'


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(svg(record(sys.argv[2:])))
