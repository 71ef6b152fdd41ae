// The style sheet of run_page.h, as it stands in the page.
#pragma once

namespace llmc {

/// Colours of the eight runs are c0 .. c7, in a light and a dark set; what belongs to run N is of the class rN.
inline constexpr const char* kRunPageStyle = R"css(
:root { --paper: #fff; --ink: #1c1e21; --soft: #63686f; --line: #dfe2e6; --card: #f6f7f8; --warn: #b04a00;
  --good: #15713c; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15171a; --ink: #e8eaed; --soft: #9aa0a8; --line: #33373d; --card: #1d2024; --warn: #ffad70;
    --good: #6fdc9c; }
}
.c0 { --c: #1f6fd0; } .c1 { --c: #d1580b; } .c2 { --c: #1b8a4b; } .c3 { --c: #b3218a; }
.c4 { --c: #6c55c8; } .c5 { --c: #9a6b00; } .c6 { --c: #0f8b94; } .c7 { --c: #c22f2f; }
@media (prefers-color-scheme: dark) {
  .c0 { --c: #6cb1ff; } .c1 { --c: #ff9d5c; } .c2 { --c: #59d28d; } .c3 { --c: #f183d0; }
  .c4 { --c: #b3a3ff; } .c5 { --c: #e2bd55; } .c6 { --c: #57d3dc; } .c7 { --c: #ff8585; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 16px; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 22px; margin: 4px 0 12px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 22px 0 8px; } h3 { font-size: 15px; }
.runs, .charts { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
.card { background: var(--card); border-radius: 8px; padding: 10px 14px; border-left: 4px solid var(--c);
  min-width: 0; }
.card h2 { margin: 0 0 6px; font-size: 16px; overflow-wrap: anywhere; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 2px; background: var(--c);
  margin-right: 6px; }
.status { font-size: 12px; font-weight: 600; padding: 1px 7px; border-radius: 9px; border: 1px solid var(--line);
  color: var(--soft); }
.status.running { color: var(--good); border-color: var(--good); }
.status.interrupted { color: var(--warn); border-color: var(--warn); }
.note { color: var(--warn); margin: 2px 0; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 6px 14px; margin: 0; }
dt { color: var(--soft); font-size: 12px; }
dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.charts { margin-top: 14px; }
.chart { margin: 0; background: var(--card); border-radius: 8px; padding: 8px 10px; min-width: 0; }
figcaption { font-weight: 600; } small { color: var(--soft); font-weight: 400; }
.chart svg { display: block; width: 100%; height: auto; touch-action: pan-y; }
.axes line { stroke: var(--line); } .axes text { fill: var(--soft); font-size: 12px; }
.run path { fill: none; stroke: var(--c); stroke-width: 1.5; stroke-linejoin: round;
  vector-effect: non-scaling-stroke; }
.run .band { stroke-width: 1; opacity: .3; } .run .mean { stroke-width: 2; }
.run .dots { stroke-width: 5; stroke-linecap: round; }
.run.dashed path { stroke-dasharray: 6 4; }
@media (max-width: 600px) { .axes text, .none { font-size: 17px; } }
.cursor { stroke: var(--soft); visibility: hidden; }
.none { fill: var(--soft); display: none; } .empty .none { display: inline; } .empty .axes { display: none; }
#tip { position: fixed; pointer-events: none; background: var(--ink); color: var(--paper); padding: 4px 8px;
  border-radius: 5px; font-size: 13px; white-space: pre; max-width: 90vw; z-index: 2; }
.tables { overflow-x: auto; display: flex; flex-wrap: wrap; gap: 20px; align-items: flex-start; }
table { border-collapse: collapse; font-size: 14px; } caption { text-align: left; color: var(--soft); padding: 4px 0; }
th { text-align: left; font-weight: 500; } td, th { padding: 2px 14px 2px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
.wide td { overflow-wrap: anywhere; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.sum th, .sum td, .set { font-weight: 700; }
.bar { width: 140px; }
.bar i { display: block; height: 10px; margin-top: 5px; background: var(--soft); border-radius: 2px; }
.wide { overflow-x: auto; }
.paper { background: #fff; overflow-x: auto; border-radius: 6px; margin: 10px 0; }
.paper svg { max-width: 100%; height: auto; }
@media (prefers-color-scheme: dark) { .paper { filter: invert(.88) hue-rotate(180deg); } }
.sideways { display: none; color: var(--soft); margin: 10px 0 -6px; }
@media (max-width: 600px) { .paper svg { max-width: none; } .sideways { display: block; } }
details { margin: 6px 0; } summary { cursor: pointer; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--card); padding: 10px; border-radius: 6px;
  margin: 4px 0; }
)css";

}  // namespace llmc
