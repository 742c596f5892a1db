"""Keys of the command line, by what their values are."""

# Keys whose values are paths, references or column names: plain text, whatever characters it has.
TEXT_KEYS = frozenset(
    {
        "a",
        "alignment",
        "arch",
        "b",
        "base",
        "checkpoint",
        "data",
        "explain",
        "label",
        "out",
        "path",
        "recipe",
    }
    | {"data_args.tokenizer", "resume", "run", "table", "train_data", "trust"}
    | {"hydra.run.dir", "hydra.sweep.dir", "zoo.arch", "zoo.label", "zoo.path", "zoo.table"}
)
# [A,B], each one text
TEXT_LIST_KEYS = frozenset({"alignment", "data", "models", "trust"})
# {...} or [...], whose keys may be quoted; or the path of a file
TREE_KEYS = frozenset({"overrides", "slices"})
# Dictionaries that take any key, so that nobody has to write +
OPEN_KEYS = ("arch_args.", "data_args.", "zoo.arch_args.")
