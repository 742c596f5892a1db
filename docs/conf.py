"""Sphinx: pages in Markdown, the reference from docstrings, the pages of commands from conf/*.yaml."""

import os
import sys
import warnings
from pathlib import Path

# before torch is imported, here and in the notebooks: its threads spin while they wait
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}

from sphinx.ext.napoleon.docstring import GoogleDocstring

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import generate  # noqa: E402  (beside this file)

import metanet  # noqa: E402

warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=DeprecationWarning)

project = "metanet"
author = "the metanet authors"
copyright = author
version = release = metanet.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_design",
]
exclude_patterns = ["pictures/*.py", "_static"]
html_theme = "furo"
html_title = "metanet"
smartquotes_action = "D"  # dashes only: quotes in pages are to be typed

# ---------------------------------------------------------------- Markdown and notebooks
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_inline"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 120
nb_output_stderr = "remove"

# ---------------------------------------------------------------- the reference
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_custom_sections = ["Shapes", ("Attributes", "params_style")]
# "Of each block: ..." under a property is a sentence, not "type: description".
GoogleDocstring._consume_inline_attribute = lambda self: ("", self._dedent(self._consume_to_end()))
# Types of other packages are shown, not linked: that would need their lists from the internet.
nitpick_ignore_regex = [
    ("py:.*", r"(?!metanet\b)\w+\..*"),
    ("py:.*", r"'.*'|pkgutil|Tensor|Module|Data|Batch|Figure|ndarray|FieldInfo|NoneType|Ge|Le"),
]


def setup(app):
    """Write the generated pages before Sphinx looks for pages; say where public names live."""
    generate.write_all(HERE / "made")
    app.connect("autodoc-process-signature", generate.readable_signature)
    app.connect("doctree-read", generate.leave_builtins_alone)
    app.connect("missing-reference", generate.public_home)
