"""Train a metanetwork: ``python train.py key=value ...`` is ``metanet train key=value ...``.

``python train.py --help`` lists what can be set, ``python train.py debug=fast`` ends in seconds.
"""

import sys

from metanet.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
