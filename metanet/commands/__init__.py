"""The commands of the console script, one file each.

A command is a function of the composed configuration ``conf/COMMAND.yaml``, named in
``metanet/cli.py``. Files with an underscore belong to the command ``merge``.
"""
