"""The page: all derivations in mathematical notation (MathML), tables and figures, in one file."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import sympy as sp
from latex2mathml.converter import convert

from optlaws.features import get_basis
from theory import contradictions
from theory.figures import drawn
from theory.index import COLUMN_HEAD, DRAWN, FOLDER, ORACLE, PICTURES, SIMULATED, STANDING, column_rows, results
from theory.result import Result, Step

STYLE = """
body { font: 16px/1.55 Georgia, 'Times New Roman', serif; color: #1b1b1b; max-width: 62rem; margin: 2rem auto;
  padding: 0 1.2rem; }
h1, h2, h3, th, nav, figcaption, .tag { font-family: 'Helvetica Neue', Arial, sans-serif; }
h1 { font-size: 1.9rem; } h2 { margin-top: 3rem; border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
h3 { margin: 2.2rem 0 .4rem; font-size: 1.1rem; }
nav ul { columns: 2; font-size: .9rem; }
a { color: #1a4f8b; text-decoration: none; } a:hover { text-decoration: underline; }
.statement { background: #f4f6f9; border-left: 4px solid #1a4f8b; padding: .6rem 1rem; margin: .6rem 0; }
.statement.argued { background: #faf6ee; border-color: #b07a1e; }
.tag { font-size: .72rem; padding: .1rem .45rem; border-radius: .6rem; color: #fff; background: #1a4f8b;
  vertical-align: middle; white-space: nowrap; }
.tag.argued { background: #b07a1e; }
math { font-size: 1.02em; font-family: 'Latin Modern Math', 'STIX Two Math', 'Cambria Math', math; }
math[display=block] { margin: .5rem 0; overflow-x: auto; overflow-y: hidden; padding: .2rem 0; max-width: 100%; }
.equation { overflow-x: auto; overflow-y: hidden; padding: .1rem 0; }
ol.steps > li { margin: .35rem 0; } .small { font-size: .88rem; color: #444; }
table { border-collapse: collapse; font-size: .84rem; margin: 1rem 0; width: 100%; }
th { text-align: left; border-bottom: 2px solid #888; } td { border-bottom: 1px solid #ddd; vertical-align: top; }
th, td { padding: .3rem .5rem; } code { font-size: .86em; background: #f2f2f2; padding: 0 .2em; }
.figures { display: grid; grid-template-columns: 1fr 1fr; gap: 1.2rem; } figure { margin: 0; }
figure img { width: 100%; } figcaption { font-size: .8rem; color: #333; }
summary { cursor: pointer; font-family: 'Helvetica Neue', Arial, sans-serif; font-size: .85rem; color: #1a4f8b; }
"""

INTRODUCTION = (
    "Each result below is derived by a module of `theory/` that checks its steps with sympy when this page is built."
    " Proved: follows from the stated assumptions; theorems of the textbooks are named and used. Scaling"
    " argument: the algebra is checked, the claim about"
    " training is"
    " not derived. Notation: step $t$, learning rate $\\eta(t)$, $S(s,T) = \\int_s^T\\eta$, scaled rate $x ="
    " (\\eta/\\eta_{ref})\\,n^{c_N}$, weight norm $R$, felt rate $u = x/R$, intrinsic time $\\tau$, temperature"
    " $\\Theta$."
)


def mathml(latex: str, display: bool = False) -> str:
    """Return LaTeX as MathML."""
    return str(convert(latex, display="block" if display else "inline"))


def prose(text: str) -> str:
    """Return text with $...$, $$...$$ and `...` as HTML."""
    out = []
    for part in re.split(r"(\$\$.+?\$\$|\$.+?\$|`.+?`)", text, flags=re.DOTALL):
        if part.startswith("$$"):
            out.append(f'<div class="equation">{mathml(part[2:-2].rstrip(".,: "), True)}</div>')
        elif part.startswith("$"):
            out.append(mathml(part[1:-1]))
        elif part.startswith("`"):
            out.append(f"<code>{escape(part[1:-1])}</code>")
        else:
            out.append(escape(part))
    return "".join(out)


def _latex(expr: sp.Basic) -> str:
    """Return an expression's LaTeX, with primes for derivatives and plain parentheses around short arguments."""
    text = str(sp.latex(expr))
    text = re.sub(r"{\\left\(([^()]{1,12}?) ?\\right\)}", r"(\1)", text)  # f(t)
    derivative = r"\\frac{\\?(?:d|partial)}{\\?(?:d|partial) (\w+)} (\\?\w+)\(\1\)"
    text = re.sub(derivative, r"\2'(\1)", text)  # df(t)/dt
    text = re.sub(r"\\left\((\\?\w+'\(\w+\))\\right\)", r"\1", text)  # (f'(t))^2
    partial = r"\\frac{\\partial(?:\^\{2\})?}{((?:\\partial x_{\d}(?:\^\{2\})? ?)+)}"
    text = re.sub(partial, lambda found: found[1].replace(" x_", "_"), text)
    return text.replace("(x_{1},x_{2})", "")


def equation(step: Step) -> str:
    """Return the relation of a step as displayed mathematics; sides that sympy writes alike are shown once."""
    left, right = step.shown or _latex(step.left), _latex(step.right)
    relation = r"\ge" if step.relation == ">=" else "="
    whole = right if left == right else f"{left} {relation} {right}"
    return f'<div class="equation">{mathml(whole, True)}</div>'


def section(result: Result) -> str:
    """Return a result's section: statement, assumptions, checked steps."""
    argued = "" if result.standing == "proved" else " argued"
    steps = "".join(f"<li>{prose(step.text)}{equation(step)}</li>" for step in result.steps)
    assumptions = "".join(f"<li>{prose(text)}</li>" for text in result.assumptions)
    feeds = ", ".join(f"<code>{name}</code>" for name in result.feeds)
    parts = [
        f'<h3 id="{result.name}">{escape(result.title)} <span class="tag{argued}">{result.standing}</span></h3>',
        f'<div class="statement{argued}">{prose(result.statement)}</div>',
        f"<div class='small'><b>Assumptions.</b><ul>{assumptions}</ul></div>",
        f"<details open><summary>{len(result.steps)} checked steps</summary><ol class='steps'>{steps}</ol></details>",
        f"<p>{prose(result.remark)}</p>" if result.remark else "",
        f"<p class='small'>Feeds {feeds}. Derived in <code>theory/{result.module}</code>.",
        f" See also {'; '.join(escape(s) for s in result.sources)}." if result.sources else "",
        "</p>",
    ]
    return "".join(parts)


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Return an HTML table whose cells are prose."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    rows = "".join("<tr>" + "".join(f"<td>{prose(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table>"


def _figure(caption: str, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">' + (
        f"<figcaption>{prose(caption)}</figcaption></figure>"
    )


def _listed(text: str) -> str:
    """Return Markdown of one paragraph and a list as HTML."""
    head, *items = re.split(r"\n+- ", text.strip())
    return f"<p>{prose(head)}</p><ul>{''.join(f'<li>{prose(item)}</li>' for item in items)}</ul>"


def html(pictures: Path | None = None) -> str:
    """Return the page.

    Parameters
    ----------
    pictures : Path, optional
        Folder of the simulations' figures (PNG); ``docs/theory`` by default, left out where absent.
    """
    found = results()
    theorems = [r for r in found if r.name.startswith("theorem_")]
    others = [r for r in found if r not in theorems]
    folder = pictures or FOLDER.parent / PICTURES
    captions = {name: text for drawings in DRAWN.values() for name, text in drawings.items()}
    simulated = sorted(folder.glob("*.png")) if folder.is_dir() else []
    links = "".join(f'<li><a href="#{r.name}">{escape(r.title)}</a></li>' for r in found)
    body = [
        "<h1>From the update rule to the columns</h1>",
        f"<p>{prose(INTRODUCTION)}</p>",
        f"<nav><ul>{links}<li><a href='#columns'>Columns</a></li><li><a href='#contradictions'>What data"
        f" contradicts</a></li>"
        "<li><a href='#oracle'>Oracle</a></li></ul></nav>",
        "<h2>Theorems</h2>",
        *(section(r) for r in theorems),
        "<h2>Derivations</h2>",
        *(section(r) for r in others),
        '<h2 id="columns">Columns</h2>',
        f"<p>{prose(STANDING.format(basis=get_basis().id).replace('*', ''))}</p>",
        table(COLUMN_HEAD, column_rows(found)),
        '<h2 id="contradictions">What theory says and data contradicts</h2>',
        "<p>Constants of the default basis, read from the code. <i>Agrees</i>: less than 10 % off theory's value.</p>",
        table(
            ("constant", "enters", "theory", "theory's value", "fitted", "verdict", "consequence"),
            contradictions.rows(),
        ),
        table(("form", "theory", "code", "consequence"), contradictions.STRUCTURE),
        '<h2 id="oracle">The oracle</h2>',
        _listed(ORACLE),
        '<div class="figures">',
        *(_figure(caption, png) for caption, png in drawn()),
        "</div>",
    ]
    if simulated:
        body += ["<h2>Simulations</h2>", f"<p>{prose(SIMULATED.replace('*', ''))}</p>", '<div class="figures">']
        for path in simulated:
            body.append(_figure(captions.get(path.stem, re.sub("[-_]", " ", path.stem)), path.read_bytes()))
        body.append("</div>")
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Theory of optlaws</title>"
        f"<meta name='viewport'"
        f" content='width=device-width'><style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )
