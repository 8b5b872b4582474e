"""What the documentation promises is there."""

import ast
import json
import re
import shlex
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.reporting.drafts import SOURCES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md")])


def test_every_public_name_is_in_the_api_reference():
    listed = set(re.findall(r"^   ([A-Za-z_]\w*)", (DOCS / "api.md").read_text(), re.MULTILINE))
    modules = {"datasets", "kernels", "plots", "priors", "transforms"}
    assert set(bl.__all__) - modules - listed == set()


def test_every_plot_is_in_the_api_reference():
    text = (DOCS / "api.md").read_text()
    assert {name for name in bl.plots.__all__ if f"   plots.{name}\n" not in text} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


FIRST_LINE = re.compile(r"^(?:- )?[^\W\d_][\w'-]+ [A-Z][\w-]*(?:, .*| et al\.)? \(\d{4}\)\. ")


def references():
    """Entries of all lists of references, in docstrings, on pages and in reports: (file, text)."""
    for path in [*PAGES, *(ROOT / "bayeslmm").rglob("*.py")]:
        entry, inside = [], False
        for line in [*path.read_text().splitlines(), ""]:
            text = line.strip()
            if re.match(r"#* ?References", text):
                inside = True
            elif inside and re.fullmatch(r'|""".*|#+ .*', text) and entry:
                yield path.name, " ".join(entry)
                entry, inside = [], False
            elif inside and FIRST_LINE.match(text):
                if entry:
                    yield path.name, " ".join(entry)
                entry = [text.removeprefix("- ")]
            elif entry:
                entry.append(text)
    yield from (("drafts.py", source) for source in SOURCES.values())


def test_a_paper_is_cited_in_one_way():
    papers, seen = {}, 0
    for place, text in references():
        cited = re.sub(r" \([A-Zw].*\)$", "", text)  # a remark behind it
        authors, rest = re.split(r" \(\d{4}\)\. ", cited, maxsplit=1)
        keys = [(authors.split()[0], rest[:25]), *re.findall(r"doi:(\S+)", cited)]
        for key in keys:
            assert papers.setdefault(key, cited) == cited, place
        seen += 1
    assert seen > 150


def test_every_page_is_in_a_table_of_contents():
    listed = set()
    for page in DOCS.glob("*.md"):
        for block in re.findall(r"```\{toctree\}(.*?)```", page.read_text(), re.DOTALL):
            listed |= {line.strip() for line in block.splitlines()}
    assert {page.stem for page in DOCS.glob("*.md")} - listed == {"index"}


