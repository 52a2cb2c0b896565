#!/usr/bin/env python3
"""Draws the panels of a Grafana dashboard as a page, without Grafana: the same queries, titles and places, with the
values that a Prometheus server has.

    scripts/draw_dashboard.py DASHBOARD.json PROMETHEUS_URL SECONDS PAGE.html ROW…

Draws the last SECONDS, and only the rows of the dashboard that are named. Prints the height of the page in pixels.
Supports the kinds of panels that the dashboard of this repository has: rows, stats and time series.
"""

import json
import re
import sys
import time
from html import escape
from urllib.parse import urlencode
from urllib.request import urlopen

COLORS = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#37872d", "#8ab8ff", "#fade2a", "#c4162a"]
NAMED_COLORS = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c"}
# Sizes in pixels: a page is 1,280 wide, and the grid of a dashboard has 24 columns.
COLUMN, UNIT, GAP = 52, 29, 8
STYLE = """
body { margin: 0; background: #111217; color: #ccccdc; font: 12px "Inter", "DejaVu Sans", sans-serif; }
h1 { font-size: 15px; font-weight: 500; margin: 0; padding: 14px 16px 6px; }
h1 small { color: #8e8e9c; font-weight: 400; margin-left: 10px; font-size: 12px; }
.panel { position: absolute; background: #181b1f; border: 1px solid #25282d; border-radius: 2px; overflow: hidden; }
.panel h2 { font-size: 12px; font-weight: 500; margin: 7px 9px 0; }
.row { position: absolute; font-size: 13px; font-weight: 500; }
.value { position: absolute; left: 10px; top: 34px; font-size: 30px; font-weight: 500; }
.legend { position: absolute; left: 10px; right: 8px; bottom: 6px; height: 30px; line-height: 15px; font-size: 11px;
  overflow: hidden; }
.legend span { margin-right: 10px; white-space: nowrap; }
.legend i { display: inline-block; width: 12px; height: 3px; border-radius: 2px; margin: 0 5px 3px 0; }
svg { position: absolute; left: 0; }
svg text { fill: #8e8e9c; font-size: 10px; }
"""


def number(value, unit):
    """A value as a short text, with its unit if it is a share, a time, or requests or operations per second."""
    if unit == "percentunit":
        return f"{value * 100:.3g}%"
    if unit == "s":
        for scale, name in ((1, " s"), (1e-3, " ms"), (1e-6, " µs")):
            if value >= scale or scale == 1e-6:
                return f"{value / scale:.3g}{name}" if value else "0 s"
    suffix = {"reqps": " req/s", "ops": " ops/s"}.get(unit, "")
    return (f"{value:,.0f}" if value >= 100 else f"{value:.3g}") + suffix


def query(prometheus, expression, start, end):
    """The series of an expression: labels, and points of time and value."""
    parameters = {"query": expression.replace("$__rate_interval", "12s"), "start": start, "end": end, "step": 2}
    with urlopen(f"{prometheus}/api/v1/query_range?{urlencode(parameters)}") as response:
        result = json.load(response)["data"]["result"]
    for series in result:
        points = [(float(at), float(value)) for at, value in series["values"] if value not in ("NaN", "+Inf")]
        if points:
            yield series["metric"], points


def ticks(top):
    """Two to five round values, from 0 to at most the top."""
    step = next(step for exponent in range(-9, 12) for step in (10**exponent, 2 * 10**exponent, 5 * 10**exponent)
                if top / step <= 4)
    return [step * index for index in range(int(top / step) + 1)]


def path(points, x, y):
    return "M" + "L".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)


