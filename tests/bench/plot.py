"""One page of curves as a PNG, drawn by gnuplot."""

import collections
import os
import shutil
import subprocess

# `lines` is {name: [(x, y)…]}, ours first. The axis of x is logarithmic, to the base of two.
Curve = collections.namedtuple("Curve", "title x_label y_label lines")

COLUMNS = 2
WIDTH, HEIGHT = 720, 440  # of one curve, in pixels


def missing():
    """What to tell a user who cannot draw; None when all is there."""
    if shutil.which("gnuplot"):
        return None
    return "the plot needs gnuplot: run tools/install, or apt-get install gnuplot-nox"


def _script(curves, path):
    rows = -(-len(curves) // COLUMNS)
    lines = [f"set terminal pngcairo size {WIDTH * COLUMNS},{HEIGHT * rows} font 'sans,11'",
             f"set output {_quoted(path)}", f"set multiplot layout {rows},{COLUMNS}",
             "set logscale x 2", "set yrange [0:*]", "set grid", "set key above"]
    for number, curve in enumerate(curves):
        for index, points in enumerate(curve.lines.values()):
            lines += [f"$data{number}_{index} << EOD", *(f"{x} {y}" for x, y in points), "EOD"]
        ticks = sorted({x for points in curve.lines.values() for x, _ in points})
        shown = ", ".join(f"'{_short(x)}' {x}" for x in ticks)
        lines += [f"set title {_quoted(curve.title)}", f"set xlabel {_quoted(curve.x_label)}",
                  f"set ylabel {_quoted(curve.y_label)}", f"set xtics ({shown})",
                  f"set xrange [{ticks[0] * 0.9}:{ticks[-1] * 1.1}]",
                  "plot " + ", ".join(
                      f"$data{number}_{index} with linespoints lw 2 title {_quoted(name)} noenhanced"
                      for index, name in enumerate(curve.lines))]
    return "\n".join(lines + ["unset multiplot", ""])


def _quoted(text):
    """As gnuplot writes a string in which nothing is special."""
    return "'" + text.replace("'", "''") + "'"


def _short(number):
    for unit, name in ((1 << 20, "M"), (1 << 10, "K")):
        if number >= unit:
            return f"{number // unit}{name}"
    return str(number)


def draw(curves, path):
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    subprocess.run(["gnuplot"], input=_script(curves, path), text=True, check=True)
