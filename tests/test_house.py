"""The rules of the house, read from the tree itself."""

import ast
import re
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = {"prepare_dataset", "train_text_to_image", "generate", "metrics", "app", "export"}
MAY_IMPORT = {  # a package, and those that it stands on; none imports a command
    "core": set(),
    "data": {"core"},
    "sampling": {"core"},
    "training": {"core", "data"},
    "evaluation": {"core", "data", "sampling"},
    "webapp": {"core", "sampling"},
    "exporting": {"core", "sampling"},
    "deploy": {"core", "sampling", "webapp"},
}
FOLDERS = {*MAY_IMPORT, "bundled"}
MEGABYTE = 2**20


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / name for name in listed.stdout.split("\n") if name and (ROOT / name).exists()]


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """First parts of the names of the modules that a file imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_package_imports_neither_commands_nor_packages_above_it(folder):
    for path in (ROOT / folder).rglob("*.py"):
        strangers = imports(path) & (COMMANDS | FOLDERS) - MAY_IMPORT[folder] - {folder}
        assert not strangers, f"{path.relative_to(ROOT)} imports {strangers}"


def test_contributors_read_which_package_may_import_which():
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("| may import |")[1]
    rows = [line.strip("| ").split(" | ") for line in table.split("\n\n")[0].splitlines()[2:]]
    written = {name.strip("`/"): set(re.findall(r"`(\w+)/`", may)) for name, _, may in rows}
    written.pop("bundled")
    assert written == MAY_IMPORT


def modules_imported(path: Path) -> set[str]:
    """Modules of ours that are imported when this one is: not those that only types name."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_no_module_needs_itself_through_others():
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")
    }  # fmt: skip
    needs = {name: modules_imported(path) & paths.keys() for name, path in paths.items()}
    list(TopologicalSorter(needs).static_order())  # raises CycleError with the circle


def test_the_app_needs_no_training_and_no_scoring():
    for path in [ROOT / "app.py", ROOT / "generate.py", *(ROOT / "webapp").rglob("*.py")]:
        assert not imports(path) & {"training", "data", "evaluation", "datasets", "accelerate"}, (
            path.name
        )


def test_nothing_breaks_where_bundled_is_deleted():
    for path in [
        *ROOT.glob("*.py"),
        *(p for f in FOLDERS - {"bundled"} for p in (ROOT / f).rglob("*.py")),
    ]:
        assert "bundled" not in imports(path, top_level_only=True), path.name


@pytest.mark.parametrize(
    ("deleted", "left_out"),
    [({"exporting", "export"}, {"exporting", "export.py"}), ({"deploy"}, {"deploy", "benchmarks"})],
)
def test_nothing_breaks_where_it_is_deleted(deleted, left_out):
    for path in tracked("*.py"):
        if path.relative_to(ROOT).parts[0] not in {*left_out, "tests"}:
            assert not imports(path) & deleted, path.name


def test_nothing_breaks_where_infra_is_deleted_and_infra_needs_nothing_of_ours():
    """It runs in an environment of its own."""
    for path in tracked("*.py"):
        if path.relative_to(ROOT).parts[0] == "infra":
            assert not imports(path) & (COMMANDS | FOLDERS), path.name
        elif not path.name.startswith("test_infra"):
            assert "infra" not in imports(path), path.name


def test_weights_are_safetensors_and_stay_within_their_sizes():
    weights = tracked("*.safetensors")
    assert weights, "the bundled weights are missing"
    assert sum(path.stat().st_size for path in weights) <= 120 * MEGABYTE
    assert max(path.stat().st_size for path in weights) <= 60 * MEGABYTE
    assert not [
        p for suffix in ("bin", "pt", "pth", "ckpt", "pkl", "npy") for p in tracked(f"*.{suffix}")
    ]


def test_no_path_of_one_machine_is_in_the_tree():
    for path in tracked("*"):
        if path.suffix in (".py", ".sh", ".md", ".json", ".yaml", ".toml", ".txt"):
            found = re.search(r"(?<![\w.])/(work|root|home)/\w", path.read_text(encoding="utf-8"))
            assert not found, f"{path.relative_to(ROOT)}: {found.group()}"


def names_in(path: Path) -> set[str]:
    """Names that a file uses: print, json.loads."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.{node.attr}")
    return found


def test_one_place_prints():
    """There every line is bounded and visible, whatever file name or caption it quotes."""
    for path in tracked("*.py"):
        if path.relative_to(ROOT).parts[0] not in ("tests", "benchmarks"):
            assert "print" not in names_in(path), f"{path.relative_to(ROOT)}: use core.terminal"


OWN_JSON = {  # that the same process has just written, or whose bounds are those of a request
    "bundled/base.py", "data/writer.py", "training/model.py", "sampling/image_metadata.py",
    "webapp/http_security.py", "core/bounded_json.py",
    "deploy/draw_exported.py", "deploy/draw_once.py",  # which go where this project is not
}  # fmt: skip


def test_json_from_outside_is_read_within_bounds():
    for path in tracked("*.py"):
        name = path.relative_to(ROOT).as_posix()
        if name not in OWN_JSON and name.split("/")[0] not in ("tests", "benchmarks"):
            found = names_in(path) & {"json.load", "json.loads", "ijson"}
            assert not found, f"{name}: use core.bounded_json"


def test_conda_users_get_the_same_versions():
    assert "-r requirements.txt" in (ROOT / "env.yaml").read_text()
    pinned = (ROOT / "requirements.txt").read_text()
    for name in ("torch", "torchvision", "diffusers", "transformers", "gradio", "open-clip-torch"):
        assert re.search(rf"^{name}==", pinned, re.M), name


def test_the_loop_is_the_one_long_function_of_training():
    for path in (ROOT / "training").glob("*.py"):
        functions = [
            n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)
        ]
        long = [f.name for f in functions if f.end_lineno - f.lineno >= 40]
        assert long == ["train"] * (path.name == "loop.py"), path.name
        assert len(path.read_text().splitlines()) <= 330, path.name


@pytest.mark.parametrize("folder", ["core", "data"])
def test_functions_have_at_most_40_lines_and_files_320(folder):
    for path in (ROOT / folder).rglob("*.py"):
        text = path.read_text()
        functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
        long = [f.name for f in functions if f.end_lineno - f.lineno >= 40]
        assert not long and len(text.splitlines()) <= 320, f"{path.name}: {long}"
