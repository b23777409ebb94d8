import json

import numpy as np
import pytest

from hand_lib.number_lists import parse_number_lists


def test_numbers_are_those_of_the_standard_library():
    rng = np.random.default_rng(0)
    values = rng.normal(size=4000) * 10.0 ** rng.integers(-30, 30, 4000)
    special = [0, -0.0, 1, -7, 1e22, 1e-300, 5e-324, 123456789012345678901234567890, 0.1, 1.5e308]
    text = json.dumps([[*values.tolist(), *special], []])
    expected = np.array(json.loads(text)[0], float)
    found = parse_number_lists(text.encode()).values
    np.testing.assert_allclose(found, expected, rtol=1e-15, atol=5e-324)
    short = json.dumps(np.round(values[np.abs(values) < 1e6], 7).tolist())
    np.testing.assert_array_equal(parse_number_lists(short.encode()).values, json.loads(short))


def test_lists_are_counted_in_the_order_in_which_they_close():
    found = parse_number_lists(b" [ [1,2] ,\n[3.5, [ ] ], 4e1]\t")
    assert found.values.tolist() == [1, 2, 3.5, 40]
    assert found.depth.tolist() == [2, 3, 2, 1]
    assert found.count.tolist() == [2, 0, 2, 3]
    assert found.end.tolist() == [2, 3, 3, 4]


def test_missing_numbers_are_read_as_such():
    found = parse_number_lists(b"[NaN, null, Infinity, -Infinity]").values
    assert np.isnan(found[:2]).all() and found[2:].tolist() == [np.inf, -np.inf]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"xyz": [1]}', "comma or a closing"),
        (b'[1, "two"]', "expected a number .* byte 4"),
        (b"[1, 2", "ends inside"),
        (b"", "ends inside"),
        (b"[1]]", "too many"),
        (b"[1 2]", "comma or a closing"),
        (b"[1,]", "expected a number"),
        (b"[,1]", "expected a number"),
        (b"[1][2]", "comma or a closing"),
        (b"[-]", "no digits"),
    ],
)
def test_other_text_is_refused_with_the_place(text, message):
    with pytest.raises(ValueError, match="some.json: .*" + message):
        parse_number_lists(text, "some.json")
