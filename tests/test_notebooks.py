"""The lessons: the template is kept, what is stored is fit to be shown, exercises hold."""

import ast
import json
import re
from pathlib import Path

import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from lossviz.lessons.execution import normalized, notebook_bytes, output_problems
from lossviz.lessons.source import exercises, parameters, read_lesson, source_problems, tags_of
from lossviz.lessons.student import student_version, write_student_version

NOTEBOOKS = sorted(Path(__file__).parent.parent.joinpath("notebooks").glob("[0-9]*.ipynb"))
WRONG = Path(__file__).parent / "wrong_answers"
BATCHES = {"width": 2, "samples": 64, "batch_sizes": [8, 32], "epochs": 1, "points": 5}
# The least that a lesson can be run with.
TINY = {
    "00_first_surface": {"depth": 8, "width": 1, "points": 3, "epochs": 1, "samples": 16},
    "01_convexity": {"width": 2, "layers": [1, 2], "points": 3, "epochs": 1, "samples": 40},
    "02_batch_size": BATCHES,
    "03_weight_decay": BATCHES,
    "04_filter_normalization": BATCHES,
    "05_skip_connections": {"depths": [8], "width": 2, "epochs": 1, "points": 3, "samples": 16},
    "07_adaptive_batches": {"hidden": 2, "samples": 64, "epochs": 1, "batch_sizes": [2, 8]},
    "08_detector": {"width": 2, "steps": 20, "scenes": 8, "samples": 4, "points": 3},
    "09_paper_scale": {"depth": 8, "width": 1, "epochs": 1, "samples": 8, "points": 9},
}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def lesson(path):
    return read_lesson(path)


def code(lesson):
    return [cell for cell in lesson.cells if cell.cell_type == "code"]


def text(lesson):
    """What a reader of the lesson reads: no model answers, no notes for the lecturer."""
    cells = [cell for cell in lesson.cells if cell.cell_type == "markdown"]
    return "\n\n".join(c.source for c in cells if not {"solution", "instructor"} & set(tags_of(c)))


def check_of(number, lesson):
    return next(c.source for c in code(lesson) if f"exercise {number}: right" in c.source)


def imports_of(lesson):
    """The import lines of a lesson, which is all that a check may need."""
    lines = [line for cell in code(lesson)[:2] for line in ast.parse(cell.source).body]
    chosen = [line for line in lines if isinstance(line, (ast.Import, ast.ImportFrom))]
    return "\n".join(ast.unparse(line) for line in chosen)


# --- the template


def test_tags_marks_and_parameters_are_right(lesson):
    assert source_problems(lesson) == []


def test_stored_outputs_are_fit_for_a_class(lesson):
    assert output_problems(lesson) == []


def test_a_notebook_is_stored_in_its_one_form(path, lesson):
    assert notebook_bytes(normalized(lesson)) == path.read_bytes()


def test_a_notebook_was_executed_from_top_to_bottom_in_one_go(lesson):
    counts = [cell.execution_count for cell in code(lesson)]
    assert counts == list(range(1, len(counts) + 1))


def test_the_first_code_cell_is_parameters_and_the_second_checks_them(lesson):
    first, second = code(lesson)[:2]
    assert tags_of(first) == ["parameters"] and len(first.source.splitlines()) <= 12
    assert {"seeds", "device", "out_dir"} <= set(parameters(lesson))
    assert all("#" in line for line in first.source.splitlines())
    assert "import lossviz as lv" in second.source and "lv.check_parameters(" in second.source


def test_cells_are_short(lesson):
    lengths = sorted(len(cell.source.splitlines()) for cell in code(lesson))
    assert lengths[-1] <= 15 and lengths[int(0.9 * len(lengths)) - 1] <= 10


def test_each_of_three_to_five_ideas_is_asked_guessed_seen_and_doubted(lesson):
    steps = ("**Question.**", "**Predict.**", "**Saw.**", "**But**")
    counts = {step: text(lesson).count(step) for step in steps}
    assert len(set(counts.values())) == 1 and 3 <= counts["**But**"] <= 5, counts


def test_a_lesson_is_read_in_one_sitting(lesson):
    words = len(re.findall(r"[^\W\d_]{2,}", re.sub(r"\$[^$]*\$", "", text(lesson))))
    assert 1300 <= words <= 2600
    assert "!" not in re.sub(r"`[^`]*`|!\[|\$[^$]*\$", "", text(lesson))


