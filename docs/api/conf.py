"""The reference, from the docstrings: ``make docs`` writes it to ``build/docs``."""

import d2l_autorec

project = "d2l_autorec"
author = "the d2l_autorec authors"
version = release = d2l_autorec.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
]
default_role = "autolink"  # a name in backquotes: a link, if it is one of ours
nitpicky = True  # with -W: a link that leads nowhere is an error
# Constants, attributes and others' classes, which have no entry of their own.
nitpick_ignore_regex = [("py:obj", r"[A-Z]+|_?[a-z]+|settings\.[A-Z]+|mxnet\..+")]
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say more: shapes, units
numpydoc_show_class_members = False  # autodoc has them
html_theme = "alabaster"
html_theme_options = {"description": d2l_autorec.__doc__.splitlines()[0]}
html_show_sourcelink = False
