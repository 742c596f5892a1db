"""Everything that is known of the operations, one file for each family.

For every operation stand side by side its rule (axes, and the flow of neurons) and its law (charges;
``NAME_charges`` is the law of the rule ``NAME``). The registers of ``_operation.py`` find the files by
themselves: to add an operation, add a function here and a case in ``tests/symmetry/test_rules.py``.
"""