def test_a_lesson_has_six_to_ten_pictures(lesson):
    outputs = [output for cell in code(lesson) for output in cell.outputs]
    assert 6 <= sum("image/png" in output.get("data", {}) for output in outputs) <= 10


def test_pictures_have_an_alternative_text(lesson):
    outputs = [output for cell in code(lesson) for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert all(picture.metadata.get("image/png", {}).get("alt") for picture in pictures)


def test_results_are_saved_before_the_first_exercise(lesson):
    cells = code(lesson)
    saved = next(k for k, cell in enumerate(cells) if "lv.save_results(" in cell.source)
    assert saved < next(k for k, cell in enumerate(cells) if "exercise" in tags_of(cell))


# --- exercises


@pytest.mark.parametrize("number", [1, 2, 3])
def test_solution_passes_its_check_and_a_blank_fails_it_with_the_reason(lesson, number, capsys):
    for version, blank in ((lesson, False), (student_version(lesson), True)):
        space = {}
        exec(imports_of(lesson), space)
        exec(dict(exercises(version))[number].source, space)
        if blank:
            with pytest.raises(NotImplementedError, match=f"exercise {number}"):
                exec(check_of(number, version), space)
        else:
            exec(check_of(number, version), space)
            assert f"exercise {number}: right" in capsys.readouterr().out


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_plausible_wrong_answer_fails_the_check_with_the_reason(path, lesson, number):
    space = {}
    exec(imports_of(lesson), space)
    exec((WRONG / f"{path.stem[3:]}.py").read_text(), space)
    name = ast.parse(dict(exercises(lesson))[number].source).body[-1].name
    assert name in space
    with pytest.raises(AssertionError, match=r"\w+ \w+"):
        exec(check_of(number, lesson), space)


def test_a_lesson_has_three_exercises_of_at_most_eight_lines_to_write(lesson):
    numbers = [number for number, _ in exercises(lesson)]
    assert numbers == [1, 2, 3]
    for _, cell in exercises(lesson):
        body = cell.source.split("### BEGIN SOLUTION")[1].split("### END SOLUTION")[0]
        assert len(body.strip().splitlines()) <= 8


def test_no_student_version_holds_a_mark_or_an_answer(lesson):
    student = student_version(lesson)
    assert not any("BEGIN SOLUTION" in cell.source for cell in student.cells)
    assert not any({"solution", "instructor"} & set(tags_of(cell)) for cell in student.cells)


# --- whole runs


def run(notebook, folder, settings):
    papermill.execute_notebook(
        notebook,
        folder / "out.ipynb",
        {**settings, "out_dir": (folder / "left").as_posix()},
        kernel_name="python3",
        progress_bar=False,
    )


@pytest.mark.lesson
@pytest.mark.parametrize("stem", TINY)
def test_parameters_arrive_and_a_student_version_leaves_its_results(stem, tmp_path):
    path = next(each for each in NOTEBOOKS if each.stem == stem)
    student = write_student_version(path, tmp_path / "student")
    with pytest.raises(PapermillExecutionError, match=r"exercise \d"):
        run(student, tmp_path, TINY[stem])
    assert all(cell.execution_count for cell in code(nbformat.read(tmp_path / "out.ipynb", 4)))
    results = json.loads((tmp_path / "left" / "results.json").read_text())
    arrived = {name: results["parameters"][name] for name in TINY[stem]}
    assert arrived == TINY[stem] and results["lesson"] == stem
    assert set(results["parameters"]) == set(parameters(read_lesson(path))) - {"out_dir"}
    for name in results["figures"]:
        assert {"png", "pdf"} <= {f.suffix[1:] for f in (tmp_path / "left").glob(f"{name}.*")}


@pytest.mark.lesson
def test_a_bad_parameter_stops_the_first_lesson_before_it_reads_data(tmp_path):
    path = next(each for each in NOTEBOOKS if each.stem == "00_first_surface")
    with pytest.raises(PapermillExecutionError, match="got 57: take 56 or 62"):
        run(path, tmp_path, {"depth": 57})
    cells = code(nbformat.read(tmp_path / "out.ipynb", 4))
    assert sum(bool(cell.execution_count) for cell in cells) == 3  # defaults, ours, the check