def stat(panel, series, width, height, start, end):
    defaults = panel["fieldConfig"]["defaults"]
    points = series[0][1] if series else []
    last = points[-1][1] if points else 0.0
    color = NAMED_COLORS["green"]
    for step in defaults.get("thresholds", {}).get("steps", []):
        if step["value"] is None or last >= step["value"]:
            color = NAMED_COLORS[step["color"]]
    text = f'<div class="value" style="color:{color}">{number(last, defaults["unit"])}</div>'
    if len(points) > 1:
        top = max(value for _, value in points) or 1
        line = path(points, lambda at: (at - start) / (end - start) * width, lambda value: 30 - value / top * 26)
        text += (f'<svg style="top:{height - 34}px" width="{width}" height="32"><path d="{line}" fill="none" '
                 f'stroke="{color}" stroke-width="1.5" opacity="0.8"/></svg>')
    return text


def time_series(panel, series, width, height, start, end):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    left, right, upper, lower = 66, width - 12, 32, height - 62
    top = max((value for _, points in series for _, value in points), default=0) * 1.05 or 1

    def x(at):
        return left + (at - start) / (end - start) * (right - left)

    def y(value):
        return lower - value / top * (lower - upper)

    text = f'<svg width="{width}" height="{height}" style="top:0">'
    for value in ticks(top):
        text += (f'<path d="M{left},{y(value):.1f}H{right}" stroke="#2a2d33"/>'
                 f'<text x="{left - 6}" y="{y(value) + 3.5:.1f}" text-anchor="end">{number(value, unit)}</text>')
    for at in range(int(start) // 30 * 30 + 30, int(end), 30 if end - start < 150 else 60):
        text += (f'<path d="M{x(at):.1f},{upper}V{lower}" stroke="#2a2d33"/><text x="{x(at):.1f}" y="{lower + 14}" '
                 f'text-anchor="middle">{time.strftime("%H:%M:%S", time.gmtime(at))}</text>')
    legend = ""
    for index, (name, points) in enumerate(series):
        color, line = COLORS[index % len(COLORS)], path(points, x, y)
        text += (f'<path d="{line}L{x(points[-1][0]):.1f},{lower}L{x(points[0][0]):.1f},{lower}Z" fill="{color}" '
                 f'opacity="0.1"/><path d="{line}" fill="none" stroke="{color}" stroke-width="1.4"/>')
        legend += f'<span><i style="background:{color}"></i>{escape(name)}</span>'
    return f'{text}</svg><div class="legend">{legend or "no data"}</div>'


def main(dashboard, prometheus, seconds, page, *rows):
    with open(dashboard, encoding="utf-8") as file:
        dashboard = json.load(file)
    end = time.time()
    start = end - float(seconds)
    body, row, offset, bottom = "", None, None, 0
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        if panel["type"] == "row":
            row = panel["title"]
        if row not in rows:
            continue
        offset = place["y"] if offset is None else offset
        left, top = place["x"] * COLUMN + 16, (place["y"] - offset) * UNIT + 44
        width, height = place["w"] * COLUMN - GAP, place["h"] * UNIT - GAP
        bottom = max(bottom, top + height)
        if panel["type"] == "row":
            body += f'<div class="row" style="left:{left}px;top:{top + 2}px">⌄ {escape(row)}</div>'
            continue
        series = []
        for target in panel["targets"]:
            for labels, points in query(prometheus, target["expr"], start, end):
                name = re.sub(r"{{(\w+)}}", lambda label: labels.get(label[1], ""), target.get("legendFormat") or "")
                series.append((name, points))
        draw = {"stat": stat, "timeseries": time_series}[panel["type"]]
        body += (f'<div class="panel" style="left:{left}px;top:{top}px;width:{width}px;height:{height}px">'
                 f'<h2>{escape(panel["title"])}</h2>{draw(panel, series, width, height, start, end)}</div>')
    title = escape(dashboard["title"])
    note = f"the last {seconds} seconds, UTC; panels of the Grafana dashboard, drawn by scripts/draw_dashboard.py"
    with open(page, "w", encoding="utf-8") as file:
        file.write(f'<!doctype html><meta charset="utf-8"><style>{STYLE}</style>'
                   f"<h1>{title}<small>{note}</small></h1>{body}")
    print(bottom + 14)


if __name__ == "__main__":
    main(*sys.argv[1:])
