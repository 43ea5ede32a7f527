"""Tools around the notebooks, tried on a small lesson."""

import ast
import json
from pathlib import Path

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lossviz.lessons import __main__ as command
from lossviz.lessons.execution import execute, normalized, output_problems
from lossviz.lessons.slides import write_slides
from lossviz.lessons.source import parameters, read_lesson, source_problems
from lossviz.lessons.student import student_version, write_student_version
from lossviz.lessons.sweep import parse_grid, sweep
from lossviz.version import __version__

HOME = "/" + "home"  # where a path of a machine begins, made up here
RESULTS = f"""\
import json, pathlib

def leave_results():
    told = dict(kind="results", lesson="trial", versions=dict(lossviz="{__version__}"))
    told["parameters"] = dict(depth=depth, skip=skip, seeds=seeds)
    told["values"] = dict(loss=1 / depth)
    pathlib.Path(out_dir, "results.json").write_text(json.dumps(told))

if out_dir:
    leave_results()"""
EXERCISE = '''\
def double(x: float) -> float:
    """Return twice the number."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION'''
CHECK = """\
assert double(3) == 6, "double(3) must be 6: add the number to itself"
print("exercise 1: right")"""


def cell(source, *tags, kind=new_code_cell):
    return kind(source, metadata={"tags": list(tags)} if tags else {})


def trial():
    text = new_markdown_cell
    return new_notebook(
        cells=[
            cell("# How deep?", kind=text),
            cell("depth = 20  # layers\nskip = True\nseeds = [1, 2]\nout_dir = None", "parameters"),
            cell("import os\n\nif depth == 57:\n    raise ValueError('depth must be 6n + 2')"),
            cell("print(depth, skip, seeds)"),
            cell(RESULTS),
            cell("## Exercise 1\nDouble it.", "exercise", kind=text),
            cell(EXERCISE, "exercise"),
            cell(CHECK, "check"),
            cell("Twice is the model answer.", "solution", kind=text),
            cell("Ask the class first.", "instructor", kind=text),
            cell("print('the end')"),
        ]
    )


@pytest.fixture
def lesson(tmp_path):
    path = tmp_path / "trial.ipynb"
    nbformat.write(normalized(trial()), path)
    return path


def all_source(notebook):
    return "\n".join(cell.source for cell in notebook.cells)


def tags_in(notebook):
    return [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]


def outcome(exercise, check):
    """What a check prints or how it fails, for a given exercise cell."""
    space = {}
    exec(exercise, space)
    exec(check, space)


# --- the student version


def test_student_version_holds_no_mark_no_answer_and_no_note():
    student = student_version(trial())
    assert "SOLUTION" not in all_source(student) and "return 2 * x" not in all_source(student)
    assert not {"solution", "instructor"} & set(tags_in(student))
    assert "model answer" not in all_source(student)


def test_stub_and_solution_have_one_signature_and_docstring():
    student = student_version(trial())
    stub, solution = (
        ast.parse(next(c.source for c in nb.cells if c.source.startswith("def double"))).body[0]
        for nb in (student, trial())
    )
    assert ast.dump(stub.args) == ast.dump(solution.args)
    assert ast.get_docstring(stub) == ast.get_docstring(solution) == "Return twice the number."


def test_solution_passes_its_check_and_a_blank_or_a_wrong_answer_fails_it_with_the_reason():
    outcome(EXERCISE, CHECK)
    blank = next(c.source for c in student_version(trial()).cells if "def double" in c.source)
    with pytest.raises(NotImplementedError, match="exercise 1"):
        outcome(blank, CHECK)
    with pytest.raises(AssertionError, match="add the number to itself"):
        outcome(EXERCISE.replace("2 * x", "x * x"), CHECK)


def test_student_version_tags_only_its_own_copy_as_raising():
    source = trial()
    student = student_version(source)
    assert tags_in(student).count("raises-exception") == 2
    assert "raises-exception" not in tags_in(source)


def test_student_version_runs_to_the_end_and_leaves_its_results(lesson, tmp_path):
    path = write_student_version(lesson, tmp_path / "student")
    out = tmp_path / "out.ipynb"
    with pytest.raises(papermill.exceptions.PapermillExecutionError, match="exercise 1"):
        papermill.execute_notebook(
            path, out, {"out_dir": str(tmp_path)}, kernel_name="python3", progress_bar=False
        )
    assert (tmp_path / "results.json").is_file()
    assert nbformat.read(out, 4).cells[-1].outputs[0].text == "the end\n"


def test_student_version_never_overwrites_its_source(lesson):
    with pytest.raises(ValueError, match="name another folder"):
        write_student_version(lesson, lesson.parent)