def code_blocks(text, language):
    """The blocks of a page in a language, and the number of lines before each."""
    for found in re.finditer(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield text[: found.start(1)].count("\n"), found[1]


# What is run in place of a line that takes long with all mice.
SHORTER = {
    "README.md": {"split.posterior(seed=1)": "split.reml()"},  # 10 s; test_partition.py draws
}


def run_code(page):
    """Run the Python of a page; yields the names after each block.

    A traceback names the page and its line.
    """
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    names, text = {}, page.read_text()
    for line, shorter in SHORTER.get(page.name, {}).items():
        assert text.count(line) == 1, line
        text = text.replace(line, shorter)
    for before, block in code_blocks(text, "python"):
        exec(compile("\n" * before + block, page, "exec"), names)
        plt.close("all")
        yield names


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index", "get-started", "how-do-i", "coming-from"])
def test_code_of_the_first_pages_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert list(run_code(DOCS / f"{name}.md"))


@pytest.mark.slow
def test_readme_runs_and_shows_what_python_prints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = [block for _, block in code_blocks((ROOT / "README.md").read_text(), "text")]
    blocks = run_code(ROOT / "README.md")
    assert f"{next(blocks)['lmm']}\n" in shown
    *_, names = blocks
    (table,) = (block for block in shown if block.startswith("chrom "))
    rows = pd.read_table(StringIO(table), sep=r"\s+", dtype={"chrom": str})
    found = names["hits"].nsmallest(len(rows), "p_wald")[rows.columns]
    assert rows.id.tolist() == found.id.tolist()
    pd.testing.assert_frame_equal(rows, found.reset_index(drop=True), check_dtype=False, rtol=0.02)


def commands_of(lines):
    """The words of command lines of the package, without its name."""
    for line in lines.replace("\\\n", " ").splitlines():
        if found := re.match(r".*\bbayeslmm ([a-z]\w*\b.*)", line):
            yield shlex.split(found[1], comments=True)


@pytest.fixture(scope="module")
def group():
    from typer.main import get_command

    from bayeslmm import cli

    return get_command(cli.app)


def parse(group, name, *words):
    """Fails unless a command takes these words, or where some are left out (...) these options."""
    command = group.commands[name]
    if "--out" in words and "..." not in words:
        command.make_context(name, list(words))
    known = {text for parameter in command.params for text in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known, (name, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_parse(page, group):
    text = page.read_text()
    blocks = [block for _, block in code_blocks(text, "bash")]
    quoted = re.findall(r"`(bayeslmm [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for words in commands_of("\n".join([*blocks, *quoted])):
        parse(group, *words)


def test_command_lines_of_the_help_parse(group):
    seen = 0
    for command in [group, *group.commands.values()]:
        examples = re.findall(r"^ *(bayeslmm (?:.*\\\n)*.*)", command.help, re.MULTILINE)
        for words in commands_of("\n".join(examples)):
            parse(group, *words)
            seen += 1
    assert seen > len(group.commands)


def command_line_cells(page):
    """Cells of the columns headed "command line", in tables of three columns."""
    for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        head, _, *rows = table.splitlines()
        names = [cell.strip() for cell in head.strip("|").split("|")]
        if "command line" in names:
            for row in rows:
                cells = re.split(r"(?<!\\)\|", row.strip("|"))
                yield cells[names.index("command line")]


def test_options_that_stand_for_other_programs_exist(group):
    options = {
        name: {text for param in command.params for text in param.opts}
        for name, command in group.commands.items()
    }
    anywhere = set().union(*options.values())
    seen = 0
    for cell in command_line_cells((DOCS / "coming-from.md").read_text()):
        for code in re.findall(r"`([^`]+)`", cell):
            given = set(re.findall(r"(?<!\S)--[a-z][\w-]*", code))
            named = re.match(r"(?:bayeslmm )?([a-z0-9]+)\b", code)
            command = named[1] if named and named[1] in options else None
            assert given <= (options[command] if command else anywhere), code
            assert not code.startswith("bayeslmm ") or command, code
            seen += len(given)
    assert seen > 50


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: page.name)
def test_names_of_the_package_exist(page):
    text = page.read_text()
    if page.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    parts = "plots|priors|kernels|datasets|transforms"
    names = set(re.findall(rf"\bbl\.((?:{parts})\.\w+|\w+)", text))
    for name in names:
        thing = bl
        for part in name.split("."):
            assert hasattr(thing, part), f"{page.name}: bl.{name}"
            thing = getattr(thing, part)


def test_every_module_is_in_the_architecture():
    text = (DOCS / "architecture.md").read_text()
    top = {path.stem for path in (ROOT / "bayeslmm").glob("[a-z]*.py")}
    assert {name for name in top if f"`{name}`" not in text} == set()
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        packages = re.findall(r"`(\w+)`", section.partition("\n")[0])
        paths = [path for name in packages for path in (ROOT / "bayeslmm" / name).glob("[a-z]*.py")]
        cells = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)
        listed = {name for cell in cells for name in re.findall(r"`([a-z]\w+)`", cell)}
        assert listed == {path.stem for path in paths}, packages


def imported(path):
    """Packages, and modules of the top, that a module imports when it is imported itself."""
    waiting = list(ast.parse(path.read_text()).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef) or ast.unparse(node).startswith("if TYPE_CHECKING"):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bayeslmm."):
            yield node.module.split(".")[1]
        waiting += ast.iter_child_nodes(node)


def test_packages_import_those_before_them():
    text = (DOCS / "architecture.md").read_text()
    (listed,) = re.findall(r"^    (errors, .*\n.*cli)$", text, re.MULTILINE)
    order = re.findall(r"\w+", listed)
    source = ROOT / "bayeslmm"
    modules = {path: path.relative_to(source).parts[0] for path in source.rglob("[a-z]*.py")}
    assert {Path(name).stem for name in modules.values()} == set(order)
    for path, name in modules.items():
        floor = order.index(Path(name).stem)
        later = {other for other in imported(path) if order.index(other) > floor}
        assert not later, f"{path.relative_to(ROOT)} imports {later}"


def test_named_source_files_are_there():
    for page in PAGES:
        for name in re.findall(
            r"`((?:bayeslmm|docs|tests|notebooks)/[\w/.]+\.\w+)`", page.read_text()
        ):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def shingles(text):
    """Runs of three words of a text, without numbers, quotes and names of files."""
    words = re.findall(r"[a-z][a-z0-9-]+", re.sub(r"'[^']*'|\S*[/.]\S+", " ", text.lower()))
    return set(zip(words, words[1:], words[2:], strict=False))


def test_errors_that_newcomers_meet_are_explained(tmp_path):
    """What goes wrong with the first files is among the bold words of docs/errors.md."""
    import numpy as np
    from plink import write_plink
    from typer.testing import CliRunner

    from bayeslmm import cli

    rng = np.random.default_rng(1)
    write_plink(tmp_path / "c", rng.integers(0, 3, (20, 30)).astype(float))
    ids = [f"i{i}" for i in range(20)]
    rows = "".join(f"{name}\t{i % 7 * 0.3}\tA\n" for i, name in enumerate(ids))
    good = {
        **{f"c{e}": (tmp_path / f"c{e}").read_bytes() for e in (".bed", ".bim", ".fam")},
        "t.tsv": f"id\ty\tg\n{rows}".encode(),
    }
    table, bim = good["t.tsv"], good["c.bim"]
    broken = [
        {"c.fam": None},
        {"c.bim": bim.decode().encode("utf-16")},
        {"c.bim": bim.replace(b"rs0", b"rs0 ", 1).replace(b"\tG\n", b"\n", 1)},
        {"c.bed": good["c.bed"][:-1]},
        {"c.bed": b"no genotypes"},
        {"t.tsv": table.replace(b"0.3", b"0,3", 1)},
        {"t.tsv": table.decode().encode("utf-16-le")},
        {"t.tsv": table.replace(b"i2\t", b"i1\t", 1)},
        {"t.tsv": table.replace(b"i", b"mouse")},
        {"t.tsv": table.replace(b"\ty\t", b"\tz\t")},
        {"t.tsv": table.replace(b"\ty\t", b"\tg\t")},
        {"t.tsv": re.sub(rb"\t[0-9.]+", b"\t1", table)},
        {"t.tsv": re.sub(rb"\tA", b"", table)},
        {"t.tsv": None},
    ]
    bold = re.findall(r"\*\*(.*?)\*\*", (DOCS / "errors.md").read_text(), re.DOTALL)
    explained = set().union(*map(shingles, bold))
    for change in broken:
        for name, content in (good | change).items():
            (tmp_path / name).unlink(missing_ok=True)
            if content is not None:
                (tmp_path / name).write_bytes(content)
        asked = ["--pheno", tmp_path / "t.tsv", "--formula", "y ~ 1", "--out", tmp_path / "out"]
        result = CliRunner().invoke(cli.app, ["h2", str(tmp_path / "c"), *map(str, asked)])
        assert result.exit_code == 2, (change, result.output)
        assert shingles(result.stderr) & explained, result.stderr
