import pytest

from mechkit.course.regions import cut, find_regions, outside, solved

ANSWER = '''def double(
    x: float,
) -> float:
    """Twice x."""
    ### BEGIN SOLUTION
    two = 2.0
    return two * x
    ### END SOLUTION


print("given")'''

GUESS = """guess = ...
### BEGIN SOLUTION
guess = 7
### END SOLUTION
print(guess)"""


def test_an_answer_becomes_a_stub_at_its_own_indent():
    assert cut(ANSWER) == (
        'def double(\n    x: float,\n) -> float:\n    """Twice x."""\n'
        '    # YOUR CODE HERE\n    raise NotImplementedError()\n\n\nprint("given")'
    )


def test_a_guess_becomes_a_comment_so_that_its_cell_runs():
    assert cut(GUESS) == "guess = ...\n# YOUR GUESS HERE\nprint(guess)"


def test_hidden_tests_vanish():
    source = "assert f(1) == 2\n### BEGIN HIDDEN TESTS\nassert f(3) == 6\n### END HIDDEN TESTS"
    assert cut(source) == "assert f(1) == 2"


def test_a_method_counts_as_a_function():
    source = "class A:\n    def f(self):\n        ### BEGIN SOLUTION\n        return 1\n        ### END SOLUTION"
    assert cut(source).endswith("        # YOUR CODE HERE\n        raise NotImplementedError()")


def test_a_cell_without_markers_is_left_alone():
    source = "%matplotlib inline\nx = 1  # the BEGINNING of a SOLUTION"
    assert find_regions(source) == []
    assert cut(source) == source


def test_outside_is_what_the_learner_sees_of_the_source():
    assert outside(GUESS) == ["guess = ...", "print(guess)"]


def test_the_solved_form_lacks_only_the_markers():
    assert solved(GUESS) == "guess = ...\nguess = 7\nprint(guess)"
    both = solved(f"{ANSWER}\n{GUESS}")
    assert "###" not in both
    assert '    """Twice x."""\n    two = 2.0\n    return two * x\n\n\nprint("given")\n' in both


def test_several_regions_in_one_cell():
    first, second = find_regions(f"{ANSWER}\n{GUESS}")
    assert (first.in_function, second.in_function) == (True, False)
    assert first.lines == ("    two = 2.0", "    return two * x")
    assert second.lines == ("guess = 7",)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("### BEGIN SOLUTION\nx = 1", "begins a SOLUTION region and never ends it"),
        ("x = 1\n### END SOLUTION", "ends a SOLUTION region that it does not begin"),
        ("### BEGIN SOLUTION\n### BEGIN SOLUTION\nx = 1\n### END SOLUTION", "inside another"),
        ("### BEGIN SOLUTION\nx = 1\n### END HIDDEN TESTS", "ends a HIDDEN TESTS region"),
        ("## BEGIN SOLUTION\nx = 1\n## END SOLUTION", "a marker is a line of its own, like"),
        ("### BEGIN SOLUTION\n\n### END SOLUTION", "nothing in it"),
        ("if True:\n    ### BEGIN SOLUTION\n    x = 1\n    ### END SOLUTION", "outside a function"),
        ("def f(:\n    ### BEGIN SOLUTION\n    x = 1\n    ### END SOLUTION", "not Python"),
    ],
)
def test_faulty_markers_are_named(source, words):
    with pytest.raises(ValueError, match=words):
        find_regions(source)