def test_nbgrader_metadata_have_unique_names_and_a_point_for_each_check():
    student = student_version(trial(), nbgrader=True)
    marked = [c for c in student.cells if "nbgrader" in c.metadata]
    names = [c.metadata.nbgrader.grade_id for c in marked]
    assert names == ["exercise-1", "check-1"]
    assert [c.metadata.nbgrader.get("points") for c in marked] == [None, 1]
    assert [c.metadata.nbgrader.locked for c in marked] == [False, True]


def test_between_the_marks_that_nbgrader_wants_nothing_is_left():
    source = all_source(student_version(trial(), nbgrader=True))
    assert "return 2 * x" not in source
    assert '### BEGIN SOLUTION\n    raise NotImplementedError("exercise 1")\n    ### END' in source


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("    ### END SOLUTION", "", "one '### END SOLUTION'"),
        ("    ### BEGIN SOLUTION\n", "", "one '### BEGIN SOLUTION'"),
        ("exercise 1: right", "exercise 2: right", "numbered from 1"),
        ("    ### BEGIN", "### BEGIN", "inside the function"),
    ],
)
def test_damaged_marks_are_refused(old, new, sentence):
    notebook = trial()
    for each in notebook.cells:
        each.source = each.source.replace(old, new)
    with pytest.raises(ValueError, match=sentence):
        student_version(notebook)


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ([], "marks of a solution"),
        (["exercize"], "unknown tag 'exercize'"),
        (["exercise", "raises-exception"], "hide errors"),
    ],
)
def test_wrong_tags_are_refused(tags, sentence):
    notebook = trial()
    next(c for c in notebook.cells if "def double" in c.source).metadata["tags"] = tags
    assert any(sentence in problem for problem in source_problems(notebook))


# --- parameters


def test_parameters_are_read_with_their_defaults():
    assert parameters(trial()) == {"depth": 20, "skip": True, "seeds": [1, 2], "out_dir": None}


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("depth = 20\nblocks = depth // 6", "blocks must be a literal"),
        ("import os", "lines such as"),
    ],
)
def test_parameters_cell_holds_literals_only(source, sentence):
    notebook = trial()
    notebook.cells[1].source = source
    with pytest.raises(ValueError, match=sentence):
        parameters(notebook)


def test_a_lesson_without_parameters_is_refused():
    with pytest.raises(ValueError, match="one cell tagged 'parameters'"):
        parameters(new_notebook())


def test_a_file_that_is_no_notebook_is_refused(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text("{not json")
    with pytest.raises(ValueError, match="not a notebook"):
        read_lesson(path)
    with pytest.raises(FileNotFoundError, match="no notebook"):
        read_lesson(tmp_path / "b.ipynb")


# --- one form


def shown(*outputs, source="1"):
    """A notebook of one executed cell."""
    return normalized(new_notebook(cells=[new_code_cell(source, outputs=list(outputs))]))


def stream(text, name="stdout"):
    return new_output("stream", text=text, name=name)


def test_execution_stores_outputs_and_no_trace_of_when(lesson):
    execute(lesson)
    stored = read_lesson(lesson)
    assert stored.cells[3].outputs[0].text == "20 True [1, 2]\n"
    assert [c.execution_count for c in stored.cells if c.cell_type == "code"] == list(range(1, 8))
    assert not any("execution" in c.metadata for c in stored.cells)
    before = lesson.read_bytes()
    execute(lesson)
    assert lesson.read_bytes() == before


def test_a_cell_that_fails_leaves_the_file_as_it_was(lesson):
    notebook = read_lesson(lesson)
    notebook.cells[3].source = "1 / 0"
    nbformat.write(notebook, lesson)
    before = lesson.read_bytes()
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        execute(lesson)
    assert lesson.read_bytes() == before


def test_the_one_form_is_reached_in_one_step():
    once = normalized(trial())
    assert normalized(once) == once


def test_ids_are_readable_and_do_not_move_when_a_cell_is_inserted():
    notebook = normalized(trial())
    before = {c.id for c in notebook.cells}
    assert notebook.cells[6].id == "exercise-1-2"
    notebook.cells.insert(3, new_code_cell("1"))
    after = [c.id for c in normalized(notebook).cells]
    assert before <= set(after) and len(set(after)) == len(after)


def test_progress_bars_go():
    bars = "training:  40%|####      | 4/10 [00:01<00:02,  2.9it/s]"
    assert shown(stream(bars, "stderr")).cells[0].outputs == []


def test_a_widget_view_goes_and_its_still_picture_stays():
    view = "application/vnd.jupyter.widget-view+json"
    bare = new_output("display_data", data={view: {}, "text/plain": "HBox()"})
    still = new_output("display_data", data={view: {}, "image/png": "aaaa"})
    outputs = shown(bare, still).cells[0].outputs
    assert [list(output.data) for output in outputs] == [["image/png"]]


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (stream("FutureWarning: soon", "stderr"), "warns"),
        (stream(f"saved to {HOME}/ada/runs"), "path of this machine"),
        (stream(r"saved to C:\Users"), "path of this machine"),
        (new_output("error", ename="ValueError", evalue="no", traceback=[]), "ends in ValueError"),
        (
            new_output("execute_result", data={"text/plain": "<Axes at 0x7f3a2b1c0d>"}),
            "object's address",
        ),
        (new_output("display_data", data={"image/png": "a" * 1_600_000}), "at most 1.5"),
    ],
)
def test_what_a_class_must_not_see_is_named(output, sentence):
    assert any(sentence in problem for problem in output_problems(shown(output)))


