"""The page's style sheet: light and dark by the reader's system or by choice. Source: own.

The colours of runs are told apart by people with any of the common colour-vision deficiencies (hue and lightness both
differ) and keep a contrast of at least 3:1 to both backgrounds; runs differ in the shape of their points as well.
"""

_LIGHT = """
--page:#f5f6f8;--card:#ffffff;--ink:#16202c;--soft:#556372;--line:#dde2e8;--grid:#e8ecf0;--axis:#9aa6b2;
--good:#0a7048;--bad:#b3261e;--accent:#00677a;--mark:#fff0b8;--code:#eef1f4;--shadow:0 1px 2px rgba(20,30,40,.07);
--run0:#00798c;--run1:#c9374c;--run2:#a86a00;--run3:#6a4fb3;--run4:#1f6fd0;--run5:#3f7d20;--run6:#a8328f;--run7:#5c6670;
"""
_DARK = """
--page:#0f141a;--card:#171e26;--ink:#e6ebf0;--soft:#9fadba;--line:#2b3540;--grid:#232c36;--axis:#5d6b78;
--good:#5fd3a0;--bad:#ff8f86;--accent:#5cc7d8;--mark:#57470f;--code:#1f2832;--shadow:none;
--run0:#3fbfd2;--run1:#ff7a88;--run2:#f0b041;--run3:#b39bff;--run4:#6fb0ff;--run5:#8fd16a;--run6:#f08ad9;--run7:#aab5c0;
"""
RUN_COLOURS = 8

