import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOP = {"README.md", "requirements.txt", "notebooks", "lossviz", "data", "tests"}


@pytest.fixture(scope="module")
def tracked():
    """The files that git holds or would hold, relative to the top."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("this is no git repository")
    safe = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }
    listed = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **safe}, capture_output=True, text=True, check=True
    )
    return [Path(line) for line in listed.stdout.splitlines() if (ROOT / line).exists()]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel, built without a network from a copy of the package, and the names it should hold."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "lossviz", folder / "lossviz", ignore=ignored)
    kinds = (".py", ".css", ".js", ".mplstyle")
    files = [path for path in (folder / "lossviz").rglob("*") if path.suffix in kinds]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, folder / "lossviz"], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel, {path.relative_to(folder).as_posix() for path in files}


def requirement_names(text):
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return {re.split(r"[<>=\[ ]", line)[0] for line in lines if line and not line.startswith("-")}


def test_top_level_holds_the_fixed_names_and_dot_files(tracked):
    top = {path.parts[0] for path in tracked}
    assert {name for name in top if not name.startswith(".")} == TOP


def test_wheel_holds_every_module_and_nothing_beside_the_package(built):
    wheel, expected = built
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == expected


def test_wheel_works_where_it_is_unpacked_and_says_that_the_data_lie_elsewhere(built, tmp_path):
    zipfile.ZipFile(built[0]).extractall(tmp_path)
    code = (
        "import lossviz, lossviz.data, pathlib;"
        f"assert pathlib.Path(lossviz.__file__).is_relative_to({str(tmp_path)!r});"
        "lossviz.data.digits()"
    )
    environment = {key: value for key, value in os.environ.items() if key != "LOSSVIZ_DATA"}
    environment["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("FileNotFoundError: 'digits.npz' is looked for")
    assert "LOSSVIZ_DATA" in last


def test_package_imports_from_any_folder(tmp_path):
    code = "import lossviz; print(lossviz.__version__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+", done.stdout.strip())


def test_importing_the_package_does_not_import_what_only_some_lessons_need(tmp_path):
    code = "import lossviz, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert not {"torchvision", "sklearn", "distributed", "IPython"} & set(done.stdout.split())


def test_readme_has_the_two_commands_that_ci_takes_from_it():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [line for line in readme.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert all(f"```bash\n{command}\n```" in readme for command in commands)
    assert "papermill notebooks/00_first_surface.ipynb" in commands[0]
    assert commands[1].endswith("&& pytest")
    assert "grep '^python3 -m venv' README.md" in (ROOT / ".ci" / "run").read_text()


def test_ci_is_a_program():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)


def test_requirements_name_every_dependency_and_end_with_the_package():
    text = (ROOT / "requirements.txt").read_text()
    project = (ROOT / "lossviz" / "pyproject.toml").read_text()
    listed = re.search(r"\ndependencies = (\[.*?\n\])", project, re.DOTALL).group(1)
    needed = requirement_names("\n".join(ast.literal_eval(listed)))
    assert needed <= requirement_names(text)
    assert text.splitlines()[-1] == "-e ./lossviz"


def test_every_import_of_the_package_is_a_dependency():
    project = (ROOT / "lossviz" / "pyproject.toml").read_text()
    lists = re.findall(r"^\w+ = (\[.*?\])$", project, re.MULTILINE | re.DOTALL)
    lines = [line for one in lists for line in ast.literal_eval(one)]
    known = requirement_names("\n".join(lines)) | {"mpl_toolkits", "PIL"}  # of matplotlib, pillow
    for path in (ROOT / "lossviz").rglob("*.py"):
        if "build" not in path.parts:
            assert imported(path) - set(sys.stdlib_module_names) - {"lossviz"} <= known, path


def imported(path):
    """Return the top names that a module imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_every_module_is_valid_in_the_oldest_version(tracked):
    for path in tracked:
        if path.suffix == ".py":
            ast.parse((ROOT / path).read_text(encoding="utf-8"), feature_version=(3, 10))


def test_no_private_name_is_taken_from_another_module(tracked):
    for path in tracked:
        if path.suffix != ".py" or path.parts[0] != "lossviz":
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("lossviz"):
                taken = [alias.name for alias in node.names if re.match(r"_(?!_)", alias.name)]
                assert not taken, f"{path} takes {taken} from {node.module}"
