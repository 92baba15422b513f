"""Draws docs/img/published_tradeoff.svg: the trade-off as the paper published it (Tables 1 and 4), nothing measured here.

python tools/published_tradeoff.py
"""

import math
from pathlib import Path

#: model -> (FID_XRV on MIMIC prompts, Table 4; CNR, average of Table 1)
PUBLISHED = {
    "SDv2, untouched": (104.9, 0.321),
    "text encoder learnable": (7.7, 0.133),
    "text encoder frozen": (10.1, 0.920),
}
COLOURS = {"SDv2, untouched": "#888888", "text encoder learnable": "#d1495b", "text encoder frozen": "#00798c"}
LABEL = "image quality: FID (chest X-ray features), better to the right"
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 340, 70, 60, 40, 30


def x(fid: float) -> float:
    """Logarithmic, better (smaller) to the right."""
    low, high = math.log(5), math.log(150)
    return LEFT + (WIDTH - LEFT - RIGHT) * (high - math.log(fid)) / (high - low)


def y(cnr: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * cnr / 1.1


def main() -> None:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for cnr in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(cnr):.1f}" y2="{y(cnr):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(cnr) + 4:.1f}" text-anchor="end" fill="#555">{cnr:g}</text>')
    for fid in (100.0, 50.0, 20.0, 10.0, 5.0):
        parts.append(
            f'<text x="{x(fid):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" fill="#555">{fid:g}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 16}" text-anchor="middle">{LABEL}</text>')
    parts.append(
        f'<text transform="translate(20 {(HEIGHT - BOTTOM + TOP) / 2}) rotate(-90)" text-anchor="middle">grounding: CNR</text>'
    )
    start = PUBLISHED["SDv2, untouched"]
    for name, (fid, cnr) in PUBLISHED.items():
        colour = COLOURS[name]
        if name != "SDv2, untouched":
            parts.append(
                f'<line x1="{x(start[0]):.1f}" y1="{y(start[1]):.1f}" x2="{x(fid):.1f}" y2="{y(cnr):.1f}" '
                f'stroke="{colour}" stroke-width="2" stroke-dasharray="5 4"/>'
            )
    for name, (fid, cnr) in PUBLISHED.items():
        anchor, dx = ("start", 10) if name.startswith("SDv2") else ("end", -10)
        dy = -10 if name.endswith("frozen") else 20
        parts.append(f'<circle cx="{x(fid):.1f}" cy="{y(cnr):.1f}" r="6" fill="{COLOURS[name]}"/>')
        parts.append(
            f'<text x="{x(fid) + dx:.1f}" y="{y(cnr) + dy:.1f}" text-anchor="{anchor}" fill="{COLOURS[name]}">{name}</text>'
        )
    parts.append("</svg>\n")
    (Path(__file__).parents[1] / "docs" / "img" / "published_tradeoff.svg").write_text(
        "\n".join(parts), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
