"""README and pages: short where they should be, links that lead somewhere, configs and commands that exist."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from meddiff.cli.main import LIGHTNING_VERBS, OWN_VERBS

ROOT = Path(__file__).resolve().parents[2]
#: Pages that do nothing but include another file, whose links are relative to that file.
INCLUDED = {"CONTRIBUTING.md", "CHANGELOG.md", "benchmarks.md"}
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *(one for one in ROOT.glob("docs/*.md") if one.name not in INCLUDED),
        *ROOT.glob("docs/api/*.md"),
        *ROOT.glob("docs/results/*.md"),
        ROOT / "benchmarks" / "README.md",
        ROOT / "sweeps" / "README.md",
    ]
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
#: First parts of paths that the pages name.
TOP = "meddiff|lightning_modules|datamodules|callbacks|configs|sweeps|benchmarks|tools|tests|docs"
#: A path in backticks that begins with a room.
PATH = re.compile(rf"`((?:{TOP})/[\w./-]*)`")
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).strip().replace(" ", "-") for one in headings}


def test_the_readme_is_one_page() -> None:
    assert len(text_of(ROOT / "README.md").splitlines()) <= 120


def test_the_readmes_test_command_is_found_where_ci_looks_for_it() -> None:
    command = re.search(r"<!-- test command -->\n```bash\n(.+)\n```\n", text_of(ROOT / "README.md"))
    assert command is not None
    assert command[1].endswith("python -m pytest")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    """Files and headings of this repository; addresses on the web are not looked up."""
    problems = []
    for link in LINK.findall(FENCE.sub("", text_of(page))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        # pages of the API reference are made when Sphinx runs
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            problems.append(link)
    assert problems == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_named_paths_exist(page: Path) -> None:
    """Also outside links; NAME stands for what the reader chooses. The list of changes names what is gone."""
    named = {name for name in PATH.findall(text_of(page)) if "NAME" not in name}
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_paths_are_found_in_the_pages() -> None:
    """Else the test above would pass on empty sets."""
    assert len(PATH.findall(text_of(ROOT / "docs" / "architecture.md"))) > 50


def test_python_of_the_pages_runs() -> None:
    """All blocks but the README's, which needs a trained run and has a test of its own."""
    blocks = {
        page.name: "\n".join(re.findall(r"^```python\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL))
        for page in PAGES
        if page != ROOT / "README.md"
    }
    assert blocks["phantoms.md"]
    for name, block in blocks.items():
        exec(compile(block, name, "exec"), {})


def test_the_readme_leads_to_every_page() -> None:
    """At most over one other page."""
    direct = {link.partition("#")[0] for link in LINK.findall(text_of(ROOT / "README.md"))}
    reached = {(ROOT / link).resolve() for link in direct if link.startswith("docs/")}
    for page in list(reached):
        if page.suffix == ".md":
            links = (link.partition("#")[0] for link in LINK.findall(text_of(page)))
            reached |= {(page.parent / link).resolve() for link in links if link and ":" not in link}
    pages = {path.resolve() for path in ROOT.glob("docs/*.md") if path.name not in {*INCLUDED, "index.md"}}
    pages |= {path.resolve() for path in ROOT.glob("docs/results/*.md")}
    assert pages <= reached


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_name_verbs_and_files_that_exist(page: Path) -> None:
    """``lightning VERB``, ``-c configs/FILE`` and ``python FOLDER/FILE.py``, in blocks and in the text.

    The list of changes names what is gone.
    """
    text = text_of(page)
    verbs = set(re.findall(r"(?:^|`|&& )lightning ([a-z]+)", text, re.MULTILINE))
    assert verbs <= {*LIGHTNING_VERBS, *OWN_VERBS}
    files = set(re.findall(r"\bconfigs/[\w/]+\.yaml", text))
    if page.name != "CHANGELOG.md":
        files |= set(re.findall(r"python ((?:tools|benchmarks)/\w+\.py)", text))
    assert {name for name in files if not (ROOT / name).is_file()} == set()


def test_yaml_of_the_pages_can_be_read() -> None:
    blocks = re.findall(
        r"^```yaml\n(.*?)^```$", text_of(ROOT / "docs" / "runs_and_configs.md"), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) >= 3
    assert all(isinstance(yaml.safe_load(block), dict) for block in blocks)


def test_pages_that_include_another_are_of_the_same_name() -> None:
    """So that links between the included files resolve on the built pages as they do in the repository."""
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        assert f"{{include}} ../{name}" in text_of(ROOT / "docs" / name)


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    citation = yaml.safe_load(text_of(ROOT / "CITATION.cff"))
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert citation["references"][0]["identifiers"][0]["value"] == "arXiv:2303.17908"


def test_hooks_fetch_nothing() -> None:
    hooks = yaml.safe_load(text_of(ROOT / ".pre-commit-config.yaml"))
    assert [one["repo"] for one in hooks["repos"]] == ["local"]
    assert {hook["language"] for one in hooks["repos"] for hook in one["hooks"]} == {"system"}
