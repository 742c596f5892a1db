"""Models that know where a parameter stands see every relabelling that is none of the network's."""

import pytest

from nn.graphs import ready, relabel, relabel_one, spread, stack, templates


@pytest.mark.parametrize("name", ["gmn", "relay"])
@pytest.mark.parametrize("kind", templates())
def test_every_illegal_relabelling_shows(kind, name):
    given = stack(templates()[kind], 3)
    model = ready(name, [given])
    plain = model([given])
    seen = 0
    for number, block in enumerate(given.template.blocks):
        if block.tensor is None:
            continue
        group, destinations, sources, _ = block.dense_shape
        for end, size in (("destination", group * destinations), ("source", group * sources)):
            if size == 1 or (group > 1 and min(destinations, sources) > 1):
                continue
            seen += 1
            change = (model([relabel_one(given, number, end)]) - plain).abs().max() / spread(plain)
            assert change > 1e-3, f"{block.tensor}, {end}"
    assert seen >= 2


@pytest.mark.parametrize("name", ["gmn", "relay"])
@pytest.mark.parametrize("kind", templates())
def test_inputs_and_outputs_keep_their_identity(kind, name):
    given = stack(templates()[kind], 3)
    model = ready(name, [given])
    plain = model([given])
    assert (model(relabel([given], 0, io=True)) - plain).abs().max() > 1e-3 * spread(plain)
