# SPDX-License-Identifier: Apache-2.0
"""How a page looks: light, dark and printed, without anything fetched."""

CSS = """
:root { color-scheme: light dark; --ink: #222; --muted: #5c5c5c; --line: #d9d9d9; --back: #fff;
  --soft: #f4f6f8; --link: #00598c; --mark: #fff3cf; --bad: #a33a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --muted: #a8adb3; --line: #3a3f45;
  --back: #16191d; --soft: #20242a; --link: #7cc4f0; --mark: #4a3d12; --bad: #ff9d66; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 3.2rem; }
body { margin: 0 auto; max-width: 84rem; padding: 0 1.25rem 4rem; background: var(--back);
  color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 1.6rem 0 .2rem; }
h2 { font-size: 1.35rem; margin: 2.2rem 0 .6rem; padding-top: .6rem;
  border-top: 2px solid var(--line); }
h3 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; overflow-wrap: anywhere; }
h4 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
a { color: var(--link); }
p, dl { margin: .4rem 0; max-width: 60rem; }
.muted, caption, figcaption, dt { color: var(--muted); }
nav { position: sticky; top: 0; z-index: 2; background: var(--back); padding: .55rem 0;
  border-bottom: 1px solid var(--line); display: flex; gap: .2rem 1.1rem; overflow-x: auto;
  white-space: nowrap; }
.wide { overflow-x: auto; margin: .6rem 0; }
.wide:focus-visible, summary:focus-visible, a:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; padding-bottom: .25rem; }
th, td { padding: .28rem .8rem .28rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--line); white-space: nowrap; vertical-align: bottom; }
tbody th { font-weight: 600; }
th, td { white-space: nowrap; font-variant-numeric: tabular-nums; }
.long { white-space: normal; min-width: 14rem; max-width: 30rem; }
mark { background: var(--mark); color: inherit; padding: 0 .25em; border-radius: 3px; }
pre { background: var(--soft); padding: .6rem .8rem; border-radius: 6px; font-size: .85rem;
  white-space: pre-wrap; overflow-wrap: anywhere; margin: .4rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
summary { cursor: pointer; padding: .2rem 0; color: var(--link); }
.grid { display: grid; gap: 1rem 1.4rem; align-items: end; margin: .6rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); }
figure { margin: 0; }
figure img, figure video { max-width: 100%; height: auto; display: block; }
.grid img { width: 100%; }
.pictures { display: flex; flex-wrap: wrap; gap: 1.4rem; margin: .6rem 0; }
.pictures img, .pictures video { max-height: 32rem; background: #fff; border-radius: 4px;
  padding: 4px; }
.key { display: flex; flex-wrap: wrap; gap: .15rem 1.2rem; list-style: none; margin: .4rem 0;
  padding: 0; font-size: .9rem; }
.key svg { vertical-align: middle; margin-right: .4em; }
.bad { color: var(--bad); font-weight: 600; }
@media print {
  :root { --ink: #000; --muted: #444; --line: #bbb; --back: #fff; --soft: #f4f4f4; --link: #000;
    --mark: #eee; --bad: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  .wide { overflow: visible; }
  table { font-size: 7pt; }
  th, td, thead th { white-space: normal; padding-right: .45rem; overflow-wrap: break-word; }
  .long { min-width: 0; }
  tr, figure, .key { break-inside: avoid; }
  h2, h3, h4, caption { break-after: avoid; }
  details::details-content { content-visibility: visible; height: auto; }
}
"""

# Within pictures drawn for the page: their ink is that of `plots`.
DARK_FIGURE = """
@media (prefers-color-scheme: dark) {
  [style*="fill: #222222"] { fill: #e6e6e6 !important }
  [style*="fill: #666666"] { fill: #a8adb3 !important }
  [style*="stroke: #222222"] { stroke: #e6e6e6 !important }
  [style*="stroke: #000000"] { stroke: #a8adb3 !important }
  [style*="stroke: #e6e6e6"] { stroke: #33383e !important }
}
"""
