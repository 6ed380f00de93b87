import pytest

import tombola as tb
from tombola import registry
from tombola.errors import JobError


def test_a_declared_function_is_found_by_name_and_by_itself_and_stays_as_it_is() -> None:
    def measure(x: int) -> int:
        return x + 1

    assert tb.declare("my-measure", version=3, stored=False)(measure) is measure
    found = registry.declaration("my-measure")
    assert (found.name, found.version, found.stored, found.function) == ("my-measure", 3, False, measure)
    assert registry.declaration_of(measure) == found


def test_a_name_that_is_taken_is_refused() -> None:
    def measure() -> None: ...

    def other() -> None: ...

    tb.declare("my-measure")(measure)
    with pytest.raises(JobError, match=r"'my-measure' is declared already, by .*measure"):
        tb.declare("my-measure")(other)


def test_the_same_definition_run_again_replaces_the_first() -> None:
    def define() -> object:
        @tb.declare("my-measure")
        def measure() -> None: ...

        return measure

    define()
    second = define()
    assert registry.declaration("my-measure").function is second


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(JobError, match="no declared function 'barier'; did you mean 'barrier'"):
        registry.declaration("barier")


def test_an_undeclared_function_is_refused_with_the_remedy() -> None:
    with pytest.raises(
        JobError, match=r"<lambda> is not declared .*; put @tombola\.declare\('a-name'\) above it"
    ):
        registry.declaration_of(lambda: None)


@pytest.mark.parametrize(
    "name",
    ["initialize", "train", "pretrain", "prune", "permute", "randomize", "reinitialize", "barrier",
     "forgetting", "convergence"],
)  # fmt: skip
def test_the_librarys_own_functions_are_declared_under_their_names(name: str) -> None:
    assert registry.declaration(name) is registry.declaration_of(getattr(tb, name))


def test_a_cost_of_arguments_that_the_function_lacks_is_refused() -> None:
    def measure(run: tb.Run, data: tb.Data) -> float:
        return 0.0

    with pytest.raises(JobError, match="cost of 'my-measure': no parameter 'dta'; did you mean 'data'"):
        tb.declare("my-measure", cost=lambda dta: tb.Cost())(measure)
    tb.declare("my-measure", cost=lambda data: tb.Cost(images=data.train))(measure)


def test_a_parameter_can_default_to_another_and_is_then_left_out_of_jobs() -> None:
    def distance(first: float = 1.0, second: float | None = None) -> float:
        return first - (first if second is None else second)

    with pytest.raises(JobError, match="default of 'distance': no parameter 'fist'; did you mean 'first'"):
        tb.declare("distance", default_to={"second": "fist"})(distance)
    tb.declare("distance", default_to={"second": "first"})(distance)
    plain, other = tb.job(distance), tb.job(distance, first=2.0)
    assert tb.job(distance, second=1).name == plain.name  # that of the default
    assert tb.job(distance, first=2, second=2).name == other.name
    assert tb.job(distance, first=2, second=1).arguments == {"first": 2.0, "second": 1.0}