def test_an_address_on_the_web_is_no_path():
    assert output_problems(shown(stream(f"https://arxiv.org{HOME}/abs"), source="a / b")) == []


# --- slides


def test_slides_hold_no_exercise_and_tell_the_lecturer_his_note(lesson, tmp_path):
    notebook = read_lesson(lesson)
    notebook.cells[9].metadata["slideshow"] = {"slide_type": "notes"}
    nbformat.write(notebook, lesson)
    html = write_slides(lesson, tmp_path / "slides").read_text()
    assert "How deep?" in html and "return 2" not in html and "model answer" not in html
    assert 'class="notes"' in html and "Ask the class first" in html


# --- sweeps


def test_a_sweep_refuses_a_name_that_the_lesson_does_not_have(lesson, tmp_path):
    with pytest.raises(ValueError, match=r"no parameter 'dept'.*depth, skip, seeds"):
        sweep(lesson, {"dept": [8]}, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ({"depth": ["8", "14"]}, {"depth": [8, 14]}),
        ({"skip": ["True", "false"]}, {"skip": [True, False]}),
        ({"seeds": ["1,2", "[3, 4]", "5"]}, {"seeds": [[1, 2], [3, 4], [5]]}),
    ],
)
def test_words_of_a_sweep_become_values_of_the_kind_of_the_default(lesson, words, values):
    assert parse_grid(lesson, words) == values


@pytest.mark.parametrize("words", [{"depth": ["deep"]}, {"depth": ["1.5"]}, {"skip": ["1"]}])
def test_a_value_of_another_kind_is_refused(lesson, words):
    with pytest.raises(ValueError, match="like its default"):
        parse_grid(lesson, words)


def test_a_sweep_sets_out_dir_itself(lesson):
    with pytest.raises(ValueError, match="--out"):
        parse_grid(lesson, {"out_dir": ["x"]})


def test_a_sweep_goes_on_after_a_failure_and_repeats_nothing_that_is_done(lesson, tmp_path):
    out = tmp_path / "runs"
    results, failed = sweep(lesson, {"depth": [57, 8]}, out, progress=False)
    assert list(failed) == ["trial-depth=57"] and "6n + 2" in failed["trial-depth=57"]
    assert [json.loads(r.read_text())["parameters"]["depth"] for r in results] == [8]
    assert (out / "table.csv").read_text().splitlines()[0].startswith("who,depth,loss,lesson")
    before = results[0].stat().st_mtime_ns
    results, failed = sweep(lesson, {"depth": [8]}, out, progress=False)
    assert results[0].stat().st_mtime_ns == before and failed == {}


def test_results_of_other_settings_are_made_anew(lesson, tmp_path):
    folder = tmp_path / "trial-depth=8"
    folder.mkdir()
    (folder / "results.json").write_text('{"kind": "results", "parameters": {"depth": 9}}')
    results, _ = sweep(lesson, {"depth": [8]}, tmp_path, progress=False)
    assert json.loads(results[0].read_text())["parameters"]["depth"] == 8


# --- the command


def test_command_says_what_is_wrong_and_exits_with_1(lesson, tmp_path, capsys):
    assert command.main(["sweep", str(lesson), "--dept", "8", "--out", str(tmp_path / "r")]) == 1
    assert "no parameter 'dept'" in capsys.readouterr().err
    assert command.main(["student", "nowhere.ipynb", "--out", str(tmp_path)]) == 1
    assert command.main(["slides", str(lesson), "--depth", "8"]) == 1
    assert command.main(["sweep", str(lesson)]) == 1
    assert command.main(["sweep", str(lesson), "--depth"]) == 1


def test_command_makes_the_student_version_of_all_lessons(lesson, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notebooks").mkdir()
    lesson.rename("notebooks/01_trial.ipynb")
    assert command.main(["student"]) == 0
    assert "exercise 1" in Path("student/01_trial.ipynb").read_text()
    assert command.main(["slides", "--out", "s"]) == 0
    assert Path("s/01_trial.slides.html").is_file()


def test_command_shows_its_help(capsys):
    with pytest.raises(SystemExit, match="0"):
        command.main(["--help"])
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("execute", "student", "slides", "sweep"))
