"""Make ``meddiff/reports/page/static/vega.js``: Vega, Vega-Lite and Vega-Embed in one script for pages without a network.

    python tools/make_vega_bundle.py

The bundle of vl-convert declares hundreds of page globals, and one of ours with the same name breaks a later chart: it is
wrapped, and leaves ``vegaEmbed`` alone. Every page carries it, so the licences of what is in it stand at its head. Source: own.
"""

from pathlib import Path

LICENCES = Path(__file__).with_name("vega_licences.txt")
TARGET = Path(__file__).resolve().parents[1] / "meddiff/reports/page/static/vega.js"


def bundle() -> str:
    """The script, the same in every process."""
    import vl_convert

    text = vl_convert.javascript_bundle()
    return f"/*!\n{LICENCES.read_text(encoding='utf-8')}*/\n(()=>{{{text}\n}})();\n"


if __name__ == "__main__":
    TARGET.write_text(bundle(), encoding="utf-8")
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")
