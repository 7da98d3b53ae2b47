"""Sequence diagrams: a small text file becomes an SVG that is readable on light and on dark pages.

    lanes: guest | KVM | I/O thread
    guest -> KVM: store to the notify register     an arrow with its text
    KVM => I/O thread: eventfd + 1                 the same, emphasized: the step that the chapter is about
    I/O thread: takes the request                  a box on one lane
    -- the guest goes on at once --                a line of text across
"""

import re
import textwrap
from xml.sax.saxutils import escape

WIDE, LEFT, TOP, STEP = 190, 20, 58, 44
STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #1f2328; stroke: #ffffff; stroke-width: 4px; paint-order: stroke; }
    text.lane, text.boxed { stroke: none; }
    .lane { font-weight: 600; }
    .life { stroke: #8c959f; stroke-dasharray: 3 4; }
    .head, .box { fill: #f6f8fa; stroke: #8c959f; }
    .arrow { stroke: #57606a; stroke-width: 1.4; fill: none; }
    .point { fill: #57606a; }
    .strong { stroke: #0969da; stroke-width: 2.4; }
    .strongpoint { fill: #0969da; }
    .paper { fill: #ffffff; }
    .note { font-style: italic; fill: #57606a; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; stroke: #0d1117; }
      .paper { fill: #0d1117; }
      .head, .box { fill: #161b22; stroke: #6e7681; }
      .life { stroke: #6e7681; }
      .arrow { stroke: #9198a1; }
      .point { fill: #9198a1; }
      .strong { stroke: #58a6ff; }
      .strongpoint { fill: #58a6ff; }
      .note { fill: #9198a1; }
    }"""


def parse(text):
    """The lanes, and the steps: (kind, from, to, words)."""
    lanes, steps = [], []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("lanes:"):
            lanes = [lane.strip() for lane in line[6:].split("|")]
            continue
        arrow = re.fullmatch(r"(.+?) (->|=>) (.+?): (.+)", line)
        note = re.fullmatch(r"-- (.+) --", line)
        box = re.fullmatch(r"([^:]+): (.+)", line)
        if arrow:
            steps.append((arrow[2], arrow[1], arrow[3], arrow[4]))
        elif note:
            steps.append(("note", lanes[0], lanes[-1], note[1]))
        elif box:
            steps.append(("box", box[1], box[1], box[2]))
        else:
            raise ValueError(f"line {number}: {line!r} is not a step")
        for lane in steps[-1][1:3]:
            if lane not in lanes:
                raise ValueError(f"line {number}: there is no lane {lane!r}")
    return lanes, steps


def svg(text):
    lanes, steps = parse(text)
    middle = {lane: LEFT + WIDE * n + WIDE / 2 for n, lane in enumerate(lanes)}
    width = 2 * LEFT + WIDE * len(lanes)
    out, y = [], TOP + 26

    def words(x, lines, kind="", anchor="middle", top=0):
        for n, line in enumerate(lines):
            out.append(f'<text class="{kind}" x="{x:g}" y="{top + 16 * n:g}" text-anchor="{anchor}">{escape(line)}</text>')

    body = []
    for kind, source, target, text in steps:
        a, b = middle[source], middle[target]
        if kind == "box":
            lines = textwrap.wrap(text, 25)
            high = 16 * len(lines) + 12
            out.append(f'<rect class="box" x="{a - WIDE / 2 + 6:g}" y="{y:g}" width="{WIDE - 12}" height="{high}" rx="4"/>')
            words(a, lines, "boxed", top=y + 18)
            y += high + 18
        elif kind == "note":
            words((a + b) / 2, [text], "note", top=y + 12)
            y += 32
        else:
            lines = textwrap.wrap(text, max(20, int(abs(b - a) / 7.2)))
            words((a + b) / 2, lines, top=y + 8)
            y += 16 * len(lines)
            strong = kind == "=>"
            line, point = ("arrow strong", "strongpoint") if strong else ("arrow", "point")
            back = 9 if b > a else -9
            out.append(f'<path class="{line}" d="M{a:g} {y:g} H{b - back:g}"/>')
            out.append(f'<path class="{point}" d="M{b:g} {y:g} l{-back:g} -4.5 v9 z"/>')
            y += 22
    for lane in lanes:
        x = middle[lane]
        body.append(f'<path class="life" d="M{x:g} {TOP - 10:g} V{y:g}"/>')
        body.append(f'<rect class="head" x="{x - WIDE / 2 + 12:g}" y="18" width="{WIDE - 24}" height="30" rx="5"/>')
        body.append(f'<text class="lane" x="{x:g}" y="38" text-anchor="middle">{escape(lane)}</text>')
    # The lifelines come first: each text has an edge of the paper's colour, which parts it from a line behind it.
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y + 14:g}" width="{width}" role="img">\n'
            f"<style>{STYLE}\n</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\" rx=\"8\"/>\n" + "\n".join(body + out) + "\n</svg>\n")
