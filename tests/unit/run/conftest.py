import pytest

pytest.register_assert_rewrite("tests.unit.run.executor_suite")