STYLE = (
    f"""
:root{{color-scheme:light;{_LIGHT}}}
@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{_DARK}}}}}
:root[data-theme=dark]{{color-scheme:dark;{_DARK}}}
{"".join(f".r{i}{{--c:var(--run{i % RUN_COLOURS})}}" for i in range(32))}
"""
    + """
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
header,main,footer{max-width:1184px;margin:0 auto;padding:0 32px}
header{padding-top:36px}
.top{display:flex;gap:24px;align-items:flex-start;justify-content:space-between}
.brand{margin:0 0 4px;color:var(--soft);font-size:14px}
h1{margin:0;font-size:30px;line-height:1.2;letter-spacing:-.015em;overflow-wrap:anywhere}
.meta{margin:8px 0 0;color:var(--soft);font-size:15px}
h2{margin:0 0 2px;font-size:21px;letter-spacing:-.01em}
h3{margin:20px 0 8px;font-size:15px;font-weight:600}
section{margin:52px 0 0;scroll-margin-top:56px}
.how{margin:0 0 16px;max-width:96ch;text-wrap:pretty;color:var(--soft)}
nav{position:sticky;top:0;z-index:5;background:var(--page);border-bottom:1px solid var(--line);margin-top:22px}
nav>div{max-width:1184px;margin:0 auto;padding:0 32px;display:flex;gap:22px;align-items:center;overflow-x:auto}
nav a{color:var(--soft);text-decoration:none;font-size:14px;padding:10px 0;white-space:nowrap}
nav a:hover,nav a:focus-visible{color:var(--ink);text-decoration:underline;text-underline-offset:5px}
button{font:inherit;font-size:14px;color:var(--ink);background:var(--card);border:1px solid var(--line);border-radius:8px;
padding:6px 12px;cursor:pointer;white-space:nowrap}
button:hover{border-color:var(--axis)}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.legend{display:flex;flex-wrap:wrap;gap:8px;margin:18px 0 0}
.legend button[aria-pressed=false]{opacity:.5;text-decoration:line-through}
.swatch{display:inline-block;width:11px;height:11px;border-radius:3px;background:var(--c);margin-right:7px;vertical-align:-1px}
.off{display:none!important}
.cards{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:16px}
.card,.box,.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;box-shadow:var(--shadow)}
.card{padding:16px 18px;display:flex;flex-direction:column}
.card h3{margin-top:0;color:var(--soft);font-weight:500;line-height:1.35;margin-bottom:6px;min-height:2.7em}
abbr[title]{text-decoration:none;cursor:help}
.figure{display:grid;margin:0 0 10px}
.who{font-size:13px;color:var(--soft);overflow-wrap:anywhere}
.big{font-size:34px;line-height:1.15;font-weight:650;letter-spacing:-.02em}
.figure .who~.big{font-size:25px}
.none{color:var(--soft)}
.delta{font-size:13.5px;line-height:1.4;color:var(--soft);margin-top:3px}
.good{color:var(--good)}.bad{color:var(--bad)}
.foot{margin:auto 0 0;padding-top:9px;border-top:1px solid var(--line);font-size:13.5px;line-height:1.45;color:var(--soft)}
figure{margin:0}
.box{padding:16px 18px 14px;margin-bottom:16px}
figcaption{font-size:13.5px;line-height:1.5;color:var(--soft);margin-top:8px}
.pairs{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:16px}
.pairs .box{margin:0}
.scroll{overflow-x:auto}
.chart{display:block;width:100%;height:auto;margin:0 auto}
#tradeoff .chart{max-width:1000px}
#classes .chart{max-width:900px}
.chart text{font-size:12px;fill:var(--ink)}
.chart .tick{fill:var(--soft)}.chart .title{fill:var(--soft);font-size:12.5px}
.chart .label{paint-order:stroke;stroke:var(--card);stroke-width:4px;stroke-linejoin:round}
.chart .label.strong{font-weight:650}
.chart .label[class*=" r"]:not(.ref){fill:var(--c)}
.chart .label.ref{fill:var(--soft)}
.grid{stroke:var(--grid)}.zero,.axis{stroke:var(--axis)}
line.ref{stroke:var(--soft);stroke-dasharray:5 4}line.ref[class*=" r"]{stroke:var(--c)}
.line{fill:none;stroke:var(--c);stroke-width:2.2;stroke-linejoin:round;stroke-linecap:round}
.line.thin{stroke-width:1.5}.line.dashed{stroke-width:1.3;stroke-dasharray:4 4}
.mark{fill:var(--c);stroke:var(--card);stroke-width:1.5}
.mark.start{fill:var(--card);stroke:var(--c);stroke-width:2.4}
.mark:hover,.bar:hover{filter:brightness(1.15)}
.bar{fill:var(--c);fill-opacity:.62}.whisker{stroke:var(--ink);stroke-width:1.4}.prior{stroke:var(--ink);stroke-width:2.8}
.tabs [role=tablist]{display:flex;flex-wrap:wrap;gap:8px;margin-bottom:10px}
[role=tab]{white-space:normal;text-align:left}
[role=tab][aria-selected=true]{background:var(--ink);color:var(--card);border-color:var(--ink)}
table{border-collapse:collapse;width:100%;font-size:14px}
.box.scroll{padding:6px 8px 8px}tbody tr:last-child>*{border-bottom:0}
caption{text-align:left;color:var(--soft);padding:8px 12px 6px;font-size:13.5px}
th,td{padding:7px 12px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child{text-align:left}
thead th{color:var(--soft);font-weight:500;border-bottom-color:var(--axis);vertical-align:bottom}
tbody th{font-weight:500;white-space:normal;min-width:170px}
.tools,.controls-row{display:flex;flex-wrap:wrap;gap:18px;align-items:center;margin:0 0 14px;font-size:14px}
.tools label,.slider{display:inline-flex;gap:8px;align-items:center}
.slider input{width:min(320px,40vw);accent-color:var(--accent)}
input[type=checkbox]{accent-color:var(--accent);width:16px;height:16px}
.at{font-weight:650}
.tiles{display:grid;gap:16px;grid-template-columns:repeat(auto-fill,minmax(min(100%,var(--tile)),1fr))}
.columns-1{--tile:200px}.columns-2{--tile:340px}.columns-3{--tile:500px}.columns-4{--tile:640px}
.tile{padding:12px;overflow:hidden}
.panels{display:grid;grid-auto-flow:column;grid-auto-columns:minmax(0,1fr);gap:8px}
.xray{display:block;width:100%;height:auto;background:#000;border-radius:6px}
.xray [hidden]{display:none}
.absent{aspect-ratio:1;display:grid;place-content:center;text-align:center;border:1px dashed var(--axis);border-radius:6px;
color:var(--soft);font-size:13px}
.roi{fill:none;vector-effect:non-scaling-stroke;stroke:#ffd23f;stroke-width:2}
.roi.halo{stroke:rgba(0,0,0,.65);stroke-width:4}
.hide-boxes .roi,.hide-masks image.mask{display:none}
.note{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 8px;font-size:13px;color:var(--soft)}
.xray+.note{margin-top:5px}
.note .value{color:var(--ink)}
.tile figcaption{margin-top:6px;overflow-wrap:anywhere}
.tile strong{color:var(--ink);display:block}
.phrase{display:-webkit-box;-webkit-line-clamp:4;-webkit-box-orient:vertical;overflow:hidden}
mark{background:var(--mark);color:inherit;padding:0 2px;border-radius:3px}
code,pre{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
code{background:var(--code);border-radius:4px;padding:1px 5px;overflow-wrap:anywhere}
pre{background:var(--code);border-radius:8px;padding:14px 16px;overflow:auto;max-height:520px}
.facts{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:4px 20px;font-size:14px;margin:6px 0 16px}
.facts dt{color:var(--soft)}.facts dd{margin:0;overflow-wrap:anywhere}
details{margin:0 0 16px}
summary{cursor:pointer;padding:4px 0;font-size:15px}
.muted{color:var(--soft);font-size:13.5px;margin:12px 0 0}
.nothing{border:1px dashed var(--axis);border-radius:12px;padding:18px 20px;margin:0 0 16px;color:var(--soft)}
.problem{border-left:4px solid var(--bad);background:var(--card);padding:10px 16px;margin:18px 0 0;border-radius:4px}
footer{margin-top:56px;padding-bottom:48px;color:var(--soft);font-size:13.5px}
#tip{position:absolute;z-index:9;pointer-events:none;white-space:pre-line;max-width:340px;background:var(--ink);color:var(--page);
font-size:13px;line-height:1.45;padding:8px 11px;border-radius:8px;box-shadow:0 4px 14px rgba(0,0,0,.25)}
#tip[hidden]{display:none}
@media (max-width:1000px){.cards{grid-template-columns:repeat(2,minmax(0,1fr))}.columns-3,.columns-4{--tile:420px}}
@media (max-width:760px){header,main,footer,nav>div{padding-left:18px;padding-right:18px}
.pairs{grid-template-columns:minmax(0,1fr)}
h1{font-size:24px}#tradeoff .chart,#loss .chart{min-width:620px}.pairs .chart{min-width:460px}#classes .chart{min-width:560px}}
@media (max-width:460px){.cards,.facts{grid-template-columns:minmax(0,1fr)}.facts{gap:0}.facts dd{margin-bottom:8px}
.card h3{margin-top:0;min-height:0}}
@media print{nav,#theme,.tools,.slider{display:none}section{break-inside:avoid-page}body{background:#fff}}
"""
)
